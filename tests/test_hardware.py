import pytest
import torch

from cifar_resnet import hardware
from cifar_resnet.errors import InputError


def test_what_is_given_is_kept() -> None:
    found = hardware.detect("cpu", precision="bf16", compile=True, threads=1)
    assert (found.device, found.precision, found.compile, found.threads) == ("cpu", "bf16", True, 1)


@pytest.mark.parametrize(("supported", "expected"), [(True, "bf16"), (False, "fp32")])
def test_bf16_only_where_the_processor_multiplies_it(
    monkeypatch: pytest.MonkeyPatch, supported: bool, expected: str
) -> None:
    for name in ("_is_amx_tile_supported", "_is_avx512_bf16_supported"):
        monkeypatch.setattr(torch.cpu, name, lambda: supported, raising=False)
    assert hardware.detect("cpu", compile=False).precision == expected


@pytest.mark.parametrize("device", ["tpu", "cuda:x", "cpu:one", ""])
def test_an_unknown_device_is_named(device: str) -> None:
    if device == "":
        assert hardware.detect(device, compile=False).device in ("cpu", "cuda")
        return
    with pytest.raises(InputError, match="unknown"):
        hardware.detect(device)


def test_a_missing_gpu_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InputError, match="sees no GPU; use cpu"):
        hardware.detect("cuda")


def test_wrong_precision_and_threads_are_named() -> None:
    with pytest.raises(InputError, match="fp8"):
        hardware.detect("cpu", precision="fp8")
    with pytest.raises(InputError, match="threads"):
        hardware.detect("cpu", threads=0)
