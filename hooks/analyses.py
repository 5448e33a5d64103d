"""Findings from analyses of single networks: gradients, residuals, removed blocks."""

from math import floor, log10
from statistics import median

from charts import Axis, Line, Panel, figure, line_chart, table
from comparisons import DEPTHS
from findings import Finding, Shown
from wording import percent, power, scientific

from cifar_resnet.analysis import BARE, CHANGE, LATER, SCALED, STEPS, AnalysisRecord, blocks
from cifar_resnet.networks import build

Analyses = dict[str, AnalysisRecord]


def _described(record: AnalysisRecord) -> str:
    split = {"test": "测试集", "val": "留出集"}[record.data.eval_split]
    fresh = "" if record.network else "每种网络只取一组随机初值（种子 0），"
    return f"{fresh}在 CIFAR-10 {split}的前 {record.data.eval_images:,} 张图上测得。"


def gradients_vanish(analyses: Analyses) -> Shown:
    """Compare the first layer's gradient with the last one's, without shortcuts.

    With sigmoids it should be far smaller, with the remedies not.
    """
    record = analyses["gradients"]
    labels = {
        "sigmoid20": "Sigmoid，20 层",
        f"plain56{BARE}": "ReLU 与合适的初始化，56 层",
        "plain56": "再加 BN，56 层",
    }
    findings = []
    for key, label in labels.items():
        norms = record.values[key]
        ratio = norms[0] / norms[-1]
        findings.append(
            Finding(
                f"{label}：第一层的梯度是最后一层的 {scientific(ratio)} 倍",
                (ratio < 0.1) == (key == "sigmoid20"),
            )
        )
    styles = {key: f"depth-{index}" for index, key in enumerate(labels)}
    panel, rows = _norms(
        record,
        {key: (label, styles[key]) for key, label in labels.items()},
        "权重梯度的范数（对数轴）",
    )
    chart = figure(
        "没有快捷连接的网络，初始化时每个卷积层权重梯度的范数。",
        [panel],
        table(_NORMS, rows),
        legend=[(styles[key], label) for key, label in labels.items()],
    )
    rule = "小于 0.1 倍算作消失；只看层与层之比，看不出整体变小。"
    return Shown(findings, chart, _described(record) + rule)


def gradients_highway(analyses: Analyses) -> Shown:
    """Compare how much the gradient depends on layer and depth, plain and residual."""
    record = analyses["gradients"]
    steps = round(record.values[STEPS][0])
    states = {"初始化，有 BN": "", f"训练 {steps} 步之后，有 BN": LATER, "初始化，没有 BN": BARE}
    findings = []
    for state, end in states.items():
        deep = {kind: record.values[f"{kind}56{end}"] for kind in ("plain", "resnet")}
        uneven = [max(norms) / min(norms) for norms in deep.values()]
        grown = [norms[0] / record.values[f"{kind}20{end}"][0] for kind, norms in deep.items()]
        changed = [max(ratio, 1 / ratio) for ratio in grown]
        findings.append(
            Finding(
                f"{state}：从 20 层加到 56 层，第一层的梯度变了多少倍，"
                f"朴素网络 {scientific(changed[0])}，残差网络 {scientific(changed[1])}；"
                "56 层之内，最大的梯度是最小的多少倍，"
                f"朴素网络 {scientific(uneven[0])}，残差网络 {scientific(uneven[1])}",
                changed[1] < changed[0] / 10 and uneven[1] < uneven[0] / 10,
            )
        )
    styles = {"plain56": "depth-0", "resnet56": "depth-1"}
    panels, rows = [], []
    for title, end in (("有 BN", ""), ("没有 BN", BARE)):
        panel, more = _norms(
            record,
            {
                f"{network}{end}{when}": (f"{DEPTHS[network]}，{title}{told}", f"{style} {dashes}")
                for network, style in styles.items()
                for when, told, dashes in (("", "，初始化", "dashed"), (LATER, "，之后", ""))
                if f"{network}{end}{when}" in record.values
            },
            f"{title}：权重梯度的范数（对数轴）",
        )
        panels.append(panel)
        rows += more
    chart = figure(
        f"每个卷积层权重梯度的范数：虚线是初始化时，实线是训练 {steps} 步之后（只有带 BN 的）。",
        panels,
        table(_NORMS, rows),
        legend=[(style, DEPTHS[network]) for network, style in styles.items()],
    )
    return Shown(
        findings,
        chart,
        _described(record)
        + "训练的几步照配方 `depth`，一直用这一批图。"
        + "残差网络的两个数都不到朴素网络的十分之一，才算符合。",
    )


_NORMS = ("网络", "第一层", "中间", "最后一层")


