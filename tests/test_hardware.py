import os
import platform
import resource
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from cifar_resnet import hardware
from cifar_resnet.errors import InputError


@pytest.fixture(autouse=True)
def threads_kept() -> Iterator[None]:
    """Whatever a test chooses is for that test alone."""
    before = torch.get_num_threads(), hardware._given, hardware._taken
    yield
    torch.set_num_threads(before[0])
    hardware._given, hardware._taken = before[1:]


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


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's malloc alone is told")
def test_freed_memory_is_used_again() -> None:
    hardware.detect("cpu", compile=False)

    torch.zeros(1 << 24)  # 64 MiB: 16,384 pages
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.zeros((1 << 24) - 4096)  # fits where that was, whatever its alignment
    assert resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before < 1000


def test_no_device_is_any_device() -> None:
    assert hardware.detect("", compile=False).device in ("cpu", "cuda")


@pytest.mark.parametrize("device", [torch.device("cpu"), torch.device("cpu:0"), "cpu:0"])
def test_a_device_may_be_torchs_own(device: str | torch.device) -> None:
    assert hardware.detect(device, compile=False).device == "cpu"


@pytest.mark.parametrize("device", ["tpu", "cuda:x", "cpu:one", torch.device("meta"), 0])
def test_an_unknown_device_is_named(device: Any) -> None:
    with pytest.raises(InputError, match="unknown"):
        hardware.detect(device)


def test_a_missing_gpu_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InputError, match="sees no GPU; use cpu"):
        hardware.detect("cuda")


def test_wrong_precision_and_threads_are_named() -> None:
    with pytest.raises(InputError, match="fp8"):
        hardware.detect("cpu", precision="fp8")
    for threads in (0, 100_000):
        with pytest.raises(InputError, match="threads must be from 1 to this machine's"):
            hardware.detect("cpu", threads=threads)


def test_cuda_graphs_need_a_gpu_and_compiled_code(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="add --device cuda --compile"):
        hardware.detect("cpu", compile=True, cuda_graphs=True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "a GPU")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (9, 0))
    monkeypatch.setattr(hardware, "_can_compile", lambda _: True)
    with pytest.raises(InputError, match="add --device cuda --compile"):
        hardware.detect("cuda", compile=False, cuda_graphs=True)
    assert hardware.detect("cuda", compile=True, cuda_graphs=True).cuda_graphs


@pytest.mark.parametrize(
    ("later", "free"),
    [({0: 1.0, 1: 1.0}, 2), ({0: 1.0, 1: 0.01}, 1), ({0: 0.0, 1: 0.0}, 1)],
    ids=["idle", "one busy", "all busy"],
)
def test_busy_cores_get_no_thread(
    monkeypatch: pytest.MonkeyPatch, later: dict[int, float], free: int
) -> None:
    readings = iter([{0: 0.0, 1: 0.0}, later])
    monkeypatch.setattr(hardware, "_idle_seconds", lambda: next(readings))
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    chosen: list[int] = []
    monkeypatch.setattr(torch, "get_num_threads", lambda: [2, *chosen][-1])
    monkeypatch.setattr(torch, "set_num_threads", chosen.append)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    found = hardware.detect("cpu", compile=False)
    assert chosen == [free]

    # Later a core is taken, then given back; never more threads than at the start.
    for busy, threads in ((1, 1), (0, free)):
        monkeypatch.setattr(hardware, "free_cores", lambda busy=busy: 2 - busy)
        hardware.spare_busy_cores(found)
        assert chosen[-1] == min(threads, free)


def test_threads_asked_for_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> int:
        raise AssertionError("nobody needs to look")

    monkeypatch.setattr(hardware, "free_cores", fail)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    hardware.detect("cpu", compile=False)
    monkeypatch.delenv("OMP_NUM_THREADS")
    monkeypatch.setattr(hardware.os, "cpu_count", lambda: 2)
    found = hardware.detect("cpu", compile=False, threads=2)
    assert found.threads == 2
    hardware.spare_busy_cores(found)


def test_fewer_threads_are_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a busy moment nor a wish of an earlier call holds for later ones."""
    free = iter([1, 2, 2, 2, 4, 1])
    monkeypatch.setattr(hardware, "free_cores", lambda: next(free))
    monkeypatch.setattr(hardware.os, "cpu_count", lambda: 4)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    torch.set_num_threads(2)

    def threads(**asked: int) -> int:
        found = hardware.detect("cpu", compile=False, **asked).threads
        assert torch.get_num_threads() == found
        return found

    assert (threads(), threads()) == (1, 2)
    assert (threads(threads=1), threads()) == (1, 2)
    assert (threads(threads=3), threads()) == (3, 2)
    torch.set_num_threads(4)  # what the program itself chooses holds
    assert threads() == 4
    torch.set_num_threads(1)
    assert threads() == 1
    torch.set_num_threads(2)
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    assert (threads(threads=1), threads()) == (1, 2)


def test_a_missing_compiler_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware.shutil, "which", lambda _: None)
    assert hardware.detect("cpu", threads=1).compile is False
    with pytest.raises(InputError, match=r"needs a C\+\+ compiler; install it, or leave out"):
        hardware.detect("cpu", threads=1, compile=True)
