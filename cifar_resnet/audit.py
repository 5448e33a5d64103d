"""Does a record agree with itself, with the code that measured, with what was published before?"""

import ast
import json
import math
from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import datetime
from functools import cache
from pathlib import Path
from statistics import median

from cifar_resnet.bench import BenchRecord, training_flops, utilization
from cifar_resnet.data import CLASSES, HELD_OUT
from cifar_resnet.errors import InputError
from cifar_resnet.evaluation import CALIBRATION_BINS
from cifar_resnet.parse import parse
from cifar_resnet.recipe import learning_rate
from cifar_resnet.record import Record
from cifar_resnet.software import git

# Training and evaluation images of CIFAR-10, by the split that is evaluated on.
_IMAGES = {"test": (50_000, 10_000), "val": (50_000 - HELD_OUT, HELD_OUT)}
_CLASSES = len(CLASSES)


def contradictions(record: Record) -> Iterator[str]:
    """Yield each figure of a record that its other figures contradict.

    Args:
        record: of a run on CIFAR-10.

    Example:
        >>> from cifar_resnet.record import read_record
        >>> paths = Path("results/runs").glob("*.json")
        >>> [problem for path in paths for problem in contradictions(read_record(path))]
        []
    """
    rows, count = record.metrics.confusion, record.data.eval_images
    if len(rows) != _CLASSES or any(len(row) != _CLASSES for row in rows) or count < 1:
        yield "metrics.confusion is no table of ten classes"
        return
    for name, holds in (_metrics(record) | _history(record) | _times(record)).items():
        if not holds:
            yield f"{name} contradicts the rest of it"


