import errno
from pathlib import Path

import pytest

from cifar_resnet import files
from cifar_resnet.files import sole_user, write_atomically


def test_where_files_cannot_be_locked_training_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def flock(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(files.fcntl, "flock", flock)
    with sole_user(tmp_path):
        pass


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    path.write_text("whole")

    def fail(part: Path) -> None:
        part.write_text("half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_atomically(path, fail)
    assert path.read_text() == "whole"
    assert list(tmp_path.iterdir()) == [path], "which gives the room back"
