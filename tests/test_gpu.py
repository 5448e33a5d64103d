"""What runs on GPUs, rehearsed without one: fake tensors have a device and a shape, but no data.

PyTorch refuses to mix them with tensors of the CPU, as a GPU would. Only the backward pass and
the fused kernels of SGD have no fake to stand in for them and are left out.
"""

import sys
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from cifar_resnet import augment, compiling
from cifar_resnet.display import Silent
from cifar_resnet.evaluation import predict_logits
from cifar_resnet.hardware import Hardware
from cifar_resnet.networks import build
from cifar_resnet.recipe import Recipe, get_recipe
from cifar_resnet.train import make_optimizer, train_epoch

RECIPES = (
    get_recipe("notes", batch_size=32),
    get_recipe("fast", batch_size=32),
    get_recipe("fast-cpu", batch_size=32),
)


class Traffic(TorchDispatchMode):
    """Counts what makes the host wait for a GPU: values that are read, tensors copied across."""

    def __init__(self) -> None:
        super().__init__()
        self.reads = 0
        self.copies = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function is torch.ops.aten._local_scalar_dense.default:
            self.reads += args[0].device.type == "cuda"
            return 0.5
        result = function(*args, **(kwargs or {}))
        if isinstance(result, Tensor):
            given = [value for value in tree_leaves(args) if isinstance(value, Tensor)]
            self.copies += any(x.ndim and x.device != result.device for x in given)
        return result


class Watch(Silent):
    """Notes after every step what went to and fro until then."""

    def __init__(self, traffic: Traffic) -> None:
        self.traffic = traffic
        self.seen: list[tuple[int, int]] = []

    def step(self, epoch: int, step: int, steps: int, sums: Tensor, seen: int) -> None:
        self.seen.append((self.traffic.reads, self.traffic.copies))


def move(module: nn.Module, to: Any = None, memory_format: Any = torch.preserve_format) -> Any:
    """`nn.Module.to`, which cannot move fake parameters."""
    for part in module.modules():
        for name, p in part.named_parameters(recurse=False):
            kept = memory_format if p.ndim == 4 else torch.preserve_format
            setattr(part, name, nn.Parameter(p.detach().to(to or p.device, memory_format=kept)))
        for name, value in part.named_buffers(recurse=False):
            setattr(part, name, value.to(to or value.device))
    return module


def leave_gradients(loss: Tensor) -> None:
    """Those that a backward pass would leave, of every parameter that the loss depends on."""
    nodes = [loss.grad_fn]
    known = set(nodes)
    while nodes:
        node = nodes.pop()
        if hasattr(node, "variable"):
            node.variable.grad = torch.zeros_like(node.variable)
        new = {parent for parent, _ in node.next_functions if parent} - known
        known |= new
        nodes += new


def fused_step(parameters: list[Tensor], gradients: list[Tensor], *_: Any, **__: Any) -> None:
    """As fused kernels demand: gradients like their parameters, stored alike."""
    for p, gradient in zip(parameters, gradients, strict=True):
        assert (p.device, p.dtype, p.stride()) == (
            gradient.device,
            gradient.dtype,
            gradient.stride(),
        )


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hardware]:
    """The settings for a GPU that is not there."""
    cpu_generator = torch.Generator

    def generator(device: Any = "cpu") -> torch.Generator:
        assert torch.device(device).type == "cuda", "random numbers are drawn on the GPU"
        return cpu_generator()

    monkeypatch.setattr(torch, "Generator", generator)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda _: None)
    monkeypatch.setattr(torch.cuda.amp.common, "amp_definitely_not_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: True)
    monkeypatch.setattr(nn.Module, "to", move)
    monkeypatch.setattr(Tensor, "backward", leave_gradients)
    monkeypatch.setattr(sys.modules["torch.optim.sgd"], "_fused_sgd", fused_step)
    monkeypatch.setattr(augment, "_on_gpu", {})
    monkeypatch.setattr(augment, "_lasts", lambda _: True)
    with FakeTensorMode():
        yield Hardware("cuda", "fake", 1, "bf16", channels_last=True, compile=False)


def images(count: int) -> Tensor:
    return torch.zeros(count, 3, 32, 32, dtype=torch.uint8, device="cuda")


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.name)
def test_no_step_waits_for_the_gpu(gpu: Hardware, recipe: Recipe) -> None:
    model = build(recipe.network).to("cuda").to(memory_format=torch.channels_last)
    optimizer = make_optimizer(model, recipe)
    with Traffic() as traffic:
        watch = Watch(traffic)
        labels = torch.zeros(96, dtype=torch.long, device="cuda")
        train_epoch(
            model, optimizer, recipe, images(96), labels,
            epoch=0, seed=0, precision=gpu.precision, display=watch,
        )  # fmt: skip
    assert watch.seen == [(0, 1)] * 3, "the statistics of the pixels go there once"
    assert (traffic.reads, traffic.copies) == (2, 1), "loss and right answers, at the end"


def test_evaluation_stays_on_the_gpu(gpu: Hardware) -> None:
    model = build("resnet18").to("cuda")
    with Traffic() as traffic:
        logits = predict_logits(model, images(50), size=24, batch_size=20, precision="bf16")
    assert (logits.device.type, logits.dtype, logits.shape) == ("cuda", torch.float32, (50, 10))
    assert (traffic.reads, traffic.copies) == (0, 1)


def test_nothing_fake_is_kept(gpu: Hardware, monkeypatch: pytest.MonkeyPatch) -> None:
    """As when a model is exported there."""
    monkeypatch.undo()
    monkeypatch.setattr(augment, "_on_gpu", {})
    augment.normalize(images(1))
    assert augment._on_gpu == {}


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.name)
def test_what_is_measured_and_compiled_ahead_runs_there(gpu: Hardware, recipe: Recipe) -> None:
    pixels, labels = images(64).cpu(), torch.zeros(64, dtype=torch.long)
    with Traffic():  # which answers what is read
        compiling.training_steps(gpu, recipe, pixels, labels)(2)
    model = build(recipe.network).to("cuda")
    with Traffic():
        compiling.compile_ahead(model, model, make_optimizer(model, recipe), recipe, gpu)
    assert all(p.grad is None for p in model.parameters())
