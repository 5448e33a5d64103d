import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from cifar_resnet import cli, commands, experiments
from cifar_resnet.checkpoint import save_checkpoint, sole_user
from cifar_resnet.errors import InputError
from cifar_resnet.experiments import EXPERIMENTS, Arm, Experiment, Job, jobs, missing, run, select
from cifar_resnet.networks import NETWORKS
from cifar_resnet.recipe import get_recipe
from cifar_resnet.record import Record, read_record, write_record

QUICK = Arm("quick", "smoke", {"epochs": 1, "network": "resnet20", "warmup_epochs": 0})
SLOW = Arm("slow", "smoke", {"epochs": 500, "network": "resnet20"})
OPTIONS = ["--data", "synthetic", "--threads", "1", "--no-compile"]


@pytest.mark.parametrize("experiment", EXPERIMENTS, ids=lambda e: e.name)
def test_every_run_of_the_queue_is_possible_and_fair(experiment: Experiment) -> None:
    recipes = [job.recipe for job in jobs([experiment])]
    assert all(recipe.network in NETWORKS for recipe in recipes)
    if experiment.equal == "epochs":
        assert len({recipe.epochs for recipe in recipes}) == 1
    different = {(arm.precision, job.recipe) for job in jobs([experiment]) for arm in [job.arm]}
    assert len(different) == len(experiment.arms), "no two arms are the same"
    for job in jobs([experiment]):
        words = job.arguments()
        assert job.arm.precision == (words[-1] if "--precision" in words else None)
        changed = [words[at + 1] for at, word in enumerate(words) if word == "--set"]
        assert get_recipe(words[1], **commands._changes(changed)) == job.recipe


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Job]:
    """A finished job, and the folder of all runs."""
    out = tmp_path_factory.mktemp("runs")
    job = Job("test", QUICK, 0)
    assert run([job], out, options=OPTIONS) == []
    return out, job


def as_cifar10(record: Record) -> Record:
    return replace(record, data=replace(record.data, name="cifar10"))


def test_a_job_leaves_the_record_of_its_recipe(quick: tuple[Path, Job]) -> None:
    out, job = quick
    record = read_record(out / job.folder / "record.json")
    assert (record.recipe, record.seed) == (job.recipe, 0)
    assert experiments.finished([out]) == [], "synthetic images do not count"
    assert missing([job], [record]) == []
    other = Job("test", QUICK, 1)
    assert missing([job, other], [record]) == [other]


def test_a_precision_that_is_compared_is_asked_for(quick: tuple[Path, Job]) -> None:
    out, job = quick
    record = read_record(out / job.folder / "record.json")
    same, other = (
        replace(job, arm=replace(QUICK, precision=kind))
        for kind in (record.hardware.precision, "fp64")
    )
    assert missing([same, other], [record]) == [other]
    assert missing([same, other], []) == [same, other]


def pretend(
    monkeypatch: pytest.MonkeyPatch, record: Record, seconds: int = 0
) -> tuple[list[list[str]], list[int]]:
    """Have every job leave this record; tells each one's options, and how many ran beside it."""
    given: list[list[str]] = []
    beside: list[int] = []
    started: list[subprocess.Popen[bytes]] = []

    def start(job: Job, out: Path, options: list[str]) -> "subprocess.Popen[bytes]":
        given.append(options)
        beside.append(sum(process.poll() is None for process in started))
        write_record(record, out / job.folder / "record.json")
        code = f"import time; time.sleep({seconds})"
        started.append(subprocess.Popen([sys.executable, "-c", code]))
        return started[-1]

    monkeypatch.setattr(experiments, "_start", start)
    return given, beside


