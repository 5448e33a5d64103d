"""The page on speed, drawn from the benchmarks' records alone."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from itertools import accumulate
from statistics import mean, median

from charts import Axis, Line, Panel, bar_chart, figure, line_chart, table
from comparisons import apart
from evidence import arms
from records import RECORDS, Group, Results, accuracy, label, spread
from wording import (
    PENDING,
    UNMEASURED,
    date,
    device,
    duration,
    markdown_table,
    pending,
    percent,
    precision,
    settings,
)

from cifar_resnet.bench import BenchRecord, augmentation_share, speedups, utilization
from cifar_resnet.contention import kept
from cifar_resnet.experiments import Experiment, jobs, select
from cifar_resnet.recipe import RECIPES, Recipe
from cifar_resnet.record import Record

_LEVELS = (0.8, 0.9, 0.93, 0.94, 0.95)


def speed(results: Results) -> str:
    """One box a benchmark: both loops, their ratio, the share of the hardware's limit."""
    if not results.benchmarks:
        return pending("还没有测速记录", UNMEASURED)
    return "\n\n".join(map(_box, results.benchmarks))


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


@dataclass(frozen=True)
class _Goal:
    """What was aimed at: words, the least or the most that counts, and what was measured."""

    words: str
    aim: str
    measured: str
    reached: bool | None


def goals(results: Results) -> str:
    """What was aimed at and what was measured, side by side; 待测 or 待训练 without a record."""
    found = [
        *(_by_bench(results, *goal) for goal in _BENCH_GOALS),
        *(_by_training(results, *goal) for goal in _TRAINING_GOALS),
    ]
    marks = {True: "达到", False: "没有达到", None: ""}
    rows = [(g.words, g.aim, g.measured, marks[g.reached]) for g in found]
    return markdown_table(("目标", "要求", "测得", "结果"), rows)


_TIMES: Callable[[float], str] = "{:.2f} 倍".format


def _kept(record: BenchRecord) -> list[float]:
    return kept(record.contention) if record.contention else []


# Device, network, words, figure, how it is written, the limit, whether it is the least or the most.
_BENCH_GOALS = (
    *(
        (
            device,
            network,
            f"{place}，`{network}`：相对常见写法的速度",
            speedups,
            _TIMES,
            limit,
            True,
        )
        for device, place, network, limit in (
            ("cpu", "CPU", "resnet18", 4.0),
            ("cpu", "CPU", "resnet20", 3.5),
            ("cuda", "GPU", "resnet18", 10.0),
        )
    ),
    *(
        (
            "cpu",
            network,
            f"CPU，`{network}`：增强占一步用时的比例",
            augmentation_share,
            percent,
            0.01,
            False,
        )
        for network in ("resnet18", "resnet20")
    ),
    *(
        (
            "cpu",
            network,
            f"CPU 有一个核被占，`{network}`：相对单线程的速度",
            _kept,
            percent,
            0.9,
            True,
        )
        for network in ("resnet18", "resnet20")
    ),
    *(
        (
            "cuda",
            "resnet18",
            f"GPU，`resnet18`：矩阵乘法的利用率，{aim}",
            utilization,
            percent,
            share,
            True,
        )
        for aim, share in (("保底", 0.25), ("争取", 0.4))
    ),
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
    kind: str,
    network: str,
    words: str,
    figure: Callable[[BenchRecord], list[float]],
    write: Callable[[float], str],
    limit: float,
    least: bool,
) -> _Goal:
    aim = f"{'至少' if least else '至多'} {write(limit)}"
    for record in sorted(results.benchmarks, key=lambda record: record.started, reverse=True):
        if (record.hardware.kind, record.network) == (kind, network):
            every = figure(record)
            if not every:
                continue
            reached = (median(every) >= limit) == least
            return _Goal(words, aim, _median_and_range(every, write), reached)
    return _Goal(words, aim, UNMEASURED, None)


def _by_training(results: Results, experiment: str, level: float, limit: float) -> _Goal:
    planned = jobs(select([experiment]))
    recipe = planned[0].recipe
    words, aim = _named(recipe), f"{percent(level)}，{_clock(limit, '.0f')}之内"
    for group in results.groups:
        if group.recipe == recipe:
            reached, deviation = group.spread(accuracy)
            time = _with_evaluation(group)
            took = _clock(time, ".1f") if time else "中断过"
            enough = len(group.runs) >= len(planned)
            times = f"{len(group.runs)} 次{'' if enough else f'，计划 {len(planned)} 次'}"
            unknown = not enough or (reached >= level and not time)
            verdict = None if unknown else reached >= level and time <= limit
            return _Goal(words, aim, f"{percent(reached, deviation)}，{took}（{times}）", verdict)
    return _Goal(words, aim, PENDING, None)


def _clock(seconds: float, form: str) -> str:
    """Not rounded as far as `duration`: what is just missed must not look reached."""
    return f"{seconds:{form}} 秒" if seconds < 120 else f"{seconds / 60:{form}} 分钟"


