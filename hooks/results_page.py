"""The parts of the results page, each drawn from the run records alone."""

import hashlib
import json
import math
from collections.abc import Callable, Sequence
from functools import wraps
from html import escape
from statistics import mean

from charts import (
    Axis,
    Line,
    Panel,
    bar_chart,
    calibration_chart,
    figure,
    heat_map,
    line_chart,
    table,
)
from records import RECORDS, Group, Results, accuracy, calibration_error, changed_fields
from wording import (
    CLASSES,
    PENDING,
    date,
    device,
    duration,
    markdown_table,
    pending,
    percent,
    precision,
)

from cifar_resnet.data import CLASSES as ENGLISH
from cifar_resnet.recipe import get_recipe
from cifar_resnet.record import Epoch, Record

_CURVES = (("train", "训练"), ("eval", "测试"))


def headline(results: Results, *names: str) -> str:
    """One card a recipe, the named ones or all: test accuracy after the last epoch, its cost."""
    if not results.groups:
        return pending("还没有完成的训练")
    named = [get_recipe(name) for name in names]
    cards = [
        _card(group, results) for group in results.groups if group.recipe in named or not names
    ]
    cards += [
        f'<div class="card"><p class="card-title">{recipe.name}，{recipe.epochs} 轮</p>'
        f"<p>{PENDING}</p></div>"
        for recipe in named or [get_recipe("notes")]
        if results.published(recipe.name) is None
    ]
    return f'<div class="cards">{"".join(cards)}</div>'


def _card(group: Group, results: Results) -> str:
    n = len(group.runs)
    seeds = "、".join(str(run.seed) for run in group.runs)
    spread = f"{n} 次运行的均值 ± 样本标准差" if n > 1 else "单次运行"
    times = mean(run.train_seconds for run in group.runs)
    number, *more = percent(*group.spread(accuracy)).partition("\u00a0")
    deviation = f"<small>{''.join(more)}</small>" if more[1] else ""
    title = f"{escape(group.label)} {results.mark(group.ids)}"
    lines = (
        f"测试集准确率，{spread}（种子 {seeds}）",
        f"训练{'平均' if n > 1 else ''}用时 {duration(times)}，不含评估与编译，{group.devices}",
    )
    return (
        f'<div class="card"><p class="card-title">{title}</p>'
        f'<p class="card-number">{number}{deviation}</p>'
        + "".join(f"<p>{escape(line)}</p>" for line in lines)
        + "</div>"
    )


def by_group(draw: Callable[[Group], str]) -> Callable[[Results], str]:
    """One group's drawing as it is; several as tabs that switch together."""

    @wraps(draw)
    def all_groups(results: Results) -> str:
        if not results.groups:
            return pending("还没有完成的训练")
        drawn = {group.label: _old(group, results) + draw(group) for group in results.groups}
        if len(drawn) == 1:
            return next(iter(drawn.values()))
        return "\n\n".join(f'=== "{label}"\n\n    {drawing}' for label, drawing in drawn.items())

    return all_groups


def _old(group: Group, results: Results) -> str:
    """A mark if the code no longer stands behind a group's runs."""
    mark = results.mark(group.ids)
    return f"<p>{mark}</p>" if mark else ""


