"""What the benchmarks measured, and the goals that they and the runs are held to."""

from collections.abc import Callable, Sequence
from html import escape
from statistics import median

from charts import Panel, bar_chart, figure, table
from pace import named, with_evaluation
from records import RECORDS, Results, accuracy
from wording import (
    PENDING,
    UNMEASURED,
    badge,
    date,
    device,
    markdown_table,
    pending,
    percent,
    precision,
)

from cifar_resnet.bench import BenchRecord, augmentation_share, speedups, utilization
from cifar_resnet.contention import kept
from cifar_resnet.experiments import jobs, select


def speed(results: Results) -> str:
    """Both loops as bars, a panel a benchmark, and what else was measured, a column each."""
    records = results.benchmarks
    if not records:
        return pending("还没有测速记录", UNMEASURED)
    shown = figure(
        "每秒训练的图片数，各遍的中位数；各图的横轴不同。",
        [Panel(_place(record), _bars(record)) for record in records],
        table(
            ("在哪里，哪种写法", "中位数", "最慢一遍", "最快一遍"),
            [
                [
                    f"{_place(record)}：{name}",
                    *(f"{value:,.0f}" for value in (median(every), min(every), max(every))),
                ]
                for record in records
                for name, every in _loops(record)
            ],
        ),
    )
    columns = zip(*map(_column, records), strict=True)
    rows = [[name, *cells] for name, cells in zip(_ROWS, columns, strict=True)]
    kinds = {"cpu": "CPU", "cuda": "GPU"}
    head = ["量", *(f"{record.network}，{kinds[record.hardware.kind]}" for record in records)]
    return f"{shown}\n{markdown_table(head, rows)}"


def contention(results: Results) -> str:
    """Training beside a process that keeps a core busy, a row a benchmark that measured it."""
    head = ("网络", "单线程，独占", "抢核，线程数不变", "抢核，自动选择", "自动选择比单线程")
    rows = [
        [
            f"`{record.network}`",
            f"{median(beside.single):,.0f}",
            f"{median(beside.oversubscribed):,.0f}（{record.hardware.threads} 线程）",
            f"{median(beside.adapted):,.0f}（{_range(beside.threads)} 线程）",
            percent(median(kept(beside))),
        ]
        for record in results.benchmarks
        if (beside := record.contention)
    ]
    return markdown_table(head, rows) if rows else pending("还没有测过", UNMEASURED)


def _median_and_range(values: Sequence[float], write: Callable[[float], str]) -> str:
    least = write(min(values)).removesuffix(" 倍")
    return f"{write(median(values))}（各遍 {least} 至 {write(max(values))}）"


def _range(counts: Sequence[int]) -> str:
    least, most = min(counts), max(counts)
    return str(most) if least == most else f"{least} 至 {most}"


def goals(results: Results) -> str:
    """What was aimed at and what was measured, side by side; 待测 or 待训练 without a record."""
    rows = [
        *(_by_bench(results, *goal) for goal in _BENCH_GOALS),
        *(_by_training(results, *goal) for goal in _TRAINING_GOALS),
    ]
    return markdown_table(("目标", "结果", "要求", "测得"), rows)


MARKS = {True: badge("yes", "达到"), False: badge("no", "未达到"), None: ""}
_TIMES: Callable[[float], str] = "{:.2f} 倍".format


def _kept(record: BenchRecord) -> list[float]:
    return kept(record.contention) if record.contention else []


# Place, network, figure's name, figure, how it is written, the limit, whether that is the least.
_BENCH_GOALS = (
    ("CPU", "resnet18", "相对常见写法的速度", speedups, _TIMES, 4.0, True),
    ("CPU", "resnet20", "相对常见写法的速度", speedups, _TIMES, 3.5, True),
    ("GPU", "resnet18", "相对常见写法的速度", speedups, _TIMES, 10.0, True),
    ("CPU", "resnet18", "增强占一步用时的比例", augmentation_share, percent, 0.01, False),
    ("CPU", "resnet20", "增强占一步用时的比例", augmentation_share, percent, 0.01, False),
    ("CPU 有一个核被占", "resnet18", "相对单线程的速度（不编译）", _kept, percent, 0.9, True),
    ("CPU 有一个核被占", "resnet20", "相对单线程的速度（不编译）", _kept, percent, 0.9, True),
    ("GPU", "resnet18", "矩阵乘法的利用率，保底", utilization, percent, 0.25, True),
    ("GPU", "resnet18", "矩阵乘法的利用率，争取", utilization, percent, 0.4, True),
)
# Experiment, accuracy, seconds.
_TRAINING_GOALS = (
    ("fast-cpu-short", 0.90, 20 * 60),
    ("fast-cpu", 0.94, 60 * 60),
    ("fast-short", 0.95, 25),
    ("fast", 0.96, 60),
)


