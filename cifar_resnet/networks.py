"""Every network a recipe can name: the note's, its partial forms, and those of the paper."""

from collections.abc import Callable
from functools import partial

from torch import nn
from torchvision.models import resnet18

from cifar_resnet.depth import get_depth_resnet
from cifar_resnet.errors import InputError
from cifar_resnet.model import get_cifar_resnet


def get_stem_variant(*, small_conv: bool, pooling: bool) -> nn.Module:
    """ResNet-18 for 10 classes with some of the note's changes to its stem.

    Args:
        small_conv: the first convolution is 3x3 with stride 1, not 7x7 with stride 2.
        pooling: the max pooling after it stays.

    Returns:
        A module that maps float images ``[N, 3, 32, 32]`` to logits ``[N, 10]``.

    Example:
        >>> original = get_stem_variant(small_conv=False, pooling=True)
        >>> original.conv1.kernel_size, type(original.maxpool).__name__
        ((7, 7), 'MaxPool2d')
    """
    model: nn.Module = resnet18(weights=None, num_classes=10)
    if small_conv:
        model.conv1 = nn.Conv2d(3, 64, kernel_size=3, stride=1, padding=1, bias=False)
    if not pooling:
        model.maxpool = nn.Identity()
    return model


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "resnet18": get_cifar_resnet,
    "resnet18-original": partial(get_stem_variant, small_conv=False, pooling=True),
    "resnet18-small-conv": partial(get_stem_variant, small_conv=True, pooling=True),
    "resnet18-no-pooling": partial(get_stem_variant, small_conv=False, pooling=False),
    **{f"resnet{depth}": partial(get_depth_resnet, depth) for depth in (20, 32, 44, 56)},
    **{
        f"plain{depth}": partial(get_depth_resnet, depth, residual=False)
        for depth in (20, 32, 44, 56)
    },
}


def build(name: str) -> nn.Module:
    """A network with fresh weights.

    Args:
        name: a key of ``NETWORKS``.

    Raises:
        InputError: if there is no network of that name.

    Example:
        >>> sum(parameter.numel() for parameter in build("plain20").parameters())
        269722
        >>> build("vgg")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        cifar_resnet.errors.InputError: network 'vgg' is unknown; choose one of: resnet18, ...
    """
    check_name(name)
    return NETWORKS[name]()


def check_name(name: str) -> None:
    """Refuse a name that no network has.

    Args:
        name: perhaps a key of ``NETWORKS``.

    Raises:
        InputError: if it is none.

    Example:
        >>> check_name("resnet18")
    """
    if name not in NETWORKS:
        raise InputError(f"network {name!r} is unknown; choose one of: {', '.join(NETWORKS)}")
