"""The run records behind the site's numbers: read, checked, and grouped by recipe."""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property, partial
from pathlib import Path
from statistics import mean, stdev
from typing import TypeVar

from mkdocs.exceptions import PluginError
from wording import OUTDATED, device, settings

from cifar_resnet.analysis import AnalysisRecord, behaves_as_before
from cifar_resnet.bench import BenchRecord
from cifar_resnet.errors import InputError
from cifar_resnet.experiments import EXPERIMENTS, jobs
from cifar_resnet.files import write_atomically
from cifar_resnet.fingerprint import fingerprint
from cifar_resnet.recipe import RECIPES, Recipe, changes
from cifar_resnet.record import Record, read, read_record
from cifar_resnet.results import ANALYSES, BENCHMARKS, FOLDERS, misplaced, objection, outdated
from cifar_resnet.software import software

RECORDS = "records"  # the folder of their copies in the site

AnyOne = TypeVar("AnyOne", Record, AnalysisRecord, BenchRecord)


def spread(runs: Sequence[Record], value: Callable[[Record], float]) -> tuple[float, float | None]:
    """Mean and sample standard deviation over some runs; no deviation for a single run."""
    values = [value(run) for run in runs]
    return mean(values), stdev(values) if len(values) > 1 else None


def accuracy(run: Record) -> float:
    """On the test images, after the last epoch."""
    return run.metrics.accuracy


def calibration_error(run: Record) -> float:
    """Of the last epoch's weights."""
    return run.metrics.calibration_error


def label(recipe: Recipe) -> str:
    """A recipe in words: its name, its length, how many other fields are not the named one's.

    >>> from cifar_resnet.recipe import get_recipe
    >>> label(get_recipe("fast", epochs=34)), label(get_recipe("fast", epochs=34, momentum=0.9))
    ('fast，34 轮', 'fast，34 轮，另改 1 项')
    """
    others = len(changed_fields(recipe))
    return f"{recipe.name}，{recipe.epochs} 轮{f'，另改 {others} 项' if others else ''}"


@dataclass(frozen=True)
class Group:
    """Runs of one recipe that differ in their seeds only (and in where they ran)."""

    recipe: Recipe
    runs: tuple[Record, ...]

    @cached_property
    def ids(self) -> list[str]:
        """Of the records."""
        return [run.id for run in self.runs]

    @cached_property
    def devices(self) -> str:
        """Where they ran, in words."""
        used = (run.hardware for run in self.runs)
        return "；".join(dict.fromkeys(device(h.device, h.name, h.threads) for h in used))

    @cached_property
    def label(self) -> str:
        """What tells this group from the others, in words."""
        return label(self.recipe)

    def spread(self, value: Callable[[Record], float]) -> tuple[float, float | None]:
        """`spread` of these runs."""
        return spread(self.runs, value)


@dataclass(frozen=True)
class Results:
    """What ``results/`` holds.

    Attributes:
        groups: the note's runs by recipe, best first.
        tuning: runs on held-out images.
        runs: every run on the test images, those of comparisons too.
        analyses: by their ids.
        benchmarks: of CPUs first, then by network.
        outdated: ids of records that the code no longer stands behind, with the reason;
            looked for in ``make serve`` alone, since ``make check`` refuses them.
    """

    groups: tuple[Group, ...] = ()
    tuning: tuple[Record, ...] = ()
    runs: tuple[Record, ...] = ()
    analyses: dict[str, AnalysisRecord] = field(default_factory=dict)
    benchmarks: tuple[BenchRecord, ...] = ()
    outdated: dict[str, str] = field(default_factory=dict)

    def mark(self, ids: Iterable[str]) -> str:
        """待重新验证 if the code no longer stands behind one of some records, else nothing."""
        return OUTDATED if self.outdated.keys() & set(ids) else ""

    def published(self, name: str) -> Group | None:
        """The runs of a named recipe as the package has it now; None while there are none."""
        if name not in RECIPES:
            raise PluginError(f"no recipe is called {name!r}; there are: {', '.join(RECIPES)}")
        recipe = RECIPES[name]()
        return next((group for group in self.groups if group.recipe == recipe), None)


def read_results(folder: Path) -> Results:
    """Read everything published; a wrong record fails the build.

    Runs with a changed recipe or another network belong to a comparison, not to the groups,
    unless they are all that an experiment trains; fewer epochs alone do not make a comparison,
    unless an experiment does. Every label says what was changed.
    """
    groups: dict[Recipe, list[Record]] = {}
    every = tuple(_checked(folder / FOLDERS["test"], read_record))
    compared, alone = _experiments_recipes()
    for run in every:
        recipe = run.recipe
        usual = not changed_fields(recipe) and recipe not in compared
        if recipe.network == "resnet18" and (usual or recipe in alone):
            groups.setdefault(recipe, []).append(run)
    ordered = [
        Group(recipe, tuple(sorted(runs, key=lambda run: run.seed)))
        for recipe, runs in groups.items()
    ]
    ordered.sort(key=lambda group: -group.spread(accuracy)[0])
    for name, count in Counter(group.label for group in ordered).items():
        if count > 1:
            raise PluginError(f"{count} groups of runs would be called {name!r}")
    analyses = _checked(folder / ANALYSES, partial(read, AnalysisRecord))
    benchmarks = _checked(folder / BENCHMARKS, partial(read, BenchRecord))
    return Results(
        groups=tuple(ordered),
        tuning=tuple(_checked(folder / FOLDERS["val"], read_record)),
        runs=every,
        analyses={record.id: record for record in analyses},
        benchmarks=tuple(sorted(benchmarks, key=lambda r: (r.hardware.device, r.network))),
    )


@cache
def _experiments_recipes() -> tuple[set[Recipe], set[Recipe]]:
    """Recipes that are trained to be compared with others, and for their own result."""
    compared = {job.recipe for e in EXPERIMENTS if len(e.arms) > 1 for job in jobs([e])}
    alone = {job.recipe for e in EXPERIMENTS if len(e.arms) == 1 for job in jobs([e])}
    return compared, alone


def find_outdated(results: Results, folder: Path) -> dict[str, str]:
    """Records that the code, as it is now, no longer stands behind.

    Args:
        results: what is published.
        folder: keeps the answer until code, torch or records change.
    """
    every: list[Record | AnalysisRecord] = [*results.runs, *results.analyses.values()]
    ran = software()
    known = " ".join([ran.source_sha256, ran.torch, *(record.checksum for record in every)])
    key = hashlib.sha256(known.encode()).hexdigest()
    kept = folder / f"outdated-{key[:16]}.json"
    if not kept.exists():
        current = cache(fingerprint)
        found = {run.id: "；".join(outdated(run, current)) for run in results.runs}
        for record in results.analyses.values():
            found[record.id] = "" if behaves_as_before(record) else "the code measures otherwise"
        text = json.dumps({name: why for name, why in found.items() if why})
        write_atomically(kept, lambda part: part.write_text(text))
    answer: dict[str, str] = json.loads(kept.read_text())
    return answer


def changed_fields(recipe: Recipe) -> list[str]:
    """Fields in which a recipe differs from the packaged one of its name, epochs left out."""
    return settings({k: v for k, v in changes(recipe).items() if k != "epochs"})


def _checked(folder: Path, read: Callable[[Path], AnyOne]) -> Iterator[AnyOne]:
    for path in sorted(folder.glob("*.json")):
        try:
            record = read(path)
        except InputError as error:
            raise PluginError(str(error)) from error
        why = misplaced(path, record) or objection(record)
        if why:
            raise PluginError(f"record {path} cannot be shown: {why}")
        yield record
