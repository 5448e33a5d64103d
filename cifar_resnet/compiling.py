"""Compiling the network: whether that pays here, and how long it takes."""

import time
from collections.abc import Callable
from dataclasses import replace
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from cifar_resnet.hardware import Hardware
from cifar_resnet.networks import build
from cifar_resnet.recipe import Recipe
from cifar_resnet.synthetic import draw
from cifar_resnet.train import make_optimizer, train_epoch


def compiled_speedup(hardware: Hardware, recipe: Recipe, *, rounds: int = 3) -> float:
    """How many times as fast this project's loop is with ``torch.compile`` as without.

    That depends on the processor and the network: compiled code reads and writes less, but
    some of it is slower. Takes about a minute, most of it for compiling.

    Args:
        hardware: the device and the other settings.
        recipe: gives network, batch size, augmentation and loss.
        rounds: of some steps each way; the median of their ratios counts.

    Returns:
        The ratio; 0 if this machine cannot compile.
    """
    images, labels = draw(recipe.batch_size, seed=0)
    eager, compiled = (
        training_steps(replace(hardware, compile=choice), recipe, images, labels)
        for choice in (False, True)
    )
    device = torch.device(hardware.device)
    steps = 1 if device.type == "cpu" else 20
    eager(2)
    try:
        compiled(2)
    except Exception:  # no headers, no room, an unknown processor: the compiler's own errors
        return 0.0
    return median(
        seconds(lambda: eager(steps), device) / seconds(lambda: compiled(steps), device)
        for _ in range(rounds)
    )


def compile_ahead(
    forward: nn.Module, model: nn.Module, recipe: Recipe, hardware: Hardware, batch_size: int
) -> float:
    """Compile for every size of image that a recipe trains on, before the first step.

    Args:
        forward: what ``torch.compile`` returned for the model; forward and backward pass run
            once for each size.
        model: keeps its weights, its batch norm statistics, and gradients of None.
        recipe: gives the sizes and the loss.
        hardware: the device and the precision.
        batch_size: images a step on this device.

    Returns:
        How long it took, in seconds.

    Example:
        >>> from cifar_resnet.hardware import detect
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 10))
        >>> here = detect("cpu", threads=1, compile=False)
        >>> compile_ahead(model, model, Recipe(name="example"), here, batch_size=2) < 60
        True
    """
    device = torch.device(hardware.device)
    kept = {name: value.clone() for name, value in model.state_dict().items()}
    criterion = nn.CrossEntropyLoss(label_smoothing=recipe.label_smoothing)
    labels = torch.zeros(batch_size, dtype=torch.long, device=device)

    def run_once(size: int) -> None:
        images = torch.zeros(batch_size, 3, size, size, device=device)
        images = images.to(memory_format=torch.channels_last)
        with torch.autocast(device.type, torch.bfloat16, enabled=hardware.precision == "bf16"):
            loss = criterion(forward(images), labels)
        loss.backward()
        model.zero_grad()

    model.train()
    sizes = {32, recipe.low_resolution} if recipe.low_resolution_share else {32}
    taken = sum(seconds(lambda size=size: run_once(size), device) for size in sorted(sizes))
    model.load_state_dict(kept)
    return taken


def training_steps(
    hardware: Hardware, recipe: Recipe, images: Tensor, labels: Tensor
) -> Callable[[int], None]:
    """A fresh network in this project's loop; what is returned trains it for some steps.

    Args:
        hardware: the device and the settings.
        recipe: gives network, batch size, augmentation and loss.
        images: uint8 ``[N, 3, 32, 32]`` on the CPU, used again and again.
        labels: int64 ``[N]`` on the CPU.
    """
    device = torch.device(hardware.device)
    model = build(recipe.network).to(device).to(memory_format=torch.channels_last)
    optimizer = make_optimizer(model, recipe)
    forward: Any = torch.compile(model, dynamic=False) if hardware.compile else model
    images, labels = images.to(device), labels.to(device)

    def train(steps: int) -> None:
        n = steps * recipe.batch_size
        repeats = -(-n // len(images))
        train_epoch(
            forward,
            optimizer,
            recipe,
            images.repeat(repeats, 1, 1, 1)[:n],
            labels.repeat(repeats)[:n],
            epoch=0,
            seed=0,
            precision=hardware.precision,
        )

    return train


def seconds(work: Callable[[], object], device: torch.device) -> float:
    """How long some work takes, to its very end on the device.

    Args:
        work: is called once.
        device: where it runs.

    Example:
        >>> seconds(lambda: None, torch.device("cpu")) < 1
        True
    """
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    begin = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - begin
