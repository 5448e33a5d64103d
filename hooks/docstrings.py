"""Griffe extension: the API pages show the doctests of our docstrings as examples."""

import re
from textwrap import indent
from typing import Any

from griffe import Extension, Object


class Doctests(Extension):
    """Give doctests the heading ``Examples:``, by which Griffe knows them."""

    def on_object(self, *, obj: Object, **_: Any) -> None:
        """Called for each module, class and function."""
        if obj.docstring:
            obj.docstring.value = with_heading(obj.docstring.value)


def with_heading(docstring: str) -> str:
    r"""Name a section ``Example:`` in the plural; put one before doctests that have none.

    >>> with_heading("Add.\n\n>>> 1 + 1\n2")
    'Add.\n\nExamples:\n    >>> 1 + 1\n    2'
    """
    docstring = re.sub(r"^Example:$", "Examples:", docstring, flags=re.MULTILINE)
    bare = re.search(r"^>>> ", docstring, flags=re.MULTILINE)
    if bare is None:
        return docstring
    return f"{docstring[: bare.start()]}Examples:\n{indent(docstring[bare.start() :], '    ')}"
