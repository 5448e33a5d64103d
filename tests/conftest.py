"""What the tests share."""

import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from cifar_resnet.data import Dataset, load
from cifar_resnet.hardware import Hardware


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    """Two threads beside other work are slower than one."""
    torch.set_num_threads(1)


@pytest.fixture(autouse=True, scope="session")
def interrupts() -> None:
    """As in a terminal; a process in the background ignores them, and all that it starts."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def synthetic() -> Dataset:
    """64 training and 32 evaluation images: enough for a loop to turn."""
    data = load("synthetic")
    return replace(
        data,
        train_images=data.train_images[:64],
        train_labels=data.train_labels[:64],
        eval_images=data.eval_images[:32],
        eval_labels=data.eval_labels[:32],
    )


@pytest.fixture(scope="session")
def cpu() -> Hardware:
    """The plainest settings: results do not depend on the machine."""
    return Hardware("cpu", "test", 1, "fp32", channels_last=True, compile=False)


@pytest.fixture(scope="session")
def cifar10_root() -> Path:
    """The real data set, for tests marked ``cifar10``."""
    root = os.environ.get("CIFAR10_ROOT")
    if not root:
        pytest.skip("needs the real CIFAR-10: set CIFAR10_ROOT")
    return Path(root)
