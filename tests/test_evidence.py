"""Claims of the notes: each on its page, judged by rule, never without records."""

import json
import re
from dataclasses import replace
from pathlib import Path
from statistics import mean, median
from typing import Any

import pytest
import records
from claims import CLAIMS
from comparisons import LABELS, accuracy, arms, compare
from evidence import evidence
from macros import expand
from mkdocs.exceptions import PluginError
from records import Results, find_outdated, read_results
from torch import nn

from cifar_resnet.analysis import ANALYSES
from cifar_resnet.experiments import EXPERIMENTS, Experiment, jobs, select
from cifar_resnet.networks import build
from cifar_resnet.recipe import flatten, get_recipe
from cifar_resnet.record import Record
from cifar_resnet.software import software
from tests import ROOT
from tests.site_build import invented

PUBLISHED = read_results(ROOT / "results")


@pytest.mark.parametrize("name", CLAIMS)
def test_every_claim_has_an_experiment_and_its_box_on_its_page(name: str) -> None:
    claim = CLAIMS[name]
    assert bool(claim.experiments) != bool(claim.analyses)
    assert [experiment.name for experiment in map(_one, claim.experiments)] == list(
        claim.experiments
    )
    assert all(analysis.split("-")[0] in ANALYSES for analysis in claim.analyses)
    pages = [page for page in (ROOT / "docs").glob("*.md") if _call(name) in page.read_text()]
    assert [page.name for page in pages] == [claim.page]


def test_claims_say_what_their_findings_judge() -> None:
    ways = {
        "vanishing": "梯度越往浅层越小；换成 ReLU 和合适的初始化，再加上 BN，就不再消失",
        "degradation": "加深，训练和测试的准确率反而下降",
        "shortcut": "好过同样深的朴素网络，也不比浅的差",
        "highway": "不随深度失控",
        "identity": "F(x) 比 x 小得多",
        "lesion": "残差网络去掉一块多半还能用，朴素网络不行",
        "operations": "比原版准确",
        "cosine": "余弦退火比不变的学习率好",
    }
    for name, claim in CLAIMS.items():
        assert ways.get(name, "能提高准确率") in claim.words


def test_what_the_site_added_to_the_notes_claims_stands_in_them() -> None:
    (told,) = re.findall(r"^论断下面的“出自”(.*)$", (ROOT / "docs/results.md").read_text(), re.M)
    added = re.findall(r"“(.*?)”", told)
    assert len(added) > 3
    for words in added:
        assert any(words in claim.words for claim in CLAIMS.values()), words


def _one(name: str) -> Experiment:
    (experiment,) = select([name])
    return experiment


def _call(name: str) -> str:
    return f'{{{{ evidence("{name}") }}}}'


@pytest.mark.parametrize("name", CLAIMS)
def test_without_records_there_is_no_verdict(name: str) -> None:
    shown = evidence(Results(), name)
    assert ("待测" if CLAIMS[name].analyses else "待训练") in shown
    assert "verdict" not in shown


def test_all_claims_are_listed_with_links_to_their_boxes() -> None:
    listed = expand("{{ claims() }}", Results())
    assert listed.count("待训练") + listed.count("待测") == len(CLAIMS)
    for name, claim in CLAIMS.items():
        assert f"({claim.page}#evidence-{name})" in listed
        assert f"出自：{claim.origin}；证据：<code>" in listed
    assert "verdict" in expand("{{ claims() }}", PUBLISHED)


def test_an_unknown_claim_fails() -> None:
    with pytest.raises(PluginError, match="no claim is called"):
        expand('{{ evidence("everything") }}', Results())


def runs(label: str, *accuracies: float, experiment: str = "degradation-cpu") -> list[Record]:
    (job, *_) = (j for j in jobs([_one(experiment)]) if j.arm.label == label)
    return [
        invented(job.recipe, seed, accuracy, device=job.device)
        for seed, accuracy in enumerate(accuracies)
    ]


