"""Runs in a notebook's kernel before its cells: behind each shown chart a table of its data."""

from collections.abc import Iterator
from typing import Any

from charts import folded, table
from IPython.display import display
from matplotlib import pyplot
from matplotlib.axes import Axes
from matplotlib.container import BarContainer

_ROWS = 12  # of a longer line, about so many points, evenly spread
_show = pyplot.show


def _series(axes: Axes) -> Iterator[tuple[str, list[str], list[float]]]:
    """Label, places and values of each line and each row of bars."""
    lines: Any = axes.get_lines()  # of numbers, or of words along the horizontal axis
    for line in lines:
        every = max(1, -(-len(line.get_ydata()) // _ROWS))
        places = [x if isinstance(x, str) else f"{x:.4g}" for x in line.get_xdata()]
        yield str(line.get_label()), places[::every], list(line.get_ydata())[::every]
    names = [text.get_text() for text in axes.get_xticklabels()]
    for bars in filter(lambda found: isinstance(found, BarContainer), axes.containers):
        middles = [f"{bar.get_x() + bar.get_width() / 2:.3g}" for bar in bars]
        named = names if len(names) == len(bars) else middles
        yield str(bars.get_label()), named, [bar.get_height() for bar in bars]


def tables(axes: Axes) -> str:
    """A table for each set of places along the horizontal axis."""
    groups: dict[tuple[str, ...], dict[str, list[float]]] = {}
    for label, places, values in _series(axes):
        named = (axes.get_ylabel() or axes.get_title() or "y") if label[0] == "_" else label
        groups.setdefault(tuple(places), {})[named] = values
    found = ""
    for along, columns in groups.items():
        head = (axes.get_xlabel() or "x", *columns)
        rows = (
            [place, *(f"{value:.3g}" for value in row)]
            for place, *row in zip(along, *columns.values(), strict=True)
        )
        found += table(head, rows, axes.get_title())
    return found


def show(*arguments: Any, **more: Any) -> None:
    """What pyplot's does, and then the tables, folded away."""
    figures = map(pyplot.figure, pyplot.get_fignums())
    found = "".join(tables(axes) for figure in figures for axes in figure.axes)
    _show(*arguments, **more)
    if found:
        display({"text/html": folded(found)}, raw=True)  # type: ignore[no-untyped-call]


pyplot.show = show
