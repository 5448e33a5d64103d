"""What is published must still hold; the records here are made in a temporary folder."""

import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from cifar_resnet import cli, results
from cifar_resnet.analysis import AnalysisRecord, analyze
from cifar_resnet.checkpoint import save_weights
from cifar_resnet.data import Dataset
from cifar_resnet.errors import InputError
from cifar_resnet.experiments import jobs, select
from cifar_resnet.hardware import Hardware
from cifar_resnet.recipe import RECIPES, Recipe, get_recipe
from cifar_resnet.record import Record, checksum, read, write_record
from cifar_resnet.results import add, check
from cifar_resnet.run import fit
from cifar_resnet.software import Software, git, source_at
from tests import ROOT
from tests.site_build import MD5, invented, invented_bench

BESIDE = {"threads": [1] * 5, **{way: [2.0] * 5 for way in ("single", "oversubscribed", "adapted")}}
RECIPE = get_recipe("smoke", network="resnet20", epochs=1, batch_size=16, warmup_epochs=0.0)

Problems = Callable[..., str]


def committed(software: Software) -> Software:
    """What a clean checkout of the present commit would say of itself."""
    commit = (git("rev-parse", "HEAD") or b"0" * 40).decode().strip()
    source = source_at(commit) or software.source_sha256
    return replace(software, commit=commit, clean=True, source_sha256=source)


