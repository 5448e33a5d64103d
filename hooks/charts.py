"""Charts as inline SVG: text in the page's own fonts, colours from CSS (``charts.css``).

Each chart is drawn 360 units wide, which is its width on a phone, so that text is as large
there as on the rest of the page. Nothing here knows what is drawn.
"""

import math
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from html import escape

WIDTH = 360
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 16, 10, 40


@dataclass(frozen=True)
class Line:
    """Points joined by a line; ``style`` is a CSS class that gives colour and dashes."""

    style: str
    points: Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Axis:
    """An axis from ``low`` to ``high``; ``write`` turns a tick's value into text."""

    label: str
    low: float
    high: float
    write: Callable[[float], str] = "{:g}".format

    def ticks(self) -> list[float]:
        """Round values (1, 2 or 5 times a power of ten apart), about six at most.

        >>> Axis("epoch", 0, 16).ticks()
        [0, 5, 10, 15]
        """
        rough = (self.high - self.low) / 5
        power = 10 ** math.floor(math.log10(rough))
        step = next(m * power for m in (1, 2, 5, 10) if m * power >= rough * 0.999)
        first = math.ceil(self.low / step - 1e-9)
        last = math.floor(self.high / step + 1e-9)
        return [round(index * step, 10) for index in range(first, last + 1)]

    def place(self, value: float, start: float, end: float) -> float:
        """Where a value lies on a line from ``start`` (low) to ``end`` (high)."""
        return start + (value - self.low) / (self.high - self.low) * (end - start)


def svg(height: float, description: str, content: Iterable[str]) -> str:
    """An SVG picture with a spoken description."""
    return (
        f'<svg viewBox="0 0 {WIDTH} {height:g}" role="img" aria-label="{escape(description)}">'
        + "".join(content)
        + "</svg>"
    )


def text(x: float, y: float, content: str, *, anchor: str = "middle", style: str = "") -> str:
    """Words at a point; ``anchor`` says which end of them lies there."""
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" class="{style}">'
        f"{escape(content)}</text>"
    )


def rectangle(x: float, y: float, width: float, height: float, style: str, more: str = "") -> str:
    """A box, with further attributes if need be."""
    return (
        f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" '
        f'class="{style}"{more}/>'
    )


def path(points: Iterable[tuple[float, float]], style: str) -> str:
    """Straight lines from point to point."""
    joined = "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
    return f'<path d="M{joined}" class="{style}"/>'


def frame(x: Axis, y: Axis, height: float) -> list[str]:
    """Grid lines, tick labels and the label of the horizontal axis."""
    right, bottom = WIDTH - _RIGHT, height - _BOTTOM
    parts = []
    for value in y.ticks():
        v = y.place(value, bottom, _TOP)
        parts.append(path([(_LEFT, v), (right, v)], "grid"))
        parts.append(text(_LEFT - 6, v + 4, y.write(value), anchor="end"))
    for value in x.ticks():
        parts.append(text(x.place(value, _LEFT, right), bottom + 16, x.write(value)))
    parts.append(path([(_LEFT, bottom), (right, bottom)], "axis"))
    parts.append(text((_LEFT + right) / 2, height - 4, x.label))
    return parts


def line_chart(description: str, x: Axis, y: Axis, lines: Sequence[Line]) -> str:
    """Lines over a common grid."""
    height = 250.0
    right, bottom = WIDTH - _RIGHT, height - _BOTTOM
    drawn = [
        path(
            [(x.place(a, _LEFT, right), y.place(b, bottom, _TOP)) for a, b in line.points],
            f"line {line.style}",
        )
        for line in lines
    ]
    return svg(height, description, [*frame(x, y, height), *drawn])


def _room(label: str) -> float:
    """About how wide a label is, at most: Chinese characters are twice as wide as others."""
    return sum(6.8 if unicodedata.east_asian_width(c) in ("Na", "N") else 13.5 for c in label)


def bar_chart(
    description: str, rows: Sequence[tuple[str, float, str]], highest: float = 1.0
) -> str:
    """Horizontal bars from zero: label, value, and the value as text, row by row."""
    left = max(_room(label) for label, _, _ in rows) + 12
    right, pitch = 72, 24
    parts = []
    for index, (label, value, written) in enumerate(rows):
        top = index * pitch
        length = (WIDTH - left - right) * value / highest
        parts += [
            text(left - 8, top + 16, label, anchor="end"),
            rectangle(left, top + 4, length, pitch - 8, "bar"),
            text(left + length + 6, top + 16, written, anchor="start"),
        ]
    return svg(len(rows) * pitch, description, parts)


