from dataclasses import replace
from pathlib import Path

import pytest

from cifar_resnet import cli, commands
from cifar_resnet.bench import training_flops
from cifar_resnet.errors import InputError
from cifar_resnet.experiments import EXPERIMENTS, Arm, Experiment, Job, jobs, missing, select
from cifar_resnet.networks import NETWORKS
from cifar_resnet.recipe import get_recipe
from tests.site_build import invented

JOB = Job("test", Arm("quick", "smoke"), 0)


@pytest.mark.parametrize("experiment", EXPERIMENTS, ids=lambda e: e.name)
def test_every_run_of_the_queue_is_possible_and_fair(experiment: Experiment) -> None:
    recipes = [job.recipe for job in jobs([experiment])]
    assert all(recipe.network in NETWORKS for recipe in recipes)
    assert (len({recipe.epochs for recipe in recipes}) == 1) == (experiment.equal == "epochs")
    if experiment.equal == "operations":
        spent = [recipe.epochs * training_flops(recipe.network) for recipe in recipes]
        assert max(spent) < 1.02 * min(spent)
    different = {(arm.precision, job.recipe) for job in jobs([experiment]) for arm in [job.arm]}
    assert len(different) == len(experiment.arms), "no two arms are the same"
    for job in jobs([experiment]):
        words = job.arguments()
        assert job.arm.precision == (words[-1] if "--precision" in words else None)
        changed = [words[at + 1] for at, word in enumerate(words) if word == "--set"]
        assert get_recipe(words[1], **commands._changes(changed)) == job.recipe


def test_each_seed_is_trained_where_its_job_is_looked_for() -> None:
    together = [replace(JOB, seed=seed) for seed in (3, 0, 4)]
    for group in (together, together[:1]):
        first, *others = group
        folder = Path(first.folder).parent if others else Path(first.folder)
        args = cli._parser().parse_args([*first.arguments(*others), "--out", str(folder)])
        found = commands._run_folders(args.out, args.seed, "unused")
        assert found == {job.seed: Path(job.folder) for job in group}


def test_a_record_answers_for_its_own_recipe_and_seed() -> None:
    record = invented(JOB.recipe, 0, 0.5)
    other = replace(JOB, seed=1)
    assert missing([JOB, other], [record]) == [other]
    changed = replace(JOB, arm=replace(JOB.arm, changes={"epochs": 3}))
    assert missing([changed], [record]) == [changed]


def test_a_precision_that_is_compared_is_asked_for() -> None:
    record = invented(JOB.recipe, 0, 0.5)
    same, other = (
        replace(JOB, arm=replace(JOB.arm, precision=kind))
        for kind in (record.hardware.precision, "fp64")
    )
    assert missing([same, other], [record]) == [other]
    assert missing([same, other], []) == [same, other]


def test_an_experiment_is_for_one_kind_of_device() -> None:
    assert {e.device for e in select([], "cpu")} == {"cpu"}
    assert {e.device for e in select([], "cuda")} == {"cuda"}
    assert all(e.name.endswith("-cpu") or "fast-cpu" in e.name for e in select([], "cpu"))
    with pytest.raises(InputError, match=r"'notes' is for cuda, not cpu; give --device cuda"):
        select(["notes"], "cpu")
    record = invented(JOB.recipe, 0, 0.5)
    assert not replace(JOB, device="cuda").answered_by(record)
    assert replace(JOB, device="cuda").answered_by(invented(JOB.recipe, 0, 0.5, device="cuda:1"))


def test_times_on_cpus_are_those_of_two_cores_and_one_process() -> None:
    timed, record = replace(JOB, timed=True), invented(JOB.recipe, 0, 0.5)
    assert record.hardware.threads == 2
    assert timed.answered_by(record)
    for change in ({"threads": 1}, {"processes": 2}):
        other = replace(record, hardware=replace(record.hardware, **change))
        assert JOB.answered_by(other)
        assert not timed.answered_by(other)
    assert {j.threads for j in jobs(select(["fast-cpu", "surgery-cpu", "fast"]))} == {2, None}


def test_a_run_that_two_experiments_share_is_queued_once() -> None:
    wanted = jobs(select(["surgery", "configuration"]))
    queue = missing(wanted, [])
    runs = [(job.recipe, job.seed) for job in queue]
    assert len(set(runs)) == len(runs) < len(wanted)


def test_list_names_every_arm(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["experiments", "list"]) == 0
    printed = capsys.readouterr().out
    assert all(arm.label in printed for experiment in EXPERIMENTS for arm in experiment.arms)
