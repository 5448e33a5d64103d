"""Files that hold a model: checkpoints to resume from, weights to share. No pickle code runs."""

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from cifar_resnet.errors import InputError
from cifar_resnet.files import sha256, write_atomically


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write a training state (tensors, numbers, strings, lists, dicts) atomically.

    Raises:
        InputError: if there is no room for it.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "checkpoint.pt"
        >>> save_checkpoint(path, {"epoch": 3})
        >>> load_checkpoint(path)
        {'epoch': 3}
    """
    try:
        write_atomically(path, lambda part: torch.save(state, part))
    except RuntimeError as error:
        if "inline_container" not in str(error):  # whose complaint is torch's of a full disk
            raise
        raise InputError(f"checkpoint {path} cannot be written; is the disk full?") from error


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read what `save_checkpoint` wrote, onto the CPU.

    Raises:
        InputError: if the file is missing, may not be read, or is no checkpoint.

    Example:
        >>> load_checkpoint(Path("nowhere.pt"))
        Traceback (most recent call last):
        cifar_resnet.errors.InputError: checkpoint nowhere.pt does not exist
    """
    if not path.exists():
        raise InputError(f"checkpoint {path} does not exist")
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except MemoryError:
        raise
    except Exception as error:  # torch raises many kinds for a damaged file
        why = getattr(error, "strerror", None) or "it is damaged or foreign"
        raise InputError(f"checkpoint {path} cannot be read: {why}") from error
    if not isinstance(state, dict):
        raise InputError(f"checkpoint {path} cannot be read: it is foreign")
    return state


def save_weights(path: str | Path, model: nn.Module, record_id: str) -> str:
    """Write parameters and buffers as safetensors, the weights in half precision.

    Batch normalisation's statistics stay in float32: they are small and may be large
    in value. So does a weight that is larger than half precision holds.

    Args:
        path: a ``.safetensors`` file.
        model: any module.
        record_id: the run record these weights belong to, kept as metadata.

    Returns:
        The file's SHA-256, as in the run record.

    Raises:
        InputError: if a parameter is not finite.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "weights.safetensors"
        >>> len(save_weights(path, nn.Linear(2, 2), "example"))
        64
        >>> load_weights(nn.Linear(2, 2), path)
        'example'
    """
    for name, parameter in model.named_parameters():
        if not parameter.isfinite().all():
            raise InputError(f"weights {path}: {name} is not finite; lower learning_rate")
    tensors = {}
    for name, value in model.state_dict().items():
        whole = value.detach().cpu().contiguous()
        half = whole.half() if whole.is_floating_point() and whole.dim() > 1 else whole
        tensors[name] = half if half.isfinite().all() else whole
    path = Path(path)
    content = save(tensors, {"record": record_id})
    write_atomically(path, lambda part: part.write_bytes(content))
    return sha256(path)


def weights_record(path: str | Path) -> str:
    """The id of the run record that a safetensors file names; empty if it names none.

    Raises:
        InputError: if the file is missing, may not be read, or is no safetensors file.

    Example:
        >>> weights_record(Path("nowhere.safetensors"))
        Traceback (most recent call last):
        cifar_resnet.errors.InputError: weights nowhere.safetensors do not exist
    """
    return _read_weights(path)[1]


def _read_weights(path: str | Path) -> tuple[dict[str, Tensor], str]:
    path = Path(path)
    if not path.exists():
        raise InputError(f"weights {path} do not exist")
    try:
        path.open("rb").close()  # whose complaints are clearer
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            return tensors, (file.metadata() or {}).get("record", "")
    except SafetensorError as error:
        raise InputError(f"weights {path} cannot be read: not a safetensors file") from error
    except OSError as error:
        raise InputError(f"weights {path} cannot be read: {error.strerror or error}") from error


def load_weights(model: nn.Module, path: str | Path) -> str:
    """Copy weights from a safetensors file into a model of the same shape.

    Args:
        model: any module; its own precision is kept.
        path: what `save_weights` wrote.

    Returns:
        The id of the run record the weights belong to; empty if the file names none.

    Raises:
        InputError: if the file is missing, may not be read, is no safetensors file, or is of
            another model.

    Example:
        >>> load_weights(nn.Linear(2, 2), Path("nowhere.safetensors"))
        Traceback (most recent call last):
        cifar_resnet.errors.InputError: weights nowhere.safetensors do not exist
    """
    tensors, record_id = _read_weights(path)
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:
        mine, theirs = (
            {name: value.shape for name, value in state.items()}
            for state in (model.state_dict(), tensors)
        )
        names = [name for name in mine | theirs if mine.get(name) != theirs.get(name)]
        if not names:
            raise
        found = f"names or shapes differ, first {names[0]}"
        hint = "choose the network they were trained in (--network)"
        if any("_orig_mod." in name for name in names):
            hint = "_orig_mod. is a compiled model's: use the one given to torch.compile"
        raise InputError(f"weights {path} belong to another model: {found}; {hint}") from error
    return record_id