@pytest.fixture(scope="module")
def run(synthetic: Dataset, cpu: Hardware, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that passes for one on CIFAR-10 with committed code."""
    out = tmp_path_factory.mktemp("run")
    made = fit(RECIPE, replace(synthetic, name="cifar10", md5=MD5), cpu, out=out).record
    real = invented(RECIPE, 0, 0.5)  # figures of all of CIFAR-10
    began = datetime.fromisoformat(made.finished) - timedelta(hours=12)
    record = replace(
        made,
        flip_averaged_accuracy=0.51,
        software=committed(made.software),
        data=real.data,
        history=real.history,
        metrics=real.metrics,
        started=began.isoformat(),
        train_seconds=real.train_seconds,
        images_per_second=real.images_per_second,
    )
    write_record(record, out / "record.json")
    return out


@pytest.fixture
def published(run: Path, tmp_path: Path) -> Path:
    """The record published in a folder of its own."""
    return add(run, tmp_path)


@pytest.fixture
def copy(run: Path, tmp_path: Path) -> Path:
    """The run's record in a folder of its own, to be changed."""
    return Path(shutil.copy(run / "record.json", tmp_path))


@pytest.fixture
def problems(run: Path, tmp_path: Path) -> Problems:
    """All that is said against what is published, and against the run's weights or others."""
    own = run / "weights.safetensors"
    return lambda weights=own: "\n".join(check(tmp_path, weights))


def rewrite(path: Path, **changes: Any) -> None:
    """Change fields of a record and sign it, as someone would who wants to cheat.

    An object is changed in the fields that are given, or emptied.
    """
    content = json.loads(path.read_text())
    for name, value in changes.items():
        full = isinstance(value, dict) and value
        content[name] = (content.get(name) or {}) | value if full else value
    content["checksum"] = checksum(content)
    path.write_text(json.dumps(content))


def test_what_holds_is_not_complained_of(run: Path, published: Path, tmp_path: Path) -> None:
    assert published.parent == tmp_path / "runs"
    assert list(check(tmp_path, run / "weights.safetensors")) == []
    with pytest.raises(InputError, match="published already"):
        add(run, tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data": {"name": "synthetic", "md5": {}}}, "not measured on the published CIFAR-10"),
        ({"data": {"name": "cifar10", "md5": {}}}, "not measured on the published CIFAR-10"),
        ({"data": {"eval_split": "train"}}, "must be test or val"),
        ({"software": {"clean": False, "source_sha256": "f" * 64}}, "not committed"),
        ({"software": {"commit": None, "source_sha256": "f" * 64}}, "not committed"),
    ],
)
def test_what_must_not_be_published_is_refused(
    copy: Path, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    rewrite(copy, **changes)
    with pytest.raises(InputError, match=message):
        add(tmp_path, tmp_path / "results")


@pytest.mark.parametrize("said", [{"commit": None, "clean": None}, {"clean": False}])
@pytest.mark.parametrize("known", [True, False])
def test_a_run_that_git_did_not_know_gets_the_commit_of_its_code(
    copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: dict[str, Any], known: bool
) -> None:
    ran = json.loads(copy.read_text())["software"]
    rewrite(copy, software=said)
    commits = {ran["source_sha256"]: ran["commit"]} if known else {}
    monkeypatch.setattr(results, "commit_of", commits.get)
    if known:
        published = results.read_record(add(tmp_path, tmp_path / "results"))
        assert (published.software.commit, published.software.clean) == (ran["commit"], True)
    else:
        with pytest.raises(InputError, match="not committed"):
            add(tmp_path, tmp_path / "results")


@pytest.mark.skipif(source_at("HEAD") is None, reason="needs the project's git history")
def test_what_the_check_would_reject_is_not_published(copy: Path, tmp_path: Path) -> None:
    """Such as of a new module that git was not told of: the checkout is clean all the same."""
    ran = json.loads(copy.read_text())["software"]
    rewrite(copy, software={"source_sha256": "f" * 64})
    with pytest.raises(InputError, match="holds other code than ran"):
        add(tmp_path, tmp_path / "results")
    (first,) = subprocess.check_output(
        ["git", "rev-list", "--max-parents=0", "HEAD"], cwd=ROOT, text=True
    ).split()
    rewrite(copy, software={"commit": first, "source_sha256": ran["source_sha256"]})
    published = results.read_record(add(tmp_path, tmp_path / "results"))
    assert source_at(published.software.commit or "") == ran["source_sha256"], "found instead"


def test_runs_in_different_arithmetic_are_not_compared() -> None:
    (experiment,) = select(["surgery-cpu"])
    one, other, *_ = (invented(job.recipe, 0, 0.5) for job in jobs([experiment]))
    assert list(results._mixed_precisions([one, other])) == []
    other = replace(other, hardware=replace(other.hardware, precision="bf16"))
    (problem,) = results._mixed_precisions([one, other])
    assert "experiment surgery-cpu: its runs are in bf16 and fp32" in problem


def test_runs_in_different_arithmetic_stand_side_by_side_where_they_are_compared() -> None:
    (experiment,) = select(["precision-cpu"])
    records = [
        replace(
            record,
            hardware=replace(record.hardware, precision=job.arm.precision),
            weights_sha256=job.folder,
        )
        for job in jobs([experiment])
        for record in [invented(job.recipe, job.seed, 0.5)]
    ]
    for at, record in enumerate(records):
        assert list(results._twins(record, records[:at])) == []
    assert len(list(results._twins(records[0], records))) == 1
    assert list(results._mixed_precisions(records)) == []
    assert list(results._missing_seeds(records)) == []
    left_out = [r for r in records if (r.hardware.precision, r.seed) != ("bf16", 1)]
    assert len(list(results._missing_seeds(left_out))) == 1


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"metrics": {"accuracy": 0.99}}, "metrics.accuracy"),
        ({"metrics": {"per_class_accuracy": [0.99] * 10}}, "metrics.per_class_accuracy"),
        ({"metrics": {"calibration_error": 0.001}}, "metrics.calibration_error"),
        (
            {"metrics": {"calibration": [[10000, 0.48, 0.5]] + [[0, 0, 0]] * 14}},
            "metrics.calibration",
        ),
        ({"data": {"eval_images": 100}}, "data.train_images or data.eval_images"),
        ({"data": {"train_images": 45000}}, "data.train_images or data.eval_images"),
        ({"train_seconds": 50.0}, "train_seconds"),
        ({"images_per_second": 9000.0}, "images_per_second"),
        ({"finished": "2026-01-01T00:00:01+00:00"}, "finished"),
        ({"compile_seconds": 1e6}, "finished"),
        ({"flip_averaged_accuracy": 1.01}, "flip_averaged_accuracy"),
        ({"flip_averaged_accuracy": 0.50003}, "flip_averaged_accuracy"),
        ({"id": "smoke-cifar10-test-seed1-20260101T120000Z"}, "id"),
        ({"history": []}, "history"),
    ],
)
def test_figures_that_contradict_each_other_are_noticed(
    published: Path, problems: Problems, changes: dict[str, Any], named: str
) -> None:
    rewrite(published, **changes)
    assert f"{named} contradicts" in problems()


@pytest.mark.skipif(platform.machine() != "x86_64", reason="its instructions can be left out")
def test_published_records_hold_on_another_processor_too() -> None:
    """As one that knows neither AVX-512 nor more than one thread; the other way is `make check`."""
    older = {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "cifar_resnet", "results", "check"],
        cwd=ROOT,
        env=os.environ | older,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"learning_rate": 0.5}, "history's learning rates"),
        ({"train_accuracy": 0.500004}, "history"),  # a fifth of an image
        ({"train_loss": 0.0}, "history"),
    ],
)
def test_an_impossible_history_is_noticed(
    published: Path, problems: Problems, changes: dict[str, float], named: str
) -> None:
    (epoch,) = json.loads(published.read_text())["history"]
    rewrite(published, history=[epoch | changes])
    assert f"{named} contradicts" in problems()