@pytest.mark.parametrize(
    ("deep", "shallow", "holds"),
    [
        ((0.80, 0.81), (0.70, 0.71), True),
        ((0.70, 0.71), (0.80, 0.81), False),
        ((0.74, 0.84), (0.70, 0.80), False),
        ((0.80,), (0.70,), None),
        ((0.80, 0.81), (0.70,), None),
    ],
    ids=["higher", "lower", "within the spread", "one seed", "one seed on one side"],
)
def test_arms_are_compared_beyond_the_spread(
    deep: tuple[float, ...], shallow: tuple[float, ...], holds: bool | None
) -> None:
    trained = {"plain56": runs("plain56", *deep), "plain20": runs("plain20", *shallow)}
    finding = compare(trained, "plain56", "plain20", accuracy)
    assert finding.holds is holds


def results(**accuracies: tuple[float, ...]) -> Results:
    return Results(runs=tuple(r for label, a in accuracies.items() for r in runs(label, *a)))


def test_degradation_is_supported_or_not_by_the_runs() -> None:
    residual: dict[str, Any] = {"resnet20": (0.80, 0.81), "resnet56": (0.85, 0.86)}
    seen = results(plain20=(0.7, 0.71), plain56=(0.5, 0.51), **residual)
    for name in ("degradation", "shortcut"):
        assert verdict(evidence(seen, name)) == "支持"
    reverse = results(plain20=(0.7, 0.71), plain56=(0.9, 0.91), **residual)
    for name in ("degradation", "shortcut"):
        assert verdict(evidence(reverse, name)) != "支持"
    plain: dict[str, Any] = {"plain20": (0.7, 0.71), "plain56": (0.5, 0.51)}
    deep = results(**plain, resnet20=(0.9, 0.91), resnet56=(0.7, 0.71))
    assert verdict(evidence(deep, "shortcut")) == "部分支持", "it is worse than the shallow one"
    box = evidence(seen, "degradation")
    assert "这是缩短的版本；完整的 `degradation`（164 轮，3 个种子）" in box
    assert "只训练 6 轮" in box
    assert "只训练 6 轮" in expand("{{ claims() }}", seen)
    one = results(plain20=(0.7,), plain56=(0.5,), resnet20=(0.8,), resnet56=(0.85,))
    assert verdict(evidence(one, "degradation")) == "待定"
    some = results(plain20=(0.7, 0.71), **residual)
    assert "待训练" in evidence(some, "degradation"), "an arm is missing"


def test_errors_of_depths_stand_under_their_heads() -> None:
    shown = results(plain20=(0.7,), plain56=(0.5,), resnet20=(0.8,), resnet56=(0.85,))
    deep = [
        replace(run, history=(*run.history[:-1], replace(run.history[-1], train_accuracy=0.4)))
        for run in shown.runs
    ]
    box = evidence(Results(runs=tuple(deep)), "degradation")
    heads = re.findall(r'<th scope="col">(.*?)</th>', box)
    (row,) = (row for row in rows(box) if row[0] == "朴素 56 层")
    found = dict(zip(heads, row, strict=True))
    assert (found["训练错误率"], found["测试错误率"]) == ("60.00%", "50.00%")


def test_the_tally_counts_the_verdicts() -> None:
    kinds = "yes|partly|no|open"
    listed = re.findall(rf'verdict-(?:{kinds})">(\w+)<', expand("{{ claims() }}", PUBLISHED))
    counted = re.findall(r'">(\w+)</span>\xa0(\d+)\xa0条', expand("{{ tally() }}", PUBLISHED))
    assert counted == [(word, str(listed.count(word))) for word, _ in counted]
    assert sum(int(count) for _, count in counted) == len(listed) == len(CLAIMS)
    waiting = [expand(f'{{{{ evidence("{name}") }}}}', PUBLISHED) for name in CLAIMS]
    short = sum("这是缩短的版本" in box or "有的只训练" in box for box in waiting)
    assert f"其中 {short} 条目前只有缩短的训练可用" in expand("{{ tally() }}", PUBLISHED)


