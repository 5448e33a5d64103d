"""Arms of experiments compared by their runs: findings about claims, and tables arm by arm."""

from collections.abc import Callable, Sequence
from functools import cache
from statistics import mean, median

from charts import Axis, Line, Panel, bar_chart, figure, line_chart, table
from findings import Finding, Shown
from records import Results, accuracy, calibration_error, spread
from wording import PENDING, duration, markdown_table, percent, settings

from cifar_resnet.bench import training_flops
from cifar_resnet.experiments import Experiment, jobs, select
from cifar_resnet.recipe import assignments
from cifar_resnet.record import Record

Arms = dict[str, list[Record]]


def arms(experiment: Experiment, runs: Sequence[Record]) -> Arms:
    """The finished runs of each arm."""
    found: Arms = {arm.label: [] for arm in experiment.arms}
    for job in jobs([experiment]):
        found[job.arm.label] += filter(job.answered_by, runs)
    return found


def _train_accuracy(run: Record) -> float:
    return run.history[-1].train_accuracy


def apart(a: tuple[float, float | None], b: tuple[float, float | None]) -> bool | None:
    """Whether two means differ beyond the spread of the seeds; None if that is not known.

    They do if the two intervals of mean ± standard deviation do not touch.

    >>> apart((0.92, 0.01), (0.90, 0.005)), apart((0.92, 0.01), (0.90, None))
    (True, None)
    """
    if a[1] is None or b[1] is None:
        return None
    return abs(a[0] - b[0]) > a[1] + b[1]


def _gap(a: tuple[float, float | None], b: tuple[float, float | None]) -> str:
    return f"{abs(a[0] - b[0]) * 100:.2f} 个百分点"


def compare(runs: Arms, more: str, less: str, value: Callable[[Record], float]) -> Finding:
    """Whether one arm has more of something than another, beyond the spread of the seeds."""
    words: dict[Callable[[Record], float], str] = {
        accuracy: "测试准确率",
        _train_accuracy: "训练准确率",
        calibration_error: "校准误差",
    }
    first, second = spread(runs[more], value), spread(runs[less], value)
    pair = f"{words[value]}：{LABELS[more]} {percent(*first)}，{LABELS[less]} {percent(*second)}"
    differ, gap = apart(first, second), _gap(first, second)
    if differ is None:
        return Finding(f"{pair}，相差 {gap}；只有一个种子，先不下结论", None)
    if not differ:
        return Finding(f"{pair}，差别没有超出种子之间的波动，分不出高下", False)
    higher = first[0] > second[0]
    return Finding(f"{pair}，前者{'高' if higher else '低'} {gap}，超出种子之间的波动", higher)


def _conditions(experiment: Experiment, runs: Arms) -> str:
    (name,) = {arm.recipe for arm in experiment.arms}
    first, *others = (set(assignments(arm.changes)) for arm in experiment.arms)
    common = "、".join(f"`{word}`" for word in sorted(first.intersection(*others)))
    every = sorted({run.seed for group in runs.values() for run in group})
    seeds = "、".join(map(str, every))
    least = min(map(len, runs.values()))
    planned = len(experiment.seeds)
    left = f"（计划每组 {planned} 个，还没有做完）" if least < planned else ""
    return (
        f"实验 `{experiment.name}`：各组都用配方 `{name}`{f'，改 {common}' if common else ''}；"
        f"种子 {seeds}{left}。"
        "判定见[规则](results.md#rules)，"
        "每次运行的来历见[对照实验的运行](results.md#runs)。"
    )


