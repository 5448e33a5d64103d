"""Muon against its definition, written out with a singular value decomposition."""

import copy
import shutil

import pytest
import torch
from torch import nn

from cifar_resnet.optimizer import Muon, _turn, orthogonal


@pytest.mark.parametrize("shape", [(8, 27), (27, 8), (16, 16)])
def test_singular_vectors_stay_and_values_come_near_one(shape: tuple[int, int]) -> None:
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    u, values, vh = torch.linalg.svd(matrix, full_matrices=False)
    turned = u.T @ orthogonal(matrix, iterations=5) @ vh.T
    new = turned.diag()
    torch.testing.assert_close(turned, new.diag(), rtol=0, atol=1e-4)
    large = values > 0.1 * values[0]
    assert new[large].min() > 0.6
    assert new.max() < 1.3


def test_nothing_becomes_nothing() -> None:
    assert torch.equal(orthogonal(torch.zeros(2, 3)), torch.zeros(2, 3))


def network() -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, bias=False),
        nn.BatchNorm2d(8),
        *(nn.Conv2d(8, 8, 3, padding=1, bias=False) for _ in range(2)),  # of one shape
        nn.Flatten(),
        nn.Linear(288, 10),
    )
    return model.to(memory_format=torch.channels_last)


@pytest.mark.parametrize("nesterov", [True, False])
def test_two_steps_by_hand(nesterov: bool) -> None:
    generator = torch.Generator().manual_seed(1)
    ours, theirs = network(), network()
    settings = {"lr": 0.1, "momentum": 0.8, "nesterov": nesterov, "weight_decay": 0.01}
    optimizer = Muon(ours, **settings)
    filters = [p for p in theirs.parameters() if p.ndim == 4]
    sgd = torch.optim.SGD([p for p in theirs.parameters() if p.ndim != 4], **settings)
    momenta = [torch.zeros_like(p) for p in filters]
    for _ in range(2):
        images = torch.randn(4, 3, 8, 8, generator=generator)
        for model in (ours, theirs):
            model.zero_grad()
            (model(images) ** 2).sum().backward()
        optimizer.step()
        sgd.step()
        with torch.no_grad():
            for p, momentum in zip(filters, momenta, strict=True):
                momentum.mul_(0.8).add_(p.grad)
                step = p.grad + 0.8 * momentum if nesterov else momentum
                p *= 8**0.5 / p.norm()
                p -= 0.1 * orthogonal(step.reshape(8, -1)).reshape(p.shape)
        for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
            torch.testing.assert_close(a, b)


def test_a_batch_of_matrices_as_one_by_one() -> None:
    matrices = torch.randn(3, 8, 27, generator=torch.Generator().manual_seed(0))
    one_by_one = torch.stack([orthogonal(matrix) for matrix in matrices])
    torch.testing.assert_close(orthogonal(matrices), one_by_one)


def drawn() -> list[list[torch.Tensor]]:
    """Filters, gradients and averages; two filters are of one shape."""
    generator = torch.Generator().manual_seed(0)
    shapes = [(8, 8, 3, 3), (8, 8, 3, 3), (4, 8, 1, 1)]
    return [
        [
            torch.randn(shape, generator=generator).to(memory_format=torch.channels_last)
            for shape in shapes
        ]
        for _ in range(3)
    ]


@pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")
@pytest.mark.filterwarnings("ignore")  # torch's own
@pytest.mark.parametrize("together", [True, False])
def test_compiled_steps_are_the_same(together: bool) -> None:
    plain, compiled = drawn(), drawn()
    _turn(*plain, 0.8, True, together)
    model = network()
    optimizer = Muon(model, lr=0.1)
    optimizer.compile()
    optimizer._turn(*compiled, 0.8, True, together)
    torch.testing.assert_close(compiled, plain, rtol=1e-3, atol=1e-4)


def test_filters_of_one_shape_may_go_together() -> None:
    alone, together = drawn(), drawn()
    _turn(*alone, 0.8, True, False)
    _turn(*together, 0.8, True, True)
    torch.testing.assert_close(together, alone)


def test_a_copy_takes_steps_too() -> None:
    model = network()
    optimizer = copy.deepcopy(Muon(model, lr=0.1))
    (parameter, *_) = optimizer.param_groups[0]["params"]
    before = parameter.detach().clone()
    parameter.grad = torch.randn_like(parameter)
    optimizer.step()
    assert not torch.equal(parameter, before)


def test_it_goes_on_from_a_saved_state() -> None:
    images = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    model = network()
    optimizer = Muon(model, lr=0.1)

    def step(model: nn.Module, optimizer: Muon) -> torch.Tensor:
        optimizer.zero_grad()
        (model(images) ** 2).sum().backward()
        optimizer.step()
        return next(model.parameters()).detach().clone()

    step(model, optimizer)
    other = copy.deepcopy(model)
    resumed = Muon(other, lr=0.1)
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    assert torch.equal(step(model, optimizer), step(other, resumed))


def test_the_precision_is_autocasts() -> None:
    matrix = torch.randn(8, 27, generator=torch.Generator().manual_seed(0))
    with torch.autocast("cpu", torch.bfloat16):
        rounded = orthogonal(matrix)
    assert rounded.dtype == torch.bfloat16
    torch.testing.assert_close(rounded.float(), orthogonal(matrix), rtol=0, atol=0.05)


def test_three_iterations_of_the_published_polynomial() -> None:
    values = torch.tensor([0.8, 0.5, 0.3, 0.1])
    expected = values / values.norm()
    for _ in range(3):
        expected = 3.4445 * expected - 4.7750 * expected**3 + 2.0315 * expected**5
    torch.testing.assert_close(orthogonal(values.diag()), expected.diag())


def test_a_scaled_loss_trains_as_an_unscaled_one() -> None:
    images, labels = torch.randn(8, 3, 8, 8), torch.arange(8)
    losses = []
    for scaler in (torch.amp.GradScaler("cpu", enabled=False), torch.amp.GradScaler("cpu")):
        model = network()
        optimizer = Muon(model, lr=0.1)
        for _ in range(3):
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(images), labels)
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
        losses.append(loss.item())
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)