def _with_evaluation(group: Group) -> float:
    """Seconds from a run's start to its end, but for what comes before the first step.

    The mean; 0 if one was interrupted.
    """
    if any(run.sessions > 1 for run in group.runs):
        return 0.0
    return mean(run.elapsed_seconds - (run.compile_seconds or 0.0) for run in group.runs)


def fast(results: Results) -> str:
    """What the recipes made for speed reach, and in what time; 待训练 where there is no run."""
    head = ("配方", "测试准确率", "翻转平均", "次数", "训练用时", "连评估在内", "编译至多", "设备")
    rows = []
    for name in (name for name in RECIPES if name.startswith("fast")):
        groups = [group for group in results.groups if group.recipe.name == name]
        rows += [_fast_row(group, results) for group in groups]
        if not results.published(name):
            rows.append([f"`{name}`", PENDING, *[""] * (len(head) - 2)])
    return markdown_table(head, rows)


_ARMS = {
    "everything": "全部用上",
    "sgd": "换成 SGD",
    "full-resolution": "全程 32×32",
    "random-flip": "随机翻转",
    "batch-256": "批大小 256",
    "no-nesterov": "去掉 Nesterov",
    "no-warm-up": "不预热",
    "notes-erasing": "擦除照 notes",
    "fp32": "float32",
    "bf16": "bf16",
}


def parts(results: Results, *names: str) -> str:
    """Experiments arm by arm: accuracy, against that of the first arm, and time if it counts."""
    return "\n".join(_arms(results, experiment) for experiment in select(list(names)))


def _arms(results: Results, experiment: Experiment) -> str:
    time = ["训练用时"] if experiment.timed else []
    head = ("组别", "测试准确率", "与第一组相比", *time, "次数", "改了什么")
    rows = []
    found = arms(experiment, results.runs)
    first, *_ = found.values()
    first_changes = experiment.arms[0].changes
    for arm in experiment.arms:
        runs = found[arm.label]
        own = settings({k: v for k, v in arm.changes.items() if first_changes.get(k) != v})
        measured = [PENDING, *[""] * (len(head) - 3)]
        if runs:
            measured = [
                percent(*spread(runs, accuracy)),
                _against(first, runs) if first and runs is not first else "",
                *(duration(mean(run.train_seconds for run in runs)) for _ in time),
                str(len(runs)),
            ]
        rows.append([_ARMS[arm.label], *measured, "<br>".join(f"`{word}`" for word in own)])
    epochs = [str(job.recipe.epochs) for job in jobs([experiment])[: len(found)]]
    told = f"每组 {epochs[0]} 轮" if len(set(epochs)) == 1 else f"轮数依次为 {'、'.join(epochs)}"
    networks = "、".join(sorted({f"`{job.recipe.network}`" for job in jobs([experiment])}))
    left_out = ("network", "epochs")
    common = settings({k: v for k, v in first_changes.items() if k not in left_out})
    also = f"，各组都改 {'、'.join(f'`{word}`' for word in common)}" if common else ""
    start = f"实验 `{experiment.name}`，网络 {networks}，{told}{also}"
    return f"\n{start}：\n{markdown_table(head, rows)}"


def _against(first: Sequence[Record], runs: Sequence[Record]) -> str:
    """By how much another arm is better or worse, if that is more than the seeds' spread."""
    a, b = spread(first, accuracy), spread(runs, accuracy)
    differ = apart(a, b)
    if differ is None:
        return "种子太少"
    word = "高" if b[0] > a[0] else "低"
    return f"{word} {abs(b[0] - a[0]) * 100:.2f} 个百分点" if differ else "分不出高下"


def pace(results: Results) -> str:
    """Test accuracy over the time spent training: a chart each for CPUs and GPUs, a line a recipe.

    Of each recipe its first seed.
    """
    if not results.groups:
        return pending("还没有完成的训练")
    firsts = {group.label: group.runs[0] for group in results.groups}
    styles = {
        label: f"depth-{index % 4}{' dashed' * (index // 4)}" for index, label in enumerate(firsts)
    }
    rows = [
        [group.label, group.devices, *(_first_above(group.runs[0], v) for v in _LEVELS)]
        for group in results.groups
    ]
    panels = []
    for kind, name in (("cpu", "CPU"), ("cuda", "GPU")):
        runs = {k: run for k, run in firsts.items() if run.hardware.kind == kind}
        if runs:
            panels.append(Panel(f"测试准确率，{name}", _pace_chart(name, runs, styles)))
    return figure(
        "每一轮结束时的测试准确率，横轴是到那时为止的训练用时，不含评估；每份配方画第一个种子。"
        "用小图训练的轮次，也用同样大小的图评估。"
        "学习率要到末尾才降下来，中途的准确率不代表同样用时的短配方能到多少。",
        panels,
        table(("配方", "设备", *(f"到 {level:.0%}" for level in _LEVELS)), rows),
        legend=[(style, label) for label, style in styles.items()],
        wide=len(panels) == 1,
    )


