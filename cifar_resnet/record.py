"""Run records: one JSON file for each training run, the only source of published numbers."""

import hashlib
import json
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

from cifar_resnet.errors import InputError
from cifar_resnet.evaluation import Metrics
from cifar_resnet.files import write_atomically
from cifar_resnet.hardware import Hardware
from cifar_resnet.parse import parse
from cifar_resnet.recipe import Recipe
from cifar_resnet.software import Software

SCHEMA = 1  # of the layout of every kind of record

_T = TypeVar("_T")


@dataclass(frozen=True)
class Epoch:
    """One pass over the training images.

    Attributes:
        epoch: counted from 1.
        learning_rate: at the epoch's last step.
        train_loss: mean over the epoch's augmented images, with label smoothing, in nats.
        train_accuracy: share of those images classified rightly while training.
        eval_loss: mean cross-entropy on the evaluation images, in nats; images of the size that
            the epoch trained on, after the last one 32x32.
        eval_accuracy: share of the evaluation images classified rightly.
        seconds: training time, evaluation not included.
    """

    epoch: int
    learning_rate: float
    train_loss: float
    train_accuracy: float
    eval_loss: float
    eval_accuracy: float
    seconds: float


@dataclass(frozen=True)
class DataInfo:
    """Which images a run used.

    Attributes:
        name: of the data set.
        md5: of its files, by name.
        train_images: how many; 0 where nothing was trained.
        eval_split: ``"test"`` or ``"val"``.
        eval_images: how many.
    """

    name: str
    md5: dict[str, str]
    train_images: int
    eval_split: str
    eval_images: int


@dataclass(frozen=True)
class Record:
    """Everything about one finished run.

    Attributes:
        schema: version of this layout.
        id: unique name; also the file's name.
        recipe: all its fields.
        changes: the fields in which it differs from the named recipe, as that was then.
        seed: seed of the initial weights, the order of images and the augmentation.
        data: which images.
        software: which code and libraries.
        hardware: which processor, and how it was used.
        started: UTC, ISO 8601.
        finished: UTC, ISO 8601.
        sessions: 1, or more if the run was interrupted and resumed.
        train_seconds: sum over the epochs.
        images_per_second: trained images over time, the median of the epochs.
        history: one entry an epoch.
        metrics: of the last epoch's weights, one view an image, in float32.
        weights_sha256: of the weights file written with this record.
        fingerprint: of the recipe's behaviour (`cifar_resnet.fingerprint`).
        flip_averaged_accuracy: of the same weights, with the mean of each image's logits and
            its mirror image's; a figure of its own, None in the oldest records.
        compile_seconds: for ``torch.compile``, and on a GPU for cuDNN's choice of algorithms,
            before the first epoch; next to nothing where the same process had done it for
            another seed; None in the oldest records, whose first epoch includes it.
        checksum: SHA-256 over everything else.
    """

    schema: int
    id: str
    recipe: Recipe
    changes: dict[str, Any]
    seed: int
    data: DataInfo
    software: Software
    hardware: Hardware
    started: str
    finished: str
    sessions: int
    train_seconds: float
    images_per_second: float
    history: tuple[Epoch, ...]
    metrics: Metrics
    weights_sha256: str
    fingerprint: dict[str, Any]
    flip_averaged_accuracy: float | None = None
    compile_seconds: float | None = None
    checksum: str = ""

    @property
    def elapsed_seconds(self) -> float:
        """From the start to the end: training, evaluation, compiling, interruptions."""
        begun, ended = map(datetime.fromisoformat, (self.started, self.finished))
        return (ended - begun).total_seconds()


def checksum(content: dict[str, Any]) -> str:
    """SHA-256 of a record's JSON object without its ``checksum`` field.

    >>> checksum({"seed": 0, "checksum": "whatever"}) == checksum({"seed": 0})
    True
    """
    rest = {key: value for key, value in content.items() if key != "checksum"}
    canonical = json.dumps(rest, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(canonical.encode()).hexdigest()


def refuse_seen(record_id: str, data: str, split: str) -> None:
    """Refuse to measure on held-out images a network that was trained on them.

    Args:
        record_id: of the run that gave the weights; empty if none did.
        data: name of the data set that they are to be measured on.
        split: which images of it: ``"test"`` or ``"val"``.

    Raises:
        InputError: if the split is ``"val"`` and the run was evaluated on the test images: it
            trained on all the others.

    Example:
        >>> refuse_seen("notes-cifar10-val-seed0-20261124T082026Z-819035", "cifar10", "val")
    """
    if split == "val" and f"-{data}-test-seed" in record_id:
        raise InputError(
            f"the weights of {record_id} were trained on all training images; leave out --val"
        )


def write_record(record: Any, path: Path) -> None:
    """Write a record with its checksum as JSON, atomically.

    Args:
        record: a `Record`, or another dataclass with a ``checksum``, which is set anew.
        path: the target file.

    Raises:
        OSError: if it cannot be written.
        ValueError: if a figure is NaN or infinite.
    """
    content = json.loads(json.dumps(asdict(record)))
    content["checksum"] = checksum(content)
    text = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    write_atomically(path, lambda part: part.write_text(text, encoding="utf-8"))


def read_record(path: str | Path) -> Record:
    """Read and validate a run record.

    Args:
        path: what `write_record` wrote.

    Raises:
        InputError: if the file is missing, no JSON, has a missing, unknown or wrong field
            (the message names it), or was changed after it was written.

    Example:
        >>> read_record(Path("nowhere.json"))
        Traceback (most recent call last):
        cifar_resnet.errors.InputError: record nowhere.json does not exist
    """
    record = read(Record, path)
    for name in ("started", "finished"):
        try:
            datetime.fromisoformat(getattr(record, name))
        except ValueError as error:
            raise InputError(f"record {path}: {name} must be an ISO 8601 time") from error
    return record


def read(kind: type[_T], path: str | Path) -> _T:
    """Read and validate any dataclass that `write_record` wrote; errors as in `read_record`.

    Args:
        kind: the dataclass.
        path: the file.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(f"record {path} does not exist")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"record {path} cannot be read: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"record {path} is not JSON: {error}") from error
    if isinstance(content, dict) and content.get("schema") != SCHEMA:
        raise InputError(f"record {path}: schema must be {SCHEMA}, not {content.get('schema')!r}")
    try:
        record: _T = parse(kind, content)
    except InputError as error:
        raise InputError(f"record {path}: {error}") from error
    if content.get("checksum") != checksum(content):
        raise InputError(f"record {path}: checksum does not match; the file was edited")
    return record
