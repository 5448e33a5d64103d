import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cifar_resnet.errors import InputError
from cifar_resnet.recipe import get_recipe
from cifar_resnet.record import Record, checksum, read_record, write_record
from tests.site_build import invented


@pytest.fixture
def record() -> Record:
    return invented(get_recipe("smoke"), 0, 0.5)


def edit(path: Path, where: list[Any], value: Any, *, sign: bool = True) -> None:
    """Change one field of a record's file, with a checksum that fits unless told not to."""
    content = json.loads(path.read_text())
    target = content
    for key in where[:-1]:
        target = target[key]
    if value is ...:
        del target[where[-1]]
    else:
        target[where[-1]] = value
    if sign:
        content["checksum"] = checksum(content)
    path.write_text(json.dumps(content))


def test_what_is_written_is_read(record: Record, tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    write_record(record, path)
    found = read_record(path)
    assert replace(found, checksum="") == record
    assert found.checksum == checksum(json.loads(path.read_text()))


@pytest.mark.parametrize(
    ("where", "value", "message"),
    [
        (["seed"], "0", "seed must be int, not '0'"),
        (["seed"], True, "seed must be int, not True"),
        (["seed"], ..., "seed is missing"),
        (["mood"], "good", "mood is unknown"),
        (["recipe", "epochs"], None, "recipe.epochs must be int"),
        (["recipe", "augmentation", "flip"], 1, "recipe.augmentation.flip is unknown"),
        (["recipe", "epochs"], 0, "epochs must be at least 1"),
        (["history", 0, "eval_accuracy"], "?", r"history\[0\].eval_accuracy must be float"),
        (["metrics", "confusion", 1, 0], 0.5, r"metrics.confusion\[1\]\[0\] must be int"),
        (["metrics", "calibration", 0], [2, 0.6], "must have 3 entries, not 2"),
        (["data", "md5"], [], "data.md5 must be an object"),
        (["history"], {}, "history must be a list"),
        (["software"], "git", "software must be an object"),
        (["finished"], "yesterday", "finished must be an ISO 8601 time"),
        (["train_seconds"], float("nan"), "train_seconds must be a finite number"),
        (["train_seconds"], 10**400, "train_seconds must be a finite number"),
        (["schema"], 99, "schema must be 1, not 99"),
    ],
)
def test_the_wrong_field_is_named(
    record: Record, tmp_path: Path, where: list[Any], value: Any, message: str
) -> None:
    path = tmp_path / "record.json"
    write_record(record, path)
    edit(path, where, value)
    with pytest.raises(InputError, match=message) as caught:
        read_record(path)
    assert str(path) in str(caught.value)


def test_an_edited_number_is_noticed(record: Record, tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    write_record(record, path)
    edit(path, ["metrics", "accuracy"], 0.99, sign=False)
    with pytest.raises(InputError, match="edited"):
        read_record(path)


@pytest.mark.parametrize("text", ["", "[]", "{", "null"])
def test_what_is_no_record_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "record.json"
    path.write_text(text)
    with pytest.raises(InputError, match=str(path)):
        read_record(path)
