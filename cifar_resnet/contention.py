"""How fast a CPU trains while another process keeps one of its cores busy."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch

from cifar_resnet.compiling import seconds, training_steps
from cifar_resnet.hardware import Hardware, spare_busy_cores
from cifar_resnet.recipe import Recipe
from cifar_resnet.synthetic import draw


@dataclass(frozen=True)
class Contention:
    """Training beside a process that keeps a core busy, uncompiled; images/s in each round.

    Attributes:
        single: one thread, nothing beside it: what the others are measured by.
        oversubscribed: as many threads as without the busy process.
        adapted: as many as `cifar_resnet.hardware.spare_busy_cores` leaves.
        threads: how many those were.
    """

    single: tuple[float, ...]
    oversubscribed: tuple[float, ...]
    adapted: tuple[float, ...]
    threads: tuple[int, ...]


def contention(
    hardware: Hardware, recipe: Recipe, *, rounds: int = 5, steps: int = 2
) -> Contention | None:
    """Measure, the three ways one after the other in every round.

    Args:
        hardware: a CPU; its number of threads is what training would use by itself.
        recipe: gives network, batch size, augmentation and loss.
        rounds: how often each way is measured.
        steps: steps a round.

    Returns:
        Images a second; None where there is nothing to yield: on a GPU, for a number of threads
        that was asked for, with a single one.
    """
    if not hardware.yielding or hardware.threads == 1:
        return None
    plain = replace(hardware, compile=False)  # compiled code keeps its number of threads
    images, labels = draw(recipe.batch_size * steps, seed=0)
    ours = training_steps(plain, recipe, images, labels)

    def rate() -> float:
        return len(images) / seconds(lambda: ours(steps), torch.device("cpu"))

    single, oversubscribed, adapted, threads = [], [], [], []
    try:
        ours(2)
        for _ in range(rounds):
            torch.set_num_threads(1)
            single.append(rate())
            with busy_core():
                torch.set_num_threads(plain.threads)
                oversubscribed.append(rate())
                spare_busy_cores(plain)
                threads.append(torch.get_num_threads())
                adapted.append(rate())
    finally:
        torch.set_num_threads(plain.threads)
    return Contention(tuple(single), tuple(oversubscribed), tuple(adapted), tuple(threads))


@contextmanager
def busy_core() -> Iterator[None]:
    """A process that does nothing but keep a core busy, until the block or this process ends.

    Example:
        >>> with busy_core():
        ...     pass
    """
    code = f"import os\nprint(flush=True)\nwhile os.getppid() == {os.getpid()}: pass"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        try:
            if process.stdout:
                process.stdout.readline()  # from here on it is busy
            yield
        finally:
            process.kill()


def kept(measured: Contention) -> list[float]:
    """Which share of a single thread's speed is left beside the busy process, round by round.

    Args:
        measured: by `contention`.

    Example:
        >>> kept(Contention(single=(100.0,), oversubscribed=(20.0,), adapted=(95.0,), threads=(1,)))
        [0.95]
    """
    return [a / b for a, b in zip(measured.adapted, measured.single, strict=True)]
