import os
import shutil
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from cifar_resnet import cli, compiling
from cifar_resnet.bench import (
    BenchRecord,
    augmentation_share,
    reference_steps,
    speedups,
    summary,
    training_flops,
    utilization,
)
from cifar_resnet.contention import Contention, busy_core, contention
from cifar_resnet.data import Dataset
from cifar_resnet.hardware import Hardware
from cifar_resnet.recipe import get_recipe
from cifar_resnet.record import read
from tests.site_build import invented_bench

# Two workers on a machine with one core: slow, and still right.
pytestmark = [
    pytest.mark.filterwarnings("ignore:This DataLoader will create 2 worker processes"),
    # Python 3.12 and newer: the workers are forked beside the threads of a test runner.
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning"),
]


def test_flops_by_hand() -> None:
    """ResNet-20: forward is the first layer, 18 convolutions and the last product; backward
    is twice that, but for the first layer's input."""
    first = 9 * 3 * 16 * 32 * 32
    stages = sum(
        6 * 9 * width * width * size * size for width, size in ((16, 32), (32, 16), (64, 8))
    )
    halved = sum(9 * width * width // 2 * size * size for width, size in ((32, 16), (64, 8)))
    forward = first + stages - halved + 64 * 10
    assert training_flops("resnet20") == 2 * (3 * forward - first)


def test_the_reference_loop_trains(synthetic: Dataset) -> None:
    recipe = get_recipe("notes", network="resnet20", batch_size=16)
    steps = reference_steps(
        recipe, synthetic.train_images, synthetic.train_labels, torch.device("cpu")
    )
    for _ in range(5):  # one more than an epoch has
        next(steps)
    steps.close()


@pytest.mark.parametrize(
    ("device", "compiled", "graphs", "choice"),
    [
        ("cpu", 0.5, 9.0, (False, False)),
        ("cpu", 2.0, 9.0, (True, False)),
        ("cuda", 0.5, 0.6, (False, False)),
        ("cuda", 2.0, 0.0, (True, False)),
        ("cuda", 2.0, -1.0, (True, False)),  # recorded without complaint, fails when replayed
        ("cuda", 2.0, 4.0, (True, True)),
        ("cuda", 0.0, 0.0, (False, False)),
    ],
)
def test_compiling_is_chosen_by_the_ratio_of_step_times(
    monkeypatch: pytest.MonkeyPatch,
    cpu: Hardware,
    device: str,
    compiled: float,
    graphs: float,
    choice: tuple[bool, bool],
) -> None:
    def steps(hardware: Hardware, *_: object) -> Callable[[int], None]:
        speedup = (graphs if hardware.cuda_graphs else compiled) if hardware.compile else 1.0
        calls = iter(range(100))

        def train(count: int) -> None:
            if speedup == 0 or (speedup < 0 and next(calls) > 0):
                raise RuntimeError("no compiler")
            clock[0] += count / abs(speedup)

        return train

    clock = [0.0]
    monkeypatch.setattr(compiling, "training_steps", steps)
    monkeypatch.setattr(compiling.time, "perf_counter", lambda: clock[0])
    monkeypatch.setattr(torch.cuda, "synchronize", lambda _: None)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        found, speedup = compiling.fastest(replace(cpu, device=device), get_recipe("smoke"))
    told = {str(warning.message) for warning in said}
    assert ("CUDA graphs: RuntimeError: no compiler" in told) == (graphs <= 0)
    assert ("torch.compile: RuntimeError: no compiler" in told) == (compiled <= 0)
    assert (found.compile, found.cuda_graphs) == choice
    assert speedup == pytest.approx(max(compiled, graphs if device == "cuda" else 0.0))


def test_graphs_can_be_ruled_out(monkeypatch: pytest.MonkeyPatch, cpu: Hardware) -> None:
    tried: list[bool] = []

    def steps(hardware: Hardware, *_: object) -> Callable[[int], None]:
        tried.append(hardware.cuda_graphs)
        return lambda _: None

    monkeypatch.setattr(compiling, "training_steps", steps)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda _: None)
    compiling.fastest(replace(cpu, device="cuda"), get_recipe("smoke"), graphs=False)
    assert tried == [False, False]


def test_torchs_limits_are_kept(cpu: Hardware) -> None:
    config, model = torch._dynamo.config, nn.Linear(3, 2)
    with config.patch(recompile_limit=5, fail_on_recompile_limit_hit=False):
        with compiling.limits_kept():
            compiling.compiled(model, torch.optim.SGD(model.parameters()), cpu)
            config.recompile_limit = 9
            assert config.fail_on_recompile_limit_hit
        assert (config.recompile_limit, config.fail_on_recompile_limit_hit) == (5, False)


@pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")
@pytest.mark.filterwarnings("ignore")  # torch's own
def test_settings_for_cuda_graphs_are_understood(cpu: Hardware) -> None:
    """On a CPU they change nothing."""
    model = nn.Linear(3, 2)
    x = torch.randn(4, 3)
    optimizer = torch.optim.SGD(model.parameters())
    graphed = compiling.compiled(model, optimizer, replace(cpu, compile=True, cuda_graphs=True))
    assert torch.allclose(graphed(x), model(x), atol=1e-6)


def test_a_benchmark_ends_in_a_record_and_says_what_it_found(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small = ["--network", "resnet20", "--batch-size", "8", "--rounds", "2", "--steps", "1"]
    plain = ["--device", "cpu", "--threads", "1", "--precision", "fp32", "--no-compile"]
    assert cli.main(["bench", *small, *plain, "--out", str(tmp_path)]) == 0
    (path,) = tmp_path.glob("*.json")
    record = read(BenchRecord, path)
    assert len(record.ours) == len(record.reference) == len(record.ceiling) == 2
    assert min(*record.ours, *record.reference, record.first_step_seconds) > 0
    assert summary(record) in capsys.readouterr().out
    doubled = replace(record, reference=record.ours)
    assert "ratio                 1.00 (1.00 to 1.00)" in summary(doubled)


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


def test_a_benchmark_is_kept_even_if_what_follows_is_interrupted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("cifar_resnet.contention.contention", interrupted)
    monkeypatch.setattr("cifar_resnet.bench.bench", lambda *_, **__: invented_bench("resnet20"))
    assert cli.main(["bench", "--device", "cpu", "--threads", "1", "--out", str(tmp_path)]) == 130
    (path,) = tmp_path.glob("*.json")
    assert read(BenchRecord, path).ours == invented_bench("resnet20").ours


def test_ratio_share_and_pipeline_are_taken_round_by_round() -> None:
    """Ours 200 and 400 images/s, the plain loop 50 and 200, augmentation 20,000."""
    speeds = invented_bench("resnet20")
    assert speedups(speeds) == [4.0, 2.0]
    assert utilization(speeds) == [0.125, 0.25]
    assert augmentation_share(speeds) == [0.01, 0.02]
    told = summary(speeds)
    assert "ratio                 3.00 (2.00 to 4.00)" in told
    assert "uses 19%" in told
    assert "augmentation          1.5% of a step" in told
    assert "one core taken          91 images/s uncompiled, 91% of one thread alone" in told