@pytest.mark.parametrize("label", ["original", "small-conv", "no-pooling", "full"])
def test_stems_are_called_what_they_are(label: str) -> None:
    (arm,) = (arm for arm in _one("surgery").arms if arm.label == label)
    network: Any = build(get_recipe(arm.recipe, **arm.changes).network)
    (size, _), (stride, _) = network.conv1.kernel_size, network.conv1.stride
    pooled = "有" if isinstance(network.maxpool, nn.MaxPool2d) else "无"
    assert LABELS[label] == f"{size}×{size}/{stride} {pooled}池化"


def test_arms_are_called_what_they_change() -> None:
    words = {
        **{"momentum": "动量", "schedule": "退火", "weight_decay": "权重衰减"},
        **{"label_smoothing": "标签平滑", "erasing_probability": "擦除", "crop_padding": "裁剪"},
        **{"optimizer": "SGD", "low_resolution_share": "全程 32×32", "flip_probability": "翻转"},
        **{"batch_size": "批大小", "nesterov": "Nesterov", "warmup_epochs": "预热"},
    }
    seen = set()
    for experiment in EXPERIMENTS:
        first, *others = experiment.arms
        for arm in others:
            known = flatten(get_recipe(first.recipe, **first.changes))
            changed = {name for name, value in arm.changes.items() if known[name] != value}
            told = {name for name in changed & set(words) if words[name] in LABELS[arm.label]}
            assert told or not changed & set(words), arm.label
            seen |= told
    assert seen == set(words)


def test_a_claim_waits_for_the_arms_it_compares_alone() -> None:
    shown = {"everything": (0.86, 0.87)} | dict.fromkeys(CLAIMS["momentum"].arms[1:], (0.70, 0.71))
    made = [
        run
        for label, accuracies in shown.items()
        for run in runs(label, *accuracies, experiment="configuration-cpu")
    ]
    seen = Results(runs=tuple(made))
    assert verdict(evidence(seen, "momentum")) == "支持"
    assert "待训练" in evidence(seen, "cosine")


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("momentum", "no-momentum"),
        ("cosine", "constant-rate"),
        ("weight-decay", "no-weight-decay"),
        ("label-smoothing", "no-label-smoothing"),
        ("erasing", "no-erasing"),
        ("crop-flip", "no-crop-and-flip"),
    ],
)
def test_a_part_of_the_configuration_is_judged_by_the_arm_without_it(name: str, label: str) -> None:
    seen = []
    for arm in _one("configuration-cpu").arms:
        own = arm.label.startswith(label)
        made = runs(
            arm.label, *((0.70, 0.71) if own else (0.80, 0.81)), experiment="configuration-cpu"
        )
        error = 0.05 if own else 0.02
        seen += [replace(r, metrics=replace(r.metrics, calibration_error=error)) for r in made]
    verdicts = {
        claim: verdict(evidence(Results(runs=tuple(seen)), claim))
        for claim in CLAIMS
        if "configuration" in CLAIMS[claim].experiments
    }
    assert verdicts.pop(name) == "支持"
    assert set(verdicts.values()) == {"不支持"}


@pytest.mark.parametrize(
    ("better", "conv", "pooling"),
    [
        ({"full", "small-conv"}, "支持", "不支持"),
        ({"full", "no-pooling"}, "不支持", "支持"),
        ({"full"}, "部分支持", "部分支持"),
        ({"original"}, "不支持", "不支持"),
    ],
)
def test_stems_are_judged_by_what_they_differ_in(better: set[str], conv: str, pooling: str) -> None:
    seen = [
        run
        for arm in _one("surgery-cpu").arms
        for run in runs(
            arm.label,
            *((0.80, 0.81) if arm.label in better else (0.70, 0.71)),
            experiment="surgery-cpu",
        )
    ]
    found = Results(runs=tuple(seen))
    assert verdict(evidence(found, "conv")) == conv
    assert verdict(evidence(found, "pooling")) == pooling


