"""The data sets as uint8 tensors: CIFAR-10, found or downloaded, and the synthetic one."""

import errno
import hashlib
import os
import re
import tarfile
import tempfile
import urllib.request
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path

import torch
from torch import Tensor

from cifar_resnet.errors import InputError

CLASSES = (
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
)
"""CIFAR-10's classes, in the order of its labels."""
MIRRORS = (
    "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
    "https://dataset.bj.bcebos.com/cifar/cifar-10-python.tar.gz",
)
ARCHIVE_MD5 = "c58f30108f718f92721af3b95e74349a"
FOLDER = "cifar-10-batches-py"
HELD_OUT = 5000
_FULL = (errno.ENOSPC, errno.EDQUOT)


@dataclass(frozen=True)
class Dataset:
    """Training and evaluation images, whole, in memory.

    Attributes:
        name: ``"cifar10"`` or ``"synthetic"``; of one's own images any of letters, digits, ``_``
            and ``.``, as the record's file is named after it, between hyphens.
        split: what the evaluation images are: ``"test"``, or ``"val"`` for images held
            out of the training set.
        md5: checksum of every file it was read from; empty if there is none, or none is known.
        train_images: uint8 ``[N, 3, 32, 32]``.
        train_labels: int64 ``[N]``.
        eval_images: uint8 ``[M, 3, 32, 32]``.
        eval_labels: int64 ``[M]``.
    """

    name: str
    split: str
    md5: dict[str, str]
    train_images: Tensor
    train_labels: Tensor
    eval_images: Tensor
    eval_labels: Tensor


def load(source: str | Path | None = None, *, val: bool = False, download: bool = True) -> Dataset:
    """CIFAR-10 or the synthetic stand-in.

    Args:
        source: ``"synthetic"``, or the folder that holds ``cifar-10-batches-py``. By
            default the environment variable ``CIFAR10_ROOT``, else a cache folder of
            the user's, where a download goes too.
        val: hold the last 5,000 training images out and evaluate on them instead of
            the test images. Whatever is chosen (a learning rate, say) is chosen on these.
        download: fetch the data set into the cache folder if it is nowhere.

    Raises:
        InputError: if the data set is not there and cannot be fetched, or is damaged.
        OSError: if its files may not be read, or a download finds no room or no right to write.

    Example:
        >>> data = load("synthetic", val=True)
        >>> data.name, data.split, data.train_images.dtype
        ('synthetic', 'val', torch.uint8)
    """
    if source == "synthetic":
        from cifar_resnet.synthetic import draw

        md5: dict[str, str] = {}
        name, train, test = "synthetic", draw(1024, seed=0), draw(256, seed=1)
        held_out = 256
    else:
        name, held_out = "cifar10", HELD_OUT
        train, test, md5 = _cifar10(source, download)
    if val:
        train, test = (
            (train[0][:-held_out], train[1][:-held_out]),
            (train[0][-held_out:], train[1][-held_out:]),
        )
    return Dataset(name, "val" if val else "test", md5, *train, *test)


def check(data: Dataset) -> None:
    """Refuse what no network here can be trained on or measured with.

    Args:
        data: perhaps of one's own.

    Raises:
        InputError: if images, labels or names are of another type or shape than `Dataset` says.

    Example:
        >>> from dataclasses import replace
        >>> data = load("synthetic")
        >>> check(data)
        >>> check(replace(data, eval_labels=data.eval_labels[:9]))
        Traceback (most recent call last):
        cifar_resnet.errors.InputError: eval_labels must be 256, one for each image, not 9
    """
    for part in ("train", "eval"):
        images, labels = (getattr(data, f"{part}_{what}") for what in ("images", "labels"))
        check_images(images, f"{part}_images")
        check_labels(labels, len(images), f"{part}_labels")
    if not isinstance(data.md5, dict):
        raise InputError(f"md5 must be a dict of checksums, not {data.md5!r}; {{}} says none")
    for field in ("name", "split"):  # of which the record's file name is made
        word = getattr(data, field)
        if not isinstance(word, str) or not re.fullmatch(r"[A-Za-z0-9_.]+", word):
            raise InputError(f"{field} must be of letters, digits, _ and . only, not {word!r}")


def check_images(images: Tensor, name: str = "images", *, any_size: bool = False) -> None:
    """Refuse what is no batch of 32x32 pictures.

    Args:
        images: uint8 ``[N, 3, 32, 32]``.
        name: of the argument or field, for the message.
        any_size: let them be of another height and width.

    Raises:
        InputError: if they are of another type or shape.

    Example:
        >>> check_images(torch.zeros(1, 3, 32, 32, dtype=torch.uint8))
    """
    _check_tensor(images, name)
    sides = images.shape[2:] if any_size else (32, 32)
    if images.dtype != torch.uint8 or images.dim() != 4 or images.shape[1:] != (3, *sides):
        shape = f"[N, 3, {'H, W' if any_size else '32, 32'}]"
        raise InputError(
            f"{name} must be uint8 {shape} with values from 0 to 255, not {_kind(images)}"
        )