def _norms(
    record: AnalysisRecord, shown: dict[str, tuple[str, str]], title: str
) -> tuple[Panel, list[list[str]]]:
    """A chart of some networks' norms and its table; ``shown`` gives labels and styles."""
    series = {key: [log10(v) for v in record.values[key]] for key in shown}
    every = [value for values in series.values() for value in values]
    layers = Axis("卷积层（从输入到输出）", 1, max(map(len, series.values())))
    size = Axis("范数", floor(min(every)), floor(max(every)) + 1, lambda v: power(round(v)))
    lines = [Line(style, list(enumerate(series[key], 1))) for key, (_, style) in shown.items()]
    told = "；".join(
        f"{label}从 {scientific(record.values[key][0])} 到 {scientific(record.values[key][-1])}"
        for key, (label, _) in shown.items()
    )
    rows = [
        [label, *(scientific(record.values[key][i]) for i in (0, len(series[key]) // 2, -1))]
        for key, (label, _) in shown.items()
    ]
    return Panel(title, line_chart(f"{told}。", layers, size, lines)), rows


def residuals_small(analyses: Analyses) -> Shown:
    """Whether the residuals are small beside what the shortcuts bring, and change it little."""
    findings, panels, rows = [], [], []
    for record in analyses.values():
        network, values = _network(record), record.values
        for end, what in (("", " |F(x)| 与 |x| 之比"), (CHANGE, "实际改动与 |x| 之比")):
            trained, fresh = median(values[f"trained{end}"]), median(values[f"fresh{end}"])
            words = f"{network}：训练后{what}的中位数是 {trained:.3f}，初始时 {fresh:.3f}"
            findings.append(Finding(words, trained < 0.5))
        panels.append(Panel(network, _block_chart(record)))
        columns = (values[f"{kind}{end}"] for end in ("", CHANGE) for kind in ("fresh", "trained"))
        rows += [
            [f"{network}，{name}", *(f"{number:.2f}" for number in numbers)]
            for name, *numbers in zip(_parts(record), *columns, strict=True)
        ]
    first = next(iter(analyses.values()))
    head = ("块", "残差，初始", "残差，训练后", "改动，初始", "改动，训练后")
    return Shown(
        findings,
        figure(
            "每块的残差 |F(x)|，以及它对输出的实际改动 |ReLU(F(x)+x) − ReLU(x)|，与 |x| 之比。",
            panels,
            table(head, rows),
            legend=tuple(_STYLES.values()),
        ),
        _described(first)
        + "比值的中位数小于 0.5，才算小得多；"
        + "随机初值时已经这样小的，说明的是结构，不是训练的结果。",
    )


_STYLES = {
    "fresh": ("depth-0 dashed", "残差，初始"),
    "trained": ("depth-0", "残差，训练后"),
    f"fresh{CHANGE}": ("depth-1 dashed", "改动，初始"),
    f"trained{CHANGE}": ("depth-1", "改动，训练后"),
}


def _block_chart(record: AnalysisRecord) -> str:
    names = _parts(record)
    top = max(max(record.values[key]) for key in _STYLES)
    lines = [
        Line(style, list(enumerate(record.values[key], 1))) for key, (style, _) in _STYLES.items()
    ]
    trained = zip(names, record.values["trained"], record.values[f"trained{CHANGE}"], strict=True)
    told = "，".join(f"{name} {ratio:.2f} 和 {change:.2f}" for name, ratio, change in trained)
    return line_chart(
        f"训练后各块的残差之比与改动之比：{told}。",
        Axis("块（从输入到输出）", 1, len(names)),
        Axis("比值", 0, top * 1.05),
        lines,
    )


def _parts(record: AnalysisRecord) -> list[str]:
    names = blocks(build(record.network))
    return [name if "." in name else f"第 {i} 块" for i, name in enumerate(names, 1)]


def _network(record: AnalysisRecord) -> str:
    return DEPTHS.get(record.network, "ResNet-18")


def single_blocks(analyses: Analyses) -> Shown:
    """Compare the accuracy with and without each block."""
    panels, rows, findings = [], [], []
    for record in analyses.values():
        (whole,), cut = record.values["accuracy"], record.values["accuracy without"]
        chart = line_chart(
            f"{_network(record)}：完整网络 {whole:.1%}，去掉一块后最高 {max(cut):.1%}，"
            f"最低 {min(cut):.1%}。",
            Axis("去掉第几块", 1, len(cut)),
            Axis("准确率", 0, 1, "{:.0%}".format),
            [
                Line("reference", [(1, whole), (len(cut), whole)]),
                Line("depth-1", list(enumerate(cut, 1))),
            ],
        )
        panels.append(Panel(_network(record), chart))
        names = [f"去掉{'' if name.startswith('第') else ' '}{name}" for name in _parts(record)]
        losses = record.values["loss"] + record.values["loss without"]
        scaled = record.values[f"loss{SCALED}"] + record.values[f"loss without{SCALED}"]
        rows += [
            [f"{_network(record)}，{name}", percent(share), f"{loss:.2f}", f"{least:.2f}"]
            for name, share, loss, least in zip(
                ("完整", *names), (whole, *cut), losses, scaled, strict=True
            )
        ]
        words = (
            f"{_network(record)}：完整时 {whole:.1%}，去掉一块之后，中位数 {median(cut):.1%}，"
            f"最低 {min(cut):.1%}（{names[cut.index(min(cut))]}）"
        )
        usable = median(cut) > 0.8 * whole
        findings.append(
            Finding(words, not usable if record.network.startswith("plain") else usable)
        )
    return Shown(
        findings,
        figure(
            "去掉单独一块、其余不动，在测试图上的准确率；点线是完整的网络。",
            panels,
            table(("网络", "准确率", "损失", "分数统一缩放后最小的损失"), rows),
        ),
        _described(next(iter(analyses.values())))
        + "去掉一块之后，准确率的中位数超过完整网络的八成，才算还能用。",
    )