@by_group
def learning_curves(group: Group) -> str:
    """Loss and accuracy by epoch, one line a run."""
    epochs = Axis("轮次", 0, group.recipe.epochs)
    panels = []
    for title, field in (("损失（nat）", "loss"), ("准确率", "accuracy")):
        lines = [
            Line(style, [(e.epoch, getattr(e, f"{style}_{field}")) for e in run.history])
            for style, _ in _CURVES
            for run in group.runs
        ]
        values = [y for line in lines for _, y in line.points]
        axis = (
            Axis(title, 0, math.ceil(max(values) * 2) / 2)
            if field == "loss"
            else Axis(title, math.floor(min(values) * 10) / 10, 1, "{:.0%}".format)
        )
        last = {
            style: mean(getattr(run.history[-1], f"{style}_{field}") for run in group.runs)
            for style, _ in _CURVES
        }
        written = "{:.3f}" if field == "loss" else "{:.2%}"
        told = "，".join(f"{name} {written.format(last[style])}" for style, name in _CURVES)
        description = (
            f"{title}随轮次的变化：最后一轮{'的均值' if len(group.runs) > 1 else ''}：{told}。"
        )
        panels.append(Panel(title, line_chart(description, epochs, axis, lines)))
    head = ("轮次", "学习率", "训练损失", "测试损失", "训练准确率", "测试准确率")
    rows = [_epoch_row(epoch) for epoch in zip(*(run.history for run in group.runs), strict=True)]
    averaged = f"；表中是 {len(group.runs)} 次运行的均值" if len(group.runs) > 1 else ""
    return figure(
        "训练损失带标签平滑，在增强后的图片上边训练边累计；测试损失不带平滑，每轮结束后在没有增强的图上算一次"
        "（先小后大的配方用当轮的尺寸；最后一轮用 float32，之前各轮用训练的精度）。"
        f"两条线不能直接比高低{averaged}。",
        panels,
        table(head, rows),
        legend=_CURVES,
    )


def _epoch_row(epochs: Sequence[Epoch]) -> list[str]:
    def average(field: str) -> float:
        return float(mean(getattr(epoch, field) for epoch in epochs))

    return [
        str(epochs[0].epoch),
        f"{average('learning_rate'):.4g}",
        f"{average('train_loss'):.3f}",
        f"{average('eval_loss'):.3f}",
        percent(average("train_accuracy")),
        percent(average("eval_accuracy")),
    ]


def _confusion(group: Group) -> list[list[int]]:
    """Counts of all runs together."""
    matrices = [run.metrics.confusion for run in group.runs]
    return [
        [sum(cells) for cells in zip(*rows, strict=True)] for rows in zip(*matrices, strict=True)
    ]


@by_group
def confusion_matrix(group: Group) -> str:
    """What each class is taken for, in percent of its images."""
    counts = _confusion(group)
    shares = [[count / sum(row) for count in row] for row in counts]
    i, j, _, share = _mistakes(group)[0]
    description = (
        "混淆矩阵，行是真实类别，列是预测类别。对角线是判对的比例；"
        f"对角线外最大的一格是{CLASSES[i]}被认成{CLASSES[j]}，占 {share:.1%}。"
    )
    rows = [[CLASSES[i], *map(str, row)] for i, row in enumerate(counts)]
    return figure(
        "每一行是一个真实类别，格中的数是这一类图片里被判为各列的百分比。"
        "判对与判错各用一种颜色，深浅分开计，否则判错的格子几乎看不见。",
        [Panel("每一类图片被认成了什么（%）", heat_map(description, CLASSES, shares))],
        table(("真实＼预测（张）", *CLASSES), rows),
    )


@by_group
def per_class(group: Group) -> str:
    """Accuracy of each class."""
    indices = range(len(CLASSES))
    spreads = [_class_accuracy(group, i) for i in indices]
    order = sorted(indices, key=lambda i: -spreads[i][0])
    bars = [(CLASSES[i], spreads[i][0], f"{spreads[i][0]:.1%}") for i in order]
    (best, _, high), (worst, _, low) = bars[0], bars[-1]
    description = f"各类别的准确率，从高到低：最高是{best} {high}，最低是{worst} {low}。"
    rows = [[CLASSES[i], ENGLISH[i], percent(*spreads[i])] for i in order]
    return figure(
        "各类别的测试集准确率，从高到低排列。",
        [Panel("各类别的准确率", bar_chart(description, bars))],
        table(("类别", "英文名", "准确率"), rows),
    )


def _class_accuracy(group: Group, index: int) -> tuple[float, float | None]:
    return group.spread(lambda run: run.metrics.per_class_accuracy[index])


