"""The whole-batch augmentation against torchvision's transforms of single images."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torchvision.transforms import v2

from cifar_resnet import augment as module
from cifar_resnet.augment import (
    MEAN,
    STD,
    Augmentation,
    alternating_flip,
    augment,
    normalize,
    random_crop,
    random_erasing,
    random_flip,
)
from cifar_resnet.data import load
from cifar_resnet.errors import InputError

PAPER = Augmentation()


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def position_batch(n: int) -> torch.Tensor:
    """Images whose pixels name their own place: red is the row + 1, green the column + 1."""
    axis = torch.arange(1, 33, dtype=torch.uint8)
    image = torch.stack((axis[:, None].expand(32, 32), axis.expand(32, 32), axis.expand(32, 32)))
    return image.repeat(n, 1, 1, 1)


def test_crop_has_the_same_distribution_as_torchvision(generator: torch.Generator) -> None:
    n = 4050
    ours = random_crop(position_batch(n), 4, generator)
    torch.manual_seed(0)
    transform = v2.RandomCrop(32, padding=4)
    theirs = torch.stack([transform(image) for image in position_batch(n)])

    def offsets(batch: torch.Tensor) -> torch.Tensor:
        # A pixel in the middle is never padding; its value tells the window's offset.
        centre = batch[:, :2, 16, 16].long()
        return torch.bincount((centre[:, 0] - 13) * 9 + centre[:, 1] - 13, minlength=81)

    # 81 equally likely windows, 50 of each expected: chi-square with 80 degrees of
    # freedom stays below 125 with probability 0.999.
    for counts in (offsets(ours), offsets(theirs)):
        assert len(counts) == 81
        assert float(((counts - 50.0) ** 2 / 50).sum()) < 125


def test_crop_pads_with_black(generator: torch.Generator) -> None:
    white = torch.full((256, 3, 32, 32), 255, dtype=torch.uint8)
    cropped = random_crop(white, 4, generator)
    assert set(cropped.unique().tolist()) == {0, 255}
    # Mean share of rows (and columns) lost: E|offset - 4| / 32 = (20/9) / 32.
    kept = float((cropped > 0).float().mean())
    assert kept == pytest.approx((1 - 20 / 9 / 32) ** 2, abs=0.01)


def test_each_image_gets_its_own_crop_from_its_own_pixels(generator: torch.Generator) -> None:
    images = torch.arange(1, 101, dtype=torch.uint8)[:, None, None, None].expand(100, 3, 32, 32)
    cropped = random_crop(images, 4, generator)
    assert (cropped.amax((1, 2, 3)) == torch.arange(1, 101)).all()
    assert len({tuple((c[0] > 0).sum(0).tolist()) for c in cropped}) > 5


def test_flip_probability_and_exactness(generator: torch.Generator) -> None:
    images = position_batch(4000)
    flipped = random_flip(images, 0.5, generator)
    mirrored = (flipped == images.flip(-1)).all(dim=(1, 2, 3))
    same = (flipped == images).all(dim=(1, 2, 3))
    assert (mirrored ^ same).all()
    assert float(mirrored.float().mean()) == pytest.approx(0.5, abs=0.03)
    assert torch.equal(random_flip(images, 0.0, generator), images)


def test_alternating_flip_shows_both_sides_in_any_two_epochs() -> None:
    images = position_batch(4000)
    first, second, third = (
        alternating_flip(images, epoch, torch.Generator().manual_seed(1)) for epoch in (0, 1, 2)
    )
    mirrored = (first == images.flip(-1)).all(dim=(1, 2, 3))
    assert float(mirrored.float().mean()) == pytest.approx(0.5, abs=0.03)
    assert torch.equal(first, third)
    assert torch.equal(second, first.flip(-1))


@pytest.mark.parametrize("probability", [0.25, 1.0])
def test_erasing_has_the_same_distribution_as_torchvision(
    generator: torch.Generator, probability: float
) -> None:
    n = 4000
    black = torch.zeros(n, 3, 32, 32, dtype=torch.uint8)
    ours = random_erasing(black, probability, PAPER.erasing_area, PAPER.erasing_aspect, generator)
    torch.manual_seed(0)
    transform = v2.RandomErasing(probability, PAPER.erasing_area, PAPER.erasing_aspect, value=1)
    theirs = torch.stack([transform(image) for image in black])

    masks = [batch.amax(1) > 0 for batch in (ours, theirs)]  # noise is 0 now and then: amax
    areas = [mask.sum((1, 2)) / 1024 for mask in masks]
    for a in areas:
        assert float((a > 0).float().mean()) == pytest.approx(probability, abs=0.03)
        assert float(a.max()) <= 0.45
    quantiles = torch.tensor([0.1, 0.25, 0.5, 0.75, 0.9])
    a, b = (x[x > 0].quantile(quantiles) for x in areas)
    torch.testing.assert_close(a, b, atol=0.02, rtol=0)
    # Where: the share of images in which each pixel is erased, over the 32x32 map.
    ours_map, theirs_map = (mask.float().mean(0) for mask in masks)
    assert float((ours_map - theirs_map).abs().max()) < 0.05
    # Shape: tall and wide rectangles alike.
    heights, widths = (masks[0].any(2).sum(1), masks[0].any(1).sum(1))
    taller = float((heights > widths)[areas[0] > 0].float().mean())
    wider = float((widths > heights)[areas[0] > 0].float().mean())
    assert taller == pytest.approx(wider, abs=0.07)


def test_erased_pixels_are_uniform_noise(generator: torch.Generator) -> None:
    grey = torch.full((500, 3, 32, 32), 128, dtype=torch.uint8)
    erased = random_erasing(grey, 1.0, (0.3, 0.3), (1.0, 1.0), generator)
    noise = erased[erased != 128].float()
    assert float(noise.mean()) == pytest.approx(127.5, abs=1)
    assert float(noise.std()) == pytest.approx(73.9, abs=1)


def test_normalize_is_torchvisions() -> None:
    images = torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8)
    expected = v2.functional.normalize(images / 255, list(MEAN), list(STD))
    torch.testing.assert_close(normalize(images), expected)


def test_the_generator_alone_decides() -> None:
    images = load("synthetic").train_images[:16]
    one, same, other = (
        augment(images, PAPER, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)
    )
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_everything_off_is_normalisation_alone(generator: torch.Generator) -> None:
    images = load("synthetic").train_images[:4]
    off = Augmentation(crop_padding=0, flip_probability=0.0, erasing_probability=0.0)
    assert torch.equal(augment(images, off, generator), normalize(images))


@pytest.mark.cifar10
def test_constants_are_those_of_the_training_images(cifar10_root: Path) -> None:
    pixels = load(cifar10_root).train_images.permute(1, 0, 2, 3).reshape(3, -1).numpy() / 255
    np.testing.assert_allclose(pixels.mean(1), MEAN, atol=5e-5)
    np.testing.assert_allclose(pixels.std(1), STD, atol=5e-5)


def test_floats_are_refused() -> None:
    with pytest.raises(InputError, match=r"must be uint8, .*not torch.float32"):
        normalize(torch.rand(1, 3, 4, 4))


def test_an_exported_model_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    class FromPixels(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return normalize(x)

    monkeypatch.setattr(module, "_on_gpu", {})
    pixels = torch.zeros(1, 3, 4, 4, dtype=torch.uint8)
    torch.export.export(FromPixels(), (pixels,))
    assert type(normalize(pixels)) is torch.Tensor
