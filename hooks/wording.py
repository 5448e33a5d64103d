"""How values are written for Chinese readers."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime

PENDING = '<span class="pending">待训练</span>'
UNMEASURED = '<span class="pending">待测</span>'
OUTDATED = '<span class="pending">待重新验证</span>'
CLASSES = ("飞机", "汽车", "鸟", "猫", "鹿", "狗", "青蛙", "马", "船", "卡车")


def pending(why: str, mark: str = PENDING) -> str:
    """A box where records are still missing.

    >>> "待训练" in pending("还没有完成的训练")
    True
    """
    return f'<p class="pending-box">{mark} {why}；有了记录，这里会自动补上。</p>'


def markdown_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown, so that MkDocs checks its links.

    >>> print(markdown_table(("a", "b"), [("1", "2")]).strip())
    | a | b |
    | --- | --- |
    | 1 | 2 |
    """
    lines = [head, ["---"] * len(head), *rows]
    return "\n" + "".join(f"| {' | '.join(line)} |\n" for line in lines)


def badge(kind: str, words: str) -> str:
    """A verdict in its colour: yes, partly, no or open."""
    return f'<span class="verdict verdict-{kind}">{words}</span>'


def settings(changes: Mapping[str, object]) -> list[str]:
    """Fields of a recipe and their values, numbers with six digits at most.

    >>> settings({"nesterov": False, "erasing_aspect": (0.3, 10 / 3), "network": "resnet20"})
    ['nesterov=False', 'erasing_aspect=(0.3, 3.33333)', 'network=resnet20']
    """

    def written(value: object) -> str:
        if isinstance(value, tuple):
            return f"({', '.join(map(written, value))})"
        return f"{value:g}" if isinstance(value, float) else str(value)

    return [f"{name}={written(value)}" for name, value in changes.items()]


def percent(share: float, deviation: float | None = None) -> str:
    r"""A share as a percentage with two decimals, its standard deviation on the same line.

    >>> percent(0.93125), percent(0.9312, 0.001)
    ('93.12%', '93.12%\xa0±\xa00.10%')
    """
    return f"{share:.2%}" if deviation is None else f"{share:.2%}\u00a0±\u00a0{deviation:.2%}"


def duration(seconds: float) -> str:
    """Hours and minutes, or minutes, or seconds.

    >>> duration(8460), duration(600), duration(42)
    ('2 小时 21 分', '10 分钟', '42 秒')
    """
    if round(seconds) < 60:
        return f"{seconds:.0f} 秒"
    hours, minutes = divmod(round(seconds / 60), 60)
    if not hours:
        return f"{minutes} 分钟"
    return f"{hours} 小时 {minutes} 分" if minutes else f"{hours} 小时"


def date(iso: str) -> str:
    """The UTC date of an ISO time.

    >>> date("2026-03-01T23:30:00-02:00")
    '2026-03-02'
    """
    return datetime.fromisoformat(iso).astimezone(UTC).strftime("%Y-%m-%d")


def device(kind: str, name: str, threads: int) -> str:
    """A processor in words.

    >>> device("cpu", "AMD EPYC", 2), device("cuda", "NVIDIA H200", 8)
    ('CPU（AMD EPYC，2 线程）', 'GPU（NVIDIA H200）')
    """
    return f"CPU（{name}，{threads} 线程）" if kind == "cpu" else f"GPU（{name}）"


def precision(kind: str, compiled: bool | None, cuda_graphs: bool) -> str:
    """How the arithmetic was done, in words.

    >>> precision("bf16", True, True), precision("fp32", False, False)
    ('bf16，torch.compile，CUDA 图', 'fp32')
    """
    parts = (kind, "torch.compile" if compiled else "", "CUDA 图" if cuda_graphs else "")
    return "，".join(filter(None, parts))


_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def power(exponent: int) -> str:
    """A power of ten.

    >>> power(-10)
    '10⁻¹⁰'
    """
    return "10" + str(exponent).translate(_RAISED)


def scientific(value: float) -> str:
    """Two significant digits, with a power of ten where the number is long.

    >>> scientific(0.084), scientific(380), scientific(7.8e-10)
    ('0.084', '380', '7.8×10⁻¹⁰')
    """
    if 0.001 <= abs(value) < 10_000:
        return f"{float(f'{value:.2g}'):g}"
    digits, exponent = f"{value:.1e}".split("e")
    return f"{digits}×{power(int(exponent))}"