@by_group
def calibration(group: Group) -> str:
    """Accuracy over confidence, with the expected calibration error."""
    bins = []
    for parts in zip(*(run.metrics.calibration for run in group.runs), strict=True):
        count = sum(part[0] for part in parts)
        bins.append((count, *(sum(p[0] * p[k] for p in parts) / (count or 1) for k in (1, 2))))
    error = percent(*group.spread(calibration_error))
    leaning = sum(count * (accuracy - confidence) for count, confidence, accuracy in bins)
    words = "偏保守：实际准确率高于置信度" if leaning > 0 else "偏自信：实际准确率低于置信度"
    rows = [
        [f"{i / len(bins):.0%} 至 {(i + 1) / len(bins):.0%}", str(count)]
        + ([f"{confidence:.1%}", f"{accuracy:.1%}"] if count else ["", ""])
        for i, (count, confidence, accuracy) in enumerate(bins)
    ]
    return figure(
        f"期望校准误差（ECE）{error}，总体{words}。蓝柱是各置信度区间里的实际准确率，"
        "橙色横线是平均置信度；柱顶与横线齐平，就是校准得好。虚线是两者相等的参考线。",
        [Panel("准确率", calibration_chart(f"可靠性图：期望校准误差 {error}，{words}。", bins))],
        table(("置信度", "图片数", "平均置信度", "准确率"), rows),
    )


def _mistakes(group: Group) -> list[tuple[int, int, int, float]]:
    """True class, predicted class, count, share of the true class, most frequent first."""
    pairs = [
        (i, j, count, count / sum(row))
        for i, row in enumerate(_confusion(group))
        for j, count in enumerate(row)
        if i != j
    ]
    return sorted(pairs, key=lambda pair: -pair[3])


@by_group
def confusions(group: Group) -> str:
    """The most frequent mistakes, in words."""
    lines = (
        f"<li>{CLASSES[i]}被认成{CLASSES[j]}：占全部{CLASSES[i]}图片的 {share:.1%}。</li>"
        for i, j, _, share in _mistakes(group)[:5]
    )
    return f"<ol>{''.join(lines)}</ol><p>{_within(group)}</p>"


_VEHICLES = {CLASSES.index(name) for name in ("飞机", "汽车", "船", "卡车")}
_PETS = {CLASSES.index(name) for name in ("猫", "狗")}


def _within(group: Group) -> str:
    """How many mistakes stay among the animals or the vehicles."""
    mistakes = [({i, j}, count) for i, j, count, _ in _mistakes(group)]
    total = sum(count for _, count in mistakes)
    pets = sum(count for pair, count in mistakes if pair == _PETS)
    animals = sum(count for pair, count in mistakes if not pair & _VEHICLES)
    vehicles = sum(count for pair, count in mistakes if pair <= _VEHICLES)
    across = total - animals - vehicles
    runs = f"{len(group.runs)} 次运行一共" if len(group.runs) > 1 else ""
    return (
        f"{runs}判错 {total:,} 张：{animals:,} 张错在动物之间，其中 {pets:,} 张是猫狗互认；"
        f"{vehicles:,} 张错在交通工具之间；把动物认成交通工具、或者反过来的，有 {across:,} 张。"
    )


def best_epoch(results: Results, recipe: str) -> str:
    """What choosing the best epoch by test accuracy would have added to a recipe's first run."""
    group = results.published(recipe)
    if group is None:
        return f"`{recipe}` {PENDING}。"
    run = group.runs[0]
    best = max(run.history, key=lambda epoch: epoch.eval_accuracy)
    gain = (best.eval_accuracy - accuracy(run)) * 100
    return (
        f"以 `{recipe}` 的种子 {run.seed} 为例，测试准确率最高的是第 {best.epoch} 轮的 "
        f"{percent(best.eval_accuracy)}，最后一轮是 {percent(accuracy(run))}，"
        f"挑着报就会多出 {gain:.2f} 个百分点{results.mark([run.id])}。"
    )


def tuning(results: Results) -> str:
    """Single runs on the held-out images, by accuracy."""
    if not results.tuning:
        return pending("还没有在留出集上的试验")
    head = ("配方", "留出集准确率", "留出集损失", "轮数", "种子", "记录（UTC）", "改动")
    runs = sorted(results.tuning, key=lambda run: -run.metrics.accuracy)
    rows = [
        [
            f"`{run.recipe.name}`",
            percent(run.metrics.accuracy),
            f"{run.metrics.loss:.3f}",
            str(run.recipe.epochs),
            str(run.seed),
            _link(run),
            _lines(changed_fields(run.recipe)),
        ]
        for run in runs
    ]
    return _wide(markdown_table(head, rows))


