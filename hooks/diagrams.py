"""MkDocs hook: Mermaid diagrams become SVG at build, so that pages need no script for them.

Each needs a description for those who do not see it, in Mermaid's own way: a line
``accDescr: …``. A diagram without one, or one that cannot be read, fails the build.
"""

import html
import json
import re
from typing import Any

import node
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import Files

_MARKED = re.compile(r'<pre class="mermaid"><code>(.*?)</code></pre>', re.DOTALL)
_DESCRIPTION = re.compile(r"^\s*accDescr: *(\S.*)\n", re.MULTILINE)
# The renderer's own style sheet fetches a font from elsewhere; ours is in site.css.
_STYLE = re.compile(r"<style>.*?</style>", re.DOTALL)
_drawn: dict[str, str] = {}  # lives as long as `mkdocs serve`


def on_env(env: Any, config: MkDocsConfig, files: Files) -> None:
    """Draw the diagrams of all pages, after the last page became HTML."""
    pages = [file.page for file in files.documentation_pages() if file.page]
    wanted = {
        html.unescape(match[1]): page
        for page in pages
        for match in _MARKED.finditer(page.content or "")
    }
    new = [source for source in wanted if source not in _drawn]
    question = json.dumps([_DESCRIPTION.sub("", source) for source in new])
    answers = json.loads(node.run("diagrams.mjs", stdin=question)) if new else []
    for source, answer in zip(new, answers, strict=True):
        found = _DESCRIPTION.search(source)
        problem = answer.get("error") or (None if found else "it has no line accDescr: …")
        if problem or not found:
            raise PluginError(f"{wanted[source].file.src_uri}: diagram {source[:40]!r}: {problem}")
        _drawn[source] = _figure(answer["svg"], found[1], len(_drawn))
    for page in pages:
        page.content = _MARKED.sub(lambda m: _drawn[html.unescape(m[1])], page.content or "")


def _figure(svg: str, description: str, number: int) -> str:
    """Inline SVG; the names of its arrow heads must be its own."""
    svg = _STYLE.sub("", svg).replace("arrowhead", f"arrowhead-{number}")
    label = f'<svg role="img" aria-label="{html.escape(description)}"'
    svg = re.sub(r'<svg( [^>]*?) style="[^"]*"', rf"{label}\1", svg, count=1)
    return f'<figure class="diagram" data-search-exclude>{svg}</figure>'