def heat_map(description: str, labels: Sequence[str], shares: Sequence[Sequence[float]]) -> str:
    """A square table of shares: rows are true classes, columns predictions.

    The diagonal and the rest are coloured on scales of their own (``right``, ``wrong``),
    for mistakes would hardly be seen on the diagonal's.
    """
    left, top = 40, 46
    size = (WIDTH - left) / len(labels)
    worst = max((s for i, row in enumerate(shares) for j, s in enumerate(row) if i != j), default=0)
    parts = [text((left + WIDTH) / 2, 14, "预测类别")]
    for index, label in enumerate(labels):
        parts.append(text(left + (index + 0.5) * size, top - 8, label))
        parts.append(text(left - 6, top + (index + 0.5) * size + 4, label, anchor="end"))
    for i, row in enumerate(shares):
        for j, share in enumerate(row):
            x, y = left + j * size, top + i * size
            strength = share if i == j else 0.85 * share / (worst or 1)
            kind = "right" if i == j else "wrong"
            shade = f' style="fill-opacity:{strength:.3f}"'
            parts.append(rectangle(x, y, size - 1, size - 1, f"cell {kind}", shade))
            if share >= 0.0005:
                number = f"{share:.1%}"[:-1].removesuffix(".0")
                ink = f"small{f' on-{kind}' if strength > 0.5 else ''}"
                parts.append(text(x + size / 2 - 0.5, y + size / 2 + 4, number, style=ink))
    return svg(top + len(labels) * size, description, parts)


def calibration_chart(description: str, bins: Sequence[tuple[int, float, float]]) -> str:
    """Accuracy as one bar a bin, mean confidence as a mark, and the diagonal where both agree."""
    height, right = 300.0, WIDTH - _RIGHT
    bottom = height - _BOTTOM
    share = Axis("置信度", 0, 1, "{:.0%}".format)
    width = (right - _LEFT) / len(bins)
    bars = []
    for index, (count, confidence, accuracy) in enumerate(bins):
        if count:
            x = _LEFT + index * width
            y = share.place(accuracy, bottom, _TOP)
            bars.append(rectangle(x + 1, y, width - 2, bottom - y, "bar"))
            level = share.place(confidence, bottom, _TOP)
            bars.append(path([(x + 1, level), (x + width - 1, level)], "line mark"))
    diagonal = path([(_LEFT, bottom), (right, _TOP)], "line reference")
    return svg(height, description, [*frame(share, share, height), *bars, diagonal])


@dataclass(frozen=True)
class Panel:
    """One chart of a figure, under a title of its own."""

    title: str
    drawing: str


def figure(
    caption: str,
    panels: Sequence[Panel],
    table: str,
    legend: Sequence[tuple[str, str]] = (),
) -> str:
    """Charts side by side where there is room, their legend, caption and data table.

    Args:
        caption: what is to be seen.
        panels: the charts.
        table: the same data as HTML (`table`), folded away.
        legend: style and label of each kind of mark.
    """
    keys = "".join(
        '<li><svg viewBox="0 0 24 12" aria-hidden="true">'
        f"{path([(0, 6), (24, 6)], f'line {style}')}</svg>{escape(label)}</li>"
        for style, label in legend
    )
    charts = "".join(
        f'<div class="panel"><p class="panel-title">{escape(panel.title)}</p>{panel.drawing}</div>'
        for panel in panels
    )
    return (
        f'<figure class="chart{" chart-wide" if len(panels) == 1 else ""}">'
        + (f'<ul class="legend">{keys}</ul>' if keys else "")
        + f'<div class="panels">{charts}</div><figcaption>{escape(caption)}</figcaption>'
        + f"{folded(table)}</figure>"
    )


def folded(tables: str) -> str:
    """Tables behind a quiet line to open, left out of the search."""
    return f'<details class="data" data-search-exclude><summary>数据表</summary>{tables}</details>'


def table(head: Sequence[str], rows: Iterable[Sequence[str]], caption: str = "") -> str:
    """An HTML table of plain text; the first cell of each row is its heading."""
    title = f"<caption>{escape(caption)}</caption>" if caption else ""
    top = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in head)
    body = "".join(
        f'<tr><th scope="row">{escape(first)}</th>'
        + "".join(f"<td>{escape(cell)}</td>" for cell in rest)
        + "</tr>"
        for first, *rest in rows
    )
    return f"<table>{title}<thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>"
