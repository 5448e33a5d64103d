from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from cifar_resnet import train as module
from cifar_resnet.checkpoint import load_weights, sha256
from cifar_resnet.data import Dataset
from cifar_resnet.display import Silent
from cifar_resnet.errors import InputError
from cifar_resnet.hardware import Hardware
from cifar_resnet.model import get_cifar_resnet
from cifar_resnet.recipe import Recipe, get_recipe, learning_rate
from cifar_resnet.record import Epoch, read_record
from cifar_resnet.train import batches, fit, make_optimizer, train_epoch

RECIPE = Recipe(name="test", epochs=2, batch_size=16, learning_rate=0.02)


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

    def epoch(self, epoch: Epoch, epochs: int) -> None:
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
    # The figure is the last epoch's, and the written weights are that model.
    assert record.metrics.accuracy == record.history[-1].eval_accuracy
    weights = tmp_path / "weights.safetensors"
    assert sha256(weights) == record.weights_sha256
    copy = get_cifar_resnet()
    assert load_weights(copy, weights) == record.id
    for a, b in zip(run.model.parameters(), copy.parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-3)


def test_an_interrupted_run_resumes_to_the_same_result(
    synthetic: Dataset, cpu: Hardware, tmp_path: Path
) -> None:
    whole = fit(RECIPE, synthetic, cpu, out=tmp_path / "whole").record
    with pytest.raises(KeyboardInterrupt):
        fit(RECIPE, synthetic, cpu, out=tmp_path / "parts", display=Interrupt())
    with pytest.raises(InputError, match="--resume"):
        fit(RECIPE, synthetic, cpu, out=tmp_path / "parts")
    with pytest.raises(InputError, match="another configuration"):
        fit(replace(RECIPE, epochs=3), synthetic, cpu, out=tmp_path / "parts", resume=True)

    parts = fit(RECIPE, synthetic, cpu, out=tmp_path / "parts", resume=True).record
    assert parts.sessions == 2
    assert [replace(e, seconds=0) for e in parts.history] == [
        replace(e, seconds=0) for e in whole.history
    ]
    assert parts.metrics == whole.metrics
    with pytest.raises(InputError, match="finished run"):
        fit(RECIPE, synthetic, cpu, out=tmp_path / "parts", resume=True)


def test_a_checkpoint_of_other_code_is_refused(
    synthetic: Dataset, cpu: Hardware, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(KeyboardInterrupt):
        fit(RECIPE, synthetic, cpu, out=tmp_path, display=Interrupt())
    now = module.software()
    monkeypatch.setattr(module, "software", lambda: replace(now, source_sha256="f" * 64))
    with pytest.raises(InputError, match="other code"):
        fit(RECIPE, synthetic, cpu, out=tmp_path, resume=True)


def test_a_batch_larger_than_the_data_set_is_named(
    synthetic: Dataset, cpu: Hardware, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="batch_size 128"):
        fit(get_recipe("notes"), synthetic, cpu, out=tmp_path)


def test_one_epoch_by_hand(synthetic: Dataset) -> None:
    """The loop equals the textbook's: torch's own SGD, loss and scheduler, step by step."""

    def network() -> nn.Module:
        torch.manual_seed(0)
        return nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 10))

    recipe = Recipe(name="test", epochs=1, batch_size=16)
    ours = network()
    loss, accuracy = train_epoch(
        ours,
        make_optimizer(ours, recipe),
        recipe,
        synthetic.train_images,
        synthetic.train_labels,
        epoch=0,
        seed=0,
    )

    theirs = network()
    optimizer = torch.optim.SGD(theirs.parameters(), 0.1, momentum=0.9, weight_decay=5e-4)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=4)
    generator = torch.Generator().manual_seed(0)
    total = right = 0.0
    for x, y in batches(synthetic.train_images, synthetic.train_labels, 16, generator):
        logits = theirs(module.augment(x, recipe.augmentation, generator))
        step_loss = nn.functional.cross_entropy(logits, y, label_smoothing=0.1)
        optimizer.zero_grad()
        step_loss.backward()
        optimizer.step()
        scheduler.step()
        total += step_loss.item() * len(y)
        right += (logits.argmax(1) == y).sum().item()
    assert loss == pytest.approx(total / 64, rel=1e-5)
    assert accuracy == right / 64
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a, b)


def test_epochs_see_other_orders_and_seeds_too() -> None:
    images = torch.arange(8)

    def order(seed: int) -> list[int]:
        generator = torch.Generator().manual_seed(seed)
        return torch.cat([x for x, _ in batches(images, images, 4, generator)]).tolist()

    assert order(0) == order(0)
    assert order(0) != order(1)
    assert sorted(order(0)) == list(range(8))
