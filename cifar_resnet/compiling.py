"""Compiling the network: whether that pays here, and doing it before the first step."""

import copy
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from cifar_resnet.distributed import ALONE, World
from cifar_resnet.hardware import Hardware
from cifar_resnet.networks import build
from cifar_resnet.optimizer import Muon
from cifar_resnet.recipe import Recipe, resolution
from cifar_resnet.synthetic import draw
from cifar_resnet.train import make_optimizer, train_epoch

WORTH_COMPILING = 5  # epochs from which on the time that it takes may be won back


@contextmanager
def limits_kept() -> Iterator[None]:
    """Torch's limits on compiling anew are afterwards what they were.

    `compiled` and `compile_ahead` change them for the whole process; what they compile needs
    them for as long as it is trained.

    Example:
        >>> with limits_kept():
        ...     torch._dynamo.config.recompile_limit = 100
        >>> torch._dynamo.config.recompile_limit < 100
        True
    """
    config = torch._dynamo.config
    names = ("recompile_limit", "fail_on_recompile_limit_hit")
    with config.patch({name: getattr(config, name) for name in names}):
        yield


def compiled(model: nn.Module, optimizer: torch.optim.Optimizer, hardware: Hardware) -> Any:
    """The model in compiled code, as the hardware's settings ask for.

    Args:
        model: it and what is returned share their parameters.
        optimizer: the steps of `Muon` are compiled, too, on a GPU.
        hardware: tells whether to replay CUDA graphs, which spares the CPU from launching
            every kernel anew.
    """
    # Else it would go on uncompiled without a word, under a record that says otherwise.
    torch._dynamo.config.fail_on_recompile_limit_hit = True
    if isinstance(optimizer, Muon) and hardware.device != "cpu":
        optimizer.compile()
    mode = "reduce-overhead" if hardware.cuda_graphs else None
    return torch.compile(model, dynamic=False, mode=mode)


def fastest(
    hardware: Hardware, recipe: Recipe, *, graphs: bool = True, rounds: int = 3
) -> tuple[Hardware, float]:
    """Whether to compile, and on a GPU whether to replay CUDA graphs, as measured.

    That depends on the processor and the network: compiled code reads and writes less, but
    some of it is slower. Takes about a minute, most of it for compiling.

    Args:
        hardware: the device and the other settings.
        recipe: gives network, batch size, augmentation and loss.
        graphs: whether CUDA graphs come into question.
        rounds: of some steps each way; the median of their ratios counts.

    Returns:
        The settings that train fastest, and how many times as fast as without compiling the
        fastest compiled code is; 0 if this machine cannot compile.
    """
    images, labels = draw(recipe.batch_size, seed=0)
    device = torch.device(hardware.device)
    steps = 1 if device.type == "cpu" else 20
    plain = replace(hardware, compile=False)
    eager = training_steps(plain, recipe, images, labels)
    eager(2)

    def speedup(choice: Hardware) -> float:
        ours = training_steps(choice, recipe, images, labels)
        try:
            ours(4)  # graphs are warmed up, recorded, and only then replayed
            return median(
                seconds(lambda: eager(steps), device) / seconds(lambda: ours(steps), device)
                for _ in range(rounds)
            )
        except Exception as error:  # no headers, no room, an unknown processor
            what = "CUDA graphs" if choice.cuda_graphs else "torch.compile"
            reason = next(iter(str(error).splitlines()), "")
            warnings.warn(f"{what}: {type(error).__name__}: {reason}", stacklevel=2)
            return 0.0

    choices = [replace(hardware, compile=True)]
    if device.type == "cuda" and graphs:
        choices.append(replace(hardware, compile=True, cuda_graphs=True))
    speedups = list(map(speedup, choices))
    best = max(speedups)
    return (choices[speedups.index(best)] if best > 1 else plain), best


def compile_ahead(
    forward: nn.Module,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    recipe: Recipe,
    hardware: Hardware,
    world: World = ALONE,
) -> None:
    """Take steps with every size of image that a recipe trains on, before the first that counts.

    What is compiled is compiled then; on a GPU cuDNN tries its algorithms, compiled or not.

    Args:
        forward: the model, or what `compiled` returned for it.
        model: keeps its weights, its batch norm statistics, and gradients of None.
        optimizer: keeps its state.
        recipe: gives the sizes and all else.
        hardware: the device and the precision.
        world: the processes that share each batch.

    Example:
        >>> from cifar_resnet.hardware import detect
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 10))
        >>> recipe = Recipe(name="example", batch_size=2)
        >>> here = detect("cpu", threads=1, compile=False)
        >>> compile_ahead(model, model, make_optimizer(model, recipe), recipe, here)
    """
    device = torch.device(hardware.device)
    images = torch.zeros(recipe.batch_size, 3, 32, 32, dtype=torch.uint8, device=device)
    labels = torch.zeros(recipe.batch_size, dtype=torch.long, device=device)
    kept = {name: value.clone() for name, value in model.state_dict().items()}
    state = copy.deepcopy(optimizer.state_dict())
    first = {resolution(recipe, epoch): epoch for epoch in reversed(range(recipe.epochs))}
    if hardware.compile:  # once for each size
        limit = torch._dynamo.config.recompile_limit
        torch._dynamo.config.recompile_limit = max(limit, len(first))
    times = 3 if hardware.cuda_graphs else 1  # graphs are warmed up, recorded, replayed
    for epoch in sorted(first.values()) * times:
        train_epoch(
            forward,
            optimizer,
            recipe,
            images,
            labels,
            epoch=epoch,
            seed=0,
            precision=hardware.precision,
            world=world,
        )
    model.zero_grad()
    model.load_state_dict(kept)
    optimizer.load_state_dict(state)


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
    forward: Any = compiled(model, optimizer, hardware) if hardware.compile else model
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
