"""Data augmentation on whole batches of uint8 images, the same code on CPU and GPU.

Every function takes and returns a batch ``[N, C, H, W]``. Crop, flip and erasing work on uint8
pixels; each image draws its own random numbers for them from ``generator``, which must live on
the images' device. Then come `normalize` and, for recipes with small images first, `shrink`.
"""

from dataclasses import dataclass
from math import log

import torch
from torch import Tensor, nn

from cifar_resnet.errors import InputError

# Statistics of the 50,000 training images of CIFAR-10, per RGB channel, in [0, 1].
MEAN = (0.4914, 0.4822, 0.4465)
STD = (0.2470, 0.2435, 0.2616)

_ERASING_ATTEMPTS = 10


@dataclass(frozen=True)
class Augmentation:
    """What is done to each training image, and how often.

    Attributes:
        crop_padding: zero pixels added on each side before a crop back to the original
            size (He et al. 2015, section 4.2, use 4); 0 switches the crop off.
        flip_probability: probability of a horizontal flip.
        alternating_flip: flip half of the images in even epochs and the other half in odd ones
            (`alternating_flip`), in place of flips by chance: flip_probability must be 0.
        erasing_probability: probability of erasing a rectangle (Zhong et al. 2020).
        erasing_area: smallest and largest erased share of the image's area.
        erasing_aspect: smallest and largest ratio of the rectangle's height to its width.

    >>> Augmentation().erasing_area
    (0.02, 0.4)
    """

    crop_padding: int = 4
    flip_probability: float = 0.5
    alternating_flip: bool = False
    erasing_probability: float = 0.5
    erasing_area: tuple[float, float] = (0.02, 0.4)
    erasing_aspect: tuple[float, float] = (0.3, 1 / 0.3)


# --8<-- [start:augment]
def augment(images: Tensor, config: Augmentation, generator: torch.Generator) -> Tensor:
    """Crop, flip, erase and normalise a training batch.

    Args:
        images: uint8 ``[N, 3, H, W]``.
        config: probabilities and ranges.
        generator: source of all random numbers, on the images' device.

    Returns:
        float32 ``[N, 3, H, W]``, each channel about zero mean and unit variance.

    Example:
        >>> generator = torch.Generator().manual_seed(0)
        >>> images = torch.randint(0, 256, (8, 3, 32, 32), dtype=torch.uint8)
        >>> batch = augment(images, Augmentation(), generator)
        >>> batch.shape, batch.dtype
        (torch.Size([8, 3, 32, 32]), torch.float32)
    """
    images = random_crop(images, config.crop_padding, generator)
    images = random_flip(images, config.flip_probability, generator)
    images = random_erasing(
        images, config.erasing_probability, config.erasing_area, config.erasing_aspect, generator
    )
    return normalize(images)
    # --8<-- [end:augment]


# --8<-- [start:random_crop]
def random_crop(images: Tensor, padding: int, generator: torch.Generator) -> Tensor:
    """Pad with zeros, then cut a random window of the original size out of each image.

    Args:
        images: ``[N, C, H, W]``, any dtype.
        padding: pixels added on each side; 0 returns the images as they are.
        generator: source of the offsets, on the images' device.

    Returns:
        ``[N, C, H, W]`` in the dtype of ``images``.

    Example:
        >>> ones = torch.ones(1, 1, 4, 4, dtype=torch.uint8)
        >>> random_crop(ones, 1, torch.Generator().manual_seed(2))[0, 0]
        tensor([[0, 0, 0, 0],
                [0, 1, 1, 1],
                [0, 1, 1, 1],
                [0, 1, 1, 1]], dtype=torch.uint8)
    """
    if padding == 0:
        return images
    n, _, height, width = images.shape
    padded = nn.functional.pad(images, (padding,) * 4)
    # A view [N, C, 2p+1, 2p+1, H, W] of every possible window; nothing is copied yet.
    windows = padded.unfold(2, height, 1).unfold(3, width, 1)
    top, left = torch.randint(0, 2 * padding + 1, (2, n), generator=generator, device=images.device)
    return windows[torch.arange(n, device=images.device), :, top, left]
    # --8<-- [end:random_crop]


# --8<-- [start:random_flip]
def random_flip(images: Tensor, probability: float, generator: torch.Generator) -> Tensor:
    """Mirror each image left to right with the given probability.

    Args:
        images: ``[N, C, H, W]``, any dtype.
        probability: between 0 and 1.
        generator: source of the decisions, on the images' device.

    Returns:
        ``[N, C, H, W]`` in the dtype of ``images``.

    Example:
        >>> random_flip(torch.tensor([[[[1, 2, 3]]]]), 1.0, torch.Generator())
        tensor([[[[3, 2, 1]]]])
    """
    if probability == 0:
        return images
    draw = torch.rand(len(images), generator=generator, device=images.device)
    return torch.where((draw < probability)[:, None, None, None], images.flip(-1), images)
    # --8<-- [end:random_flip]


# --8<-- [start:alternating_flip]
def alternating_flip(images: Tensor, epoch: int, generator: torch.Generator) -> Tensor:
    """Mirror a random half of the images in even epochs, the other half in odd ones.

    Any two epochs in a row so show an image and its mirror image once each; flips by chance
    show one of them twice half of the time (Jordan 2024, arXiv:2404.00498).

    Args:
        images: ``[N, C, H, W]``, all that there are to train on.
        epoch: counted from 0.
        generator: draws the halves, on the images' device; in the same state at every epoch.

    Returns:
        ``[N, C, H, W]`` in the dtype of ``images``.

    Example:
        >>> images = torch.tensor([[[[1, 2]]], [[[3, 4]]]])
        >>> for epoch in range(3):
        ...     print(alternating_flip(images, epoch, torch.Generator().manual_seed(0)).tolist())
        [[[[2, 1]]], [[[3, 4]]]]
        [[[[1, 2]]], [[[4, 3]]]]
        [[[[2, 1]]], [[[3, 4]]]]
    """
    half = torch.rand(len(images), generator=generator, device=images.device) < 0.5
    mirrored = half if epoch % 2 == 0 else ~half
    return torch.where(mirrored[:, None, None, None], images.flip(-1), images)
    # --8<-- [end:alternating_flip]


