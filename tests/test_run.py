import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from cifar_resnet import run as module
from cifar_resnet.augment import Augmentation
from cifar_resnet.checkpoint import load_checkpoint, load_weights
from cifar_resnet.data import Dataset
from cifar_resnet.depth import get_depth_resnet
from cifar_resnet.display import Silent
from cifar_resnet.distributed import World
from cifar_resnet.errors import InputError
from cifar_resnet.evaluation import measure, predict_logits
from cifar_resnet.files import sha256, sole_user
from cifar_resnet.fingerprint import differences, fingerprint
from cifar_resnet.hardware import Hardware
from cifar_resnet.networks import NETWORKS, build
from cifar_resnet.recipe import Recipe, get_recipe, learning_rate
from cifar_resnet.record import Epoch, read_record
from cifar_resnet.run import fit

RECIPE = Recipe(name="test", network="resnet20", epochs=2, batch_size=16, learning_rate=0.02)


class Interrupt(Silent):
    """Presses Ctrl-C in the middle of the second epoch."""

    def step(self, epoch: int, step: int, steps: int, sums: torch.Tensor, seen: int) -> None:
        if epoch == 1 and step == 2:
            raise KeyboardInterrupt


class Recorder(Silent):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.steps: list[tuple[int, int]] = []
        self.epochs: list[Epoch] = []

    def step(self, epoch: int, step: int, steps: int, sums: torch.Tensor, seen: int) -> None:
        self.steps.append((epoch, step))

    def epoch(self, epoch: Epoch) -> None:
        self.epochs.append(epoch)


def test_a_run_ends_in_a_valid_record_and_its_weights(
    synthetic: Dataset, cpu: Hardware, tmp_path: Path
) -> None:
    display = Recorder()
    run = fit(RECIPE, synthetic, cpu, seed=1, out=tmp_path, display=display)
    record = read_record(tmp_path / "record.json")
    assert record.id == run.record.id
    assert (record.recipe, record.seed, record.data.name) == (RECIPE, 1, "synthetic")
    assert display.steps == [(epoch, step) for epoch in (0, 1) for step in (1, 2, 3, 4)]
    assert tuple(display.epochs) == record.history
    assert record.history[-1].learning_rate == pytest.approx(learning_rate(RECIPE, 1.75))
    assert differences(record.fingerprint, fingerprint(RECIPE)) == []
    # The figure is the last epoch's, and the written weights are that model.
    assert record.metrics.accuracy == record.history[-1].eval_accuracy
    weights = tmp_path / "weights.safetensors"
    assert sha256(weights) == record.weights_sha256
    copy = build(RECIPE.network)
    assert load_weights(copy, weights) == record.id
    for a, b in zip(run.model.parameters(), copy.parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-3)


