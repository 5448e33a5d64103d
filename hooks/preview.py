"""MkDocs hook: after an edit ``make serve`` (``mkdocs serve --dirty``) builds what depends on it.

An edited page is built alone. Records, templates and settings go into every page, so that all
are built anew. Code already imported stays what it was; when the package or a hook has changed,
the server starts again.
"""

import hashlib
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import Files

_SHARED = (
    "cifar_resnet/weights/*",
    "hooks/notebook_templates/**/*",
    "mkdocs.yml",
    "overrides/**/*",
    "results/**/*",
)
_CODE = ("cifar_resnet/*.py", "hooks/**/*.py", "hooks/web/*.mjs", "hooks/terms.txt")
_previewing = False
_imported = ""  # digest of the code when the server started
_shared: list[tuple[Path, int]] = []  # files and their times when all pages were last built


def on_startup(command: str, dirty: bool) -> None:
    """Remember whether somebody is writing."""
    global _previewing
    _previewing = command == "serve" and dirty


def on_config(config: MkDocsConfig) -> None:
    """Start the server again if its own code is no longer what it imported."""
    global _imported
    if not _previewing:
        return
    code = digest(Path(config.config_file_path).parent)
    if _imported not in ("", code):
        print("code has changed: starting again", flush=True)
        shutil.rmtree(config.site_dir, ignore_errors=True)
        os.execv(sys.executable, sys.orig_argv)  # noqa: S606
    _imported = code


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Have every page built if something that all of them show has changed."""
    global _shared
    top = Path(config.config_file_path).parent
    found = [(path, path.stat().st_mtime_ns) for path in _files(top, _SHARED)]
    if found != _shared:
        for file in files.documentation_pages():
            file.is_modified = lambda: True  # type: ignore[method-assign]
    _shared = found
    return files


def digest(top: Path) -> str:
    """Of all code that a build imports.

    Raises:
        PluginError: if some of it is not Python yet, half way through an edit.
    """
    found = hashlib.sha256()
    for path in _files(top, _CODE):
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".py":
            try:
                compile(text, path, "exec")
            except SyntaxError as error:
                raise PluginError(f"{path}, line {error.lineno}: {error.msg}") from error
        found.update(f"{path}\0{text}\0".encode())
    return found.hexdigest()


def _files(top: Path, patterns: tuple[str, ...]) -> Iterator[Path]:
    for pattern in patterns:
        for path in sorted(top.glob(pattern)):
            if path.is_file() and "node_modules" not in path.parts:
                yield path
