"""The results page: what it shows of the runs is what their records say."""

import re
from dataclasses import replace
from pathlib import Path

from macros import expand
from records import Group, Results, read_results

from cifar_resnet.data import CLASSES
from cifar_resnet.recipe import get_recipe
from tests.site_build import invented
from tests.test_evidence import PUBLISHED, published, rows
from tests.test_hooks import NOTES_CPU, publish


def test_one_run_is_shown_as_it_is(tmp_path: Path) -> None:
    results = read_results(publish(tmp_path, invented(NOTES_CPU, 0, 0.9312)))
    assert expand('到 {{ accuracy("notes-cpu") }}。', results) == "到 <span>93.12%</span>。"
    cards = expand("{{ headline() }}", results)
    assert "±" not in cards
    assert 'notes，200 轮</p><p><span class="pending">待训练' in cards
    full = read_results(publish(tmp_path / "full", invented(get_recipe("notes"), 0, 0.95)))
    assert "待训练" not in expand("{{ headline() }}", full)


def test_several_seeds_give_mean_and_sample_deviation(tmp_path: Path) -> None:
    runs = [invented(NOTES_CPU, seed, accuracy) for seed, accuracy in enumerate((0.93, 0.95))]
    results = read_results(publish(tmp_path, *runs))
    assert "94.00%\u00a0±\u00a01.41%" in expand('{{ accuracy("notes-cpu") }}', results)
    cards = expand("{{ headline() }}", results)
    assert "2 次运行" in cards
    assert "94.00%<small>\u00a0±\u00a01.41%</small>" in cards
    assert "测试 94.00%。" in expand("{{ learning_curves() }}", results), "as a listener is told"


def test_times_and_flip_averages_are_means_of_all_runs(tmp_path: Path) -> None:
    told = ((10.0, 0.80, 0.90), (20.0, 0.84, 0.91), (60.0, 0.94, 0.98))
    runs = [
        replace(
            invented(get_recipe("fast"), seed, accuracy, device="cuda"),
            train_seconds=seconds,
            flip_averaged_accuracy=flipped,
        )
        for seed, (seconds, accuracy, flipped) in enumerate(told)
    ]
    results = read_results(publish(tmp_path, *runs))
    shown = expand("{{ fast() }}", results)
    assert "| 86.00%\xa0±\xa07.21% | 93.00% | 3 | 30 秒 |" in shown
    assert "训练平均用时 30 秒，不含评估与编译" in expand("{{ headline() }}", results)
    assert re.search(r"全部用上.*86\.00%.*30 秒", expand('{{ parts("fast-parts") }}', results))


def test_every_published_run_is_on_the_page() -> None:
    shown = expand("{{ provenance() }}{{ compared() }}{{ tuning() }}", PUBLISHED)
    assert [run.id for run in (*PUBLISHED.runs, *PUBLISHED.tuning) if run.id not in shown] == []
    assert PUBLISHED.runs
    assert PUBLISHED.tuning


def test_mistakes_are_told_from_the_true_class_to_the_predicted_one(tmp_path: Path) -> None:
    """The invented network takes each class for the next."""
    results = read_results(publish(tmp_path, invented(NOTES_CPU, 0, 0.9)))
    assert "<li>飞机被认成汽车：占全部飞机图片的 10.0%。</li>" in expand(
        "{{ confusions() }}", results
    )
    matrix = expand("{{ confusion_matrix() }}", results)
    assert "飞机被认成汽车" in matrix
    wrong = re.findall(
        r'<rect x="([\d.]+)" y="([\d.]+)"[^>]*class="cell wrong"[^>]*opacity:0.85', matrix
    )
    right = re.findall(r'<rect x="([\d.]+)" y="([\d.]+)"[^>]*class="cell right"', matrix)
    assert wrong[0] == (right[1][0], right[0][1]), "in the first row, the second column"


