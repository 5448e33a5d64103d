from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from PIL import Image
from torch import nn

from cifar_resnet.checkpoint import save_weights, weights_record
from cifar_resnet.data import load
from cifar_resnet.errors import InputError
from cifar_resnet.evaluation import evaluate, predict_logits
from cifar_resnet.model import get_cifar_resnet
from cifar_resnet.networks import build
from cifar_resnet.predict import WEIGHTS, classify, load_pretrained, pictures_in, read_image
from cifar_resnet.record import read_record
from tests import ROOT


def test_a_32_pixel_picture_is_read_unchanged(tmp_path: Path) -> None:
    pixels = load("synthetic").eval_images[0]
    path = tmp_path / "picture.png"
    Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(path)
    assert torch.equal(read_image(path), pixels)


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "1"])
def test_any_picture_becomes_32_by_32_rgb(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "picture.png"
    Image.new(mode, (100, 60)).save(path)
    image = read_image(path)
    assert (image.shape, image.dtype) == ((3, 32, 32), torch.uint8)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_what_is_transparent_lies_on_white(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "picture.png"
    picture = Image.new("RGBA", (32, 32), (0, 0, 0, 0))
    picture.paste((0, 0, 0, 255), (0, 0, 16, 32))
    (picture.quantize() if mode == "P" else picture.convert(mode)).save(path)
    image = read_image(path)
    assert image[:, :, :16].unique().tolist() == [0]
    assert image[:, :, 16:].unique().tolist() == [255]


@pytest.mark.parametrize(
    ("mode", "name"), [("I;16", "a.tiff"), ("I;16B", "a.tiff"), ("I;16", "a.png"), ("I", "a.pgm")]
)
def test_sixteen_bits_of_grey_are_scaled(tmp_path: Path, mode: str, name: str) -> None:
    Image.new(mode, (40, 40), 40_000).save(tmp_path / name)
    assert read_image(tmp_path / name).unique().tolist() == [40_000 >> 8]


def test_a_folder_stands_for_its_pictures(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"folder .* holds no picture \(\.bmp, "):
        pictures_in(tmp_path)
    for name in ("c.png", "B.JPG", "a.webp", ".hidden.png", "notes.txt", "d.png/inner.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert [path.name for path in pictures_in(tmp_path)] == ["B.JPG", "a.webp", "c.png"]


def test_what_is_no_picture_is_named(tmp_path: Path) -> None:
    path = tmp_path / "picture.png"
    path.write_text("text")
    with pytest.raises(InputError, match="not a picture"):
        read_image(path)
    with pytest.raises(InputError, match="cannot be read"):
        read_image(tmp_path)
    Image.effect_noise((400, 400), 50).save(path)
    head, last = path.read_bytes().rsplit(b"IDAT", 1)
    path.write_bytes(head + b"ID T" + last)  # for which Pillow raises a SyntaxError
    with pytest.raises(InputError, match="or damaged"):
        read_image(str(path))


def test_a_picture_that_may_not_be_read_is_not_called_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise error

    (tmp_path / "picture.png").touch()
    monkeypatch.setattr(Image, "open", fail)
    error: Exception = PermissionError(13, "Permission denied")
    with pytest.raises(InputError, match=r"picture\.png cannot be read: Permission denied$"):
        read_image(tmp_path / "picture.png")
    error = MemoryError()
    with pytest.raises(MemoryError):
        read_image(tmp_path / "picture.png")


@pytest.mark.parametrize(("mode", "kind"), [("F", "floating-point"), ("I", "integer")])
def test_values_of_any_size_are_refused(tmp_path: Path, mode: str, kind: str) -> None:
    path = tmp_path / "picture.tiff"
    Image.new(mode, (40, 40), 200).save(path)
    with pytest.raises(InputError, match=f"holds {kind} values of any size; save it with 8 or 16"):
        read_image(path)


def test_large_pictures_are_read_in_silence_and_enormous_ones_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "picture.png"
    Image.new("RGB", (40, 40)).save(path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)  # warnings are errors here
    read_image(path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(InputError, match="too many pixels"):
        read_image(path)


def test_weights_of_another_network(tmp_path: Path) -> None:
    save_weights(tmp_path / "weights.safetensors", build("resnet20"), "")
    model = load_pretrained(tmp_path / "weights.safetensors", "resnet20")
    assert model(torch.zeros(1, 3, 32, 32)).shape == (1, 10)
    with pytest.raises(InputError, match="Is a directory"):
        load_pretrained("")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_models_in_any_precision_classify(dtype: torch.dtype) -> None:
    images = load("synthetic").eval_images[:4]
    expected = classify(load_pretrained(), images)
    torch.testing.assert_close(
        classify(load_pretrained().to(dtype), images), expected, atol=0.1, rtol=0
    )


def test_models_without_parameters_and_exported_ones_classify() -> None:
    images = load("synthetic").eval_images[:2]
    probabilities = classify(nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()), images)
    assert probabilities.shape == (2, 3)
    model = build("resnet20").eval()
    exported = torch.export.export(model, (torch.zeros(2, 3, 32, 32),)).module()
    torch.testing.assert_close(classify(exported, images), classify(model, images))


def test_any_number_of_classes_is_classified() -> None:
    images = load("synthetic").eval_images[:2]
    assert classify(get_cifar_resnet(num_classes=5), images).shape == (2, 5)


def test_an_answer_that_is_not_finite_is_refused() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 10))
    nn.init.constant_(model[1].bias, float("nan"))
    with pytest.raises(InputError, match="weights give no finite answer"):
        classify(model, torch.zeros(1, 3, 32, 32, dtype=torch.uint8))


@pytest.mark.cifar10
def test_the_shipped_weights_reach_their_records_accuracy(cifar10_root: Path) -> None:
    record = read_record(ROOT / "results" / "runs" / f"{weights_record(WEIGHTS)}.json")
    data = load(cifar10_root)
    metrics = evaluate(load_pretrained(), data.eval_images, data.eval_labels)
    assert metrics.accuracy == pytest.approx(record.metrics.accuracy, abs=0.0005)


@pytest.mark.parametrize(
    "images",
    [
        torch.rand(1, 3, 32, 32),
        torch.zeros(3, 32, 32, dtype=torch.uint8),
        torch.zeros(1, 3, 224, 224, dtype=torch.uint8),
    ],
)
def test_other_images_are_refused(images: torch.Tensor) -> None:
    with pytest.raises(InputError, match="images must be uint8"):
        classify(load_pretrained(), images)


@pytest.mark.parametrize(
    "images",
    [numpy.zeros((1, 3, 32, 32), numpy.uint8), [1], Image.new("RGB", (32, 32)), Path("a.png")],
)
@pytest.mark.parametrize("use", [classify, predict_logits])
def test_only_tensors_are_images(
    images: Any, use: Callable[[nn.Module, torch.Tensor], torch.Tensor]
) -> None:
    with pytest.raises(InputError, match=r"must be a torch tensor, not .*; torch\.from_numpy"):
        use(nn.Flatten(), images)
