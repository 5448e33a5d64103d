"""Classify pictures with the shipped weights or with your own."""

import warnings
from pathlib import Path

import torch
from torch import Tensor, nn

from cifar_resnet.checkpoint import load_weights
from cifar_resnet.data import check_images
from cifar_resnet.errors import InputError
from cifar_resnet.evaluation import predict_logits, refuse_no_answer
from cifar_resnet.networks import build

WEIGHTS = Path(__file__).parent / "weights" / "resnet18.safetensors"
SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")


def load_pretrained(path: str | Path | None = None, network: str = "resnet18") -> nn.Module:
    """A network with trained weights, in evaluation mode.

    It expects what `cifar_resnet.augment.normalize` makes of uint8 images; `classify`
    normalises by itself.

    Args:
        path: a safetensors file written by a run of that network; by default the one
            shipped with the package, of ``resnet18``, for which nothing is downloaded.
        network: a key of `cifar_resnet.networks.NETWORKS`.

    Returns:
        The model in float32 on the CPU.

    Raises:
        InputError: if the network is unknown, or if the file is missing, damaged, or of
            another model.

    Example:
        >>> model = load_pretrained()
        >>> model(torch.zeros(1, 3, 32, 32)).shape
        torch.Size([1, 10])
    """
    model = build(network)
    load_weights(model, WEIGHTS if path is None else path)
    return model.eval()


def classify(model: nn.Module, images: Tensor) -> Tensor:
    """Probabilities of the classes, as many as the model knows.

    Args:
        model: maps float images ``[N, 3, 32, 32]`` to logits ``[N, classes]``.
        images: uint8 ``[N, 3, 32, 32]``, RGB, not normalised, on any device;
            ``read_image(path)[None]`` is one.

    Raises:
        InputError: if the images are of another type or shape, or if the model's answer is
            not finite.

    Returns:
        float32 ``[N, classes]`` on the CPU; each row sums to 1. Columns are in the order of the
        labels that the model was trained on: of CIFAR-10, of `cifar_resnet.data.CLASSES`.

    Example:
        >>> images = torch.zeros(2, 3, 32, 32, dtype=torch.uint8)
        >>> classify(load_pretrained(), images).sum(1).round(decimals=4)
        tensor([1., 1.])
    """
    check_images(images)
    device = next((parameter.device for parameter in model.parameters()), images.device)
    logits = predict_logits(model, images.to(device))
    refuse_no_answer(logits)
    return logits.softmax(1).cpu()


def pictures_in(folder: Path) -> list[Path]:
    """The pictures in a folder, by their suffixes, in the order of their names.

    Hidden files and those in folders of the folder are left out.

    Args:
        folder: it must exist.

    Raises:
        InputError: if there is none.
        OSError: if the folder may not be read.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     for name in ("b.JPG", "a.png", "notes.txt"):
        ...         (Path(folder) / name).touch()
        ...     [path.name for path in pictures_in(Path(folder))]
        ['a.png', 'b.JPG']
    """
    found = sorted(
        path
        for path in folder.iterdir()
        if path.suffix.lower() in SUFFIXES and path.name[0] != "." and not path.is_dir()
    )
    if not found:
        raise InputError(f"folder {folder} holds no picture ({', '.join(SUFFIXES)})")
    return found


def read_image(path: str | Path) -> Tensor:
    """Read a picture, cut the largest centred square, and shrink it to 32x32.

    What is transparent lies on white.

    Args:
        path: any file that Pillow reads.

    Returns:
        uint8 ``[3, 32, 32]``, RGB.

    Raises:
        InputError: if the file is missing, may not be read, or is not a picture with at most
            16 bits for each value.

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
        with (
            warnings.catch_warnings(action="ignore", category=Image.DecompressionBombWarning),
            Image.open(path) as file,
        ):
            picture = ImageOps.exif_transpose(file)
            mode = picture.mode
            # What Pillow opens as 32-bit integers has 16 bits in these formats.
            any_range = mode == "F" or (mode == "I" and file.format not in ("PNG", "PPM"))
            if mode.startswith("I"):  # grey, which convert() would clip
                grey = numpy.asarray(picture).clip(0, 0xFFFF) >> 8
                picture = Image.fromarray(grey.astype(numpy.uint8))
            if "A" in picture.getbands() or "transparency" in picture.info:
                picture = picture.convert("RGBA")
                white = Image.new("RGBA", picture.size, "white")
                picture = Image.alpha_composite(white, picture)
            picture = picture.convert("RGB")
    except MemoryError:
        raise
    except Image.DecompressionBombError as error:
        raise InputError(f"image {path} has too many pixels; make it smaller first") from error
    except Exception as error:  # Pillow raises many kinds for a damaged file
        why = getattr(error, "strerror", None) or "not a picture, or damaged"
        raise InputError(f"image {path} cannot be read: {why}") from error
    if any_range:
        kind = "floating-point" if mode == "F" else "integer"
        raise InputError(f"image {path} holds {kind} values of any size; save it with 8 or 16 bits")
    picture = ImageOps.fit(picture, (32, 32), Image.Resampling.LANCZOS)
    pixels = torch.frombuffer(bytearray(picture.tobytes()), dtype=torch.uint8)
    return pixels.reshape(32, 32, 3).permute(2, 0, 1).contiguous()
