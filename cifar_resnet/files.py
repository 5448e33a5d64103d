"""Files and folders, kept whole: written at once, used by one process at a time."""

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import NamedTemporaryFile

from cifar_resnet.errors import InputError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Write beside the target, then rename: a reader sees the old file or the new one.

    Args:
        path: the target; its folder is made if need be.
        write: called with the temporary path.

    Example:
        >>> import tempfile
        >>> target = Path(tempfile.mkdtemp()) / "new" / "file.txt"
        >>> write_atomically(target, lambda path: print(path.write_text("done")))
        4
        >>> target.read_text()
        'done'
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    try:
        write(part)
        os.replace(part, path)
    except BaseException as error:
        part.unlink(missing_ok=True)  # a full disk needs its room
        if isinstance(error, OSError) and error.strerror and not error.filename:
            error.filename = str(path)
        raise


def must_be_writable(folder: Path) -> None:
    """Find out before a measurement whether its record can be written.

    Args:
        folder: it is made if need be.

    Raises:
        OSError: if it cannot be.

    Example:
        >>> must_be_writable(Path("/dev/null/records"))
        Traceback (most recent call last):
        NotADirectoryError: [Errno 20] Not a directory: '/dev/null/records'
    """
    folder.mkdir(parents=True, exist_ok=True)
    with NamedTemporaryFile(dir=folder):
        pass


@contextmanager
def sole_user(folder: Path) -> Iterator[None]:
    """Keep other processes of this machine from training in a folder; where the system can.

    Args:
        folder: it must exist.

    Raises:
        InputError: if another process is at it.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> with sole_user(folder):
        ...     with sole_user(folder):
        ...         pass
        ... # doctest: +ELLIPSIS
        Traceback (most recent call last):
        cifar_resnet.errors.InputError: another process trains in ...; wait for it, or choose ...
    """
    if fcntl is None:
        yield
        return
    with (folder / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InputError(
                f"another process trains in {folder}; wait for it, or choose another --out"
            ) from error
        except OSError:  # some network file systems know no locks
            pass
        yield


def sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of a file.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "empty"
    >>> path.touch()
    >>> sha256(path)[:8]
    'e3b0c442'
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
