"""One job of several processes, started by PyTorch's ``torchrun``.

    torchrun --nproc-per-node 2 -m cifar_resnet train notes --data DIR

The recipe's batch size is the global one: each process trains on its share of every batch,
and the learning rate stays the recipe's, however many processes there are. Batch
normalisation uses each process's own share; its running statistics are those of process 0.
"""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from cifar_resnet.errors import InputError

T = TypeVar("T")


@dataclass(frozen=True)
class World:
    """This process's place among all; alone by default.

    Attributes:
        rank: from 0.
        size: how many processes there are.

    Example:
        >>> World().is_main
        True
    """

    rank: int = 0
    size: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this is the process that writes files and speaks."""
        return self.rank == 0


ALONE = World()


def local_device(device: str | None) -> str | None:
    """The device of this process: under ``torchrun``, one GPU for each process of a machine.

    Args:
        device: what the user asked for, if anything.

    Raises:
        InputError: under ``torchrun``, if it is a certain GPU.

    Example:
        >>> local_device("cpu")
        'cpu'
    """
    if "LOCAL_RANK" not in os.environ or device == "cpu" or not torch.cuda.is_available():
        return device
    if device not in (None, "cuda"):
        raise InputError(f"device {device!r}: torchrun gives each process a GPU; use cuda or cpu")
    return f"cuda:{os.environ['LOCAL_RANK']}"


@contextmanager
def join(device: str) -> Iterator[World]:
    """Be part of the job for as long as the context lasts.

    Args:
        device: decides how the processes talk: NCCL between GPUs, else Gloo.

    Raises:
        InputError: if the environment tells of several processes, but not how to find them; if
            they do not find each other; or if another one ends before this one.

    Example:
        >>> with join("cpu") as world:
        ...     world
        World(rank=0, size=1)
    """
    size = os.environ.get("WORLD_SIZE", "1")
    if size == "1":
        yield World()
        return
    for name in ("WORLD_SIZE", "RANK", "LOCAL_RANK", "MASTER_PORT", "MASTER_ADDR"):
        if name not in os.environ:
            raise InputError(f"WORLD_SIZE is {size}, but {name} is not set; start it with torchrun")
        if name != "MASTER_ADDR" and not os.environ[name].isdecimal():
            raise InputError(f"{name} is {os.environ[name]!r}, no number; start it with torchrun")
    if int(os.environ["RANK"]) >= int(size):
        raise InputError(f"RANK is {os.environ['RANK']}, but there are {size} processes, from 0")
    if device != "cpu":
        torch.cuda.set_device(device)
    try:
        with _signals_end_it():
            dist.init_process_group("gloo" if device == "cpu" else "nccl")
    except (ValueError, RuntimeError) as error:
        why = str(error).strip().partition("\n")[0]
        raise InputError(f"the {size} processes do not find each other: {why}") from error
    try:
        yield World(dist.get_rank(), dist.get_world_size())
    except RuntimeError as error:
        if not isinstance(error, dist.DistError) and "gloo" not in str(error):
            raise
        raise InputError(
            "another process of the job has ended, or cannot be reached; see what it says, and "
            "start all of them again with --resume to go on from the last checkpoint"
        ) from error
    dist.destroy_process_group()  # not after an error: it may wait for processes that wait for us


@contextmanager
def _signals_end_it() -> Iterator[None]:
    """Have Ctrl-C and SIGTERM end the process at once: Python's own handlers wait for C++ code."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = signal.SIGINT, signal.SIGTERM
    handlers = {n: handler for n in numbers if callable(handler := signal.getsignal(n))}
    for number in handlers:
        signal.signal(number, signal.SIG_DFL)
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def shard(tensor: Tensor, world: World) -> Tensor:
    """This process's share of the first dimension: every ``size``-th row.

    >>> shard(torch.arange(6), World(1, 3))
    tensor([1, 4])
    """
    return tensor[world.rank :: world.size]


def all_reduce(tensor: Tensor, world: World) -> Tensor:
    """The sum over all processes, in place.

    >>> all_reduce(torch.ones(2), World())
    tensor([1., 1.])
    """
    if world.size > 1:
        dist.all_reduce(tensor)
    return tensor


def all_gather(rows: Tensor, total: int, world: World) -> Tensor:
    """Put the rows of all processes together in their order before `shard`.

    Args:
        rows: ``[n, ...]`` of this process.
        total: rows in all.
        world: the processes.

    Example:
        >>> all_gather(torch.tensor([3.0, 4.0]), 2, World())
        tensor([3., 4.])
    """
    everything = rows.new_zeros(total, *rows.shape[1:])
    everything[world.rank :: world.size] = rows
    return all_reduce(everything, world)


def broadcast_buffers(model: nn.Module, world: World) -> None:
    """Give every process the buffers (running statistics) of process 0.

    >>> broadcast_buffers(nn.BatchNorm2d(3), World())
    """
    if world.size > 1:
        for buffer in model.buffers():
            dist.broadcast(buffer, 0)


def on_main(work: Callable[[], T], world: World) -> T:
    """What process 0 finds out, on every process.

    Args:
        work: called on process 0 alone; what it returns must be something to pickle.
        world: the processes.

    Raises:
        InputError: on every process, if ``work`` raises it; so are OSError and RuntimeError.

    Example:
        >>> on_main(lambda: 3, World())
        3
    """
    if world.size == 1:
        return work()
    box: list[Any] = [None]
    if world.is_main:
        try:
            box = [work()]
        except (InputError, OSError, RuntimeError) as error:
            box = [error]
    dist.broadcast_object_list(box, 0)
    if isinstance(box[0], Exception):
        raise box[0]
    found: T = box[0]
    return found


def data_parallel(model: nn.Module, world: World) -> nn.Module:
    """Average the model's gradients over all processes at every backward pass.

    >>> data_parallel(nn.Linear(1, 1), World())
    Linear(in_features=1, out_features=1, bias=True)
    """
    return nn.parallel.DistributedDataParallel(model) if world.size > 1 else model
