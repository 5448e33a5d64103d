"""MkDocs hook: notebooks become Markdown pages like all others.

mkdocs-jupyter executes a notebook; our template (``notebook_templates``) turns it into
Markdown instead of 600 kB of HTML with styles and scripts from elsewhere; MkDocs renders
that, so that formulas, links, headings and search work as on any page.

Pictures are SVG without a background: their text is in the page's font, and what matplotlib
draws in black takes the page's own colour, light or dark. Behind each is a table of its data
(``notebook_tables.py``). A notebook's first paragraph describes its page to search engines.

Other pages get the buttons to download and to run a notebook where they first speak of it.

An executed notebook is kept in ``.cache`` under a key of everything it depends on: its own
text, the template, the hooks that show it, the whole package, and all that is installed.
"""

import hashlib
import html
import os
import re
import sys
from importlib.metadata import distributions
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import Files
from mkdocs.structure.pages import Page
from mkdocs_jupyter.config import settings

import cifar_resnet
from cifar_resnet.files import write_atomically

TEMPLATES = Path(__file__).resolve().parent / "notebook_templates"
_INSTALLED = sorted({f"{each.name} {each.version}" for each in distributions()})

_KERNEL = """
c.InlineBackend.figure_formats = {"svg"}
c.InlineBackend.rc = {
    "svg.fonttype": "none",
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "legend.framealpha": 0.0,
}
c.InteractiveShellApp.exec_lines = ["import sys; sys.path.append(HOOKS); import notebook_tables"]
""".replace("HOOKS", repr(str(Path(__file__).resolve().parent)))


def on_config(config: MkDocsConfig) -> None:
    """Point mkdocs-jupyter to our templates, and the kernel to our settings."""
    settings.templates_dir = str(TEMPLATES)
    folder = Path(config.config_file_path).parent / ".cache" / "ipython"
    profile = folder / "profile_default"
    profile.mkdir(parents=True, exist_ok=True)
    (profile / "ipython_kernel_config.py").write_text(_KERNEL)
    os.environ["IPYTHONDIR"] = str(folder)


def on_pre_page(page: Page, config: MkDocsConfig, files: Files) -> None:
    """Wrap the ``render`` that mkdocs-jupyter has just given the page."""
    if not page.file.src_uri.endswith(".ipynb"):
        return
    execute = page.render
    cached = Path(config.config_file_path).parent / ".cache" / "notebooks" / f"{_key(page)}.md"

    def render(config: MkDocsConfig, files: Files) -> None:
        if not cached.exists():
            execute(config, files)
            escaped = str(page.content).split("<")[0]  # mkdocs-jupyter appends styles
            shown = _tidy(html.unescape(escaped))
            write_atomically(cached, lambda part: part.write_text(shown, "utf-8"))
        markdown = cached.read_text("utf-8")
        page.meta.setdefault("description", _described(markdown))
        page.markdown = _with_buttons(markdown, page, config)
        Page.render(page, config, files)

    page.render = render  # type: ignore[method-assign]


def _tidy(markdown: str) -> str:
    """In pictures black becomes the page's own colour; when and by what they were made goes.

    So do names that nothing in the picture refers to: another picture has them, too.
    """

    def tidy(drawing: re.Match[str]) -> str:
        kept = re.sub("<metadata>.*?</metadata>", "", drawing[0], flags=re.DOTALL)
        used = set(re.findall('[("]#([^)"]+)', kept))
        kept = re.sub(r' id="([^"]*)"', lambda name: name[0] if name[1] in used else "", kept)
        return kept.replace("#000000", "currentColor")

    return re.sub("<svg .*?</svg>", tidy, markdown, flags=re.DOTALL)


def _described(markdown: str) -> str:
    """The first paragraph below the title as plain text, without sentences of hard formulas."""
    _, first, *_ = re.split(r"\n\s*\n", markdown.strip() + "\n\n")
    text = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", first)
    text = re.sub(r"\\operatorname\{(\w+)\}|\\big[lr]", r"\1", text)
    text = re.sub(r"\$([\w()+-]+)\$", r"\1", text)
    sentences = re.findall("[^。？！\n]+[。？！]", text)
    return re.sub('[`*"<>&]', "", "".join(s for s in sentences if "$" not in s))


def _with_buttons(markdown: str, page: Page, config: MkDocsConfig) -> str:
    """Put the ways to run a notebook below its title."""
    path = page.file.src_uri
    title, _, rest = markdown.partition("\n")
    return f"{title}\n\n{_buttons(path.rsplit('/', 1)[-1], path, config)}\n{rest}"


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Put them also below the first paragraph of a page that links to a notebook."""
    if page.file.src_uri.endswith(".ipynb"):
        return html
    for paragraph in re.finditer(r"<p>(?:(?!</p>).)*</p>", html, re.DOTALL):
        link = re.search(r'href="([^":]*notebooks/([\w-]+)(?:/|\.html))["#]', paragraph[0])
        if link:
            href, name = link.groups()
            beside = href[: href.rindex("/") + 1]
            buttons = _buttons(f"{beside}{name}.ipynb", f"notebooks/{name}.ipynb", config)
            return f"{html[: paragraph.end()]}\n{buttons}{html[paragraph.end() :]}"
    return html


def _buttons(href: str, path: str, config: MkDocsConfig) -> str:
    repository = (config.repo_url or "").rstrip("/")
    colab = repository.replace("https://github.com", "https://colab.research.google.com/github")
    return (
        f'<p class="notebook-buttons"><a class="md-button" href="{href}" download>下载笔记本</a>'
        f'<a class="md-button" href="{colab}/blob/main/docs/{path}">在 Colab 中打开</a></p>'
    )


def _key(page: Page) -> str:
    package = Path(cifar_resnet.__file__).parent
    sources = [Path(page.file.abs_src_path or ""), *TEMPLATES.rglob("*"), *package.rglob("*")]
    shows = ("notebooks.py", "notebook_tables.py", "charts.py")
    sources += [Path(__file__).with_name(name) for name in shows]
    digest = hashlib.sha256("\n".join([sys.version, *_INSTALLED]).encode())
    for path in sorted(sources):
        if path.is_file() and path.suffix != ".pyc":
            digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()