# --8<-- [start:random_erasing]
def random_erasing(
    images: Tensor,
    probability: float,
    area: tuple[float, float],
    aspect: tuple[float, float],
    generator: torch.Generator,
) -> Tensor:
    """Replace a random rectangle of each chosen image by uniform noise.

    Zhong et al. 2020 (arXiv:1708.04896), algorithm 1. As in torchvision, the aspect
    ratio is drawn log-uniformly, so that tall and wide rectangles are equally likely,
    and an image whose rectangle does not fit in ten attempts stays whole.

    Args:
        images: uint8 ``[N, C, H, W]``.
        probability: share of images to erase from, between 0 and 1.
        area: smallest and largest erased share of the image's area.
        aspect: smallest and largest ratio of height to width.
        generator: source of all random numbers, on the images' device.

    Returns:
        uint8 ``[N, C, H, W]``.

    Example:
        >>> black = torch.zeros(1, 1, 8, 8, dtype=torch.uint8)
        >>> generator = torch.Generator().manual_seed(0)
        >>> erased = random_erasing(black, 1.0, (0.25, 0.25), (1.0, 1.0), generator)
        >>> int((erased > 0).sum())  # a 4x4 square
        16
    """
    if probability == 0:
        return images
    n, _, height, width = images.shape
    device = images.device

    def uniform(rows: int, low: float = 0.0, high: float = 1.0) -> Tensor:
        return low + (high - low) * torch.rand(rows, n, generator=generator, device=device)

    pixels = uniform(_ERASING_ATTEMPTS, *area) * height * width
    ratio = uniform(_ERASING_ATTEMPTS, log(aspect[0]), log(aspect[1])).exp()
    heights = (pixels * ratio).sqrt().round()
    widths = (pixels / ratio).sqrt().round()
    fits = (heights < height) & (widths < width)
    first = fits.int().argmax(0, keepdim=True)  # the first attempt that fits
    chosen = fits.any(0) & (uniform(1)[0] < probability)
    h, w = heights.gather(0, first)[0], widths.gather(0, first)[0]
    top = (uniform(1)[0] * (height - h + 1)).floor()
    left = (uniform(1)[0] * (width - w + 1)).floor()

    y = torch.arange(height, device=device)
    x = torch.arange(width, device=device)
    inside_y = (y >= top[:, None]) & (y < (top + h)[:, None])
    inside_x = (x >= left[:, None]) & (x < (left + w)[:, None])
    mask = inside_y[:, :, None] & inside_x[:, None, :] & chosen[:, None, None]
    noise = torch.randint(
        0, 256, images.shape, generator=generator, device=device, dtype=torch.uint8
    )
    return torch.where(mask[:, None], noise, images)
    # --8<-- [end:random_erasing]


# --8<-- [start:normalize]
def normalize(images: Tensor) -> Tensor:
    """Scale uint8 pixels to zero mean and unit variance with CIFAR-10's statistics.

    Args:
        images: uint8 ``[N, 3, H, W]``.

    Returns:
        float32 ``[N, 3, H, W]``.

    Raises:
        InputError: if they are of another type, such as floats between 0 and 1.

    Example:
        >>> grey = torch.full((1, 3, 1, 1), 128, dtype=torch.uint8)
        >>> [round(value, 3) for value in normalize(grey).flatten().tolist()]
        [0.043, 0.081, 0.212]
    """
    if images.dtype != torch.uint8:
        raise InputError(f"images must be uint8, with values from 0 to 255, not {images.dtype}")
    mean, std = _statistics(images.device)
    return (images.float() - mean) / std
    # --8<-- [end:normalize]


def shrink(images: Tensor, size: int) -> Tensor:
    """Scale larger images down, each new pixel a weighted mean of those it covers.

    A network with global average pooling trains on small images too, with fewer operations in
    proportion to their area (progressive learning, Tan and Le 2021, arXiv:2104.00298, section 4).

    Args:
        images: float ``[N, C, H, W]``.
        size: the largest height and width.

    Returns:
        float ``[N, C, size, size]``, or the images as they are if they are not larger.

    Example:
        >>> shrink(torch.eye(4)[None, None], 2)[0, 0]
        tensor([[0.3878, 0.1224],
                [0.1224, 0.3878]])
    """
    if images.shape[-1] <= size:
        return images
    return nn.functional.interpolate(images, (size, size), mode="bilinear", antialias=True)


_on_gpu: dict[torch.device, Tensor] = {}  # copying at every step would make it wait for the CPU


def _statistics(device: torch.device) -> tuple[Tensor, Tensor]:
    """Means and standard deviations of pixels 0..255, shaped to meet ``[N, 3, H, W]``."""
    both = _on_gpu.get(device)
    if both is None:
        with torch.inference_mode(False):
            both = 255 * torch.tensor((MEAN, STD))[:, :, None, None].to(device)
        if device.type != "cpu" and _lasts(both):
            _on_gpu[device] = both
    return both[0], both[1]


def _lasts(tensor: Tensor) -> bool:
    """Whether a tensor holds its values: those of ``torch.export`` stand for others."""
    return type(tensor) is Tensor