def _pace_chart(device: str, runs: dict[str, Record], styles: dict[str, str]) -> str:
    curves = {label: _over_time(run) for label, run in runs.items()}
    longest = max(curve[-1][0] for curve in curves.values())
    unit, scale = ("分", 60) if longest > 120 else ("秒", 1)
    lowest = min(share for curve in curves.values() for _, share in curve)
    told = "；".join(
        f"{label}用 {duration(curve[-1][0])}到 {percent(curve[-1][1])}"
        for label, curve in curves.items()
    )
    return line_chart(
        f"{device} 上测试准确率随训练用时的变化：{told}。",
        Axis(f"训练用时（{unit}）", 0, longest / scale),
        Axis("测试准确率", math.floor(lowest * 10) / 10, 1, "{:.0%}".format),
        [
            Line(styles[label], [(time / scale, share) for time, share in curve])
            for label, curve in curves.items()
        ],
    )


def _over_time(run: Record) -> list[tuple[float, float]]:
    """Seconds of training and test accuracy after each epoch."""
    times = accumulate(epoch.seconds for epoch in run.history)
    return [(t, epoch.eval_accuracy) for t, epoch in zip(times, run.history, strict=True)]


def _first_above(run: Record, level: float) -> str:
    reached = [time for time, share in _over_time(run) if share >= level]
    return duration(reached[0]) if reached else "没有到"


def _fast_row(group: Group, results: Results) -> list[str]:
    time = _with_evaluation(group)
    flipped = [run.flip_averaged_accuracy for run in group.runs if run.flip_averaged_accuracy]
    return [
        _named(group.recipe),
        percent(*group.spread(accuracy)) + results.mark(group.ids),
        percent(mean(flipped)) if flipped else "",
        str(len(group.runs)),
        duration(mean(run.train_seconds for run in group.runs)),
        duration(time) if time else "中断过",
        _compiling(group, results),
        group.devices,
    ]


def _named(recipe: Recipe) -> str:
    """Its label for a table, the name as code."""
    return f"`{recipe.name}`{label(recipe).removeprefix(recipe.name)}"


def _compiling(group: Group, results: Results) -> str:
    """The longest that any run of the recipe waited: later ones of a process hardly do."""
    alike = (run for run in (*group.runs, *results.tuning) if run.recipe == group.recipe)
    waited = [run.compile_seconds or 0.0 for run in alike if run.hardware.compile]
    if not waited:
        return "没有编译"
    return duration(max(waited)) if max(waited) >= 1 else "之前已编译"


def _box(record: BenchRecord) -> str:
    h = record.hardware
    machine = device(h.device, h.name, h.threads)
    bars = [
        (name, median(values), f"{median(values):,.0f}")
        for name, values in (("常见写法", record.reference), ("本项目", record.ours))
    ]
    measured = [
        [name, *(f"{value:,.0f}" for value in (median(values), min(values), max(values)))]
        for name, values in (("常见写法", record.reference), ("本项目", record.ours))
    ]
    times = speedups(record)
    limit = median(record.ceiling) / record.flops / median(record.reference)
    told = f"{bars[0][0]} {bars[0][2]} 张/秒，{bars[1][0]} {bars[1][2]} 张/秒"
    chart = bar_chart(f"训练速度：{told}。", bars, highest=max(value for _, value, _ in bars))
    commit = record.software.commit or record.software.source_sha256
    on_gpu = h.device != "cpu"
    memory = "显存峰值，只算本项目的循环" if on_gpu else "内存峰值，整个测速进程"
    rows = [
        [
            "相对常见写法的速度",
            f"{median(times):.2f} 倍（各遍 {min(times):.2f} 至 {max(times):.2f}）",
        ],
        ["矩阵乘法的速度", f"{median(record.ceiling) / 1e12:.2f} TFLOP/s"],
        ["矩阵乘法的利用率", percent(median(utilization(record)))],
        ["全速做矩阵乘法时，相对常见写法的速度", _TIMES(limit)],
        ["数据增强占一步用时的比例", percent(median(augmentation_share(record)))],
        ["从建好网络到第一步", f"{record.first_step_seconds:.1f} 秒"],
        [memory, f"{record.peak_bytes / 2**20:,.0f} MiB"],
        ["精度", precision(h.precision, h.compile, h.cuda_graphs)],
        ["测法", f"{len(times)} 遍，每遍 {record.steps} 步，每步 {record.batch_size} 张"],
        ["代码提交", commit[:10]],
        ["记录（UTC）", f"[{date(record.started)}]({RECORDS}/{record.id}.json)"],
    ]
    shown = figure(
        f"{record.network} 在 {machine}上的训练速度，各遍的中位数。",
        [Panel("每秒训练的图片数", chart)],
        table(("写法", "中位数", "最慢一遍", "最快一遍"), measured),
        wide=True,
    )
    head = f"## {record.network}，{escape(machine)}\n\n"
    return f"{head}{shown}\n{markdown_table(('量', '值'), rows)}"