def check_labels(labels: Tensor, count: int, name: str = "labels") -> None:
    """Refuse what are no labels of so many images.

    Args:
        labels: int64 ``[N]``, none negative.
        count: number of images.
        name: of the argument or field, for the message.

    Raises:
        InputError: if they are of another type or shape, too few or too many, or none.

    Example:
        >>> check_labels(torch.tensor([3, 9]), 2)
    """
    _check_tensor(labels, name)
    if labels.dtype != torch.int64 or labels.dim() != 1:
        raise InputError(f"{name} must be int64 [N], not {_kind(labels)}")
    if len(labels) != count:
        raise InputError(f"{name} must be {count}, one for each image, not {len(labels)}")
    if not count:
        raise InputError(f"{name} must be of at least one image")
    if labels.min() < 0:
        raise InputError(f"{name} must not be negative, as {int(labels.min())} is")


def _check_tensor(value: object, name: str) -> None:
    """Refuse arrays, lists, pictures and paths where a tensor is needed."""
    if not isinstance(value, Tensor):
        raise InputError(
            f"{name} must be a torch tensor, not {type(value).__name__}; "
            "torch.from_numpy(...) makes one of an array"
        )


def _kind(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}"


def cache_folder() -> Path:
    """Where downloads are kept: ``$XDG_CACHE_HOME/cifar_resnet`` or ``~/.cache/cifar_resnet``.

    >>> cache_folder().name
    'cifar_resnet'
    """
    return _expanded(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "cifar_resnet"


def _expanded(path: str | Path) -> Path:
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise InputError(
            f"{path}: no such home folder; give --data DIR or set CIFAR10_ROOT"
        ) from error


def _cifar10(
    source: str | Path | None, download: bool
) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor], dict[str, str]]:
    from torchvision.datasets import CIFAR10

    class Checked(CIFAR10):  # type: ignore[misc]
        """Reads without computing every file's MD5 again: whoever reads first checks them all."""

        def _check_integrity(self) -> bool:
            return True

    given = source or os.environ.get("CIFAR10_ROOT")
    root = _expanded(given) if given else cache_folder()
    if root.name == FOLDER:  # a natural slip: the folder itself instead of its parent
        root = root.parent
    if not (root / FOLDER).is_dir():
        if given:
            raise InputError(
                f"no CIFAR-10 in {root}: it has no folder {FOLDER}; give its parent folder, "
                "or leave out --data and CIFAR10_ROOT to download it"
            )
        if not download:
            raise InputError(_nowhere(root, "was not to be downloaded"))
        _download(root)
    try:
        sets = CIFAR10(root, train=True, download=False), Checked(root, train=False)
    except RuntimeError as error:
        raise InputError(
            f"CIFAR-10 in {root / FOLDER} is damaged (its MD5s are not the published ones); "
            "delete that folder and get the data set again"
        ) from error
    train, test = (
        (torch.from_numpy(s.data).permute(0, 3, 1, 2).contiguous(), torch.tensor(s.targets))
        for s in sets
    )
    md5 = dict(CIFAR10.train_list + CIFAR10.test_list)
    return train, test, md5


def _nowhere(root: Path, why: str) -> str:
    return (
        f"CIFAR-10 is not in {root} and {why}; either fetch "
        f"{MIRRORS[0]} elsewhere and unpack it in {root}, or give the folder that holds "
        f"{FOLDER} as --data DIR or CIFAR10_ROOT (--data synthetic needs no download)"
    )


def _download(root: Path) -> None:
    """Fetch the archive from the first mirror that answers, check it, unpack it."""
    root.mkdir(parents=True, exist_ok=True)
    # A folder of its own: several processes may find at once that there is no data set.
    with tempfile.TemporaryDirectory(dir=root) as folder:
        archive = Path(folder) / "cifar-10-python.tar.gz"
        for url in MIRRORS:
            try:
                _fetch(url, archive)
            except (OSError, HTTPException) as error:
                if getattr(error, "errno", None) in _FULL:
                    raise  # no mirror can help
                continue
            if hashlib.md5(archive.read_bytes(), usedforsecurity=False).hexdigest() == ARCHIVE_MD5:
                with tarfile.open(archive) as tar:
                    if hasattr(tarfile, "data_filter"):
                        tar.extractall(folder, filter="data")
                    else:  # Python 3.11.0 to 3.11.3
                        tar.extractall(folder)  # noqa: S202 - of known content
                try:
                    (Path(folder) / FOLDER).rename(root / FOLDER)
                except OSError:
                    if not (root / FOLDER).is_dir():  # else another process was faster
                        raise
                return
    raise InputError(_nowhere(root, "no mirror gave it"))


def _fetch(url: str, target: Path) -> None:
    from tqdm import tqdm

    with urllib.request.urlopen(url, timeout=20) as response, target.open("wb") as out:
        total = int(response.headers.get("Content-Length") or 0) or None
        with tqdm(total=total, unit="B", unit_scale=True, desc=url.split("/")[2]) as bar:
            while block := response.read(1 << 16):
                out.write(block)
                bar.update(len(block))
