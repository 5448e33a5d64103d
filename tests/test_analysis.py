"""Gradients, residuals and removed blocks, against what can be worked out by hand."""

from copy import deepcopy

import pytest
import torch
from torch import nn

from cifar_resnet.analysis import (
    _STEPS,
    _norms_later,
    blocks,
    gradient_norms,
    residual_ratios,
    shortcut,
    without,
)
from cifar_resnet.depth import Block
from cifar_resnet.networks import build
from cifar_resnet.synthetic import draw


def test_gradient_norms_are_those_of_autograd() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 10, 32), nn.Flatten())
    images, labels = torch.randn(4, 3, 32, 32), torch.arange(4)
    loss = nn.functional.cross_entropy(model(images), labels)
    (expected,) = torch.autograd.grad(loss, [model[0].weight])
    assert gradient_norms(model, images, labels) == [pytest.approx(float(expected.norm()))]


def test_later_norms_are_those_after_steps_of_the_recipe() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 10, 32), nn.Flatten())
    other = deepcopy(model)
    images, labels = torch.randn(4, 3, 32, 32), torch.arange(4)
    optimizer = torch.optim.SGD(other.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4)
    for _ in range(_STEPS):
        optimizer.zero_grad()
        nn.functional.cross_entropy(other(images), labels).backward()
        optimizer.step()
    expected = gradient_norms(other, images, labels)
    assert _norms_later(model, images, labels) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(("network", "place"), [("resnet18", 1), ("resnet18", 2), ("resnet20", 1)])
def test_a_residual_of_zero_has_ratio_zero(network: str, place: int) -> None:
    """Beside a projection, too, of which the last ReLU cuts off what is negative."""
    model = build(network).eval()
    block = list(blocks(model).values())[place]
    last: nn.Module = block.get_submodule("bn2" if network == "resnet18" else "norm2")
    nn.init.zeros_(last.weight)
    for ratios in residual_ratios(model, draw(4, seed=0)[0]):
        assert ratios[place] == 0
        assert all(ratio > 0 for other, ratio in enumerate(ratios) if other != place)


def test_what_the_last_relu_cuts_off_changes_nothing() -> None:
    block = Block(16, 16).eval()
    nn.init.zeros_(block.norm2.weight)
    nn.init.constant_(block.norm2.bias, -1.0)  # F(x) is -1 everywhere
    first = nn.Conv2d(3, 16, 1)
    nn.init.zeros_(first.weight)
    nn.init.constant_(first.bias, 0.25)  # x is 0.25 everywhere
    residuals, changes = residual_ratios(nn.Sequential(first, block), draw(2, seed=0)[0])
    assert residuals == pytest.approx([4.0])
    assert changes == pytest.approx([1.0]), "no more than all of it"


def test_the_ratio_is_the_mean_over_images() -> None:
    model = nn.Sequential(nn.Conv2d(3, 16, 1), Block(16, 16)).eval()
    images, _ = draw(3, seed=0)
    single = [residual_ratios(model, image[None])[0][0] for image in images]
    assert residual_ratios(model, images)[0][0] == pytest.approx(sum(single) / 3)


@pytest.mark.parametrize("network", ["resnet18", "resnet20", "plain20"])
def test_a_removed_block_leaves_its_shortcut(network: str) -> None:
    torch.manual_seed(0)
    model = build(network).eval()
    seen: list[torch.Tensor] = []
    block = list(blocks(model).values())[2]
    block.register_forward_hook(lambda module, inputs, output: seen.extend([inputs[0], output]))
    x = torch.randn(2, 3, 32, 32)
    whole = model(x)
    with without(block):
        cut = model(x)
    assert not torch.allclose(cut, whole)
    assert torch.equal(model(x), whole), "the block is back"
    assert shortcut(block, seen[0]).shape == seen[1].shape


def test_a_plain_block_of_one_shape_is_replaced_by_the_identity() -> None:
    block = Block(16, 16, residual=False).eval()
    x = torch.rand(1, 16, 8, 8)
    with without(block):
        assert torch.equal(block(x), x)
