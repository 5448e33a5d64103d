"""What a run's folder holds: nothing, a run to go on with, or one not to be written over."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from cifar_resnet.checkpoint import load_checkpoint
from cifar_resnet.data import Dataset
from cifar_resnet.errors import InputError
from cifar_resnet.fingerprint import differences
from cifar_resnet.hardware import Hardware
from cifar_resnet.recipe import Recipe
from cifar_resnet.record import Record, read_record
from cifar_resnet.software import Software, software

T = TypeVar("T")


def refuse_used_folder(out: Path, *, resume: bool) -> None:
    """Refuse a folder whose files a new run would write over.

    Args:
        out: the folder, which need not exist.
        resume: whether to go on with what was begun there.

    Raises:
        InputError: if it holds a finished run; an unfinished one that is not to be gone on
            with; or weights alone; or if a file is where it should be.

    Example:
        >>> refuse_used_folder(Path("nowhere"), resume=False)
    """
    for place in (out, *out.parents):
        if place.exists() and not place.is_dir():
            raise InputError(f"{place} is a file, not a folder; choose another --out")
    if (out / "record.json").exists():
        raise InputError(
            f"{out} holds a finished run; read it with read_record, keep it with the command "
            "line's --resume, or choose another --out"
        )
    begun = (out / "checkpoint.pt").exists()
    if begun and not resume:
        raise InputError(f"{out} holds an unfinished run; add --resume or choose another --out")
    if (out / "weights.safetensors").exists() and not begun:
        raise InputError(f"{out} holds weights without their record; choose another --out")


def finished_seeds(
    recipe: Recipe, data: Dataset, hardware: Hardware, folders: Mapping[int, Path]
) -> dict[int, Record]:
    """The records of those seeds that need no training any more.

    Args:
        recipe: what all of them are of.
        data: what all of them are trained on.
        hardware: where, with the number of processes.
        folders: by seed; they need not exist.

    Raises:
        InputError: if a record is damaged, or of another configuration, machine, version of
            torch, or code.

    Example:
        >>> from cifar_resnet.data import load
        >>> from cifar_resnet.hardware import detect
        >>> here, folders = detect("cpu", threads=1, compile=False), {0: Path("nowhere")}
        >>> finished_seeds(Recipe(name="example"), load("synthetic"), here, folders)
        {}
    """
    code = running_code()
    records = {}
    for seed, folder in folders.items():
        path = folder / "record.json"
        if not path.exists():
            continue
        records[seed] = record = _readable(read_record, path)
        trained = record.data
        made = {"seed": record.seed, "data": trained.name, "split": trained.eval_split}
        asked = {"seed": seed, "data": data.name, "split": data.split}
        _refuse_another(
            path,
            {"recipe": asdict(record.recipe), **made, "md5": trained.md5},
            {"recipe": asdict(recipe), **asked, "md5": data.md5},
        )
        ran = record.software
        there, here = where(record.hardware, ran), where(hardware, code)
        if (there, ran.source_sha256) != (here, code.source_sha256):
            raise InputError(
                f"{path} was made by other code or elsewhere ({there}, not {here}); "
                "choose another --out"
            )
    return records


def resumable(checkpoint: Path, expected: dict[str, Any]) -> dict[str, Any] | None:
    """The state to go on from, if there is any; it must be of this very run.

    Args:
        checkpoint: its file, which need not exist.
        expected: ``identity`` (recipe, seed, data), ``contents`` of the data, ``fingerprint``,
            ``source_sha256`` and ``where`` of the run.

    Raises:
        InputError: if the checkpoint is damaged, or one of these differs.

    Example:
        >>> resumable(Path("nowhere.pt"), {})
    """
    if not checkpoint.exists():
        return None
    state = _readable(load_checkpoint, checkpoint)
    _refuse_another(checkpoint, state.get("identity", {}), expected["identity"])
    if state["source_sha256"] != expected["source_sha256"]:
        raise InputError(
            f"{checkpoint} was written by other code than this; go back to that code "
            "or start anew with another --out"
        )
    if state["contents"] != expected["contents"]:
        raise InputError(f"{checkpoint} was trained on other images; choose another --out")
    if differences(state["fingerprint"], expected["fingerprint"]):
        raise InputError(f"{checkpoint} is of another network; choose another --out")
    if state["where"] != expected["where"]:
        raise InputError(
            f"{checkpoint} was trained on {state['where']}, not {expected['where']}, and a record "
            "names one; go on there or start anew with another --out"
        )
    return state


def _readable(read: Callable[[Path], T], path: Path) -> T:
    """What is read, or what to do about a file that cannot be."""
    try:
        return read(path)
    except InputError as error:
        raise InputError(f"{error}; delete it to start anew, or choose another --out") from error


def _refuse_another(path: Path, found: dict[str, Any], wanted: dict[str, Any]) -> None:
    """Refuse a run of another configuration, and say in what it differs."""
    if found == wanted:
        return
    there, here = _flat(found), _flat(wanted)
    differing = [
        f"{name} {there.get(name)}, not {here.get(name)}"
        for name in here | there
        if there.get(name) != here.get(name)
    ]
    more = f"; and {len(differing) - 3} more" if len(differing) > 3 else ""
    raise InputError(
        f"{path} is of another configuration ({'; '.join(differing[:3])}{more}); "
        "choose another --out"
    )


def _flat(nested: dict[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in nested.items():
        flat |= _flat(value) if isinstance(value, dict) else {name: value}
    return flat


def contents(data: Dataset) -> str:
    """A checksum of images and labels, which may differ under the same name.

    >>> from cifar_resnet.data import load
    >>> len(contents(load("synthetic")))
    64
    """
    digest = hashlib.sha256()
    for tensor in (data.train_images, data.train_labels, data.eval_images, data.eval_labels):
        digest.update(tensor.cpu().contiguous().numpy().data)
    return digest.hexdigest()


@cache
def running_code() -> Software:
    """Looked at once a process: later runs of it may find other files than those it imported.

    >>> running_code() is running_code()
    True
    """
    return software()


def where(hardware: Hardware, code: Software) -> str:
    """What must not change from one part of a run to the next, nor from seed to seed.

    Args:
        hardware: what the run uses.
        code: gives the version of torch.

    Example:
        >>> from cifar_resnet.hardware import detect
        >>> here = detect("cpu", threads=1, precision="fp32", compile=False)
        >>> where(here, running_code())  # doctest: +ELLIPSIS
        '1 x ..., fp32, torch ...'
    """
    return f"{hardware.processes} x {hardware.name}, {hardware.precision}, torch {code.torch}"