def test_the_last_epoch_is_reported_even_if_another_was_better(
    synthetic: Dataset, cpu: Hardware, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    accuracies = iter([0.9, 0.5, 0.5, 0.6])
    real = module.measure
    monkeypatch.setattr(
        module, "measure", lambda *given: replace(real(*given), accuracy=next(accuracies))
    )
    record = fit(RECIPE, synthetic, cpu, out=tmp_path).record
    assert [epoch.eval_accuracy for epoch in record.history] == [0.9, 0.5]
    assert record.metrics.accuracy == 0.5
    assert record.flip_averaged_accuracy == 0.6


def test_what_is_reported_is_measured_in_float32(
    synthetic: Dataset, cpu: Hardware, tmp_path: Path
) -> None:
    run = fit(RECIPE, synthetic, replace(cpu, precision="bf16"), out=tmp_path)
    logits = predict_logits(run.model, synthetic.eval_images)
    assert run.record.metrics == measure(logits, synthetic.eval_labels)
    both = logits + predict_logits(run.model, synthetic.eval_images.flip(-1))
    right = (both.argmax(1) == synthetic.eval_labels).double().mean()
    assert run.record.flip_averaged_accuracy == float(right)


def test_threads_spared_meanwhile_are_there_again(
    synthetic: Dataset, cpu: Hardware, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    during: list[int] = []
    said: list[str] = []
    display = Silent()
    monkeypatch.setattr(display, "epoch", lambda _: during.append(torch.get_num_threads()))
    monkeypatch.setattr(display, "say", said.append)
    monkeypatch.setattr("cifar_resnet.hardware.free_cores", lambda: 1)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        busy = replace(cpu, threads=2, yielding=True)
        fit(RECIPE, synthetic, busy, out=tmp_path, display=display)
        assert (during, torch.get_num_threads()) == ([1, 1], 2)
        assert said == ["as many threads as cores are free: 1"]
    finally:
        torch.set_num_threads(before)


def test_as_many_threads_train_as_the_record_says(
    synthetic: Dataset, cpu: Hardware, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    during: list[int] = []
    display = Silent()
    monkeypatch.setattr(display, "epoch", lambda _: during.append(torch.get_num_threads()))
    run = fit(RECIPE, synthetic, replace(cpu, threads=2), out=tmp_path, display=display)
    assert set(during) == {run.record.hardware.threads} == {2}


def test_an_unknown_precision_does_not_pass_for_float32(
    synthetic: Dataset, cpu: Hardware, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="precision 'fp16' is unknown; use bf16 or fp32"):
        fit(RECIPE, synthetic, replace(cpu, precision="fp16"), out=tmp_path)


@pytest.mark.parametrize(("pause", "kept"), [(0.0, 3), (60.0, 1)])
def test_short_epochs_do_not_all_write_a_checkpoint(
    synthetic: Dataset,
    cpu: Hardware,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    pause: float,
    kept: int,
) -> None:
    class InterruptThird(Silent):
        """Once its line is there, an epoch is kept."""

        def epoch(self, epoch: Epoch) -> None:
            if epoch.epoch == 3:
                raise KeyboardInterrupt

    monkeypatch.setattr(module, "_SECONDS_BETWEEN_CHECKPOINTS", pause)
    recipe = replace(RECIPE, epochs=4)
    with pytest.raises(KeyboardInterrupt):
        fit(recipe, synthetic, cpu, out=tmp_path, display=InterruptThird())
    assert len(load_checkpoint(tmp_path / "checkpoint.pt")["history"]) == kept


@pytest.mark.parametrize(("speedup", "compiled"), [(0.97, False), (0.0, False), (1.2, True)])
def test_code_is_compiled_where_that_is_measured_to_be_faster(
    synthetic: Dataset,
    cpu: Hardware,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    speedup: float,
    compiled: bool,
) -> None:
    measured: list[str] = []

    def fastest(hardware: Hardware, _: Recipe, *, graphs: bool) -> tuple[Hardware, float]:
        measured.append("once")
        assert graphs
        return replace(hardware, compile=speedup > 1), speedup

    monkeypatch.setattr(module, "fastest", fastest)
    monkeypatch.setattr(torch, "compile", lambda model, **_: model)
    undecided, longer = replace(cpu, compile=None), replace(RECIPE, epochs=5)
    with pytest.raises(KeyboardInterrupt):
        fit(longer, synthetic, undecided, out=tmp_path, display=Interrupt())
    other = replace(cpu, compile=not compiled)
    with pytest.raises(InputError, match="compiled; go on with the same"):
        fit(longer, synthetic, other, out=tmp_path, resume=True)
    record = fit(longer, synthetic, undecided, out=tmp_path, resume=True).record
    assert record.hardware.compile is compiled
    assert measured == ["once"], "a resumed run goes on as it began"


def test_a_network_that_was_redefined_has_another_fingerprint(
    synthetic: Dataset, cpu: Hardware, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    for name in ("resnet20", "plain20"):
        monkeypatch.setitem(NETWORKS, "mine", NETWORKS[name])
        mine = replace(RECIPE, network="mine")
        found.append(fit(mine, synthetic, cpu, out=tmp_path / name).record.fingerprint)
    assert found[0] != found[1]


def test_for_a_few_epochs_nothing_is_compiled_nor_measured(
    synthetic: Dataset, cpu: Hardware, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(module, "fastest")
    assert not fit(
        RECIPE, synthetic, replace(cpu, compile=None), out=tmp_path
    ).record.hardware.compile


def test_processes_decide_on_their_share_and_without_graphs(
    cpu: Hardware, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[int, bool]] = []

    def fastest(hardware: Hardware, recipe: Recipe, *, graphs: bool) -> tuple[Hardware, float]:
        asked.append((recipe.batch_size, graphs))
        return replace(hardware, compile=False), 0.9

    monkeypatch.setattr(module, "fastest", fastest)
    monkeypatch.setattr(module, "on_main", lambda work, world: work())
    recipe = replace(RECIPE, epochs=5)
    for size in (1, 4):
        undecided = replace(cpu, compile=None)
        module._decide_on_compiling(undecided, recipe, None, Silent(), World(0, size))
    assert asked == [(16, True), (4, False)]


@pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")
@pytest.mark.filterwarnings("ignore")  # torch's own
def test_compiled_code_trains_as_plain_code_does(
    synthetic: Dataset, cpu: Hardware, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def tiny(_: str) -> nn.Module:
        layers = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1)
        return nn.Sequential(*layers, nn.Flatten(), nn.Linear(4, 10))

    monkeypatch.setattr(module, "build", tiny)
    recipe = replace(RECIPE, low_resolution=24, low_resolution_share=0.5)  # compiled twice
    plain, compiled = (
        fit(recipe, synthetic, replace(cpu, compile=choice), out=tmp_path / str(choice)).record
        for choice in (False, True)
    )
    for a, b in zip(plain.history, compiled.history, strict=True):
        assert a.train_loss == pytest.approx(b.train_loss, rel=1e-3)
    assert plain.compile_seconds == 0.0
    assert compiled.compile_seconds > 5 * max(epoch.seconds for epoch in compiled.history)


def test_evaluation_sees_images_of_the_size_trained_on_and_at_last_whole_ones(
    synthetic: Dataset, cpu: Hardware, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[bool, int]] = []

    class Network(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            seen.append((self.training, x.shape[-1]))
            return super().forward(x.mean((2, 3)))

    monkeypatch.setattr(module, "build", lambda _: Network(3, 10))
    recipe = replace(
        RECIPE, epochs=3, batch_size=64,
        low_resolution=16, low_resolution_share=0.99, low_resolution_stages=3,
    )  # fmt: skip
    fit(recipe, synthetic, cpu, out=tmp_path)
    trained = [size for training, size in seen if training]
    evaluated = [size for training, size in seen if not training]
    assert trained == [16, 21, 27]
    assert evaluated == [16, 21, 32, 32], "the last one: the images and their mirror images"


def test_a_folder_has_one_user(synthetic: Dataset, cpu: Hardware, tmp_path: Path) -> None:
    with sole_user(tmp_path), pytest.raises(InputError, match="another process trains in"):
        fit(RECIPE, synthetic, cpu, out=tmp_path)


def test_what_no_record_could_hold_is_refused_or_made_plain_before_training(
    synthetic: Dataset, cpu: Hardware, tmp_path: Path
) -> None:
    area: Any = [0.1, 0.2]  # a list, as a YAML file has it
    odd = replace(RECIPE, epochs=1, augmentation=Augmentation(erasing_area=area))
    made = fit(replace(odd, learning_rate=np.float64(0.02)), synthetic, cpu, out=tmp_path / "odd")
    assert read_record(tmp_path / "odd" / "record.json").recipe == made.record.recipe
    for wrong, seed, message in (
        ({"epochs": np.int64(1)}, 0, "epochs must be int"),
        ({"learning_rate": 1e-323}, 0, "learning_rate must be positive"),
        ({}, True, "seed must be between"),
    ):
        with pytest.raises(InputError, match=message):
            fit(replace(RECIPE, **wrong), synthetic, cpu, seed=seed, out=tmp_path / "wrong")
    hundred = replace(synthetic, train_labels=synthetic.train_labels + 90)
    with pytest.raises(InputError, match="labels go up to 99, but network 'resnet20' has 10"):
        fit(RECIPE, hundred, cpu, out=tmp_path / "wrong")
    small = replace(synthetic, eval_images=synthetic.eval_images[:, :, ::2])
    with pytest.raises(InputError, match="eval_images must be uint8"):
        fit(RECIPE, small, cpu, out=tmp_path / "wrong")
    assert not list(tmp_path.glob("wrong/*.pt"))


def test_the_model_comes_back_ready_for_use(
    synthetic: Dataset, cpu: Hardware, tmp_path: Path
) -> None:
    model = fit(replace(RECIPE, epochs=1), synthetic, cpu, out=tmp_path).model
    assert not model.training
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_batch_larger_than_the_data_set_is_named(
    synthetic: Dataset, cpu: Hardware, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="batch_size 128"):
        fit(get_recipe("notes"), synthetic, cpu, out=tmp_path)


def test_a_diverging_run_stops_and_says_so(
    synthetic: Dataset, cpu: Hardware, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wild = replace(RECIPE, learning_rate=1e20)
    with pytest.raises(InputError, match="the first steps give NaN or infinity"):
        fit(wild, synthetic, cpu, out=tmp_path)
    monkeypatch.setattr(module, "_fingerprint", lambda *_: {})  # of which nothing is wrong
    with pytest.raises(InputError, match=r"epoch \d: the loss is (nan|inf); lower"):
        fit(wild, synthetic, cpu, out=tmp_path)
    assert not (tmp_path / "record.json").exists()


def test_the_record_says_what_was_changed(
    synthetic: Dataset, cpu: Hardware, tmp_path: Path
) -> None:
    recipe = get_recipe("smoke", network="resnet20", epochs=1, crop_padding=2, warmup_epochs=0)
    record = fit(recipe, synthetic, cpu, out=tmp_path).record
    assert get_recipe("smoke", **record.changes) == record.recipe
    assert set(record.changes) == {"network", "epochs", "crop_padding", "warmup_epochs"}


def test_a_network_of_ones_own_may_have_fewer_classes(
    synthetic: Dataset, cpu: Hardware, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(NETWORKS, "mine", partial(get_depth_resnet, 8, num_classes=5))
    few = replace(
        synthetic, train_labels=synthetic.train_labels % 5, eval_labels=synthetic.eval_labels % 5
    )
    record = fit(replace(RECIPE, network="mine"), few, cpu, out=tmp_path).record
    assert len(record.metrics.per_class_accuracy) == 5
