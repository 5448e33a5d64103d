"""A procedurally drawn stand-in for CIFAR-10: ten classes of shapes, made in a second.

The shape decides the class. Its colour gives a hint that a network learns in seconds (each
class prefers a hue, but neighbouring hues overlap); place, size, rotation, background
texture and noise vary freely. It is for the quick start, the tests and the notebooks; its
records name it and no results page shows them.
"""

import math

import torch
from torch import Tensor

SIZE = 32
SHAPES = (
    "disc",
    "ring",
    "square",
    "frame",
    "triangle",
    "cross",
    "bar",
    "two discs",
    "crescent",
    "star",
)


def draw(n: int, *, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Draw ``n`` labelled images; the same seed gives the same images.

    Args:
        n: number of images; the classes are as evenly spread as n allows.
        seed: of everything random.

    Returns:
        uint8 images ``[n, 3, 32, 32]`` and int64 labels ``[n]`` in 0..9, which index
        `SHAPES`.

    Example:
        >>> images, labels = draw(20, seed=0)
        >>> images.shape, images.dtype, sorted(set(labels.tolist())) == list(range(10))
        (torch.Size([20, 3, 32, 32]), torch.uint8, True)
    """
    generator = torch.Generator().manual_seed(seed)

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(n, *shape, generator=generator)

    labels = torch.arange(n) % len(SHAPES)
    labels = labels[torch.randperm(n, generator=generator)]

    # Coordinates in each shape's own frame: moved, turned, scaled to about [-1, 1].
    axis = torch.linspace(-1, 1, SIZE)
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    dx = x - uniform(-0.3, 0.3, 1, 1)
    dy = y - uniform(-0.3, 0.3, 1, 1)
    angle = uniform(0, 2 * math.pi, 1, 1)
    scale = uniform(0.4, 0.75, 1, 1)
    u = (dx * angle.cos() + dy * angle.sin()) / scale
    v = (dy * angle.cos() - dx * angle.sin()) / scale
    inside = _inside(u, v)[labels, torch.arange(n)]

    wave_angle = uniform(0, math.pi, 1, 1)
    phase = uniform(0, 2 * math.pi, 1, 1)
    wave = (uniform(2, 12, 1, 1) * (x * wave_angle.cos() + y * wave_angle.sin()) + phase).sin()
    background = uniform(0.2, 0.8, 3, 1, 1) + 0.15 * wave[:, None]
    hue = labels[:, None, None, None] / len(SHAPES) + 0.07 * torch.randn(
        n, 1, 1, 1, generator=generator
    )
    thirds = torch.tensor([0, 1 / 3, 2 / 3])[:, None, None]
    colour = 0.5 + 0.45 * (2 * math.pi * (hue - thirds)).cos()
    image = torch.where(inside[:, None], colour, background)
    image = image + 0.08 * torch.randn(n, 3, SIZE, SIZE, generator=generator)
    return (image.clamp(0, 1) * 255).round().to(torch.uint8), labels


def _inside(u: Tensor, v: Tensor) -> Tensor:
    """Membership ``[10, n, 32, 32]`` of each pixel in each of the shapes."""
    radius = (u * u + v * v).sqrt()
    largest = torch.maximum(u.abs(), v.abs())
    spokes = torch.cos(5 * torch.atan2(v, u))
    return torch.stack(
        (
            radius < 0.8,
            (radius < 0.95) & (radius > 0.5),
            largest < 0.72,
            (largest < 0.85) & (largest > 0.45),
            (v > -0.55) & (1.8 * u.abs() + v < 0.95),
            ((u.abs() < 0.25) | (v.abs() < 0.25)) & (largest < 0.95),
            (u.abs() < 0.25) & (v.abs() < 1.0),
            ((u.abs() - 0.55) ** 2 + v * v) < 0.17,
            (radius < 0.95) & ((u - 0.45) ** 2 + v * v > 0.6),
            radius < 0.6 + 0.35 * spokes,
        )
    )
