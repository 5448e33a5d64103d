from dataclasses import replace
from pathlib import Path

import pytest
import torch

from cifar_resnet import cli
from cifar_resnet.bench import (
    BenchRecord,
    augmentation_share,
    reference_steps,
    speedups,
    summary,
    training_flops,
    utilization,
)
from cifar_resnet.data import Dataset
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
