"""``make serve`` while somebody edits: what is built anew, and what is left alone."""

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests import ROOT
from tests.site_build import small

PAGES = {"index.md": "# 首页\n\n{{ accuracy('notes-cpu') }}", "other.md": "# 别的\n\n原来的话"}


def command() -> list[str]:
    """What ``make serve`` runs, less the path to it."""
    done = subprocess.run(
        ["make", "--dry-run", "serve"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    line = next(line for line in done.stdout.splitlines() if "mkdocs serve" in line)
    return line.strip().split()[1:]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A small site with a copy of the package, so that it can be edited."""
    (folder := tmp_path / "project").mkdir()
    small(folder, PAGES)
    (folder / "cifar_resnet").unlink()
    shutil.copytree(ROOT / "cifar_resnet", folder / "cifar_resnet")
    for record in (folder / "results").glob("*/*.json"):
        if not record.name.startswith("notes-cpu-cifar10-test"):
            record.unlink()  # the fewer there are to check, the sooner it serves
    return folder


@pytest.fixture
def said(folder: Path, tmp_path: Path) -> Iterator[Callable[[str, int], None]]:
    """Waits until the server has said something so many times."""
    log = tmp_path / "log"
    with log.open("w") as file:
        server = subprocess.Popen(
            [sys.executable, "-u", "-m", "mkdocs", *command(), "--dev-addr", "127.0.0.1:0"],
            cwd=folder,
            env=os.environ | {"PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path)},
            stdout=file,
            stderr=subprocess.STDOUT,
        )

    def wait(words: str, times: int) -> None:
        for _ in range(1200):
            if len(re.findall(words, log.read_text())) >= times:
                return
            assert server.poll() is None, log.read_text()
            time.sleep(0.1)
        pytest.fail(f"{words!r} not said {times} times: {log.read_text()}")

    try:
        wait("Serving on", 1)
        yield wait
    finally:
        server.kill()
        server.wait()


def test_an_edit_builds_what_depends_on_it(
    folder: Path, tmp_path: Path, said: Callable[[str, int], None]
) -> None:
    (site,) = tmp_path.glob("mkdocs_*")
    pages = [site / "index.html", site / "other" / "index.html"]

    def times() -> list[int]:
        return [page.stat().st_mtime_ns for page in pages]

    before = times()
    (folder / "docs" / "other.md").write_text("# 别的\n\n改过的话")
    said("Reloading browsers", 1)
    after = times()
    assert "改过的话" in pages[1].read_text()
    assert [a == b for a, b in zip(before, after, strict=True)] == [True, False]
    assert "原来的话" not in (site / "search" / "search_index.json").read_text()

    record = next((folder / "results" / "runs").glob("*.json"))
    record.touch()
    said("Reloading browsers", 2)
    touched = times()
    assert not any(a == b for a, b in zip(after, touched, strict=True))
    record.unlink()
    said("Reloading browsers", 3)
    assert not any(a == b for a, b in zip(touched, times(), strict=True))

    module = folder / "cifar_resnet" / "cli.py"
    whole = module.read_text()
    module.write_text("def half(\n")
    said(r"cli\.py, line 1: '\(' was never closed", 1)
    module.write_text(f"{whole}\n# edited\n")
    said("code has changed: starting again", 1)
    said("Serving on", 2)
