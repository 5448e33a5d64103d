"""MkDocs hook: formulas become HTML + MathML at build, so that pages need no math script.

Arithmatex marks the formulas (``$…$`` and ``$$…$$``); one KaTeX process renders those of
all pages together. A formula that KaTeX cannot read fails the build.
"""

import html
import json
import re
from typing import Any

import node
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import Files

_MARKED = re.compile(r'<(span|div) class="arithmatex">\\([(\[])(.*?)\\[)\]]</\1>', re.DOTALL)
# Browsers may break a line between a formula and the punctuation beside it.
_FORMULA = r'<span class="arithmatex">\\\((?:(?!</span>).)*?\\\)</span>'
_STOPS = "[，。、；：！？）”]"
_WITH_STOPS = re.compile(rf"([（“]+{_FORMULA}{_STOPS}*|{_FORMULA}{_STOPS}+)", re.DOTALL)
_rendered: dict[tuple[str, bool], str] = {}  # lives as long as `mkdocs serve`


def on_env(env: Any, config: MkDocsConfig, files: Files) -> None:
    """Render the formulas of all pages, after the last page became HTML."""
    pages = [file.page for file in files.documentation_pages() if file.page]
    wanted = {
        _formula(match): page for page in pages for match in _MARKED.finditer(page.content or "")
    }
    new = [formula for formula in wanted if formula not in _rendered]
    if new:
        question = json.dumps([{"tex": tex, "display": display} for tex, display in new])
        answers = json.loads(node.run("math.mjs", stdin=question))
        for formula, answer in zip(new, answers, strict=True):
            if "error" in answer:
                where = wanted[formula].file.src_uri
                raise PluginError(f"{where}: formula {formula[0]!r}: {answer['error']}")
            _rendered[formula] = answer["html"]
    for page in pages:
        whole = _WITH_STOPS.sub(r'<span class="whole">\1</span>', page.content or "")
        page.content = _MARKED.sub(_replacement, whole)


def _formula(match: re.Match[str]) -> tuple[str, bool]:
    return html.unescape(match[3]).strip(), match[2] == "["


def _replacement(match: re.Match[str]) -> str:
    # Search would index every formula three times over: as HTML, MathML and TeX.
    tag, formula = match[1], _rendered[_formula(match)]
    return f'<{tag} class="arithmatex" data-search-exclude>{formula}</{tag}>'
