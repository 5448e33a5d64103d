"""What the site's build adds: numbers from records, formulas, notebooks; and what stops it."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from statistics import median
from types import SimpleNamespace
from typing import Any

import charts
import notebooks
import pytest
import wording
from charts import Axis
from figures import figure
from layers import layer_table, measure
from macros import ON_RESULTS, expand
from mkdocs.exceptions import PluginError
from records import Results, read_results
from speed import MARKS

from cifar_resnet.data import CLASSES
from cifar_resnet.experiments import EXPERIMENTS, Experiment, jobs, select
from cifar_resnet.recipe import get_recipe
from cifar_resnet.record import Record, write_record
from cifar_resnet.results import FOLDERS
from tests import ROOT
from tests.site_build import build, invented, invented_bench, notebook, small

NOTES_CPU = get_recipe("notes-cpu")
NOTHING = Results()


def publish(folder: Path, *records: Record) -> Path:
    """Write records where the site looks for them."""
    for record in records:
        write_record(record, folder / FOLDERS[record.data.eval_split] / f"{record.id}.json")
    return folder


@pytest.mark.parametrize(
    "name",
    sorted(
        set(ON_RESULTS)
        - {"accuracy", "best_epoch", "claims", "classifier", "evidence", "goals", "parts"}
    ),
)
def test_without_records_everything_is_pending(name: str) -> None:
    shown = expand(f"{{{{ {name}() }}}}", NOTHING)
    assert ("待测" if name in ("speed", "contention") else "待训练") in shown
    assert not re.search(r"\d", shown)


def test_accuracy_is_pending_without_runs_of_just_that_recipe(tmp_path: Path) -> None:
    other = invented(get_recipe("notes-cpu", learning_rate=0.3), 0, 0.93)
    for results in (NOTHING, read_results(publish(tmp_path, other))):
        assert "待训练" in expand('{{ accuracy("notes-cpu") }}', results)


def test_two_groups_of_one_name_end_the_build(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("records.label", lambda _: "一样")
    runs = [invented(get_recipe(name), 0, 0.94) for name in ("fast-cpu", "fast-cpu-short")]
    with pytest.raises(PluginError, match="2 groups of runs would be called '一样'"):
        read_results(publish(tmp_path, *runs))


def test_fast_recipes_are_listed_with_their_time_or_as_pending(tmp_path: Path) -> None:
    waiting = expand("{{ fast() }}", NOTHING)
    assert waiting.count("待训练") == 3
    records = [invented(get_recipe("fast-cpu"), seed, 0.94) for seed in (0, 1)]
    shown = expand("{{ fast() }}", read_results(publish(tmp_path, *records)))
    row = "| `fast-cpu`，22 轮 | 94.00%\u00a0±\u00a00.00% |  | 2 | 22 分钟 | 12 小时 | 没有编译 |"
    assert row in shown
    for waited, told in ((42.0, "42 秒"), (0.1, "之前已编译")):
        hardware = replace(records[0].hardware, compile=True)
        run = replace(records[0], hardware=hardware, compile_seconds=waited)
        assert f"| {told} |" in expand("{{ fast() }}", read_results(publish(tmp_path / told, run)))
    records = [replace(record, flip_averaged_accuracy=0.945) for record in records]
    results = read_results(publish(tmp_path, *records))
    assert "94.00%\u00a0±\u00a00.00% | 94.50% | 2 |" in expand("{{ fast() }}", results)
    assert "翻转平均\n:   94.50%" in expand("{{ provenance() }}", results)
    assert shown.count("待训练") == 2


def test_parts_of_a_recipe_are_told_arm_by_arm(tmp_path: Path) -> None:
    arms = {job.arm.label: job.recipe for job in jobs(select(["fast-cpu-parts"]))}
    measured = {
        "everything": (0.91, 0.92),
        "sgd": (0.87, 0.89),
        "full-resolution": (0.93,),
        "random-flip": (0.90, 0.92),
    }
    runs = [
        replace(invented(arms[arm], seed, accuracy), id=f"{arm}-{seed}")
        for arm, values in measured.items()
        for seed, accuracy in enumerate(values)
    ]

    def row(label: str, results: Results) -> str:
        lines = expand('{{ parts("fast-cpu-parts") }}', results).splitlines()
        return next(line for line in lines if line.startswith(f"| {label} |"))

    results = read_results(publish(tmp_path / "all", *runs))
    assert "`fast-cpu-parts`，网络 `resnet18`，每组 7 轮：" in expand(
        '{{ parts("fast-cpu-parts") }}', results
    )
    assert "轮数依次为 7、4：" in expand('{{ parts("fast-cpu-time") }}', results)
    assert row("全部用上", results) == "| 全部用上 | 91.50%\u00a0±\u00a00.71% |  | 7 分钟 | 2 |  |"
    assert (
        "| 88.00%\u00a0±\u00a01.41% | 低 3.50 个百分点 | 7 分钟 | 2 | "
        "`optimizer=sgd`<br>`batch_size=64`" in (row("换成 SGD", results))
    )
    assert row("全程 32×32", results).endswith(
        "| 种子太少 | 7 分钟 | 1 | `low_resolution_share=0` |"
    )
    assert "| 分不出高下 | 7 分钟 | 2 |" in row("随机翻转", results)
    alone = read_results(publish(tmp_path / "one", *runs[2:4]))
    assert "| 换成 SGD | 88.00%\u00a0±\u00a01.41% | 7 分钟 | 2 |" in row("换成 SGD", alone)
    shown = expand('{{ parts("fast-cpu-parts") }}', alone)
    assert "与第一组相比" not in shown, "there is none to compare with"
    assert "待训练</span> 还缺的组：全部用上、全程 32×32、随机翻转" in shown
    assert "\n| 全部用上 |" not in shown
    waiting = expand('{{ parts("fast-cpu-parts") }}', NOTHING)
    assert "|" not in waiting, "no table without a single run"


@pytest.mark.parametrize("experiment", [e for e in EXPERIMENTS if len(e.arms) > 1])
def test_every_arm_that_is_compared_has_its_words(experiment: Experiment) -> None:
    shown = expand(f'{{{{ parts("{experiment.name}") }}}}', NOTHING)
    assert shown.count("待训练") == 1
    assert len(re.findall("（([^（）]+)）：<", shown)[0].split("、")) == len(experiment.arms)


def test_benchmarks_and_their_goals_are_drawn_from_the_records() -> None:
    """Ours 3 times as fast in the median, 18.75 % of the ceiling, augmentation 1.5 % of a step."""
    old = replace(
        invented_bench("resnet18"), started="2025-01-01T00:00:00+00:00", augment=(1e6, 1e6)
    )
    made = [old, *(invented_bench("resnet18", device) for device in ("cpu", "cuda"))]
    results = Results(benchmarks=tuple(made))
    reached, missed = MARKS[True], MARKS[False]
    times = "3.00 倍（各遍 2.00 至 4.00 倍）"
    lines = [line.strip("| ") for line in expand("{{ goals() }}", results).splitlines()]
    for line in (
        f"CPU，`resnet18`：相对常见写法的速度 | {missed} | 至少 4.00 倍 | {times}",
        f"CPU，`resnet18`：增强占一步用时的比例 | {missed} | 至多 1.00% | "
        "1.50%（各遍 1.00% 至 2.00%）",
        f"GPU，`resnet18`：相对常见写法的速度 | {missed} | 至少 10.00 倍 | {times}",
        f"GPU，`resnet18`：矩阵乘法的利用率，保底 | {missed} | 至少 25.00% | "
        "18.75%（各遍 12.50% 至 25.00%）",
        f"CPU 有一个核被占，`resnet18`：相对单线程的速度（不编译） | {reached} | 至少 90.00% | "
        "91.00%（各遍 86.00% 至 96.00%）",
        "CPU 有一个核被占，`resnet20`：相对单线程的速度（不编译） |  | 至少 90.00% | "
        '<span class="pending">待测</span>',
    ):
        assert line in lines
    assert "CPU，`resnet20`：相对常见写法的速度 |  | 至少 3.50 倍 |" in "\n".join(lines)
    gpu = replace(made[2], peak_bytes=2**31)
    usual, ours = (f"{median(rates):,.0f}" for rates in (gpu.reference, gpu.ours))
    assert usual != ours
    assert f"常见写法 {usual} 张/秒，本项目 {ours} 张/秒" in expand("{{ speed() }}", results)
    shown = expand("{{ speed() }}", Results(benchmarks=(made[1], gpu)))
    for row in (
        "| 量 | resnet18，CPU | resnet18，GPU |",
        "| 相对常见写法的速度 | 3.00 倍 | 3.00 倍 |",
        "| 最慢与最快的一遍 | 2.00 至 4.00 倍 | 2.00 至 4.00 倍 |",
        "| 矩阵乘法的利用率 | 18.75% | 18.75% |",
        "| 数据增强占一步用时的比例 | 1.50% | 1.50% |",
        "| 内存或显存的峰值 | 1,024 MiB | 2,048 MiB |",
    ):
        assert row in shown


def test_speed_beside_a_busy_process_is_shown_where_it_was_measured() -> None:
    speeds = invented_bench("resnet18")
    shown = expand("{{ contention() }}", Results(benchmarks=(speeds,)))
    assert "| 网络 | 单线程，独占 | 抢核，线程数不变 | 抢核，自动选择 | 自动选择比单线程 |" in shown
    assert "| `resnet18` | 100 | 25（2 线程） | 91（1 线程） | 91.00% |" in shown
    unmeasured = Results(benchmarks=(replace(speeds, contention=None),))
    assert "待测" in expand("{{ contention() }}", unmeasured)
    goals = expand("{{ goals() }}", unmeasured)
    assert '单线程的速度（不编译） |  | 至少 90.00% | <span class="pending">待测</span> |' in goals


def test_classes_have_the_names_of_their_images() -> None:
    """In Chinese as in the package."""
    assert dict(zip(wording.CLASSES, CLASSES, strict=True)) == {
        "飞机": "airplane",
        "汽车": "automobile",
        "鸟": "bird",
        "猫": "cat",
        "鹿": "deer",
        "狗": "dog",
        "青蛙": "frog",
        "马": "horse",
        "船": "ship",
        "卡车": "truck",
    }


def test_lines_are_drawn_where_their_axes_say() -> None:
    x, y = Axis("x", 0, 10), Axis("y", 0, 1)
    drawn = charts.line_chart("", x, y, [charts.Line("a", [(0, 0), (4, 0.8), (10, 1)])])
    ticks = re.findall(r'<text x="([\d.]+)" y="([\d.]+)" text-anchor="(\w+)"[^>]*>([\d.]+)<', drawn)
    across = {word: float(left) for left, _, anchor, word in ticks if anchor == "middle"}
    up = {word: float(top) - 4 for _, top, anchor, word in ticks if anchor == "end"}
    (points,) = re.findall(r'd="M([^"]+)" class="line a"', drawn)
    assert [tuple(map(float, point.split())) for point in points.split("L")] == [
        (across["0"], up["0"]),
        (across["4"], up["0.8"]),
        (across["10"], up["1"]),
    ]
    assert up["0"] > up["0.8"] > up["1"], "more is higher up"


def test_bars_are_as_long_as_their_values() -> None:
    bars = charts.bar_chart("", [("a", 0.2, ""), ("b", 0.6, "")], highest=0.6)
    short, long = (float(width) for width in re.findall(r'<rect[^>]* width="([\d.]+)"', bars))
    assert long == pytest.approx(3 * short, abs=0.2)
    reliable = charts.calibration_chart("", [(10, 0.9, 0.25), (10, 0.5, 0.75)])
    low, high = (float(h) for h in re.findall(r' height="([\d.]+)" class="bar"', reliable))
    assert high == pytest.approx(3 * low, abs=0.2)
    marks = re.findall(r'd="M[\d.]+ ([\d.]+)L[^"]*" class="line mark"', reliable)
    assert float(marks[0]) < float(marks[1]), "the more confident mark is higher up"


def test_labels_of_bars_have_room() -> None:
    """Twelve units a Chinese character, half of that for others."""
    long = "去掉动量，学习率 1.0"
    for label, width in ((long, 8 * 12 + 4 * 6), ("猫", 12)):
        drawn = charts.bar_chart("", [("b", 1.0, "100.00%"), (label, 0.5, "")])
        ends = re.findall(r'<text x="([\d.]+)"[^>]*"end"', drawn)
        assert width <= float(ends[1]) < 1.3 * width + 10
        written = re.findall(r'<text x="([\d.]+)"[^>]*"start"', drawn)
        assert float(written[0]) + 7 * 6 < charts.WIDTH


def test_layers_stand_under_their_network() -> None:
    head = layer_table()
    original, ours = head.index("原版"), head.index("修改版")
    (row,) = re.findall(r"<code>conv1</code></th>(.*?)</tr>", head)
    cells = re.findall(r"<td>([^<]*)</td>", row)
    assert original < ours
    assert (cells[0], cells[4]) == ("64×16×16", "64×32×32")
    names = re.findall(r'<th scope="col">([^<]*)</th>', head)
    assert names[:4] == names[4:]
    assert dict(zip(names[4:], cells[4:], strict=True)) == {
        **{"输出": "64×32×32", "参数": f"{27 * 64 + 2 * 64:,}"},
        **{"乘加": f"{27 * 64 * 32 * 32 / 1e6:.1f} M", "感受野": "3"},
    }


def test_goals_stand_beside_what_was_measured(tmp_path: Path) -> None:
    def row(name: str, results: Results) -> str:
        lines = expand("{{ goals() }}", results).splitlines()
        return next(line for line in lines if line.startswith(f"| `{name}`，"))

    assert "待训练" in row("fast-cpu-short", NOTHING)
    assert "达到" not in expand("{{ goals() }}", NOTHING)
    recipe = get_recipe("fast-cpu-short")

    def shown(accuracy: float, seeds: int = 3, **change: Any) -> str:
        change = {"finished": "2026-01-01T00:19:00+00:00"} | change
        runs = [replace(invented(recipe, seed, accuracy), **change) for seed in range(seeds)]
        folder = tmp_path / f"{accuracy} {seeds} {len(change)} {change['finished'][14:16]}"
        return row("fast-cpu-short", read_results(publish(folder, *runs)))

    def ends(text: str, mark: str, measured: str) -> bool:
        return f"| {mark} |" in text and text.endswith(f"{measured} |")

    assert ends(shown(0.905), MARKS[True], "，19.0 分钟（3 次）")
    assert ends(shown(0.895), MARKS[False], "")
    assert ends(shown(0.905, seeds=2), "", "（2 次，计划 3 次）"), "too early to say"
    late = "2026-01-01T00:21:00+00:00"
    assert ends(shown(0.95, finished=late), MARKS[False], "，21.0 分钟（3 次）")
    assert ends(shown(0.95, finished=late, compile_seconds=61.0), MARKS[True], "分钟（3 次）")
    assert ends(shown(0.95, sessions=2), "", "，中断过（3 次）"), "its time is not known"


def test_pace_tells_when_an_accuracy_was_first_reached(tmp_path: Path) -> None:
    run = invented(get_recipe("notes-cpu"), 0, 0.93)
    history = tuple(
        replace(epoch, eval_accuracy=0.93 * epoch.epoch / 16, seconds=60.0) for epoch in run.history
    )
    results = read_results(publish(tmp_path, replace(run, history=history)))
    shown = expand("{{ pace() }}", results)
    assert "<td>14 分钟</td><td>16 分钟</td><td>16 分钟</td><td>没有到</td>" in shown
    assert "notes-cpu，16 轮用 16 分钟到 93.00%" in shown


def test_gpus_have_a_chart_of_their_own(tmp_path: Path) -> None:
    slow, quick = (
        invented(get_recipe(name), 0, 0.9, device=device)
        for name, device in (("notes-cpu", "cpu"), ("fast", "cuda"))
    )
    history = tuple(replace(epoch, seconds=1.0) for epoch in quick.history)
    results = read_results(publish(tmp_path, slow, replace(quick, history=history)))
    shown = expand("{{ pace() }}", results)
    cpu, gpu = re.findall(r"<svg viewBox[^>]*?role=.*?</svg>", shown, re.DOTALL)
    assert "训练用时（分）" in cpu
    assert "训练用时（秒）" in gpu
    assert "fast，90 轮用 2 分钟到 90.00%" in gpu


def test_of_a_long_run_the_beginning_is_drawn_beside_fast_ones(tmp_path: Path) -> None:
    slow, quick = (invented(get_recipe(n), 0, 0.9, device="cuda") for n in ("notes", "fast"))
    results = read_results(publish(tmp_path, slow, quick))
    shown = expand("{{ pace() }}", results)
    chart = shown.split('<div class="panels">')[1]
    lines = re.findall(r'<path d="([^"]+)" class="line ', chart)
    drawn = sorted(line.count("L") + 1 for line in lines)
    assert drawn == [90, 117], "minutes: as long as fast, and 1.3 times as long"
    assert "notes，200 轮一共用 3 小时 20 分，图上只画开头" in shown
    assert "fast，90 轮一共用" not in shown


def test_runs_made_to_be_compared_are_no_results_of_their_own(tmp_path: Path) -> None:
    """Even those that differ from a recipe in their length alone."""
    (first, *_), (short, *_) = (jobs(select([name])) for name in ("fast-parts-cpu", "fast-short"))
    runs = [invented(job.recipe, seed, 0.9) for seed, job in enumerate((first, short))]
    results = read_results(publish(tmp_path, *runs))
    assert short.recipe.learning_rate != get_recipe("fast").learning_rate
    assert [group.recipe for group in results.groups] == [short.recipe]
    assert len(results.runs) == 2


def test_times_that_do_not_count_are_not_shown(tmp_path: Path) -> None:
    for name, head in (
        ("fast-cpu-parts", "| 训练用时 |"),
        ("fast-parts-cpu", "| 与第一组相比 | 次数 |"),
    ):
        first = invented(jobs(select([name]))[0].recipe, 0, 0.9)
        results = read_results(publish(tmp_path / name, first))
        assert head in expand(f'{{{{ parts("{name}") }}}}', results)


def test_each_recipe_has_a_line_of_its_own(tmp_path: Path) -> None:
    names = ("notes", "notes-cpu", "fast", "fast-cpu", "fast-cpu-short")
    results = read_results(publish(tmp_path, *(invented(get_recipe(n), 0, 0.9) for n in names)))
    shown = expand("{{ pace() }}", results)
    assert len(set(re.findall(r'class="line ([^"]+)"', shown))) == len(names)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"name": "synthetic", "md5": {}}, "not measured on the published CIFAR-10"),
        ({"md5": {}}, "not measured on the published CIFAR-10"),
        ({"eval_split": "val"}, "it belongs at tuning/notes-cpu-"),
    ],
)
def test_records_that_are_no_results_are_refused(
    tmp_path: Path, change: dict[str, object], why: str
) -> None:
    record = invented(NOTES_CPU, 0, 0.93)
    data = replace(record.data, **change)
    write_record(replace(record, data=data), tmp_path / "runs" / f"{record.id}.json")
    with pytest.raises(PluginError, match=why):
        read_results(tmp_path)


@pytest.mark.parametrize("kind", ["runs", "analyses", "bench"])
def test_a_record_under_another_name_is_refused(tmp_path: Path, kind: str) -> None:
    some = sorted((ROOT / "results" / kind).glob("*.json"))[0]
    (tmp_path / kind).mkdir()
    shutil.copy(some, tmp_path / kind / "renamed.json")
    with pytest.raises(PluginError, match=f"it belongs at {kind}/{some.name}; move it there"):
        read_results(tmp_path)


def test_an_edited_record_is_refused(tmp_path: Path) -> None:
    publish(tmp_path, invented(NOTES_CPU, 0, 0.93))
    (path,) = tmp_path.rglob("*.json")
    path.write_text(path.read_text().replace('"accuracy": 0.93', '"accuracy": 0.99'))
    with pytest.raises(PluginError, match="checksum"):
        read_results(tmp_path)


@pytest.mark.parametrize(
    "call", ["{{ acuracy('notes') }}", "{{ accuracy('nots') }}", "{{ accuracy() }}",
             "{{ figure('nothing') }}", "{{ figure(nothing) }}"],
)  # fmt: skip
def test_a_wrong_macro_fails(call: str) -> None:
    with pytest.raises(PluginError):
        expand(call, NOTHING)


def test_other_braces_stay() -> None:
    text = r"$\frac{{a}}{b}$ @article{key, title = {{ResNet}}}"
    assert expand(text, NOTHING) == text


def test_macros_are_single_lines() -> None:
    """So that they may stand in lists and boxes."""
    for shown in (figure("lr_schedule"), figure("augmentations"), layer_table()):
        assert "\n" not in shown


def test_smoothed_target_comes_from_the_loss() -> None:
    shown = figure("label_smoothing")
    assert "猫 0.91，其余各类 0.01" in shown
    assert "猫 1.00，其余各类 0.00" in shown


def test_layers_are_those_of_the_model() -> None:
    from cifar_resnet.model import get_cifar_resnet

    layers = measure(get_cifar_resnet())
    assert sum(layer.parameters for layer in layers.values()) == 11_173_962
    assert [layers[f"layer{i}"].shape[1] for i in (1, 2, 3, 4)] == [32, 16, 8, 4]
    # By hand: 3 after the stem, then per stage 4, 8 or 16 pixels wider for each 3x3.
    assert [layers[f"layer{i}"].field for i in (1, 2, 3, 4)] == [11, 25, 53, 109]
    assert layers["conv1"].multiply_adds == 3 * 3 * 3 * 64 * 32 * 32


@pytest.mark.parametrize(
    ("axis", "ticks"),
    [(Axis("", 0, 200), [0, 50, 100, 150, 200]), (Axis("", 0.4, 1), [0.4, 0.6, 0.8, 1.0])],
)
def test_ticks_are_round(axis: Axis, ticks: list[float]) -> None:
    assert axis.ticks() == ticks


def test_npm_lock_pins_by_hash_and_names_no_mirror() -> None:
    lock = json.loads((ROOT / "hooks/web/package-lock.json").read_text())
    packages = [package for name, package in lock["packages"].items() if name]
    assert all(package["integrity"].startswith("sha512-") for package in packages)
    assert not any("resolved" in package for package in packages)


@pytest.mark.parametrize(
    ("pages", "why"),
    [
        ({"index.md": '```python\n--8<-- "cifar_resnet/model.py:gone"\n```'}, "gone"),
        ({"index.md": "[away](gone.md) [below](#nowhere)"}, "(?s)gone.md.*#nowhere"),
        ({"index.md": r"$\frac{1$"}, "frac"),
        ({"index.md": "```mermaid\ngraph LR\n    A --> B\n```"}, "no line accDescr"),
        ({"index.md": "```mermaid\nA --> B\n```"}, "Invalid mermaid header"),
        ({"index.md": "# x", "n.ipynb": notebook([("code", "raise ValueError('cell')")])}, "cell"),
        ({"index.md": "# x", "n.ipynb": notebook([("markdown", "[x](gone.md)")])}, "gone.md"),
    ],
    ids=["section", "links", "formula", "no description", "no diagram", "cell", "cell's link"],
)
def test_what_is_broken_fails_the_build(tmp_path: Path, pages: dict[str, str], why: str) -> None:
    done = build(small(tmp_path, pages))
    assert done.returncode != 0
    assert re.search(why, done.stderr + done.stdout)


def test_a_broken_record_fails_the_build(tmp_path: Path) -> None:
    folder = small(tmp_path, {"index.md": "# x"})
    (folder / "results" / "runs").mkdir(exist_ok=True)
    (folder / "results" / "runs" / "broken.json").write_text("{}")
    done = build(folder)
    assert done.returncode != 0
    assert "broken.json" in done.stderr + done.stdout


def test_a_notebook_is_executed_anew_when_the_package_or_a_library_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "cifar_resnet"
    shutil.copytree(ROOT / "cifar_resnet", package, ignore=shutil.ignore_patterns("weights"))
    monkeypatch.setattr(notebooks.cifar_resnet, "__file__", str(package / "__init__.py"))
    (path := tmp_path / "n.ipynb").write_text(notebook([("code", "1")]))
    page = SimpleNamespace(file=SimpleNamespace(abs_src_path=str(path)))
    before = notebooks._key(page)
    assert notebooks._key(page) == before
    (package / "augment.py").write_text((package / "augment.py").read_text() + "# edited\n")
    edited = notebooks._key(page)
    monkeypatch.setattr(notebooks, "_INSTALLED", ["torch 1"])
    upgraded = notebooks._key(page)
    for name in ("notebooks.py", "notebook_tables.py", "charts.py"):
        (tmp_path / name).write_text("# edited\n")
    monkeypatch.setattr(notebooks, "__file__", str(tmp_path / "notebooks.py"))
    shown = notebooks._key(page)
    (tmp_path / "charts.py").write_text("# and again\n")
    assert len({before, edited, upgraded, shown, notebooks._key(page)}) == 5


def test_a_notebook_becomes_a_page_like_others(tmp_path: Path) -> None:
    cells = [
        (
            "markdown",
            "# 题目\n\n说明[在先](index.md)。公式 $a<b$ 略去。没有难公式的 $F(x)$ 一句。\n\n"
            "公式 $a<b$，[回去](index.md)。\n\n## 中文 小节",
        ),
        ("code", "from cifar_resnet.recipe import get_recipe\nprint('<', 6 * 7)\nprint('&')"),
        ("code", "import matplotlib.pyplot as plt\nplt.plot([1, 2]);"),
        ("code", "plt.bar(['a', 'b'], [3.5, 4.5], label='bars')\nplt.show()"),
    ]
    folder = small(tmp_path, {"index.md": "# x", "n.ipynb": notebook(cells), "code.py": "1 / 0"})
    nav = (folder / "mkdocs.yml").read_text().replace(', "code.py"', "")
    (folder / "mkdocs.yml").write_text(nav)
    done = build(folder)
    assert done.returncode == 0, done.stderr
    page = (folder / "site" / "n" / "index.html").read_text(encoding="utf-8")
    assert 'id="中文-小节"' in page
    assert '<a href="../">回去</a>' in page
    assert "<math" in page
    assert "&lt; 42\n&amp;\n" in re.sub("<[^>]+>", "", page)
    drawing = re.findall('<figure class="output".*?</figure>', page, re.DOTALL)[0]
    assert "<text" in drawing
    table = re.findall('<details class="data" data.*?</details>', page, re.DOTALL)[0]
    assert re.findall("<t[hd][^>]*>([^<]+)", table) == ["x", "bars", "a", "3.5", "b", "4.5"]
    assert drawing.startswith('<figure class="output" role="img" data-search-exclude')
    assert "<metadata>" not in page
    names = re.findall(' id="([^"]+)"', drawing)
    assert names, "clip paths are referred to"
    assert all(f"#{name}" in drawing for name in names)
    index = (folder / "site" / "search" / "search_index.json").read_text(encoding="utf-8")
    searched = " ".join(part["text"] for part in json.loads(index)["docs"]).replace("\u200b", "")
    assert "没有难公式的" in searched
    assert "Matplotlib" not in searched, "as it signs its pictures"
    assert "数据表" not in searched
    assert '<meta name="description" content="说明在先。没有难公式的 F(x) 一句。">' in page
    assert '<meta property="og:title" content="题目">' in page
    assert '<meta property="og:description" content="说明在先。没有难公式的 F(x) 一句。">' in page
    assert page.count('property="og:') == 4
    lost = (folder / "site" / "404.html").read_text(encoding="utf-8")
    assert "<title>没有这个页面 - ResNet 笔记</title>" in lost
    assert re.search(r"<h1[^>]*>没有这个页面</h1>.*搜索.*<a href=\"/cifar-resnet/", lost, re.DOTALL)
    assert "currentColor" in drawing
    assert "#000000" not in drawing
    assert "#ffffff" not in drawing
    assert not re.search(r'<(script|link|img)[^>]*(src|href)="(https?:)?//(?!cifar-resnet\.)', page)
    assert len(page.replace(drawing, "")) < 60_000
    assert (folder / "site" / "n" / "n.ipynb").exists()
    assert 'href="n.ipynb" download' in page
    assert (
        "colab.research.google.com/github/cifar-resnet/cifar-resnet/blob/main/docs/n.ipynb" in page
    )
    assert not (folder / "site" / "code" / "index.html").exists()