@pytest.mark.parametrize(
    "changes",
    [{"confusion": [[1]]}, {"confusion": []}, {"per_class_accuracy": []}],
    ids=str,
)
def test_an_odd_record_is_one_line(
    published: Path, problems: Problems, changes: dict[str, Any]
) -> None:
    rewrite(published, metrics=changes, fingerprint={"recipe": 3})
    found = problems()
    assert "contradicts" in found or "no table of ten classes" in found


def test_runs_must_not_be_picked(published: Path, problems: Problems) -> None:
    rewrite(published, seed=7)
    assert "of 1 runs seed 0 is not published" in problems()


@pytest.mark.skipif(source_at("HEAD") is None, reason="needs the project's git history")
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"commit": "f" * 40}, "is unknown"),
        ({"commit": "HEAD"}, "not the name of one"),
        ({"commit": None}, "not committed"),
        ({"source_sha256": "f" * 64}, "holds other code than ran"),
    ],
)
def test_a_commit_that_did_not_run_is_noticed(
    published: Path, problems: Problems, changes: dict[str, Any], message: str
) -> None:
    rewrite(published, software=changes)
    assert message in problems()


def test_a_seed_counts_once(published: Path, problems: Problems) -> None:
    again = published.with_name("again.json")
    again.write_text(published.read_text())
    rewrite(again, id="again")
    assert "of the same recipe and seed; keep one" in problems()


def otherwise(record: Record) -> Record:
    """As if it had gone otherwise from the first epoch on."""
    first, *rest = record.history
    return replace(record, history=(replace(first, train_loss=9.0), *rest))


def test_a_run_repeated_for_a_better_figure_is_noticed(
    published: Path, monkeypatch: pytest.MonkeyPatch, problems: Problems
) -> None:
    record = results.read_record(published)
    began = {"started": "2000-01-01T00:00:00+00:00", "finished": "2000-01-01T00:01:00+00:00"}
    first = replace(otherwise(record), id="the first", **began)
    for old, complaint in (
        (first, f"{record.id} replaces the first (50.00%)"),
        (replace(first, history=record.history, weights_sha256="0" * 64), None),  # the same throw
        (replace(first, fingerprint=first.fingerprint | {"losses": [1.0]}), None),
        (replace(first, hardware=replace(first.hardware, name="another")), None),
        (replace(first, seed=1), None),
        (replace(first, finished="2999-01-01T00:00:00.000+00:00"), None),  # itself a second throw
    ):
        monkeypatch.setattr(results, "withdrawn", lambda old=old: (old,))
        found = problems()
        assert complaint in found if complaint else found == ""


