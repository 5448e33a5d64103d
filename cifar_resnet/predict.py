"""Classify pictures with the shipped weights or with your own."""

from pathlib import Path

import torch
from torch import Tensor, nn

from cifar_resnet.checkpoint import load_weights
from cifar_resnet.errors import InputError
from cifar_resnet.evaluate import predict_logits
from cifar_resnet.model import get_cifar_resnet

WEIGHTS = Path(__file__).parent / "weights" / "resnet18.safetensors"


def load_pretrained(path: str | Path | None = None) -> nn.Module:
    """The network of `get_cifar_resnet` with trained weights, in evaluation mode.

    Args:
        path: a safetensors file written by a run of ``resnet18``; by default the one
            shipped with the package, which needs no network.

    Returns:
        The model in float32 on the CPU.

    Raises:
        InputError: if the file is missing, damaged, or of another model.

    Example:
        >>> model = load_pretrained()
        >>> model(torch.zeros(1, 3, 32, 32)).shape
        torch.Size([1, 10])
    """
    model: nn.Module = get_cifar_resnet()
    load_weights(model, Path(path or WEIGHTS))
    return model.eval()


def classify(model: nn.Module, images: Tensor) -> Tensor:
    """Probabilities of the ten classes.

    Args:
        model: maps float images ``[N, 3, 32, 32]`` to logits ``[N, 10]``.
        images: uint8 ``[N, 3, 32, 32]``, RGB, not normalised, on any device.

    Raises:
        InputError: if the images are of another type or shape.

    Returns:
        float32 ``[N, 10]`` on the CPU; each row sums to 1. Columns are in the order of
        `cifar_resnet.data.CLASSES`.

    Example:
        >>> images = torch.zeros(2, 3, 32, 32, dtype=torch.uint8)
        >>> classify(load_pretrained(), images).sum(1).round(decimals=4)
        tensor([1., 1.])
    """
    if images.dtype != torch.uint8 or images.shape[1:] != (3, 32, 32):
        raise InputError(
            "images must be uint8 [N, 3, 32, 32] with values from 0 to 255, "
            f"not {str(images.dtype).removeprefix('torch.')} {list(images.shape)}"
        )
    device = next(model.parameters()).device
    return predict_logits(model, images.to(device)).softmax(1).cpu()


def read_image(path: str | Path) -> Tensor:
    """Read a picture, cut the largest centred square, and shrink it to 32x32.

    What is transparent lies on white.

    Args:
        path: any file that Pillow reads.

    Returns:
        uint8 ``[3, 32, 32]``, RGB.

    Raises:
        InputError: if the file is missing or not a picture.

    Example:
        >>> read_image(Path("nowhere.png"))
        Traceback (most recent call last):
        cifar_resnet.errors.InputError: image nowhere.png does not exist
    """
    import numpy
    from PIL import Image, ImageOps

    path = Path(path)
    if not path.exists():
        raise InputError(f"image {path} does not exist")
    try:
        with Image.open(path) as file:
            picture = ImageOps.exif_transpose(file)
            if picture.mode.startswith("I"):  # 16 bits of grey, which convert() would clip
                grey = numpy.asarray(picture).clip(0, 0xFFFF) >> 8
                picture = Image.fromarray(grey.astype(numpy.uint8))
            if "A" in picture.getbands() or "transparency" in picture.info:
                picture = picture.convert("RGBA")
                white = Image.new("RGBA", picture.size, "white")
                picture = Image.alpha_composite(white, picture)
            picture = picture.convert("RGB")
    except Exception as error:  # Pillow raises many kinds for a damaged file
        raise InputError(f"image {path} cannot be read: not a picture, or damaged") from error
    picture = ImageOps.fit(picture, (32, 32), Image.Resampling.LANCZOS)
    pixels = torch.frombuffer(bytearray(picture.tobytes()), dtype=torch.uint8)
    return pixels.reshape(32, 32, 3).permute(2, 0, 1).contiguous()
