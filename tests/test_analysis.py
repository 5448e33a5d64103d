"""Gradients, residuals and removed blocks, against what can be worked out by hand."""

import pytest
import torch
from torch import nn

from cifar_resnet.analysis import (
    _LENGTH,
    _STEPS,
    _descend,
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


def test_steps_go_down_the_gradient_and_are_as_long_as_they_are_said_to_be() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 10, 32), nn.Flatten())
    images, labels = torch.randn(4, 3, 32, 32), torch.arange(4)
    before = nn.utils.parameters_to_vector(model.parameters()).detach()
    loss = nn.functional.cross_entropy(model(images), labels)
    gradient_norms(model, images, labels)
    norms = _descend(model, images, labels)
    after = nn.utils.parameters_to_vector(model.parameters()).detach()
    assert nn.functional.cross_entropy(model(images), labels) < loss
    assert float((after - before).norm()) == pytest.approx(_STEPS * _LENGTH, rel=0.05), (
        "hardly any turn"
    )
    assert norms == [pytest.approx(gradient_norms(model, images, labels)[0])]


@pytest.mark.parametrize("network", ["resnet18", "resnet20"])
def test_a_residual_of_zero_has_ratio_zero(network: str) -> None:
    model = build(network).eval()
    second = list(blocks(model).values())[1]
    last: nn.Module = second.get_submodule("bn2" if network == "resnet18" else "norm2")
    nn.init.zeros_(last.weight)
    ratios = residual_ratios(model, draw(4, seed=0)[0])
    assert ratios[1] == 0
    assert all(ratio > 0 for place, ratio in enumerate(ratios) if place != 1)


def test_the_ratio_is_the_mean_over_images() -> None:
    model = nn.Sequential(nn.Conv2d(3, 16, 1), Block(16, 16)).eval()
    images, _ = draw(3, seed=0)
    single = [residual_ratios(model, image[None])[0] for image in images]
    assert residual_ratios(model, images)[0] == pytest.approx(sum(single) / 3)


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
