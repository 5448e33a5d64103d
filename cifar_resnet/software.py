"""Which code runs: its commit, the checksum of its files, the versions of its libraries."""

import hashlib
import io
import platform
import re
import subprocess
import tarfile
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePosixPath

import torch


@dataclass(frozen=True)
class Software:
    """What ran.

    Attributes:
        commit: of this project; None where there is no git.
        clean: whether no file of the whole checkout that git knows differs from the commit; a
            new file that git was not told of does not count.
        source_sha256: of every module of the package, so that it identifies the code even where
            there is no git; `cifar_resnet.results.add` then finds the commit that holds it.
        python: its version, as the next three; CUDA's is None without it.
        torch: see above.
        torchvision: see above.
        cuda: see above.
        platform: operating system and kind of processor.
    """

    commit: str | None
    clean: bool | None
    source_sha256: str
    python: str
    torch: str
    torchvision: str
    cuda: str | None
    platform: str


def software() -> Software:
    """Describe the running code and libraries.

    >>> len(software().source_sha256)
    64
    """
    import torchvision

    modules = sorted(Path(__file__).parent.glob("*.py"))
    commit = git("rev-parse", "HEAD")
    return Software(
        commit=None if commit is None else commit.decode().strip(),
        clean=None if commit is None else git("status", "--porcelain", "-uno") == b"",
        source_sha256=_checksum((path.name, path.read_bytes()) for path in modules),
        python=platform.python_version(),
        torch=str(torch.__version__),
        torchvision=torchvision.__version__,
        cuda=torch.version.cuda if torch.cuda.is_available() else None,
        platform=f"{platform.system()} {platform.machine()}",
    )


@cache
def source_at(commit: str) -> str | None:
    """`Software.source_sha256` of a commit; None if there is no such commit.

    Args:
        commit: any name that git knows.
    """
    packed = git("archive", "--format=tar", commit, "cifar_resnet")
    if packed is None:
        return None
    modules = {}
    with tarfile.open(fileobj=io.BytesIO(packed)) as tar:
        for member in tar.getmembers():
            path, file = PurePosixPath(member.name), tar.extractfile(member)
            if file and len(path.parts) == 2 and path.suffix == ".py":
                modules[path.name] = file.read()
    return _checksum(sorted(modules.items()))


def _checksum(modules: Iterable[tuple[str, bytes]]) -> str:
    """Of names and contents, in their order."""
    digest = hashlib.sha256()
    for name, content in modules:
        digest.update(name.encode() + b"\0" + content + b"\0")
    return digest.hexdigest()


@cache
def commit_of(source_sha256: str) -> str | None:
    """The last commit that changed the package into what ran; None if none did.

    Args:
        source_sha256: of the code that ran (`Software.source_sha256`).

    Example:
        >>> commit_of("0" * 64) is None
        True
    """
    every = git("log", "--format=%H", "--", "cifar_resnet/*.py") or b""
    commits = every.decode().split()
    return next((commit for commit in commits if source_at(commit) == source_sha256), None)


def commit_objection(said: Software) -> str | None:
    """Why git does not confirm which code ran; None if it does, or has no history here.

    Args:
        said: of any record.

    Example:
        >>> from dataclasses import replace
        >>> commit_objection(replace(software(), commit="HEAD"))
        "its commit is 'HEAD', not the name of one"
    """
    if not re.fullmatch(r"[0-9a-f]{40}", said.commit or ""):
        return f"its commit is {said.commit!r}, not the name of one"
    if not _has_history():
        return None
    committed = source_at(said.commit)
    if committed is None:
        return f"its commit {said.commit} is unknown"
    if committed != said.source_sha256:
        return f"its commit {said.commit} holds other code than ran (source_sha256)"
    return None


def git(*arguments: str) -> bytes | None:
    """Output of git in this project's own checkout; None where there is none, or if it fails.

    Args:
        arguments: of git, such as ``"status"``.

    Example:
        >>> git("no-such-command") is None
        True
    """
    top = Path(__file__).parent.parent
    if not (top / ".git").exists():
        return None
    try:
        done = subprocess.run(["git", *arguments], cwd=top, capture_output=True)
    except OSError:
        return None
    return done.stdout if done.returncode == 0 else None


@cache
def _has_history() -> bool:
    shallow = git("rev-parse", "--is-shallow-repository")
    return shallow is not None and shallow.strip() == b"false"