def test_a_network_that_is_no_more_hides_no_other_problem(
    run: Path, published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = results.read_record(published)
    gone = replace(record.recipe, network="gone")
    old = replace(record, recipe=gone, changes=record.changes | {"network": "gone"})
    write_record(old, published)
    monkeypatch.setattr(results, "withdrawn", lambda: (otherwise(old),))
    (tmp_path / "bench").mkdir()
    (tmp_path / "bench" / "broken.json").write_text("{")
    lines = list(check(tmp_path, run / "weights.safetensors"))
    assert any(str(published) in line and "network 'gone' is unknown" in line for line in lines)
    assert any("broken.json is not JSON" in line for line in lines)


def test_one_run_does_not_count_as_two_seeds(published: Path, problems: Problems) -> None:
    name = published.stem.replace("seed0", "seed1")
    again = published.with_name(f"{name}.json")
    again.write_text(published.read_text())
    rewrite(again, id=name, seed=1)
    assert "has the same weights and metrics" in problems()


def test_a_changed_default_is_noticed(
    run: Path, published: Path, monkeypatch: pytest.MonkeyPatch, problems: Problems
) -> None:
    changed = replace(RECIPES["smoke"](), momentum=0.8)
    monkeypatch.setitem(RECIPES, "smoke", lambda: changed)
    found = problems()
    assert "the recipe has changed since (momentum)" in found
    assert "re-run it: cifar-resnet train smoke --seed 0 --set" in found


def test_a_recipe_moves_away_from_what_an_experiment_still_asks_for(
    run: Path, published: Path, monkeypatch: pytest.MonkeyPatch, problems: Problems
) -> None:
    record = results.read_record(published)
    monkeypatch.setattr(results, "asked_for", lambda: {record.recipe})
    changed = replace(RECIPES["smoke"](), momentum=0.8)
    monkeypatch.setitem(RECIPES, "smoke", lambda: changed)
    assert problems() == ""
    rewrite(published, fingerprint=record.fingerprint | {"losses": [1.0]})
    found = problems()
    assert "the code now behaves otherwise (losses)" in found
    assert "--set momentum=0.9" in found, "what was trained, not what the recipe is now"
    assert "--device cpu --threads 1 --precision fp32" in found


def test_a_recipe_may_move_away_from_what_it_was_chosen_by(
    copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, problems: Problems
) -> None:
    rewrite(copy, data={"eval_split": "val"})
    add(tmp_path, tmp_path)
    changed = replace(RECIPES["smoke"](), momentum=0.8)
    monkeypatch.setitem(RECIPES, "smoke", lambda: changed)
    assert "has changed" not in problems()


def test_changed_behaviour_is_noticed(
    published: Path, monkeypatch: pytest.MonkeyPatch, problems: Problems
) -> None:
    def other(recipe: Recipe) -> dict[str, Any]:
        record: Record = results.read_record(published)
        return record.fingerprint | {"losses": [1.0, 2.0, 3.0]}

    monkeypatch.setattr(results, "fingerprint", other)
    assert "the code now behaves otherwise (losses)" in problems()


def test_a_removed_recipe_is_noticed(
    published: Path, monkeypatch: pytest.MonkeyPatch, problems: Problems
) -> None:
    monkeypatch.delitem(RECIPES, "smoke")
    assert "recipe 'smoke' is unknown" in problems()


def test_an_edited_or_moved_record_is_noticed(published: Path, problems: Problems) -> None:
    published.rename(published.with_name("other.json"))
    assert "move it there" in problems()
    path = published.with_name("other.json")
    path.write_text(path.read_text().replace('"seed": 0', '"seed": 1'))
    assert "the file was edited" in problems()


def test_an_unknown_split_is_noticed(published: Path, problems: Problems) -> None:
    rewrite(published, data={"eval_split": "train"})
    assert "must be test or val, not 'train'" in problems()


def test_a_tuning_run_is_re_run_on_held_out_images(
    copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, problems: Problems
) -> None:
    rewrite(copy, data={"eval_split": "val"}, fingerprint={"losses": []})
    assert add(tmp_path, tmp_path).parent.name == "tuning"
    assert "--seed 0 --val --set" in problems()
    changed = replace(RECIPES["smoke"](), momentum=0.8)
    monkeypatch.setitem(RECIPES, "smoke", lambda: changed)
    assert "--set momentum=0.9" in problems(), "what was tried, not what the recipe is now"


@pytest.fixture
def analysed(run: Path, published: Path, synthetic: Dataset, tmp_path: Path) -> Path:
    """An analysis of the published run's weights."""
    data = replace(synthetic, name="cifar10", md5=MD5)
    record = analyze("identity", data, run)
    path = tmp_path / "analyses" / f"{record.id}.json"
    write_record(replace(record, software=committed(record.software)), path)
    return path


def test_an_analysis_that_holds_is_not_complained_of(
    run: Path, analysed: Path, tmp_path: Path
) -> None:
    assert read(AnalysisRecord, analysed).values["trained"]
    assert list(check(tmp_path, run / "weights.safetensors")) == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"id": "identity-other"}, "move it there"),
        ({"weights_record": "nothing"}, "run 'nothing', which is not published"),
        ({"weights_sha256": "0" * 64}, "not those of run"),
        ({"fingerprint": {}}, "repeat it: cifar-resnet analyze identity"),
        ({"data": {"md5": {}}}, "not measured on the published CIFAR-10"),
        ({"software": {"clean": False}}, "not committed"),
    ],
)
def test_an_analysis_that_does_not_hold_is_noticed(
    analysed: Path, problems: Problems, changes: dict[str, Any], message: str
) -> None:
    rewrite(analysed, **changes)
    assert message in problems()