def test_held_out_runs_are_listed_apart(tmp_path: Path) -> None:
    tried = invented(get_recipe("notes-cpu", learning_rate=0.3), 0, 0.91, "val")
    results = read_results(publish(tmp_path, tried))
    table = expand("{{ tuning() }}", results)
    assert "| `notes-cpu` | 91.00% |" in table
    assert re.search(r"\| `learning_rate=0.3` \|\n", table), "what is wide comes last"
    assert "91.00%" in table
    assert "91.00%" not in expand("{{ headline() }} {{ provenance() }}", results)


def test_what_the_results_page_shows_of_a_run_is_its_record() -> None:
    (run,) = PUBLISHED.published("notes").runs
    record = published("runs", run.id)
    only = replace(PUBLISHED, groups=tuple(g for g in PUBLISHED.groups if run in g.runs))
    metrics = record["metrics"]
    confusion = metrics["confusion"]
    classes = rows(expand("{{ per_class() }}", only))
    told = {row[1]: row[2] for row in classes}
    assert told == {
        name: f"{confusion[i][i] / sum(confusion[i]):.2%}" for i, name in enumerate(CLASSES)
    }
    assert [row[2] for row in classes] == sorted((row[2] for row in classes), reverse=True)
    shown = expand("{{ calibration() }}", only)
    filled = [b for b in metrics["calibration"] if b[0]]
    assert [row[1:] for row in rows(shown) if row[2]] == [
        [str(n), f"{confidence:.1%}", f"{accuracy:.1%}"] for n, confidence, accuracy in filled
    ]
    careful = sum(n * (right - sure) for n, sure, right in filled) > 0
    assert ("偏保守" in shown, "偏自信" in shown) == (careful, not careful)
    curves = rows(expand("{{ learning_curves() }}", only))
    last = record["history"][-1]
    assert curves[-1][2:] == [
        f"{last['train_loss']:.3f}",
        f"{last['eval_loss']:.3f}",
        f"{last['train_accuracy']:.2%}",
        f"{last['eval_accuracy']:.2%}",
    ]


def test_mistakes_within_and_across_kinds_are_counted_by_hand() -> None:
    (run,) = PUBLISHED.published("notes").runs
    only = replace(PUBLISHED, groups=tuple(g for g in PUBLISHED.groups if run in g.runs))
    vehicles = ("airplane", "automobile", "ship", "truck")
    counts = dict.fromkeys(("animals", "vehicles", "across", "pets"), 0)
    for i, row in enumerate(published("runs", run.id)["metrics"]["confusion"]):
        for j, count in enumerate(row):
            pair = {CLASSES[i], CLASSES[j]}
            if len(pair) == 2:
                moving = len(pair.intersection(vehicles))
                counts[("animals", "across", "vehicles")[moving]] += count
                counts["pets"] += count * (pair == {"cat", "dog"})
    assert (
        f"判错 {counts['animals'] + counts['vehicles'] + counts['across']} 张："
        f"{counts['animals']} 张错在动物之间，其中 {counts['pets']} 张是猫狗互认；"
        f"{counts['vehicles']} 张错在交通工具之间；"
        f"把动物认成交通工具、或者反过来的，有 {counts['across']} 张。"
    ) in expand("{{ confusions() }}", only)


def test_the_best_epoch_is_told_beside_the_last(tmp_path: Path) -> None:
    run = invented(get_recipe("notes"), 0, 0.9)
    history = [replace(epoch, eval_accuracy=0.5) for epoch in run.history]
    history[41] = replace(history[41], eval_accuracy=0.925)
    group = Group(run.recipe, (replace(run, history=tuple(history)),))
    shown = expand('{{ best_epoch("notes") }}', Results(groups=(group,)))
    assert "第 42 轮的 92.50%，最后一轮是 90.00%，挑着报就会多出 2.50 个百分点" in shown
    assert "待训练" in expand('{{ best_epoch("notes") }}', Results())
