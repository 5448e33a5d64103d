"""The published records under ``results/``: adding to them, and checking that they still hold.

``results/runs`` holds runs measured on the test images, ``results/tuning`` those measured on
held-out training images, by which something was chosen; ``results/analyses`` holds what
`cifar_resnet.analysis` measured, ``results/bench`` what `cifar_resnet.bench` did.
"""

import json
import re
import shlex
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from cifar_resnet.analysis import AnalysisRecord, behaves_as_before
from cifar_resnet.audit import (
    bench_contradictions,
    contradictions,
    measured_otherwise,
    withdrawn,
)
from cifar_resnet.bench import BenchRecord
from cifar_resnet.checkpoint import weights_record
from cifar_resnet.errors import InputError
from cifar_resnet.experiments import EXPERIMENTS, Job, asked_for, compared_in_precision, jobs
from cifar_resnet.files import sha256
from cifar_resnet.fingerprint import differences, fingerprint
from cifar_resnet.hardware import Hardware
from cifar_resnet.recipe import Recipe, assignments, changes, difference, get_recipe
from cifar_resnet.record import Record, read, read_record, write_record
from cifar_resnet.software import commit_objection, commit_of

FOLDERS = {"test": "runs", "val": "tuning"}
ANALYSES = "analyses"
BENCHMARKS = "bench"

AnyRecord = Record | AnalysisRecord | BenchRecord


def add(run: Path, results: Path) -> Path:
    """Publish a finished run, an analysis or a benchmark: copy its record into the results.

    What was made where git did not know the code (in a copy of the checkout on another machine,
    say) gets the commit whose package is, byte for byte, the code that ran.

    Args:
        run: the run's folder, with ``record.json``; or the file of a record of any kind.
        results: the folder of all results.

    Returns:
        The record's new place.

    Raises:
        InputError: if the record is invalid, not of CIFAR-10, made by code that was not
            committed or that its commit does not hold, or on hardware that its experiment is not
            meant for; if it is published already, or an analysis of weights whose run is not
            published.

    Example:
        >>> add(Path("nowhere"), Path("results"))
        Traceback (most recent call last):
        cifar_resnet.errors.InputError: record nowhere/record.json does not exist
    """
    source = run if run.suffix == ".json" else run / "record.json"
    record = _with_commit(_read_any(source))
    for problem in _objections(record, results):
        raise InputError(f"{source} cannot be published: {problem}")
    target = results / _place(record)
    if isinstance(record, AnalysisRecord) and target.exists():
        known = read(AnalysisRecord, target).finished
        if known >= record.finished:
            raise InputError(f"{source}: {target} is published already, of {known}")
    if isinstance(record, Record):
        for path in target.parent.glob("*.json"):
            other = read_record(path)
            if _what_ran(other) == _what_ran(record):
                raise InputError(f"{source}: {path} is published already, of this recipe and seed")
    write_record(record, target)
    return target


def _objections(record: AnyRecord, results: Path) -> Iterator[str]:
    """Why a record cannot be published, the plainest reason first."""
    if not re.fullmatch(r"[\w.-]+", record.id, re.ASCII):
        yield f"its id {record.id!r} is no file name"
    if problem := objection(record) or commit_objection(record.software):
        yield problem
    if isinstance(record, AnalysisRecord) and record.weights_record:
        if not (results / FOLDERS["test"] / f"{record.weights_record}.json").exists():
            yield f"its weights are of {record.weights_record}, not published"
    elif isinstance(record, Record):
        yield from _other_machines([record])


