"""What the pages say in words of the published records: a new record may make it untrue.

Each sentence stands here with what it presumes. Where one fails, reread its page.
"""

import re
from collections.abc import Callable
from statistics import mean, median

import pytest
import torch
from comparisons import apart, arms, compare
from evidence import evidence
from records import Group, accuracy, read_results, spread
from speed import MARKS, goals

from cifar_resnet.analysis import gradient_norms
from cifar_resnet.augment import normalize
from cifar_resnet.bench import utilization
from cifar_resnet.checkpoint import weights_record
from cifar_resnet.depth import get_depth_resnet
from cifar_resnet.experiments import EXPERIMENTS, select
from cifar_resnet.predict import WEIGHTS
from cifar_resnet.recipe import get_recipe
from cifar_resnet.record import Epoch, Record
from cifar_resnet.synthetic import draw
from cifar_resnet.train import make_optimizer
from tests import ROOT

RESULTS = read_results(ROOT / "results")


def group(name: str) -> Group:
    found = RESULTS.published(name)
    assert found
    return found


def flipped(name: str) -> list[float]:
    return [run.flip_averaged_accuracy or 0.0 for run in group(name).runs]


def history() -> tuple[Epoch, ...]:
    """Of the note's recipe, its first run."""
    return group("notes").runs[0].history


def jumps(epochs: range) -> float:
    """By how much its test accuracy changes from one epoch to the next, on average."""
    shares = [epoch.eval_accuracy for epoch in history()]
    return mean(abs(shares[epoch] - shares[epoch - 1]) for epoch in epochs)


def outcomes(claim: str) -> list[bool]:
    """Of a claim's findings, in order."""
    return [word == "符合" for word in re.findall("<strong>(符合|不符)<", evidence(RESULTS, claim))]


def better_without(part: str) -> bool:
    """Whether the note's configuration, in few epochs, is more accurate when this is left out."""
    (experiment,) = select(["configuration-cpu"])
    return bool(compare(arms(experiment, RESULTS.runs), part, "everything", accuracy).holds)


def alike_in(experiment: str, *labels: str) -> bool:
    """Whether two arms are as accurate, as far as their seeds tell."""
    found = arms(*select([experiment]), RESULTS.runs)
    return apart(*(spread(found[label], accuracy) for label in labels)) is False


def seconds_in(experiment: str, label: str) -> float:
    return mean(run.train_seconds for run in arms(*select([experiment]), RESULTS.runs)[label])


def goal(start: str) -> str:
    return next(line for line in goals(RESULTS).splitlines() if line.startswith(f"| {start}"))


def utilized(kind: str) -> float:
    """Which share of the matrix products' rate ResNet-18 reaches, by the newest benchmark."""
    measured = [b for b in RESULTS.benchmarks if (b.network, b.hardware.kind) == ("resnet18", kind)]
    return median(utilization(max(measured, key=lambda record: record.started)))


def behind(analysis: str) -> Record:
    """The run whose weights were analysed."""
    return next(run for run in RESULTS.runs if run.id == RESULTS.analyses[analysis].weights_record)


def alike(run: Record) -> list[float]:
    """Accuracies of the runs that differ from one in their seeds alone."""
    return [accuracy(other) for other in RESULTS.runs if other.recipe == run.recipe]


def lost(analysis: str) -> list[float]:
    """Accuracy that is lost without each block."""
    values = RESULTS.analyses[analysis].values
    return [values["accuracy"][0] - without for without in values["accuracy without"]]


def ratios(analysis: str) -> list[tuple[float, float]]:
    """Of each block, fresh and trained."""
    values = RESULTS.analyses[analysis].values
    return list(zip(values["fresh"], values["trained"], strict=True))


def changed(analysis: str) -> list[float]:
    """By which factor each block changes its input more than it did before training."""
    values = RESULTS.analyses[analysis].values
    pairs = zip(values["trained-change"], values["fresh-change"], strict=True)
    return [trained / fresh for trained, fresh in pairs]


def minutes_of_operations(label: str) -> list[float]:
    """How long each run of an arm with as many operations trained."""
    (experiment,) = select(["surgery-operations-cpu"])
    return [run.train_seconds / 60 for run in arms(experiment, RESULTS.runs)[label]]