@pytest.mark.parametrize(("original", "judged"), [((0.70, 0.71), "支持"), ((0.9, 0.91), "不支持")])
def test_stems_are_judged_at_equal_operations(original: tuple[float, ...], judged: str) -> None:
    name = "surgery-operations-cpu"
    seen = runs("full", 0.80, 0.81, experiment=name) + runs("original", *original, experiment=name)
    box = evidence(Results(runs=tuple(seen)), "operations")
    assert verdict(box) == judged
    assert "3×3/1 无池化训练 4 轮，7×7/2 有池化训练 61 轮" in box


def test_a_shorter_experiment_decides_until_a_fuller_one_does() -> None:
    short = results(
        plain20=(0.7, 0.71), plain56=(0.5, 0.51), resnet20=(0.8, 0.81), resnet56=(0.85, 0.86)
    )
    full = tuple(
        run
        for job in jobs([_one("degradation")])
        if job.seed == 0
        for run in runs(job.arm.label, 0.9, experiment="degradation")
    )
    seen = Results(runs=short.runs + full)
    assert verdict(evidence(seen, "degradation")) == "支持"
    (line,) = (x for x in expand("{{ claims() }}", seen).splitlines() if "evidence-degr" in x)
    assert "<code>degradation-cpu</code>" in line


def test_one_page_draws_the_same_runs_once() -> None:
    seen = results(plain20=(0.7,), plain56=(0.5,), resnet20=(0.8,), resnet56=(0.85,))
    assert "<figure" in evidence(seen, "degradation")
    second = evidence(seen, "shortcut")
    assert "<figure" not in second
    assert 'href="#evidence-degradation"' in second


def test_gradients_with_and_without_normalisation_are_both_judged() -> None:
    """Shortcuts keep gradients in bounds together with batch normalisation, not alone."""
    box = evidence(PUBLISHED, "highway")
    assert verdict(box) == "部分支持"
    assert box.count("有 BN") >= 2
    assert box.count("没有 BN") >= 2


def verdict(box: str) -> str:
    return re.findall(r'class="verdict [^"]*">([^<]+)<', box)[0]


@pytest.mark.parametrize("experiment", [e for e in EXPERIMENTS if e.equal == "time"])
def test_arms_of_equal_time_took_about_as_long(experiment: Experiment) -> None:
    trained = [runs for runs in arms(experiment, PUBLISHED.runs).values() if runs]
    times = [mean(run.train_seconds for run in runs) for runs in trained]
    assert max(times, default=1.0) < 1.15 * min(times, default=1.0)


def test_runs_of_another_recipe_do_not_count() -> None:
    accuracies = dict.fromkeys(("plain20", "plain56", "resnet20", "resnet56"), (0.8, 0.81))
    other = tuple(
        replace(run, recipe=replace(run.recipe, epochs=3)) for run in results(**accuracies).runs
    )
    assert "待训练" in evidence(Results(runs=other), "degradation")


def test_what_the_code_no_longer_stands_behind_is_marked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = PUBLISHED.groups[0].runs[0]
    fingerprints = {run.recipe: run.fingerprint for run in PUBLISHED.runs}
    monkeypatch.setattr(records, "fingerprint", fingerprints.__getitem__)
    monkeypatch.setattr(records, "behaves_as_before", lambda record: True)
    assert find_outdated(PUBLISHED, tmp_path) == {}
    monkeypatch.setattr(records, "behaves_as_before", lambda record: record.id != "gradients")
    fingerprints[run.recipe] = run.fingerprint | {"losses": [0.0]}
    assert find_outdated(PUBLISHED, tmp_path) == {}, "kept"
    upgraded = replace(software(), torch="1000.0")
    monkeypatch.setattr(records, "software", lambda: upgraded)
    changed = replace(PUBLISHED, outdated=find_outdated(PUBLISHED, tmp_path))
    assert set(changed.outdated) == {"gradients", *PUBLISHED.groups[0].ids}
    assert "待重新验证" in evidence(changed, "vanishing")
    assert "待重新验证" not in evidence(PUBLISHED, "vanishing")
    assert expand("{{ claims() }}", changed).count("待重新验证") == 2, "vanishing and highway"
    old = replace(PUBLISHED, outdated={run.id: "the recipe has changed"})
    shown = expand("{{ headline() }} {{ provenance() }}", old)
    assert shown.count("待重新验证") == 2
    for macro in ("learning_curves", "confusion_matrix", "per_class", "calibration", "confusions"):
        assert "待重新验证" in expand(f"{{{{ {macro}() }}}}", old)
    assert "the recipe has changed" in shown