DEPTHS = {
    f"{kind}{depth}": words.format(depth)
    for kind, words in (("plain", "朴素 {} 层"), ("resnet", "ResNet-{}"))
    for depth in (20, 32, 44, 56)
}
LABELS = DEPTHS | {
    "original": "7×7/2 有池化",
    "small-conv": "3×3/1 有池化",
    "no-pooling": "7×7/2 无池化",
    "full": "3×3/1 无池化",
    "everything": "全部用上",
    "no-momentum": "去掉动量",
    "no-momentum-same-step": "去掉动量，学习率 1.0",
    "constant-rate": "学习率不退火",
    "no-weight-decay": "去掉权重衰减",
    "no-label-smoothing": "去掉标签平滑",
    "no-erasing": "去掉随机擦除",
    "no-crop-and-flip": "去掉裁剪翻转",
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
PAPER_EPOCHS = 164  # 64,000 steps with batches of 128 (He et al. 2015, section 4.2)
# He et al. 2015, table 6: test error of their residual networks.
CITED = {"resnet20": "8.75%", "resnet32": "7.51%", "resnet44": "7.17%", "resnet56": "6.97%"}


def _bars(runs: Arms, caption: str) -> str:
    """Test accuracy of each arm; where the networks differ, the table adds what they cost."""
    rows, cells = [], []
    networks_differ = len({group[0].recipe.network for group in runs.values()}) > 1
    head = ["网络或配置", "测试准确率", "训练准确率", "次数"]
    head += ["训练一张图的浮点运算", "张/秒（没有独占机器）"] if networks_differ else ["校准误差"]
    for label, group in runs.items():
        middle, deviation = spread(group, accuracy)
        rows.append((LABELS[label], middle, percent(middle)))
        more = [percent(*spread(group, calibration_error))]
        if networks_differ:
            flops = _flops(group[0].recipe.network)
            rate = median(run.images_per_second for run in group)
            more = [f"{flops / 1e9:.2f} G", f"{rate:,.0f}"]
        cells.append(
            [
                LABELS[label],
                percent(middle, deviation),
                percent(*spread(group, _train_accuracy)),
                str(len(group)),
                *more,
            ]
        )
    told = "，".join(f"{label} {written}" for label, _, written in rows)
    return figure(
        caption,
        [Panel("测试准确率", bar_chart(f"测试准确率：{told}。", rows))],
        table(head, cells),
    )


_flops = cache(training_flops)


def stem_variants(*pairs: tuple[str, str], experiment: Experiment, runs: Arms) -> Shown:
    """Compare stems pair by pair; the first of each should be more accurate."""
    findings = [compare(runs, more, less, accuracy) for more, less in pairs]
    caption = (
        "起始部分的四种组合：3×3/1 指第一个卷积的核 3×3、步幅 1，"
        "7×7/2 指核 7×7、步幅 2；池化留或不留。"
    )
    return Shown(findings, _bars(runs, caption), _conditions(experiment, runs))


def equal_operations(more: str, less: str, *, experiment: Experiment, runs: Arms) -> Shown:
    """Compare two stems whose runs needed as many operations; the first should be more accurate."""
    findings = [compare(runs, more, less, accuracy)]
    told = "，".join(f"{LABELS[k]}训练 {runs[k][0].recipe.epochs} 轮" for k in (more, less))
    caption = f"训练的运算量大致相等：{told}。"
    return Shown(findings, _bars(runs, caption), _conditions(experiment, runs))


def one_left_out(
    labels: Sequence[str],
    *more: Callable[[Record], float],
    experiment: Experiment,
    runs: Arms,
) -> Shown:
    """Compare everything with one thing left out, in one or several ways.

    ``more`` should be larger without it.
    """
    label = labels[0]
    findings = [compare(runs, "everything", other, accuracy) for other in labels]
    findings += [compare(runs, label, "everything", value) for value in more]
    caption = "全部配置，与只去掉这一项。"
    if len(labels) > 1:
        caption = "全部配置，与去掉这一项的两组：学习率不变，或者等效步长不变。"
    conditions = _conditions(experiment, runs)
    seen, without = (spread(runs[arm], _train_accuracy)[0] for arm in ("everything", label))
    if label == "no-weight-decay" and without < seen:
        conditions += "去掉之后训练准确率也低（见数据表），可见这里起作用的不是防过拟合。"
    if label in ("no-label-smoothing", "no-erasing", "no-crop-and-flip"):
        conditions += _underfitted(runs["everything"])
    if label in ("no-erasing", "no-crop-and-flip"):
        conditions += "两组的训练图增强不同，训练准确率不能直接相比。"
    return Shown(findings, _bars(runs, caption), conditions)


def depth_family(kind: str, *, experiment: Experiment, runs: Arms) -> Shown:
    """Compare the shallowest with the deepest network.

    ``"plain"``: the deep one should be worse, in training too. ``"resnet"``: the deep one
    should beat the plain one of its depth, and not be worse than the shallow one.
    """
    depths = sorted(int(label.removeprefix("plain")) for label in runs if "plain" in label)
    low, high = depths[0], depths[-1]
    better = f"plain{low}" if kind == "plain" else f"resnet{high}"
    findings = [compare(runs, better, f"plain{high}", v) for v in (_train_accuracy, accuracy)]
    if kind == "resnet":
        pair = f"resnet{high}", f"resnet{low}"
        findings += [_no_less(runs, *pair, v) for v in (_train_accuracy, accuracy)]
    return Shown(findings, _error_curves(runs), _conditions(experiment, runs) + _early(runs))


def _underfitted(runs: Sequence[Record]) -> str:
    """What runs that do not fit their training images yet cannot tell of regularisation."""
    seen, test = spread(runs, _train_accuracy)[0], spread(runs, accuracy)[0]
    if seen > test:
        return ""
    return (
        f"全部用上时，训练准确率 {percent(seen)}（增强后的图，边训边算）还低于测试准确率，"
        "看不出过拟合；防过拟合的办法值多少，要训练得更久才看得出来。"
    )


def _early(runs: Arms) -> str:
    """What a schedule much shorter than the paper's cannot tell."""
    epochs = max(run.recipe.epochs for group in runs.values() for run in group)
    if 2 * epochs >= PAPER_EPOCHS:
        return ""
    return (
        f"论文训练约 {PAPER_EPOCHS} 轮，{epochs} 轮远未收敛："
        "它说明起步的快慢，不能代替收敛之后的比较。"
    )


def _no_less(runs: Arms, deep: str, shallow: str, value: Callable[[Record], float]) -> Finding:
    """Whether the deep network is not worse than the shallow one."""
    found = compare(runs, shallow, deep, value)
    return Finding(found.words, None if found.holds is None else not found.holds)


def _error_curves(runs: Arms) -> str:
    epochs = max(len(run.history) for group in runs.values() for run in group)
    across = Axis("轮次", 0, epochs)
    panels, last = [], {}
    for kind, title in (("plain", "朴素网络的错误率"), ("resnet", "残差网络的错误率")):
        names = [label for label in runs if label.startswith(kind)]
        lines: list[Line] = []
        for index, label in enumerate(names):
            shade = f"depth-{index}"
            for run in runs[label]:
                for style, part in (("dashed", "train"), ("", "eval")):
                    points = [(e.epoch, 1 - getattr(e, f"{part}_accuracy")) for e in run.history]
                    lines.append(Line(f"{shade} {style}", points))
        for label in names:
            last[label] = [spread(runs[label], v) for v in (_train_accuracy, accuracy)]
        told = "；".join(
            f"{LABELS[label]}训练 {1 - last[label][0][0]:.1%}，测试 {1 - last[label][1][0]:.1%}"
            for label in names
        )
        top = Axis("错误率", 0, 1, "{:.0%}".format)
        panels.append(Panel(title, line_chart(f"{title}，最后一轮：{told}。", across, top, lines)))
    rows = [
        [
            LABELS[label],
            *(percent(1 - middle, deviation) for middle, deviation in last[label]),
            CITED.get(label, "—"),
        ]
        for label in runs
    ]
    return figure(
        "虚线是训练错误率（增强后的图，边训边算），实线是测试错误率；每个种子一条线。",
        panels,
        table(("网络", "训练错误率", "测试错误率", "论文的测试错误率（引用，约 164 轮）"), rows),
        legend=[
            (f"depth-{index}", f"{label.removeprefix('plain')} 层")
            for index, label in enumerate(label for label in runs if label.startswith("plain"))
        ],
    )


def parts(results: Results, *names: str) -> str:
    """Experiments arm by arm: accuracy, against that of the first arm, and time if it counts.

    Arms without runs are told in a sentence.
    """
    return "\n".join(_part(results, experiment) for experiment in select(names))


def _part(results: Results, experiment: Experiment) -> str:
    found = arms(experiment, results.runs)
    first, *_ = found.values()
    against = ["与第一组相比"] if first else []
    time = ["训练用时"] if experiment.timed else []
    head = ("组别", "测试准确率", *against, *time, "次数", "改了什么")
    rows = []
    first_changes = experiment.arms[0].changes
    for arm in experiment.arms:
        runs = found[arm.label]
        if not runs:
            continue
        own = settings({k: v for k, v in arm.changes.items() if first_changes.get(k) != v})
        rows.append(
            [
                LABELS[arm.label],
                percent(*spread(runs, accuracy)),
                *(_against(runs, first) if runs is not first else "" for _ in against),
                *(duration(mean(run.train_seconds for run in runs)) for _ in time),
                str(len(runs)),
                "<br>".join(f"`{word}`" for word in own),
            ]
        )
    epochs = [str(job.recipe.epochs) for job in jobs([experiment])[: len(found)]]
    told = f"每组 {epochs[0]} 轮" if len(set(epochs)) == 1 else f"轮数依次为 {'、'.join(epochs)}"
    networks = "、".join(sorted({f"`{job.recipe.network}`" for job in jobs([experiment])}))
    left_out = ("network", "epochs")
    common = settings({k: v for k, v in first_changes.items() if k not in left_out})
    also = f"，各组都改 {'、'.join(f'`{word}`' for word in common)}" if common else ""
    start = f"实验 `{experiment.name}`，网络 {networks}，{told}{also}"
    waiting = "、".join(LABELS[label] for label, runs in found.items() if not runs)
    if not rows:
        return f"\n{start}（{waiting}）：{PENDING}。\n"
    rest = f"\n{PENDING} 还缺的组：{waiting}。\n" if waiting else ""
    return f"\n{start}：\n{markdown_table(head, rows)}{rest}"


def _against(runs: Sequence[Record], first: Sequence[Record]) -> str:
    """By how much an arm is better or worse than another, if by more than the seeds' spread."""
    ours, theirs = spread(runs, accuracy), spread(first, accuracy)
    differ = apart(ours, theirs)
    if differ is None:
        return "种子太少"
    word = "高" if ours[0] > theirs[0] else "低"
    return f"{word} {_gap(ours, theirs)}" if differ else "分不出高下"