def more_right_with_the_notes_erasing() -> tuple[int, int]:
    """Of 5,000 held-out images, of single views and of flip averages."""

    def right(erasing_probability: float) -> tuple[int, int]:
        (run,) = (
            run
            for run in RESULTS.tuning
            if (run.recipe.name, run.recipe.network) == ("fast", "resnet18")
            and run.recipe.learning_rate == group("fast").recipe.learning_rate
            and run.recipe.augmentation.erasing_probability == erasing_probability
        )
        return round(5000 * accuracy(run)), round(5000 * (run.flip_averaged_accuracy or 0.0))

    (single, flip), (square, square_flip) = right(0.5), right(1.0)
    return single - square, flip - square_flip


def by_seed(experiment: str, label: str) -> list[float]:
    """Accuracies of an arm in the order of their seeds."""
    runs = arms(*select([experiment]), RESULTS.runs)[label]
    return [accuracy(run) for run in sorted(runs, key=lambda run: run.seed)]


def least_seen(experiment: str) -> float:
    """Above which difference the rule would tell an experiment's two arms apart."""
    found = arms(*select([experiment]), RESULTS.runs)
    return sum(spread(runs, accuracy)[1] or 0 for runs in found.values())


def nearly_all_between(low: float, high: float) -> bool:
    """Whether most test images of `notes` have such a confidence."""
    (run, *_) = group("notes").runs
    bins = run.metrics.calibration
    count = sum(n for n, confidence, _ in bins if n and low <= confidence < high)
    return count > 0.8 * sum(n for n, *_ in bins)


def breaks_down(depth: int) -> bool:
    """Whether a residual network without normalisation has no loss after two steps."""
    torch.manual_seed(0)
    model = get_depth_resnet(depth, batch_norm=False)
    images, labels = draw(32, seed=0)
    optimizer = make_optimizer(model, get_recipe("depth"))
    for _ in range(2):
        gradient_norms(model, normalize(images), labels)
        optimizer.step()
    return not model(normalize(images)).isfinite().all()


SECOND = (3, 5, 7)  # ResNet-18's second blocks of the second to fourth stage
OTHERS = (0, 1, 2, 4, 6)

