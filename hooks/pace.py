"""What trainings reach in what time: the fast recipes in a table, all in charts over time."""

import math
from itertools import accumulate
from statistics import mean

from charts import Axis, Line, Panel, figure, line_chart, table
from records import Group, Results, accuracy, label
from wording import PENDING, duration, markdown_table, pending, percent

from cifar_resnet.recipe import RECIPES, Recipe
from cifar_resnet.record import Record

_LEVELS = (0.8, 0.9, 0.93, 0.94, 0.95)
_BESIDE_FAST = 1.3  # times the longest fast run: as much is drawn of longer runs


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


def _fast_row(group: Group, results: Results) -> list[str]:
    time = with_evaluation(group)
    flipped = [run.flip_averaged_accuracy for run in group.runs if run.flip_averaged_accuracy]
    return [
        named(group.recipe),
        percent(*group.spread(accuracy)) + results.mark(group.ids),
        percent(mean(flipped)) if flipped else "",
        str(len(group.runs)),
        duration(mean(run.train_seconds for run in group.runs)),
        duration(time) if time else "中断过",
        _compiling(group, results),
        group.devices,
    ]


def _compiling(group: Group, results: Results) -> str:
    """The longest that any run of the recipe waited: later ones of a process hardly do."""
    alike = (run for run in (*group.runs, *results.tuning) if run.recipe == group.recipe)
    waited = [run.compile_seconds or 0.0 for run in alike if run.hardware.compile]
    if not waited:
        return "没有编译"
    return duration(max(waited)) if max(waited) >= 1 else "之前已编译"


def with_evaluation(group: Group) -> float:
    """Seconds from a run's start to its end, but for what comes before the first step.

    The mean; 0 if one was interrupted.
    """
    if any(run.sessions > 1 for run in group.runs):
        return 0.0
    return mean(run.elapsed_seconds - (run.compile_seconds or 0.0) for run in group.runs)


def named(recipe: Recipe) -> str:
    """Its label for a table, the name as code."""
    return f"`{recipe.name}`{label(recipe).removeprefix(recipe.name)}"


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
    panels, cut = [], []
    for kind, name in (("cpu", "CPU"), ("cuda", "GPU")):
        runs = {k: run for k, run in firsts.items() if run.hardware.kind == kind}
        if runs:
            chart, long = _pace_chart(name, runs, styles)
            panels.append(Panel(f"测试准确率，{name}", chart))
            cut += long
    only = f"{'、'.join(cut)}，图上只画开头，免得把短的挤成一团。" if cut else ""
    return figure(
        "每一轮结束时的测试准确率，横轴是到那时为止的训练用时，不含评估；每份配方画第一个种子。"
        "用小图训练的轮次，也用同样大小的图评估。"
        f"学习率要到末尾才降下来，中途的准确率不代表同样用时的短配方能到多少。{only}",
        panels,
        table(("配方", "设备", *(f"到 {level:.0%}" for level in _LEVELS)), rows),
        legend=[(style, label) for label, style in styles.items()],
    )


def _pace_chart(
    device: str, runs: dict[str, Record], styles: dict[str, str]
) -> tuple[str, list[str]]:
    """The chart, and which runs it shows the beginning of only, in words."""
    curves = {label: _over_time(run) for label, run in runs.items()}
    fast = [curves[label][-1][0] for label, run in runs.items() if run.recipe.name[:4] == "fast"]
    end = _BESIDE_FAST * max(fast, default=math.inf)
    shown = {label: [at for at in curve if at[0] <= end] for label, curve in curves.items()}
    cut = [
        f"{label}一共用 {duration(curve[-1][0])}"
        for label, curve in curves.items()
        if len(shown[label]) < len(curve)
    ]
    longest = max(curve[-1][0] for curve in shown.values() if curve)
    unit, scale = ("分", 60) if longest > 120 else ("秒", 1)
    lowest = min(share for curve in shown.values() for _, share in curve)
    told = "；".join(
        f"{label}用 {duration(curve[-1][0])}到 {percent(curve[-1][1])}"
        for label, curve in curves.items()
    )
    chart = line_chart(
        f"{device} 上测试准确率随训练用时的变化：{told}。",
        Axis(f"训练用时（{unit}）", 0, longest / scale),
        Axis("测试准确率", math.floor(lowest * 10) / 10, 1, "{:.0%}".format),
        [
            Line(styles[label], [(time / scale, share) for time, share in curve])
            for label, curve in shown.items()
            if curve
        ],
    )
    return chart, cut


def _over_time(run: Record) -> list[tuple[float, float]]:
    """Seconds of training and test accuracy after each epoch."""
    times = accumulate(epoch.seconds for epoch in run.history)
    return [(t, epoch.eval_accuracy) for t, epoch in zip(times, run.history, strict=True)]


def _first_above(run: Record, level: float) -> str:
    reached = [time for time, share in _over_time(run) if share >= level]
    return duration(reached[0]) if reached else "没有到"