def test_how_to_compile_is_measured_once_for_runs_alike(
    quick: tuple[Path, Job], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = read_record(quick[0] / quick[1].folder / "record.json")
    graphs = replace(record.hardware, compile=True, cuda_graphs=True)
    given, _ = pretend(monkeypatch, replace(record, hardware=graphs))
    larger = replace(QUICK, changes=QUICK.changes | {"batch_size": 64})
    queue = [Job("test", QUICK, 0), Job("test", QUICK, 1), Job("test", larger, 0)]
    assert run(queue, tmp_path, options=["--device", "cuda"]) == []
    settled = ["--compile", "--cuda-graphs"]
    assert given == [["--device", "cuda"], [*settled, "--device", "cuda"], ["--device", "cuda"]]

    known = [replace(record, hardware=replace(graphs, compile=False, cuda_graphs=False))]
    assert run(queue, tmp_path, options=[], here=known) == []
    assert given[3:] == [["--no-compile"], ["--no-compile"], []]

    save_checkpoint(tmp_path / queue[0].folder / "checkpoint.pt", {})
    assert run(queue[:1], tmp_path, options=[], here=known) == []
    assert given[6:] == [[]], "what was begun goes on as it began"


def test_a_wish_about_compiling_stands_against_earlier_runs(
    quick: tuple[Path, Job], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = as_cifar10(read_record(quick[0] / quick[1].folder / "record.json"))
    write_record(record, tmp_path / "out" / "one.json")
    only = (Experiment("test", "a claim", (QUICK,), (0, 1)),)
    monkeypatch.setattr(experiments, "EXPERIMENTS", only)
    known: list[list[str]] = []

    def note(*_: object, **given: list[Record]) -> list[Job]:
        known.append([found.id for found in given["here"]])
        return []

    monkeypatch.setattr(experiments, "run", note)
    here = ["--results", str(tmp_path), "--out", str(tmp_path / "out"), "--device", "cpu"]
    for wish in ([], ["--no-compile"]):
        assert cli.main(["experiments", "run", *here, *wish]) == 0
    assert known == [[record.id], []]


def test_a_failed_job_is_named_and_its_log_says_why(tmp_path: Path) -> None:
    bad = Job("test", Arm("bad", "smoke", {"network": "vgg"}), 0)
    assert run([bad], tmp_path, options=OPTIONS) == [bad]
    assert "network 'vgg' is unknown" in (tmp_path / bad.folder / "log.txt").read_text()


def test_a_run_of_other_code_is_set_aside(tmp_path: Path) -> None:
    job = Job("test", QUICK, 0)
    save_checkpoint(tmp_path / job.folder / "checkpoint.pt", {"source_sha256": "f" * 64})
    assert run([job], tmp_path, options=OPTIONS) == []
    assert (tmp_path / job.folder / "record.json").exists()
    aside = tmp_path / f"{job.folder}.other-code-ffffffff"
    assert (aside / "checkpoint.pt").exists()
    folder = tmp_path / job.folder
    for number in (2, 3):  # nothing set aside is written over
        save_checkpoint(folder / "checkpoint.pt", {"source_sha256": "f" * 64})
        experiments._set_aside_other_code(folder)
        assert aside.with_name(f"{aside.name}-{number}").exists()
    here = experiments.software()
    mine = {"source_sha256": here.source_sha256, "where": f"1 x CPU, fp32, torch {here.torch}"}
    for change, goes_on in (({}, True), ({"where": "1 x CPU, fp32, torch 0.4.1"}, False)):
        save_checkpoint(folder / "checkpoint.pt", mine | change)
        experiments._set_aside_other_code(folder)
        assert folder.exists() == goes_on


def test_a_run_that_goes_on_elsewhere_stays_where_it_is(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "run" / "checkpoint.pt", {"source_sha256": "f" * 64})
    with sole_user(tmp_path / "run"):
        experiments._set_aside_other_code(tmp_path / "run")
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_the_budget_pauses_what_is_not_done(tmp_path: Path) -> None:
    slow, never = Job("test", SLOW, 0), Job("test", SLOW, 1)
    assert run([slow, never], tmp_path, options=OPTIONS, budget=6, grace=0) == []
    assert (tmp_path / slow.folder / "log.txt").exists()
    assert not (tmp_path / slow.folder / "record.json").exists()
    assert not (tmp_path / never.folder).exists()


def test_a_run_that_hears_no_interrupt_is_stopped_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Children of a background shell ignore SIGINT."""
    monkeypatch.setattr(experiments, "_PATIENCE", 0.5)
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        assert run([Job("test", SLOW, 0)], tmp_path, options=OPTIONS, budget=3, grace=0) == []
    finally:
        signal.signal(signal.SIGINT, before)


def test_status_counts_and_run_skips_what_is_finished(
    quick: tuple[Path, Job],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    record = read_record(quick[0] / quick[1].folder / "record.json")
    write_record(as_cifar10(record), tmp_path / "runs" / "one.json")
    only = (Experiment("test", "a claim", (QUICK,), (0,)),)
    monkeypatch.setattr(experiments, "EXPERIMENTS", only)
    here = ["--results", str(tmp_path), "--out", str(tmp_path / "out")]
    cpu = ["--device", "cpu"]
    assert cli.main(["experiments", "status", *here]) == 0
    assert "1 of   1 runs  a claim" in capsys.readouterr().out

    def fail(*_: object) -> None:
        raise AssertionError("nothing is missing")

    start: Callable[..., None] = fail
    monkeypatch.setattr(experiments, "_start", start)
    assert cli.main(["experiments", "run", *here, *cpu]) == 0
    assert "--again repeats what is published" in capsys.readouterr().out


def test_list_names_every_arm(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["experiments", "list"]) == 0
    printed = capsys.readouterr().out
    assert all(arm.label in printed for experiment in EXPERIMENTS for arm in experiment.arms)


def test_a_published_experiment_can_be_repeated_and_compared(
    quick: tuple[Path, Job],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    record = as_cifar10(read_record(quick[0] / quick[1].folder / "record.json"))
    write_record(record, tmp_path / "runs" / "one.json")
    only = (Experiment("test", "a claim", (QUICK,), (0,)),)
    monkeypatch.setattr(experiments, "EXPERIMENTS", only)

    def rerun(queue: list[Job], out: Path, **_: object) -> list[Job]:
        (job,) = queue
        metrics = replace(record.metrics, accuracy=0.5)
        write_record(replace(record, metrics=metrics), out / job.folder / "record.json")
        return []

    monkeypatch.setattr(experiments, "run", rerun)
    here = ["--results", str(tmp_path), "--out", str(tmp_path / "out"), "--device", "cpu"]
    assert cli.main(["experiments", "run", "--again", *here]) == 0
    assert f"50.00%, published {record.metrics.accuracy:.2%}" in capsys.readouterr().out


def test_what_two_precisions_gave_is_compared_with_its_own_kind(
    quick: tuple[Path, Job],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    record = as_cifar10(read_record(quick[0] / quick[1].folder / "record.json"))
    arms = tuple(replace(QUICK, label=kind, precision=kind) for kind in ("bf16", "fp32"))
    only = (Experiment("test", "a claim", arms, (0,)),)
    monkeypatch.setattr(experiments, "EXPERIMENTS", only)
    monkeypatch.setattr(experiments, "run", lambda *_, **__: [])
    for kind, accuracy in (("bf16", 0.25), ("fp32", 0.75)):
        made = replace(
            record,
            hardware=replace(record.hardware, precision=kind),
            metrics=replace(record.metrics, accuracy=accuracy),
        )
        for folder in ("runs", "out"):
            write_record(made, tmp_path / folder / f"{kind}.json")
    here = ["--results", str(tmp_path), "--out", str(tmp_path / "out"), "--device", "cpu"]
    (tmp_path / "out" / "fp32.json").unlink()
    assert cli.main(["experiments", "run", "--again", *here]) == 0
    printed = capsys.readouterr().out
    assert "test/bf16-seed0: 25.00%, published 25.00%" in printed
    assert "test/fp32-seed0: not finished, published 75.00%" in printed


def test_what_an_arm_compares_stands_against_other_wishes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[list[str]] = []
    monkeypatch.setattr(experiments.subprocess, "Popen", lambda words, **_: said.append(words))
    job = Job("test", replace(QUICK, precision="fp32"), 0, timed=True)
    experiments._start(job, tmp_path, ["--precision", "bf16", "--threads", "1", "--data", "d"])
    args = cli._parser().parse_args(said[0][3:])
    assert (args.recipe, args.precision, args.threads, args.data) == ("smoke", "fp32", 2, "d")


def test_further_runs_are_in_the_precision_of_those_published(
    quick: tuple[Path, Job], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = read_record(quick[0] / quick[1].folder / "record.json")
    other = replace(record, hardware=replace(record.hardware, precision="fp16"))
    monkeypatch.setattr(
        experiments, "EXPERIMENTS", (Experiment("test", "a claim", (QUICK,), (0, 1)),)
    )
    given, _ = pretend(monkeypatch, record)
    queue = [Job("test", QUICK, 1)]
    for published in ([], [other], [other, record]):
        assert run(queue, tmp_path, options=["--data", "d"], published=published) == []
    assert given == [["--data", "d"], ["--precision", "fp16", "--data", "d"], ["--data", "d"]]


def test_a_run_whose_time_counts_has_the_machine_to_itself(
    quick: tuple[Path, Job], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = read_record(quick[0] / quick[1].folder / "record.json")
    _, beside = pretend(monkeypatch, record, seconds=1)
    queue = [Job("test", QUICK, seed, timed=seed == 2) for seed in range(4)]
    assert run(queue, tmp_path, options=[], parallel=2) == []
    assert beside == [0, 1, 0, 0]


def test_an_experiment_is_for_one_kind_of_device(quick: tuple[Path, Job]) -> None:
    assert {e.device for e in select([], "cpu")} == {"cpu"}
    assert {e.device for e in select([], "cuda")} == {"cuda"}
    assert all(e.name.endswith("-cpu") or "fast-cpu" in e.name for e in select([], "cpu"))
    with pytest.raises(InputError, match=r"'notes' is for cuda, not cpu; give --device cuda"):
        select(["notes"], "cpu")
    out, job = quick
    record = read_record(out / job.folder / "record.json")
    assert job.answered_by(record)
    assert not replace(job, device="cuda").answered_by(record)
    timed, two = replace(job, timed=True), replace(record.hardware, threads=2)
    assert not timed.answered_by(record)
    assert timed.answered_by(replace(record, hardware=two))
    assert not timed.answered_by(replace(record, hardware=replace(two, processes=2)))
    assert {j.threads for j in jobs(select(["fast-cpu", "surgery-cpu", "fast"]))} == {2, None}


def test_a_run_that_two_experiments_share_is_queued_once() -> None:
    wanted = jobs(select(["surgery", "configuration"]))
    queue = missing(wanted, [])
    runs = [(job.recipe, job.seed) for job in queue]
    assert len(set(runs)) == len(runs) < len(wanted)
