"""Finding, checking and downloading CIFAR-10, without the network."""

import errno
import hashlib
import io
import pickle
import tarfile
import time
from dataclasses import replace
from http.client import BadStatusLine
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torchvision.datasets import CIFAR10

from cifar_resnet import data
from cifar_resnet.errors import InputError


def tiny_archive() -> tuple[bytes, dict[str, str]]:
    """An archive laid out like the published one, with 10 images a file, and its MD5s."""
    rng = np.random.default_rng(0)
    files = {
        name: pickle.dumps(
            {"data": rng.integers(0, 256, (10, 3072), np.uint8), "labels": list(range(10))}
        )
        for name in [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]
    }
    files["batches.meta"] = pickle.dumps({"label_names": list(data.CLASSES)})
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        for name, blob in files.items():
            info = tarfile.TarInfo(f"{data.FOLDER}/{name}")
            info.size = len(blob)
            tar.addfile(info, io.BytesIO(blob))
    return out.getvalue(), {name: hashlib.md5(blob).hexdigest() for name, blob in files.items()}


@pytest.fixture
def mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A mirror of the tiny archive as the published one, the only one; the cache is empty."""
    archive, md5 = tiny_archive()
    monkeypatch.setattr(data, "ARCHIVE_MD5", hashlib.md5(archive).hexdigest())
    train = [[name, md5[name]] for name in md5 if name.startswith("data")]
    monkeypatch.setattr(CIFAR10, "train_list", train)
    monkeypatch.setattr(CIFAR10, "test_list", [["test_batch", md5["test_batch"]]])
    meta = {"filename": "batches.meta", "key": "label_names", "md5": md5["batches.meta"]}
    monkeypatch.setattr(CIFAR10, "meta", meta)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("CIFAR10_ROOT", raising=False)
    good = tmp_path / "good.tar.gz"
    good.write_bytes(archive)
    monkeypatch.setattr(data, "MIRRORS", (good.as_uri(),))
    return good.as_uri()


def test_the_second_mirror_serves_when_the_first_fails_or_lies(
    mirror: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone, bad = tmp_path / "gone.tar.gz", tmp_path / "bad.tar.gz"
    bad.write_bytes(b"an error page with status 200")
    monkeypatch.setattr(data, "MIRRORS", (gone.as_uri(), bad.as_uri(), mirror))
    found = data.load()
    assert (found.name, found.split) == ("cifar10", "test")
    assert found.train_images.shape == (50, 3, 32, 32)
    assert found.eval_images.dtype == torch.uint8
    assert found.eval_labels.tolist() == list(range(10))
    assert set(found.md5) == {*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"}
    assert [p.name for p in data.cache_folder().iterdir()] == [data.FOLDER]

    monkeypatch.setattr(data, "MIRRORS", ())
    assert torch.equal(data.load().train_images, found.train_images), "found again in the cache"
    given = data.load(data.cache_folder() / data.FOLDER)
    assert torch.equal(given.train_images, found.train_images), "the folder itself is understood"


def test_no_network_is_one_line_with_two_ways_out(
    mirror: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(data, "MIRRORS", ((tmp_path / "gone").as_uri(),))
    with pytest.raises(InputError) as caught:
        data.load()
    message = str(caught.value)
    assert "\n" not in message
    assert str(data.cache_folder()) in message
    assert "unpack it" in message
    assert "--data" in message


def test_a_mirror_that_talks_nonsense_is_passed_over(
    mirror: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetch = data._fetch

    def first_fails(url: str, target: Path) -> None:
        if url == "http://nonsense":
            raise BadStatusLine("HTTP 0")
        fetch(url, target)

    monkeypatch.setattr(data, "_fetch", first_fails)
    monkeypatch.setattr(data, "MIRRORS", ("http://nonsense", mirror))
    assert data.load().name == "cifar10"


def test_pythons_without_filters_unpack_too(mirror: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """3.11.0 to 3.11.3; Debian 12 has 3.11.2."""
    extract = tarfile.TarFile.extractall

    def old(self: tarfile.TarFile, path: str) -> None:
        extract(self, path, filter="data")

    monkeypatch.delattr(tarfile, "data_filter")
    monkeypatch.setattr(tarfile.TarFile, "extractall", old)
    assert data.load().name == "cifar10"


def test_a_folder_may_be_called_as_the_stand_in_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="synthetic"):
        data.load(Path("synthetic"))


def test_a_wrong_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=str(tmp_path)):
        data.load(tmp_path)


def test_the_environment_variable_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CIFAR10_ROOT", str(tmp_path / "elsewhere"))
    with pytest.raises(InputError, match="elsewhere"):
        data.load()


def test_a_file_that_may_not_be_read_is_not_called_damaged(
    mirror: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    data.load()

    def refuse(*_: object) -> bool:
        raise PermissionError(13, "Permission denied", "data_batch_1")

    monkeypatch.setattr("torchvision.datasets.CIFAR10._check_integrity", refuse)
    with pytest.raises(PermissionError, match="data_batch_1"):
        data.load()


@pytest.mark.parametrize("name", ["data_batch_3", "test_batch"])
def test_a_damaged_file_is_noticed(mirror: str, name: str) -> None:
    data.load()
    batch = data.cache_folder() / data.FOLDER / name
    batch.write_bytes(batch.read_bytes()[:-1])
    with pytest.raises(InputError, match="damaged"):
        data.load()


def test_held_out_images_are_taken_from_the_training_set() -> None:
    whole, held = data.load("synthetic"), data.load("synthetic", val=True)
    n = len(held.train_images)
    assert torch.equal(whole.train_images[:n], held.train_images)
    assert torch.equal(whole.train_images[n:], held.eval_images)
    assert held.split == "val"


@pytest.mark.parametrize(
    ("field", "value", "objection"),
    [
        ("train_images", torch.zeros(64, 3, 32, 32), "train_images must be uint8 .* not float32"),
        ("eval_images", torch.zeros(32, 3, 28, 28, dtype=torch.uint8), r"\[32, 3, 28, 28\]"),
        ("train_images", np.zeros((64, 3, 32, 32), np.uint8), "tensor, not ndarray; torch.from_n"),
        ("train_labels", list(range(64)), "train_labels must be a torch tensor, not list"),
        ("train_labels", torch.zeros(64, dtype=torch.int32), "must be int64"),
        ("train_labels", torch.zeros(64, 1, dtype=torch.int64), "must be int64"),
        ("train_labels", torch.zeros(63, dtype=torch.int64), "must be 64, one for each image"),
        ("eval_labels", torch.full((32,), -1), "eval_labels must not be negative, as -1 is"),
        ("md5", None, "md5 must be a dict"),
        ("name", "my data", "name must be of letters"),
        ("name", "my-cifar10", "name must be of letters"),
        ("split", "../test", "split must be of letters"),
        ("split", "", "split must be of letters"),
        ("name", None, "name must be of letters"),
    ],
)
def test_data_of_ones_own_is_checked(
    synthetic: data.Dataset, field: str, value: Any, objection: str
) -> None:
    data.check(synthetic)
    with pytest.raises(InputError, match=objection):
        data.check(replace(synthetic, **{field: value}))


def test_no_evaluation_images_are_refused(synthetic: data.Dataset) -> None:
    none = {f"eval_{what}": getattr(synthetic, f"eval_{what}")[:0] for what in ("images", "labels")}
    with pytest.raises(InputError, match="eval_labels must be of at least one image"):
        data.check(replace(synthetic, **none))


@pytest.mark.cifar10
def test_the_real_data_set(cifar10_root: Path) -> None:
    found = data.load(cifar10_root, val=True)
    assert (len(found.train_images), len(found.eval_images)) == (45_000, 5_000)
    taken = []
    for _ in range(3):
        start = time.process_time()
        assert data.load(cifar10_root).eval_labels.bincount().tolist() == [1000] * 10
        taken.append(time.process_time() - start)
    assert min(taken) < 1


def test_classes_are_in_the_order_of_the_labels() -> None:
    """As in the data set's own ``batches.meta``."""
    words = "airplane automobile bird cat deer dog frog horse ship truck"
    assert tuple(words.split()) == data.CLASSES


def test_a_missing_home_folder_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="no such home folder; give --data DIR"):
        data.load("~nobody-of-this-name/cifar")


def test_a_full_disk_is_no_mirrors_fault(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.delenv("CIFAR10_ROOT", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(data, "_fetch", full)
    with pytest.raises(OSError, match="No space left"):
        data.load()
    with pytest.raises(InputError, match="was not to be downloaded"):
        data.load(download=False)