def published(kind: str, name: str) -> dict[str, Any]:
    """A record as it lies in the results, read by nothing of this project."""
    found: dict[str, Any] = json.loads((ROOT / "results" / kind / f"{name}.json").read_text())
    return found


def rows(shown: str) -> list[list[str]]:
    """The cells of all data tables' bodies."""
    lines = re.findall(r"<tr>(<th scope=\"row\">.*?)</tr>", shown)
    return [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", line) for line in lines]


def test_residual_ratios_are_the_records() -> None:
    box = evidence(PUBLISHED, "identity")
    for name, network in (("resnet18", "ResNet-18"), ("resnet56", "ResNet-56")):
        values = published("analyses", f"identity-{name}")["values"]
        told = [row for row in rows(box) if row[0].startswith(network)]
        names = "fresh", "trained", "fresh-change", "trained-change"
        blocks = zip(*(values[name] for name in names), strict=True)
        assert [row[1:] for row in told] == [[f"{ratio:.2f}" for ratio in row] for row in blocks]
        for end, what in (("", " |F(x)| 与"), ("-change", "实际改动与")):
            middle, fresh = (median(values[f"{kind}{end}"]) for kind in ("trained", "fresh"))
            judged = "符合" if middle < 0.5 else "不符"
            line = f"{what} |x| 之比的中位数是 {middle:.3f}，初始时 {fresh:.3f}"
            assert f"{network}：训练后{line}（<strong>{judged}</strong>）" in box


def test_accuracies_without_a_block_are_the_records() -> None:
    box = evidence(PUBLISHED, "lesion")
    for name, network in (("resnet18", "ResNet-18"), ("plain20", "朴素 20 层")):
        values = published("analyses", f"lesion-{name}")["values"]
        whole, cut = values["accuracy"][0], values["accuracy without"]
        told = [row for row in rows(box) if row[0].startswith(f"{network}，")]
        assert [row[1] for row in told] == [f"{share:.2%}" for share in (whole, *cut)]
        assert [row[2] for row in told[1:]] == [f"{loss:.2f}" for loss in values["loss without"]]
        scaled = values["loss, scaled"] + values["loss without, scaled"]
        assert [row[3] for row in told] == [f"{loss:.2f}" for loss in scaled]
        usable = median(cut) > 0.8 * whole
        judged = "符合" if usable == (name == "resnet18") else "不符"
        assert re.search(f"{network}：完整时 {whole:.1%}[^<]*<strong>{judged}<", box)


def test_a_verdict_says_what_it_holds_for_only() -> None:
    """A smaller network, few epochs, missing seeds."""
    made = [
        run
        for arm in _one("configuration-cpu").arms
        for run in runs(arm.label, 0.8, 0.81, experiment="configuration-cpu")
    ]
    assert "ResNet-20，只训练 8 轮，种子未满<" in evidence(Results(runs=tuple(made)), "cosine")
    name = "surgery-operations-cpu"
    seen = runs("full", 0.8, 0.81, 0.82, experiment=name)
    seen += runs("original", 0.7, 0.71, 0.72, experiment=name)
    assert "verdict-scope" not in evidence(Results(runs=tuple(seen)), "operations")


def test_published_analyses_are_judged() -> None:
    found = verdict(evidence(PUBLISHED, "vanishing"))
    first, *_, last = PUBLISHED.analyses["gradients"].values["sigmoid20"]
    assert first < 0.1 * last
    assert found == "支持"