def _read_any(source: Path) -> AnyRecord:
    """A record of whatever kind its fields say; by default of a run."""
    try:
        content = json.loads(source.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        content = {}
    fields = set(content) if isinstance(content, dict) else set()
    if "analysis" in fields:
        return read(AnalysisRecord, source)
    return read(BenchRecord, source) if "reference" in fields else read_record(source)


def _with_commit(record: AnyRecord) -> AnyRecord:
    ran = record.software
    known = ran.clean and not commit_objection(ran)
    commit = None if known else commit_of(ran.source_sha256)
    return replace(record, software=replace(ran, commit=commit, clean=True)) if commit else record


def _place(record: AnyRecord) -> Path:
    """Where a record belongs below the folder of all results."""
    if isinstance(record, Record):
        folder = FOLDERS.get(record.data.eval_split, "")
    else:
        folder = ANALYSES if isinstance(record, AnalysisRecord) else BENCHMARKS
    return Path(folder, f"{record.id}.json")


def misplaced(path: Path, record: AnyRecord) -> str | None:
    """Why a record must not be where it is; None if it is in its place.

    Args:
        path: its file, in one of the folders of the results.
        record: what that holds.
    """
    place = _place(record)
    return None if path.parts[-2:] == place.parts else f"it belongs at {place}; move it there"


def objection(record: AnyRecord) -> str | None:
    """Why a record must not be published; None if nothing speaks against it.

    Args:
        record: any valid record.
    """
    from torchvision.datasets import CIFAR10

    if not isinstance(record, BenchRecord):
        if record.data.name != "cifar10" or record.data.md5 != dict(
            CIFAR10.train_list + CIFAR10.test_list
        ):
            return "it was not measured on the published CIFAR-10"
        if record.data.eval_split not in FOLDERS:
            return f"data.eval_split must be test or val, not {record.data.eval_split!r}"
    if not record.software.clean or record.software.commit is None:
        return "it was made by code that was not committed"
    return None


def check(results: Path, weights: Path) -> Iterator[str]:
    """Yield one line for each published thing that the code no longer stands behind.

    Args:
        results: the folder of all results.
        weights: the shipped weights.

    Example:
        >>> list(check(Path("nowhere"), Path("nowhere.safetensors")))
        ['weights nowhere.safetensors do not exist']
    """
    records: dict[str, Record] = {}
    current = cache(fingerprint)  # once for all the seeds of a recipe
    for folder in FOLDERS.values():
        for path in sorted((results / folder).glob("*.json")):
            yield from _said_of(path, _problems(path, records, current))
    yield from _missing_seeds(records.values())
    yield from _mixed_precisions(records.values())
    yield from _other_machines(records.values())
    for path in sorted((results / ANALYSES).glob("*.json")):
        yield from _said_of(path, _analysis(path, records))
    for path in sorted((results / BENCHMARKS).glob("*.json")):
        yield from _said_of(path, _bench(path))
    yield from _weights_problems(weights, records)


def _said_of(path: Path, problems: Iterable[str]) -> Iterator[str]:
    """One line for each problem of a record, even if it is too odd to be looked at."""
    try:
        for problem in problems:
            yield f"record {path}: {problem}"
    except InputError as error:
        yield str(error)
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as e:
        yield f"record {path} is malformed: {type(e).__name__}: {e}"


def _what_ran(record: Record) -> tuple[Recipe, str | None, str, int]:
    """What two published records must not share; the seed comes last."""
    recipe = record.recipe
    precision = record.hardware.precision if recipe in compared_in_precision() else None
    return recipe, precision, record.data.eval_split, record.seed


def _twins(record: Record, others: Iterable[Record]) -> Iterator[str]:
    for other in others:
        if _what_ran(other) == _what_ran(record):
            yield f"{other.id} is of the same recipe and seed; keep one"
        elif (other.weights_sha256, other.metrics) == (record.weights_sha256, record.metrics):
            yield f"{other.id} has the same weights and metrics; one of them did not run"


def _thrown_again(record: Record, current: Callable[[Recipe], dict[str, Any]]) -> Iterator[str]:
    """Earlier runs alike that it stands in for and that still hold: a second throw of the dice.

    A repetition with the same loss in every epoch is the same throw.
    """

    def kind(record: Record) -> tuple[object, ...]:
        return _what_ran(record), record.hardware.name, record.hardware.precision

    def losses(record: Record) -> list[float]:
        return [epoch.train_loss for epoch in record.history]

    for old in withdrawn():
        other = losses(old) != losses(record) and old.finished < record.finished
        if other and kind(old) == kind(record) and not any(outdated(old, current)):
            yield (
                f"{record.id} replaces {old.id} ({old.metrics.accuracy:.2%}), which the "
                "code stands behind as well; restore that one from git's history"
            )


def _missing_seeds(records: Iterable[Record]) -> Iterator[str]:
    """Runs left out: of each recipe the first n seeds are published, whatever they reached."""
    seeds: dict[tuple[Recipe, str | None], set[int]] = {}
    for record in records:
        recipe, precision, split, seed = _what_ran(record)
        if split == "test":
            seeds.setdefault((recipe, precision), set()).add(seed)
    for (recipe, _), found in seeds.items():
        absent = sorted(set(range(len(found))) - found)
        if absent:
            yield f"recipe {recipe.name}: of {len(found)} runs seed {absent[0]} is not published"


def _mixed_precisions(records: Iterable[Record]) -> Iterator[str]:
    """Runs of one experiment in different arithmetic: what is compared must not differ in it."""
    ran = {(r.recipe, r.seed): r for r in records if r.data.eval_split == "test"}
    for experiment in EXPERIMENTS:
        if any(arm.precision for arm in experiment.arms):
            continue
        found = [ran[key] for job in jobs([experiment]) if (key := (job.recipe, job.seed)) in ran]
        precisions = sorted({record.hardware.precision for record in found})
        if len(precisions) > 1:
            some = next(r.id for r in found if r.hardware.precision == precisions[1])
            yield (
                f"experiment {experiment.name}: its runs are in {' and '.join(precisions)} "
                f"({some}); repeat those of one kind with --precision"
            )


def _other_machines(records: Iterable[Record]) -> Iterator[str]:
    """Runs of an experiment's recipe on hardware that the experiment is not meant for."""
    wanted: dict[Recipe, list[Job]] = {}
    for job in jobs(EXPERIMENTS):
        wanted.setdefault(job.recipe, []).append(job)
    for record in records:
        alike = wanted.get(record.recipe, [])
        if record.data.eval_split != "test" or not alike:
            continue
        if not any(replace(job, seed=record.seed).answered_by(record) for job in alike):
            used = record.hardware
            yield (
                f"{record.id} ran on {used.device}, {used.threads} threads, {used.processes} "
                f"processes, in {record.sessions} sessions: not as experiment "
                f"{alike[0].experiment} is meant; leave it out and run: "
                f"cifar-resnet experiments run {alike[0].experiment}"
            )


def _own(path: Path, record: AnyRecord) -> Iterator[str]:
    """What a record of any kind says against itself: its place, its data, its code."""
    found = misplaced(path, record), objection(record) or commit_objection(record.software)
    yield from filter(None, found)


def _bench(path: Path) -> Iterator[str]:
    record = read(BenchRecord, path)
    yield from _own(path, record)
    yield from bench_contradictions(record)
    changed = measured_otherwise(record)
    if changed:
        yield (
            f"what measured has changed since ({', '.join(changed)}); repeat it: "
            f"cifar-resnet bench --network {record.network} --batch-size {record.batch_size}"
            f"{_hardware_options(record.hardware)}"
        )


def _analysis(path: Path, runs: dict[str, Record]) -> Iterator[str]:
    record = read(AnalysisRecord, path)
    yield from _own(path, record)
    run = runs.get(record.weights_record)
    if record.network and run is None:
        yield f"its weights are of run {record.weights_record!r}, which is not published"
    if run and (run.weights_sha256, run.recipe.network) != (record.weights_sha256, record.network):
        yield f"its weights or its network are not those of run {run.id}"
    if not behaves_as_before(record):
        weights = " --run-folder FOLDER_OF_THE_RUN" if record.network else ""
        yield (
            "the code now measures otherwise; repeat it: "
            f"cifar-resnet analyze {record.analysis}{weights}"
        )


def _problems(
    path: Path, records: dict[str, Record], current: Callable[[Recipe], dict[str, Any]]
) -> Iterator[str]:
    """Of a run's record, which joins the others."""
    record = read_record(path)
    yield from _twins(record, records.values())
    records[record.id] = record
    yield from _own(path, record)
    yield from contradictions(record)
    yield from (f"{problem}; {_again(record)}" for problem in outdated(record, current))
    yield from _thrown_again(record, current)


def _again(record: Record) -> str:
    asked = changes(record.recipe) if _may_stay(record) else record.changes
    told = f"re-run it: cifar-resnet train {record.recipe.name} --seed {record.seed}"
    told += " --val" if record.data.eval_split == "val" else ""
    told += "".join(f" --set {word}" for word in map(shlex.quote, assignments(asked)))
    return told + _hardware_options(record.hardware)


def _hardware_options(used: Hardware) -> str:
    """Options with which a command runs on such hardware again."""
    asked_for = used.kind == "cpu" and not used.yielding
    threads = f" --threads {used.threads}" if asked_for else ""
    return f" --device {used.kind}{threads} --precision {used.precision}"


def outdated(record: Record, current: Callable[[Recipe], dict[str, Any]]) -> Iterator[str]:
    """Yield what the code does otherwise now than when a run was made.

    A named recipe may move away from its runs on held-out images: they are what it was
    chosen by; and from runs of an experiment that still asks for what they trained.

    Args:
        record: of the run.
        current: gives a recipe's fingerprint now (`cifar_resnet.fingerprint.fingerprint`, cached).
    """
    stays = _may_stay(record)
    try:
        recipe = get_recipe(record.recipe.name, **({} if stays else record.changes))
        now = current(record.recipe)
    except InputError as error:  # of a recipe or a network that is no more
        yield str(error)
        return
    if recipe != record.recipe and not stays:
        changed = ", ".join(difference(record.recipe, recipe))
        yield f"the recipe has changed since ({changed})"
    changed = ", ".join(differences(record.fingerprint, now))
    if changed:
        yield f"the code now behaves otherwise ({changed})"


def _may_stay(record: Record) -> bool:
    """Whether the named recipe may have other fields by now."""
    return record.data.eval_split == "val" or record.recipe in asked_for()


def _weights_problems(weights: Path, records: dict[str, Record]) -> Iterator[str]:
    try:
        record_id = weights_record(weights)
    except InputError as error:
        yield str(error)
        return
    if record_id not in records:
        yield f"weights {weights}: their record {record_id!r} is not published"
    elif records[record_id].weights_sha256 != sha256(weights):
        yield f"weights {weights}: their SHA-256 is not the one in record {record_id}"
