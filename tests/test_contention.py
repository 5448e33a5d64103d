import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from cifar_resnet.contention import Contention, busy_core, contention
from cifar_resnet.hardware import Hardware
from cifar_resnet.recipe import get_recipe


def test_what_is_left_beside_a_busy_process_is_measured(
    monkeypatch: pytest.MonkeyPatch, cpu: Hardware
) -> None:
    """Every round: one thread alone, then, beside a busy process, all threads and the free ones."""
    used: list[tuple[bool, int]] = []
    busy = [False]

    @contextmanager
    def taken() -> Iterator[None]:
        busy[0] = True
        yield
        busy[0] = False

    def steps(hardware: Hardware, *_: object) -> Callable[[int], None]:
        assert not hardware.compile
        return lambda _: used.append((busy[0], threads[0]))

    threads = [2]
    monkeypatch.setattr(torch, "set_num_threads", lambda count: threads.__setitem__(0, count))
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads[0])
    monkeypatch.setattr("cifar_resnet.hardware.free_cores", lambda: 2 - busy[0])
    monkeypatch.setattr("cifar_resnet.contention.busy_core", taken)
    monkeypatch.setattr("cifar_resnet.contention.training_steps", steps)
    monkeypatch.setattr("cifar_resnet.contention.seconds", lambda work, _: work() or threads[0])
    hardware = replace(cpu, threads=2, compile=True, yielding=True)
    recipe = get_recipe("smoke", batch_size=30)
    found = contention(hardware, recipe, rounds=2, steps=2)
    assert found == Contention((60.0,) * 2, (30.0,) * 2, (60.0,) * 2, (1, 1))
    assert used[1:] == [(False, 1), (True, 2), (True, 1)] * 2
    assert threads == [2], "afterwards as before"
    for fixed in (replace(hardware, threads=1), replace(hardware, yielding=False)):
        assert contention(fixed, recipe) is None


def test_a_busy_core_is_one() -> None:
    """It gets as much of a core as other processes leave; starting alone takes far less."""

    def used() -> float:
        times = os.times()
        return times.children_user + times.children_system

    before = used()
    with busy_core():
        time.sleep(2.0)
    assert 0.3 < used() - before < 3


@pytest.mark.skipif(not Path("/proc").exists(), reason="looks at other processes")
def test_a_busy_core_is_freed_when_its_process_dies() -> None:
    dying = (
        "import os, signal\nfrom cifar_resnet.contention import busy_core\n"
        "with busy_core():\n    os.kill(os.getpid(), signal.SIGKILL)"
    )
    with subprocess.Popen([sys.executable, "-c", dying], stderr=subprocess.DEVNULL) as process:
        process.wait()
    mark = f"os.getppid() == {process.pid}:".encode()

    def left() -> list[Path]:
        found = []
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            with suppress(OSError):
                found += [path] if mark in path.read_bytes() else []
        return found

    end = time.monotonic() + 10
    while left() and time.monotonic() < end:
        time.sleep(0.1)
    assert not left()
