"""Does a record agree with itself, and with the commit that it names?"""

import hashlib
import io
import math
import subprocess
import tarfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path, PurePosixPath

from cifar_resnet.record import Record, Software

# Training and evaluation images of CIFAR-10, by the split that is evaluated on.
_IMAGES = {"test": (50_000, 10_000), "val": (45_000, 5_000)}


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
    metrics, data = record.metrics, record.data
    rows, count = metrics.confusion, data.eval_images
    right = [row[index] for index, row in enumerate(rows)]
    hits = sum(images * accuracy for images, _, accuracy in metrics.calibration)
    gap = sum(images * abs(sure - right) for images, sure, right in metrics.calibration)
    last = record.history[-1] if record.history else None
    for name, holds in {
        "data.train_images or data.eval_images": (data.train_images, count)
        == _IMAGES.get(data.eval_split),
        "metrics.confusion": sum(map(sum, rows)) == count,
        "metrics.accuracy": _near(metrics.accuracy, sum(right) / count),
        "metrics.per_class_accuracy": len(rows) == len(metrics.per_class_accuracy)
        and all(
            _near(accuracy, hit / max(1, sum(row)))
            for accuracy, hit, row in zip(metrics.per_class_accuracy, right, rows, strict=True)
        ),
        "metrics.calibration": sum(images for images, _, _ in metrics.calibration) == count
        and _near(hits, sum(right), 1e-4 * count),
        "metrics.calibration_error": _near(metrics.calibration_error, gap / count),
        "history": [epoch.epoch for epoch in record.history]
        == list(range(1, record.recipe.epochs + 1))
        and last is not None
        and _near(last.eval_accuracy, metrics.accuracy)
        and _near(last.eval_loss, metrics.loss),
    }.items():
        if not holds:
            yield f"{name} contradicts the rest of it"


def _near(a: float, b: float, tolerance: float = 1e-5) -> bool:
    return math.isfinite(a) and abs(a - b) <= tolerance


def commit_objection(said: Software) -> str | None:
    """Why git does not confirm which code ran; None if it does, or has no history here.

    Args:
        said: of any record.
    """
    if said.commit is None or not _has_history():
        return None
    committed = source_at(said.commit)
    if committed is None:
        return f"its commit {said.commit} is unknown"
    if committed != said.source_sha256:
        return f"its commit {said.commit} holds other code than ran (source_sha256)"
    return None


@cache
def source_at(commit: str) -> str | None:
    """`Software.source_sha256` of a commit; None if there is no such commit.

    Args:
        commit: any name that git knows.
    """
    packed = _git("archive", "--format=tar", commit, "cifar_resnet")
    if packed is None:
        return None
    digest = hashlib.sha256()
    with tarfile.open(fileobj=io.BytesIO(packed)) as tar:
        for member in sorted(tar.getmembers(), key=lambda member: member.name):
            path, file = PurePosixPath(member.name), tar.extractfile(member)
            if file and len(path.parts) == 2 and path.suffix == ".py":
                digest.update(path.name.encode() + b"\0" + file.read() + b"\0")
    return digest.hexdigest()


@cache
def _has_history() -> bool:
    shallow = _git("rev-parse", "--is-shallow-repository")
    return shallow is not None and shallow.strip() == b"false"


def _git(*arguments: str) -> bytes | None:
    top = Path(__file__).parent.parent
    if not (top / ".git").exists():
        return None
    try:
        done = subprocess.run(["git", *arguments], cwd=top, capture_output=True)
    except OSError:
        return None
    return done.stdout if done.returncode == 0 else None
