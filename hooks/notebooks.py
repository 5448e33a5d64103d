"""MkDocs hook: notebooks become Markdown pages like all others.

mkdocs-jupyter executes a notebook; our template (``notebook_templates``) turns it into
Markdown instead of 600 kB of HTML with styles and scripts from elsewhere; MkDocs renders
that, so that formulas, links, headings and search work as on any page.

An executed notebook is kept in ``.cache`` under a key of everything it depends on: its own
text, the template, the whole package and the libraries' versions.
"""

import hashlib
import html
from importlib.metadata import version
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import Files
from mkdocs.structure.pages import Page
from mkdocs_jupyter.config import settings

import cifar_resnet

TEMPLATES = Path(__file__).resolve().parent / "notebook_templates"
_LIBRARIES = ("ipykernel", "matplotlib", "mkdocs-jupyter", "nbconvert", "numpy", "torch")


def on_config(config: MkDocsConfig) -> None:
    """Point mkdocs-jupyter to our templates."""
    settings.templates_dir = str(TEMPLATES)


def on_pre_page(page: Page, config: MkDocsConfig, files: Files) -> None:
    """Wrap the ``render`` that mkdocs-jupyter has just given the page."""
    if not page.file.src_uri.endswith(".ipynb"):
        return
    execute = page.render
    cached = Path(config.config_file_path).parent / ".cache" / "notebooks" / f"{_key(page)}.md"

    def render(config: MkDocsConfig, files: Files) -> None:
        if not cached.exists():
            execute(config, files)
            cached.parent.mkdir(parents=True, exist_ok=True)
            escaped = str(page.content).split("<")[0]  # mkdocs-jupyter appends styles
            cached.write_text(html.unescape(escaped), "utf-8")
        page.markdown = cached.read_text("utf-8")
        Page.render(page, config, files)

    page.render = render  # type: ignore[method-assign]


def _key(page: Page) -> str:
    package = Path(cifar_resnet.__file__).parent
    sources = [Path(page.file.abs_src_path or ""), *TEMPLATES.rglob("*"), *package.rglob("*")]
    digest = hashlib.sha256(" ".join(map(version, _LIBRARIES)).encode())
    for path in sorted(sources):
        if path.is_file() and path.suffix != ".pyc":
            digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()
