"""The page on speed, drawn from the benchmarks' records alone."""

from datetime import datetime
from html import escape
from statistics import mean, median

from charts import Panel, bar_chart, figure, table
from records import RECORDS, Group, Results
from wording import PENDING, date, device, duration, percent

from cifar_resnet.bench import BenchRecord, pipeline, ratios, shares
from cifar_resnet.recipe import RECIPES


def speed(results: Results) -> str:
    """One box a benchmark: both loops, their ratio, the share of the hardware's limit."""
    if not results.benchmarks:
        return f'<p class="pending-box">{PENDING} 还没有测速记录；有了记录，这里会自动补上。</p>'
    return "\n\n".join(map(_box, results.benchmarks))


def fast(results: Results) -> str:
    """What the recipes made for speed reach, and in what time; 待训练 where there is no run."""
    head = ("配方", "轮数", "测试准确率", "次数", "训练用时", "连评估在内", "设备")
    rows = []
    for name in (name for name in RECIPES if name.startswith("fast")):
        groups = [group for group in results.groups if group.recipe.name == name]
        rows += [_fast_row(group) for group in groups]
        if not results.published(name):
            rows.append([f"`{name}`", "", PENDING, "", "", "", ""])
    lines = [head, ["---"] * len(head), *rows]
    return "\n" + "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def _fast_row(group: Group) -> list[str]:
    devices = dict.fromkeys(
        device(run.hardware.device, run.hardware.name, run.hardware.threads) for run in group.runs
    )
    whole = [
        (datetime.fromisoformat(run.finished) - datetime.fromisoformat(run.started)).total_seconds()
        for run in group.runs
    ]
    return [
        f"`{group.recipe.name}`",
        str(group.recipe.epochs),
        percent(*group.spread(lambda run: run.metrics.accuracy)),
        str(len(group.runs)),
        duration(mean(run.train_seconds for run in group.runs)),
        duration(mean(whole)),
        "；".join(devices),
    ]


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
    times = ratios(record)
    told = f"{bars[0][0]} {bars[0][2]} 张/秒，{bars[1][0]} {bars[1][2]} 张/秒"
    chart = bar_chart(f"训练速度：{told}。", bars, highest=max(value for _, value, _ in bars))
    commit = record.software.commit or record.software.source_sha256
    rows = [
        ["快多少", f"{median(times):.2f} 倍（各遍 {min(times):.2f} 至 {max(times):.2f}）"],
        ["矩阵乘法的速度", f"{median(record.ceiling) / 1e12:.2f} TFLOP/s"],
        ["本项目用到其中", percent(median(shares(record)))],
        ["数据增强占一步", percent(median(pipeline(record)))],
        ["从建好网络到第一步", f"{record.first_step_seconds:.1f} 秒"],
        ["内存峰值", f"{record.peak_bytes / 2**20:,.0f} MiB"],
        ["精度", h.precision + ("，torch.compile" if h.compile else "")],
        ["测法", f"{len(times)} 遍，每遍 {record.steps} 步，每步 {record.batch_size} 张"],
        ["代码提交", commit[:10]],
    ]
    shown = figure(
        f"{record.network} 在 {machine} 上的训练速度，各遍的中位数。",
        [Panel("每秒训练的图片数", chart)],
        table(("写法", "中位数", "最慢一遍", "最快一遍"), measured),
        wide=True,
    )
    head = f"## {record.network}，{escape(machine)}\n\n"
    facts = "\n".join(f"| {name} | {value} |" for name, value in rows)
    return (
        f"{head}{shown}\n\n| 量 | 值 |\n| :-- | :-- |\n{facts}\n"
        f"| 记录（UTC） | [{date(record.started)}]({RECORDS}/{record.id}.json) |\n"
    )
