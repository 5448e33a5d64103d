"""MkDocs hook: a page loads no styles for what it does not show, and its scripts after all else.

On a slow line every stylesheet holds up the first text on the screen, and every script that
is fetched beside them does so too.
"""

import re

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.pages import Page

# Stylesheet: pattern of what a page that needs it contains.
ONLY_WITH = {
    "assets/_mkdocstrings.css": 'class="doc ',
    "assets/charts.css": '<figure class="(chart|strips)',
    "assets/vendor/katex/katex.min.css": '<span class="katex',
}


def on_post_page(output: str, page: Page, config: MkDocsConfig) -> str:
    """Leave out what is not needed, and put off what is not urgent."""
    for style, mark in ONLY_WITH.items():
        if not re.search(mark, output):
            output = re.sub(rf'<link rel="stylesheet" href="[^"]*{re.escape(style)}">', "", output)
    return output.replace('<script src="', '<script defer fetchpriority="low" src="')