def provenance(results: Results) -> str:
    """Where each published number comes from, one card a recipe."""
    cards = [_origins(group, results.outdated) for group in results.groups]
    if not cards:
        return pending("还没有实验记录")
    return f'<div class="runs" markdown="1">\n\n{"".join(cards)}</div>'


def compared(results: Results) -> str:
    """Where the runs of comparisons come from, one line each."""
    shown = {run.id for group in results.groups for run in group.runs}
    runs = [run for run in results.runs if run.id not in shown]
    if not runs:
        return pending("还没有完成的对照实验")
    head = ("配方", "准确率", "网络", "轮数", "种子", "用时", "记录（UTC）", "改动")
    rows = []
    for run in sorted(runs, key=lambda run: (run.recipe.name, run.recipe.network, run.seed)):
        changes = [d for d in changed_fields(run.recipe) if not d.startswith("network=")]
        rows.append(
            [
                f"`{run.recipe.name}`",
                percent(run.metrics.accuracy),
                f"`{run.recipe.network}`",
                str(run.recipe.epochs),
                str(run.seed),
                duration(run.train_seconds),
                _link(run) + results.mark([run.id]),
                _lines(changes),
            ]
        )
    # Folded: its many rows would hold up the page's first layout.
    return (
        '\n<details class="data" data-search-exclude markdown="1">\n'
        f"<summary>{len(rows)} 次运行</summary>\n{_wide(markdown_table(head, rows))}</details>\n"
    )


def _origins(group: Group, outdated: dict[str, str]) -> str:
    """What the runs have in common as a list, what tells them apart as a table."""
    every = [_facts(run, outdated) for run in group.runs]
    names = dict.fromkeys(name for facts in every for name in facts)
    values = {name: [facts.get(name, "") for facts in every] for name in names}
    apart = {name: cells for name, cells in values.items() if len(set(cells)) > 1}
    terms = "".join(
        f"{name}\n:   {cells[0]}\n\n" for name, cells in values.items() if name not in apart
    )
    table = markdown_table(tuple(apart), zip(*apart.values(), strict=True)) if apart else ""
    title = f'<p class="card-title">{escape(group.label)}</p>'
    return f'<div class="card" markdown="1">\n{title}\n\n{terms}{table}\n</div>\n\n'


def _facts(run: Record, outdated: dict[str, str]) -> dict[str, str]:
    hardware = run.hardware
    parts = f"（分 {run.sessions} 段）" if run.sessions > 1 else ""
    averaged, changed = run.flip_averaged_accuracy, changed_fields(run.recipe)
    facts = {
        "种子": str(run.seed),
        "准确率": percent(run.metrics.accuracy),
        "翻转平均": "" if averaged is None else percent(averaged),
        "训练用时": duration(run.train_seconds) + parts,
        "张/秒": f"{run.images_per_second:,.0f}",
        "设备": device(hardware.device, hardware.name, hardware.threads),
        "精度": precision(hardware.precision, hardware.compile, hardware.cuda_graphs),
        "torch": run.software.torch,
        "代码提交": f"`{run.software.commit:.10}`",
        "行为指纹": f"`{_digest(run)}`",
        "与现在的配方不同": "、".join(f"`{change}`" for change in changed),
        "待重新验证": escape(outdated.get(run.id, "")),
        "记录（UTC）": _link(run),
    }
    return {name: fact for name, fact in facts.items() if fact}


def _digest(run: Record) -> str:
    """Short name of a fingerprint; the record holds it in full."""
    return hashlib.sha256(json.dumps(run.fingerprint, sort_keys=True).encode()).hexdigest()[:10]


def _link(run: Record) -> str:
    return f"[{date(run.finished)}]({RECORDS}/{run.id}.json)"


def _lines(changes: Sequence[str]) -> str:
    """What was changed, a line each."""
    return "<br>".join(f"`{change}`" for change in changes) or "无"


def _wide(table: str) -> str:
    """A table that scrolls and is not searched."""
    return f'\n<div class="unbroken" data-search-exclude markdown="1">\n{table}\n</div>\n'
