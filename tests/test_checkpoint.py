from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from cifar_resnet import checkpoint
from cifar_resnet.checkpoint import (
    load_checkpoint,
    load_weights,
    save_checkpoint,
    save_weights,
    weights_record,
)
from cifar_resnet.errors import InputError
from cifar_resnet.files import sha256
from cifar_resnet.model import get_cifar_resnet


def test_weights_survive_in_half_precision(tmp_path: Path) -> None:
    model, copy = get_cifar_resnet(), get_cifar_resnet()
    path = tmp_path / "weights.safetensors"
    assert save_weights(path, model, "some-record") == sha256(path)
    assert load_weights(copy, str(path)) == "some-record"
    assert path.stat().st_size < 23e6
    for a, b in zip(model.state_dict().values(), copy.state_dict().values(), strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-3)


def test_foreign_and_damaged_weights_are_named(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    save_weights(path, nn.Linear(2, 2), "")
    with pytest.raises(
        InputError, match=r"another model: .* first conv1\.weight; .*\(--network\)$"
    ):
        load_weights(get_cifar_resnet(), path)
    with pytest.raises(InputError, match=r"_orig_mod\.weight; .* a compiled model"):
        load_weights(torch.compile(nn.Linear(2, 2)), path)
    path.write_bytes(b"no weights")
    with pytest.raises(InputError, match="not a safetensors file"):
        load_weights(get_cifar_resnet(), path)


def test_a_damaged_checkpoint_is_named(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    path.write_bytes(b"no checkpoint")
    with pytest.raises(InputError, match=r"checkpoint\.pt cannot be read"):
        load_checkpoint(path)
    torch.save([1, 2], path)
    with pytest.raises(InputError, match=r"checkpoint\.pt cannot be read: it is foreign"):
        load_checkpoint(path)


@pytest.mark.parametrize("read", [load_checkpoint, weights_record])
def test_a_file_that_may_not_be_read_is_not_called_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, read: Callable[[Path], object]
) -> None:
    with pytest.raises(InputError, match="cannot be read: Is a directory"):
        read(tmp_path)

    def fail(*_: object, **__: object) -> None:
        raise MemoryError

    (tmp_path / "file").touch()
    monkeypatch.setattr(checkpoint.torch, "load", fail)
    monkeypatch.setattr(checkpoint, "safe_open", fail)
    with pytest.raises(MemoryError):
        read(tmp_path / "file")


def test_a_weight_too_large_for_half_precision_is_kept_whole(tmp_path: Path) -> None:
    model, other = nn.Linear(2, 2), nn.Linear(2, 2)
    path = tmp_path / "weights.safetensors"
    nn.init.constant_(model.weight, 1e6)
    save_weights(path, model, "example")
    load_weights(other, path)
    assert torch.equal(other.weight, model.weight)
    nn.init.constant_(model.bias, float("nan"))
    with pytest.raises(InputError, match="bias is not finite"):
        save_weights(path, model, "example")


def test_a_full_disk_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("out of memory")

    def save(*_: object) -> None:
        raise RuntimeError("[enforce fail at inline_container.cc:671] . unexpected pos 64 vs 0")

    monkeypatch.setattr(checkpoint.torch, "save", save)
    with pytest.raises(InputError, match=r"checkpoint\.pt cannot be written; is the disk full"):
        save_checkpoint(tmp_path / "checkpoint.pt", {})
    monkeypatch.setattr(checkpoint.torch, "save", fail)
    with pytest.raises(RuntimeError, match="out of memory"):
        save_checkpoint(tmp_path / "checkpoint.pt", {})