def test_an_edited_analysis_is_noticed(analysed: Path, problems: Problems) -> None:
    analysed.write_text(analysed.read_text().replace('"fresh"', '"trained"', 1))
    assert "the file was edited" in problems()


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("renamed", {}, "move it there"),
        (None, {"software": {"clean": False}}, "not committed"),
        (None, {"steps": "many"}, "steps must be int"),
        (None, {"flops": 1}, "flops is not what resnet18 needs"),
        (None, {"ours": [100.0]}, "rounds must be equally many"),
        (None, {"ours": [100.0] * 4}, "fewer than 5 rounds"),
        (None, {"contention": {**BESIDE, "single": [1.0]}}, "rounds must be equally many"),
        (None, {"contention": {**BESIDE, "adapted": [0.0] * 5}}, "every rate positive"),
    ],
)
def test_a_benchmark_that_does_not_hold_is_noticed(
    published: Path,
    tmp_path: Path,
    problems: Problems,
    name: str | None,
    changes: dict[str, Any],
    message: str,
) -> None:
    source = sorted((ROOT / "results" / "bench").glob("*.json"))[0]
    copy = tmp_path / "bench" / f"{name or source.stem}.json"
    copy.parent.mkdir()
    copy.write_text(source.read_text())
    assert bool(problems()) == bool(name)
    rewrite(copy, **changes)
    assert message in problems()


def test_a_benchmark_is_repeated_with_the_threads_that_were_asked_for() -> None:
    """Nobody asked for those it chose itself, which are part of what is measured."""
    used = replace(invented_bench("resnet20").hardware, device="cpu", threads=2, precision="bf16")
    chosen, asked, gpu = (
        results._hardware_options(replace(used, **change))
        for change in ({"yielding": True}, {"yielding": False}, {"device": "cuda"})
    )
    assert chosen == " --device cpu --precision bf16"
    assert asked == " --device cpu --threads 2 --precision bf16"
    assert gpu == " --device cuda --precision bf16"


def test_a_time_counts_on_the_machine_it_is_meant_for(tmp_path: Path) -> None:
    (job, *_) = jobs(select(["fast-cpu"]))
    record = invented(job.recipe, 0, 0.94)
    assert list(results._other_machines([record])) == []
    for change, seed in (({"threads": 4}, 0), ({"device": "cuda"}, 7), ({"processes": 2}, 0)):
        other = replace(record, seed=seed, hardware=replace(record.hardware, **change))
        (problem,) = results._other_machines([other])
        assert "not as experiment fast-cpu is meant" in problem
        write_record(replace(other, software=committed(other.software)), tmp_path / "record.json")
        with pytest.raises(InputError, match=r"cannot be published.*not as experiment"):
            add(tmp_path, tmp_path / "results")


def test_a_record_is_written_nowhere_else(published: Path, tmp_path: Path) -> None:
    bad = replace(invented_bench("resnet18"), id="../../escaped")
    write_record(bad, tmp_path / "bad.json")
    with pytest.raises(InputError, match="is no file name"):
        add(tmp_path / "bad.json", tmp_path / "a" / "results")
    (tmp_path / "odd.json").mkdir()
    write_record(replace(bad, id="good", software=committed(bad.software)), tmp_path / "good.json")
    words = [str(tmp_path / name) for name in ("odd.json", "good.json")]
    (tmp_path / "results").mkdir(exist_ok=True)
    assert cli.main(["results", "add", *words, "--results", str(tmp_path / "results")]) == 2
    assert (tmp_path / "results" / "bench" / "good.json").exists(), "one odd path stops no other"


@pytest.mark.parametrize("kind", ["run", "analysis", "benchmark"])
def test_any_record_can_be_published_by_its_file(
    run: Path, published: Path, analysed: Path, tmp_path: Path, kind: str
) -> None:
    speeds = invented_bench("resnet20")
    write_record(replace(speeds, software=committed(speeds.software)), tmp_path / "speed.json")
    file = {"run": run / "record.json", "analysis": analysed, "benchmark": tmp_path / "speed.json"}
    folder = {"run": "runs", "analysis": "analyses", "benchmark": "bench"}[kind]
    target = tmp_path / "elsewhere"
    if kind == "analysis":
        with pytest.raises(InputError, match=r"its weights are of smoke.*, not published"):
            add(file[kind], target)
        add(run, target)
    assert add(file[kind], target).parent == target / folder
    if kind == "analysis":
        with pytest.raises(InputError, match="published already, of "):
            add(file[kind], target)


def test_other_weights_are_noticed(published: Path, tmp_path: Path, problems: Problems) -> None:
    from cifar_resnet.model import get_cifar_resnet

    weights = tmp_path / "weights.safetensors"
    save_weights(weights, get_cifar_resnet(), published.stem)
    assert "SHA-256" in problems(weights)
    save_weights(weights, get_cifar_resnet(), "no-such-record")
    assert "not published" in problems(weights)


def test_the_command_fails_with_a_line_for_each_problem(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "broken.json").write_text("{")
    assert cli.main(["results", "check", "--results", str(tmp_path)]) == 1
    assert "broken.json is not JSON" in capsys.readouterr().err