def _by_bench(
    results: Results,
    place: str,
    network: str,
    name: str,
    figure: Callable[[BenchRecord], list[float]],
    write: Callable[[float], str],
    limit: float,
    least: bool,
) -> tuple[str, ...]:
    words = f"{place}，`{network}`：{name}"
    aim = f"{'至少' if least else '至多'} {write(limit)}"
    kind = "cuda" if place == "GPU" else "cpu"
    for record in sorted(results.benchmarks, key=lambda record: record.started, reverse=True):
        if (record.hardware.kind, record.network) == (kind, network):
            every = figure(record)
            if not every:
                continue
            reached = median(every) >= limit if least else median(every) <= limit
            return words, MARKS[reached], aim, _median_and_range(every, write)
    return words, "", aim, UNMEASURED


def _by_training(results: Results, experiment: str, level: float, limit: float) -> tuple[str, ...]:
    planned = jobs(select([experiment]))
    recipe = planned[0].recipe
    words, aim = named(recipe), f"{percent(level)}，{_clock(limit, '.0f')}之内"
    for group in results.groups:
        if group.recipe == recipe:
            reached, deviation = group.spread(accuracy)
            time = with_evaluation(group)
            took = _clock(time, ".1f") if time else "中断过"
            enough = len(group.runs) >= len(planned)
            times = f"{len(group.runs)} 次{'' if enough else f'，计划 {len(planned)} 次'}"
            unknown = not enough or (reached >= level and not time)
            verdict = None if unknown else reached >= level and time <= limit
            measured = f"{percent(reached, deviation)}，{took}（{times}）"
            return words, MARKS[verdict], aim, measured
    return words, "", aim, PENDING


def _clock(seconds: float, form: str) -> str:
    """Not rounded as far as `duration` rounds: one sees by how little a goal is missed."""
    return f"{seconds:{form}} 秒" if seconds < 120 else f"{seconds / 60:{form}} 分钟"


def _place(record: BenchRecord) -> str:
    h = record.hardware
    return f"{record.network}，{device(h.kind, h.name, h.threads)}"


def _loops(record: BenchRecord) -> list[tuple[str, tuple[float, ...]]]:
    return [("常见写法", record.reference), ("本项目", record.ours)]


def _bars(record: BenchRecord) -> str:
    bars = [(name, median(every), f"{median(every):,.0f}") for name, every in _loops(record)]
    told = "，".join(f"{name} {written} 张/秒" for name, _, written in bars)
    highest = max(value for _, value, _ in bars)
    return bar_chart(f"{_place(record)}上的训练速度：{told}。", bars, highest=highest)


_ROWS = (
    "机器",
    "相对常见写法的速度",
    "最慢与最快的一遍",
    "矩阵乘法的速度",
    "矩阵乘法的利用率",
    "全速做矩阵乘法时，相对常见写法的速度",
    "数据增强占一步用时的比例",
    "从建好网络到第一步",
    "内存或显存的峰值",
    "精度",
    "测法",
    "代码提交",
    "记录（UTC）",
)


def _column(record: BenchRecord) -> list[str]:
    h = record.hardware
    times = speedups(record)
    rounds = zip(record.ceiling, record.reference, strict=True)
    limit = median(most / record.flops / usual for most, usual in rounds)
    return [
        device(h.kind, escape(h.name), h.threads),
        _TIMES(median(times)),
        f"{min(times):.2f} 至 {max(times):.2f} 倍",
        f"{median(record.ceiling) / 1e12:.2f} TFLOP/s",
        percent(median(utilization(record))),
        _TIMES(limit),
        percent(median(augmentation_share(record))),
        f"{record.first_step_seconds:.1f} 秒",
        f"{record.peak_bytes / 2**20:,.0f} MiB",
        precision(h.precision, h.compile, h.cuda_graphs),
        f"{len(times)} 遍，每遍 {record.steps} 步，每步 {record.batch_size} 张",
        f"{record.software.commit:.10}",
        f"[{date(record.started)}]({RECORDS}/{record.id}.json)",
    ]