def _metrics(record: Record) -> dict[str, bool]:
    """Which figures of the evaluation agree."""
    metrics, data = record.metrics, record.data
    rows, count = metrics.confusion, data.eval_images
    right = [row[index] for index, row in enumerate(rows)]
    bins = len(metrics.calibration)
    hits = sum(images * accuracy for images, _, accuracy in metrics.calibration)
    gap = sum(images * abs(sure - accuracy) for images, sure, accuracy in metrics.calibration)
    return {
        "data.train_images or data.eval_images": (data.train_images, count)
        == _IMAGES.get(data.eval_split),
        "metrics.confusion": sum(map(sum, rows)) == count
        and (data.eval_split != "test" or {sum(row) for row in rows} == {count // _CLASSES}),
        "metrics.accuracy": _near(metrics.accuracy, sum(right) / count),
        "flip_averaged_accuracy": _share_of(record.flip_averaged_accuracy or 0.0, count),
        "metrics.per_class_accuracy": len(rows) == len(metrics.per_class_accuracy)
        and all(
            _near(accuracy, hit / max(1, sum(row)))
            for accuracy, hit, row in zip(metrics.per_class_accuracy, right, rows, strict=True)
        ),
        "metrics.calibration": sum(images for images, _, _ in metrics.calibration) == count
        and _near(hits, sum(right), 1e-4 * count)
        and bins == CALIBRATION_BINS
        and all(
            not images or index / bins - 1e-6 <= sure <= (index + 1) / bins + 1e-6
            for index, (images, sure, _) in enumerate(metrics.calibration)
        ),
        "metrics.calibration_error": _near(metrics.calibration_error, gap / count),
    }


def _history(record: Record) -> dict[str, bool]:
    """Which figures of the epochs agree."""
    recipe, metrics, history = record.recipe, record.metrics, record.history
    steps = record.data.train_images // recipe.batch_size
    return {
        "history": [epoch.epoch for epoch in history] == list(range(1, recipe.epochs + 1))
        and _near(history[-1].eval_accuracy, metrics.accuracy)
        and _near(history[-1].eval_loss, metrics.loss)
        and all(
            _share_of(epoch.train_accuracy, steps * recipe.batch_size)
            and _share_of(epoch.eval_accuracy, record.data.eval_images)
            and epoch.train_loss > _least_loss(recipe.label_smoothing)
            and epoch.eval_loss > 0
            for epoch in history
        ),
        "history's learning rates": all(
            _near(epoch.learning_rate, learning_rate(recipe, epoch.epoch - 1 / steps))
            for epoch in history
        ),
    }


def _least_loss(smoothing: float) -> float:
    """The cross entropy of predictions that equal the smoothed labels, in nats."""
    rest = smoothing / _CLASSES
    return -sum(p * math.log(p) for p in (1 - smoothing + rest, *[rest] * (_CLASSES - 1)) if p > 0)


def _times(record: Record) -> dict[str, bool]:
    """Which times agree, and the name that holds one."""
    recipe, data = record.recipe, record.data
    finished = datetime.fromisoformat(record.finished)
    began = f"{recipe.name}-{data.name}-{data.eval_split}-seed{record.seed}-"
    times = [epoch.seconds for epoch in record.history] or [0.0]
    seen = data.train_images // recipe.batch_size * recipe.batch_size
    least = record.train_seconds + (record.compile_seconds or 0.0)
    return {
        "id": record.id.startswith(f"{began}{finished.strftime('%Y%m%dT%H%M%SZ')}"),
        "train_seconds": math.isclose(record.train_seconds, sum(times), rel_tol=1e-6),
        "images_per_second": min(times) > 0
        and math.isclose(
            record.images_per_second, median(seen / seconds for seconds in times), rel_tol=1e-6
        ),
        "finished": record.sessions > 1 or record.elapsed_seconds > least - 2,
    }


_ROUNDS = 5  # that a published benchmark has at least


def bench_contradictions(record: BenchRecord) -> Iterator[str]:
    """Yield what a benchmark's record says that cannot be.

    Args:
        record: of a benchmark.
    """
    rounds: list[Sequence[float]] = [record.reference, record.ours, record.ceiling, record.augment]
    beside = record.contention
    if beside:
        rounds += beside.single, beside.oversubscribed, beside.adapted, beside.threads
    if len(set(map(len, rounds))) != 1 or any(rate <= 0 for rates in rounds for rate in rates):
        yield "its rounds must be equally many, and every rate positive"
    if len(record.ours) < _ROUNDS:
        yield f"it has fewer than {_ROUNDS} rounds"
    if record.flops != training_flops(record.network):
        yield f"flops is not what {record.network} needs"
    if any(used > 1.05 for used in utilization(record)):
        yield "it trains faster than the matrix products of its record allow"


# What decides the figures of a benchmark, by module.
_MEASURING = {
    "bench": (
        *("bench", "reference_steps", "_Pictures", "_step", "_repeat", "training_flops"),
        *("_allocated", "_peak_bytes"),
    ),
    "compiling": ("training_steps", "compiled", "fastest", "seconds"),
    "train": ("train_epoch", "batches", "batches_together", "make_optimizer", "_TOGETHER"),
    "augment": (
        *("Augmentation", "augment", "random_crop", "random_flip", "random_erasing"),
        *("normalize", "_statistics", "_lasts", "_on_gpu", "shrink"),
        *("MEAN", "STD", "_ERASING_ATTEMPTS"),
    ),
    "distributed": ("shard", "all_reduce"),
    "model": ("get_cifar_resnet",),
    "depth": ("Block", "get_depth_resnet"),
    "networks": ("build",),
    "hardware": ("_keep_freed_memory",),
    "recipe": ("notes", "learning_rate", "resolution"),
}
# And where it was measured, of training beside a busy process.
_YIELDING = {
    "contention": ("contention", "busy_core"),
    "hardware": ("spare_busy_cores", "free_cores", "_idle_seconds", "_LOOK"),
}


def measured_otherwise(record: BenchRecord) -> list[str]:
    """Which code behind a benchmark has changed since it was measured, comments aside.

    Args:
        record: of a benchmark.

    Returns:
        Names of functions, classes and constants; none where git has no history.
    """
    changed = []
    watched = [_MEASURING, _YIELDING] if record.contention else [_MEASURING]
    for module, names in (item for modules in watched for item in modules.items()):
        path = f"cifar_resnet/{module}.py"
        then = git("show", f"{record.software.commit}:{path}")
        if then is None:
            continue
        now = (Path(__file__).parent / f"{module}.py").read_bytes()
        old, new = _definitions(then), _definitions(now)
        changed += [f"{module}.{name}" for name in names if old.get(name) != new.get(name)]
    return changed


def _definitions(source: bytes) -> dict[str, str]:
    """The functions and classes of a module without any docstrings, and its constants."""
    found = {}
    for node in ast.parse(source).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            for inner in ast.walk(node):  # methods, too
                if (
                    isinstance(inner, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
                    and ast.get_docstring(inner) is not None
                ):
                    del inner.body[0]
            found[node.name] = ast.dump(node)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found |= {to.id: ast.dump(node) for to in targets if isinstance(to, ast.Name)}
    return found


def _share_of(share: float, images: int) -> bool:
    """Whether a whole number of images among so many can have this share, but for rounding."""
    hits = share * images
    return 0 <= share <= 1 and abs(hits - round(hits)) < 0.05


def _near(a: float, b: float, tolerance: float = 1e-5) -> bool:
    return math.isfinite(a) and abs(a - b) <= tolerance


@cache
def withdrawn() -> tuple[Record, ...]:
    """Runs on the test images that were published once: git's history holds them, no folder does.

    >>> all(record.data.eval_split == "test" for record in withdrawn())
    True
    """
    runs = ("--no-renames", "--format=%H", "--name-only", "--", "results/runs")
    found, commit = [], ""
    for word in (git("log", "--diff-filter=D", *runs) or b"").decode().split():
        if "/" not in word:
            commit = word
            continue
        with suppress(InputError, ValueError):  # of fields that are no more
            found.append(parse(Record, json.loads(git("show", f"{commit}^:{word}") or b"")))
    return tuple(found)
