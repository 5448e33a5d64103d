from pathlib import Path

import pytest
import torch
from PIL import Image

from cifar_resnet.checkpoint import weights_record
from cifar_resnet.data import CLASSES, load
from cifar_resnet.errors import InputError
from cifar_resnet.evaluate import evaluate
from cifar_resnet.predict import WEIGHTS, classify, load_pretrained, read_image
from cifar_resnet.record import read_record

RUNS = Path(__file__).parent.parent / "results" / "runs"


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


@pytest.mark.parametrize("mode", ["I;16", "I"])
def test_sixteen_bits_of_grey_are_scaled(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "picture.tiff"
    Image.new(mode, (40, 40), 40_000).save(path)
    assert read_image(path).unique().tolist() == [40_000 >> 8]


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


def test_probabilities() -> None:
    probabilities = classify(load_pretrained(), load("synthetic").eval_images[:4])
    assert probabilities.shape == (4, len(CLASSES))
    torch.testing.assert_close(probabilities.sum(1), torch.ones(4))


@pytest.mark.cifar10
def test_the_shipped_weights_reach_their_records_accuracy(cifar10_root: Path) -> None:
    record = read_record(RUNS / f"{weights_record(WEIGHTS)}.json")
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