PRESUMED: tuple[tuple[str, str, Callable[[], bool]], ...] = (
    (
        "index.md",
        "是配方 `notes` 用种子 0 训练 200 轮得到的",
        lambda: (
            weights_record(WEIGHTS) == group("notes").runs[0].id
            and (group("notes").runs[0].seed, group("notes").recipe.epochs) == (0, 200)
        ),
    ),
    ("results.md", "`notes` 还只有一个种子", lambda: len(group("notes").runs) == 1),
    ("speed.md", "`notes` 还只有一个种子，分不出高下", lambda: len(group("notes").runs) == 1),
    (
        "speed.md",
        "它的“翻转平均”反而高过 `fast` 的每一次",
        lambda: (
            min(flipped("notes")) > max(flipped("fast"))
            and mean(map(accuracy, group("notes").runs)) < mean(map(accuracy, group("fast").runs))
        ),
    ),
    (
        "speed.md",
        "`notes` 训练 200 轮，用时是 `fast` 的好几倍",
        lambda: group("notes").runs[0].train_seconds > 3 * group("fast").runs[0].train_seconds,
    ),
    (
        "speed.md",
        "现在准确率和用时都达到了，用时的余量很小",
        lambda: (
            MARKS[True] in goal("`fast`，90 轮")
            and 54 < float(re.findall(r"([\d.]+) 秒（", goal("`fast`，90 轮"))[0]) < 60
        ),
    ),
    (
        "speed.md",
        "比这三次都高，翻转平均也比他的均值高",
        lambda: (
            mean(map(accuracy, group("fast").runs)) > 0.9555 and mean(flipped("fast")) > 0.95875
        ),
    ),
    (
        "speed.md",
        "交替翻转与随机翻转分不出高下，没有换回去，因为它不多费时间",
        lambda: (
            alike_in("fast-cpu-parts", "everything", "random-flip")
            and seconds_in("fast-cpu-parts", "everything")
            < 1.02 * seconds_in("fast-cpu-parts", "random-flip")
        ),
    ),
    (
        "speed.md",
        "在小网络上训练 16 轮，两种擦除[分不出高下](#fast)",
        lambda: alike_in("fast-erasing-cpu", "everything", "notes-erasing"),
    ),
    ("speed.md", "`resnet18` 的利用率这一次已经接近上限", lambda: 0.85 < utilized("cpu") < 1),
    ("speed.md", "离“争取”的目标只差一点", lambda: 0.38 < utilized("cuda") < 0.4),
    (
        "results.md",
        "只有要比用时的实验（`fast-cpu-parts`、`fast-cpu-time`、`fast-parts`）",
        lambda: (
            [e.name for e in EXPERIMENTS if e.timed and len(e.arms) > 1]
            == ["fast-cpu-parts", "fast-cpu-time", "fast-parts"]
        ),
    ),
    ("speed.md", "这里只有五次", lambda: len(group("fast").runs) == 5),
    (
        "results.md",
        "最初几十轮学习率大，测试准确率一轮之间常跳几个百分点；学习率降下来，跳动变小",
        lambda: jumps(range(1, 50)) > 0.02 and jumps(range(150, 200)) < 0.005,
    ),
    (
        "results.md",
        "前一百多轮里常低于测试准确率，到后来才一直高过它",
        lambda: 100 < max(e.epoch for e in history() if e.train_accuracy < e.eval_accuracy) < 190,
    ),
    (
        "results.md",
        "训练损失最后停在离[标签平滑的下限](training.md#label-smoothing)不远处",
        lambda: 0.5 < history()[-1].train_loss < 0.56,
    ),
    (
        "results.md",
        "照 `notes` 的只用原图多对 10 张，翻转平均多对 3 张，平均不到 8 张",
        lambda: more_right_with_the_notes_erasing() == (10, 3),
    ),
    (
        "training.md",
        "下面两项对照只训练几轮，去掉增强反而更准",
        lambda: all(better_without(name) for name in ("no-erasing", "no-crop-and-flip")),
    ),
    (
        "training.md",
        "等效步长相同时，照本站的规则，两者分不出高下",
        lambda: outcomes("momentum") == [True, False],
    ),
    (
        "training.md",
        "逐个种子比，都是带动量的略高",
        lambda: all(
            0 < used - left_out < 0.015
            for used, left_out in zip(
                by_seed("configuration-cpu", "everything"),
                by_seed("configuration-cpu", "no-momentum-same-step"),
                strict=True,
            )
        ),
    ),
    (
        "speed.md",
        "目前只有 ResNet-20 训练几轮的对照，两组波动都大，差一个多百分点也看不出来",
        lambda: (
            0.012 < least_seen("precision-cpu") < 0.02
            and not any(arms(*select(["precision"]), RESULTS.runs).values())
        ),
    ),
    (
        "training.md",
        "`notes` 训练到第 200 轮，连增强过的训练图也几乎全部判对",
        lambda: history()[-1].train_accuracy > 0.98,
    ),
    (
        "training.md",
        "`notes` 训练了 200 轮，绝大多数测试图的置信度都在这一档",
        lambda: nearly_all_between(0.88, 0.94),
    ),
    ("model.md", "运算量这样小的时候，原版反而准得多", lambda: outcomes("operations") == [False]),
    (
        "model.md",
        "同样的运算量只够它把数据看四遍，原版能看六十一遍",
        lambda: (
            [arm.changes["epochs"] for arm in select(["surgery-operations-cpu"])[0].arms] == [4, 61]
        ),
    ),
    (
        "model.md",
        "原版做同样多的运算要久得多",
        lambda: 2 * max(minutes_of_operations("full")) < min(minutes_of_operations("original")),
    ),
    (
        "residual-block.md",
        "训练之后每一块的 $\\lVert F(x)\\rVert$ 都大过 $\\lVert x\\rVert$",
        lambda: all(trained > 1 for _, trained in ratios("identity-resnet18")),
    ),
    (
        "residual-block.md",
        "看实际的改动，有三块训练之后比随机初值时还小：第二、三阶段的第二块，",
        lambda: (
            [block for block, change in enumerate(changed("identity-resnet18")) if change < 1]
            == [0, *SECOND[:2]]
            and max(lost("lesion-resnet18")[block] for block in SECOND[:2]) < 0.07
        ),
    ),
    (
        "residual-block.md",
        "还有第一块，只略小一点，去掉它准确率却一落千丈",
        lambda: 0.95 < changed("identity-resnet18")[0] < 1 and lost("lesion-resnet18")[0] > 0.4,
    ),
    (
        "residual-block.md",
        "ResNet-56 的比值，训练前后的中位数相差无几",
        lambda: (
            (values := RESULTS.analyses["identity-resnet56"].values)
            and 0.95 < median(values["trained"]) / median(values["fresh"]) < 1.05
        ),
    ),
    (
        "residual-block.md",
        "实际改动的中位数则小了一截",
        lambda: (
            (values := RESULTS.analyses["identity-resnet56"].values)
            and median(values["trained-change"]) < 0.9 * median(values["fresh-change"])
        ),
    ),
    (
        "residual-block.md",
        "有 BN 时，初始化处两者悬殊，照这样走几步之后就差不多了",
        lambda: outcomes("highway") == [True, False, False],
    ),
    (
        "residual-block.md",
        "没有 BN 的残差网络经不起这样的步子，头一两步损失就成了 `nan`",
        lambda: all(map(breaks_down, (20, 56))),
    ),
    (
        "residual-block.md",
        "把这时各类的分数统一放大，损失就降到与完整网络同样缩放之后相近的水平",
        lambda: (
            (values := RESULTS.analyses["lesion-resnet18"].values)["loss without, scaled"][-1]
            < values["loss, scaled"][0] + 0.05
        ),
    ),
    (
        "residual-block.md",
        "浅处的块都变小了，深处的块都变大了",
        lambda: (
            (smaller := [trained < fresh for fresh, trained in ratios("identity-resnet56")])
            == sorted(smaller, reverse=True)
            and 9 <= sum(smaller) <= 18
        ),
    ),
    (
        "residual-block.md",
        "取的是测试准确率最高的一次",
        lambda: accuracy(behind("identity-resnet56")) == max(alike(behind("identity-resnet56"))),
    ),
    (
        "residual-block.md",
        "ResNet-56 用的仍是三次里测试准确率最高的那一次",
        lambda: (
            behind("lesion-resnet56") == behind("identity-resnet56")
            and len(alike(behind("lesion-resnet56"))) == 3
        ),
    ),
    (
        "residual-block.md",
        "朴素 20 层用的是种子 0，恰好是三次里最低的一次",
        lambda: (
            behind("lesion-plain20").seed == 0
            and accuracy(behind("lesion-plain20")) == min(alike(behind("lesion-plain20")))
            and len(alike(behind("lesion-plain20"))) == 3
        ),
    ),
    (
        "residual-block.md",
        "ResNet-18 不符：换阶段的三块和第一阶段的两块，去掉任何一块准确率都一落千丈",
        lambda: (
            outcomes("lesion") == [False, True, True]
            and min(lost("lesion-resnet18")[block] for block in OTHERS) > 0.4
        ),
    ),
    (
        "residual-block.md",
        "只低几个百分点，远没有垮掉；不过换成错误率看，升得最多的一块翻了一倍多",
        lambda: (
            max(lost("lesion-resnet18")[block] for block in SECOND) < 0.07
            and max(lost("lesion-resnet18")[block] for block in SECOND)
            > 1 - RESULTS.analyses["lesion-resnet18"].values["accuracy"][0]
        ),
    ),
    (
        "residual-block.md",
        "ResNet-56 里掉得最多的，是第一块和第二次换阶段的那一块",
        lambda: sorted(range(27), key=lambda b: -lost("lesion-resnet56")[b])[:2] == [0, 18],
    ),
    (
        "residual-block.md",
        "比值全网最大，去掉之后准确率却掉得不多，损失则升到接近均匀猜测的",
        lambda: (
            max(ratios("identity-resnet18"), key=lambda r: r[1]) == ratios("identity-resnet18")[-1]
            and lost("lesion-resnet18")[-1] < 0.03
            and 1.9 < RESULTS.analyses["lesion-resnet18"].values["loss without"][-1] < 2.4
        ),
    ),
)


@pytest.mark.parametrize(
    ("page", "sentence", "presumed"), PRESUMED, ids=[sentence for _, sentence, _ in PRESUMED]
)
def test_what_is_said_in_words_holds(
    page: str, sentence: str, presumed: Callable[[], bool]
) -> None:
    assert sentence in (ROOT / "docs" / page).read_text(), f"{page} says it otherwise now"
    assert presumed(), f"a record has made it untrue; rewrite it in {page}"
