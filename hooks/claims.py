"""What the notes claim, and which experiment or analysis tests it."""

from collections.abc import Callable
from dataclasses import dataclass, field

from analyses import gradients_highway, gradients_vanish, residuals_small, single_blocks
from comparisons import (
    calibration_error,
    depth_family,
    equal_operations,
    one_left_out,
    stem_variants,
)
from findings import Shown


@dataclass(frozen=True)
class Claim:
    """A claim of the notes.

    Attributes:
        page: where it stands, and its evidence.
        words: the claim.
        origin: who makes it: the note, in which section; a paper; or this site.
        experiments: that test it, the fullest first.
        analyses: that test it, if no experiment does; all of them are needed.
        arms: which arms of an experiment it compares; all of them if none is named.
        show: draws what the runs of the first experiment that has any gave, by arm; or
            what the analyses gave.
    """

    page: str
    words: str
    origin: str
    experiments: tuple[str, ...] = ()
    analyses: tuple[str, ...] = ()
    arms: tuple[str, ...] = ()
    show: Callable[..., Shown] = field(kw_only=True)


_SURGERY = ("surgery", "surgery-cpu")
_CONFIGURATION = ("configuration", "configuration-cpu")
_DEGRADATION = ("degradation", "degradation-cpu")

CLAIMS: dict[str, Claim] = {
    "vanishing": Claim(
        "background.md",
        "没有对策时，梯度越往浅层越小；有了合适的初始化和 BN，就不再消失",
        "笔记第 1 节",
        analyses=("gradients",),
        show=gradients_vanish,
    ),
    "degradation": Claim(
        "background.md",
        "朴素网络加深，训练和测试的准确率反而下降",
        "笔记第 1 节",
        _DEGRADATION,
        show=depth_family("plain"),
    ),
    "shortcut": Claim(
        "background.md",
        "加上快捷连接，深的网络好过同样深的朴素网络，也不比浅的差",
        "笔记第 1 节",
        _DEGRADATION,
        show=depth_family("resnet"),
    ),
    "highway": Claim(
        "residual-block.md",
        "快捷连接让梯度直达浅层，不随深度失控",
        "笔记第 1 节",
        analyses=("gradients",),
        show=gradients_highway,
    ),
    "identity": Claim(
        "residual-block.md",
        "训练好的残差块接近恒等映射，F(x) 比 x 小得多",
        "本站",
        analyses=("identity-resnet18", "identity-resnet56"),
        show=residuals_small,
    ),
    "lesion": Claim(
        "residual-block.md",
        "残差网络去掉一块多半还能用，朴素网络不行",
        "[Veit 等，2016](references.md#veit2016)",
        analyses=("lesion-resnet18", "lesion-resnet56", "lesion-plain20"),
        show=single_blocks,
    ),
    "conv": Claim(
        "model.md",
        "第一层改用 3×3、步幅 1 的卷积，能提高准确率",
        "笔记第 3 节",
        _SURGERY,
        show=stem_variants(("full", "no-pooling"), ("small-conv", "original")),
    ),
    "pooling": Claim(
        "model.md",
        "去掉第一个池化能提高准确率",
        "笔记第 3 节",
        _SURGERY,
        show=stem_variants(("full", "small-conv"), ("no-pooling", "original")),
    ),
    "operations": Claim(
        "model.md",
        "训练用的运算量一样多，改造后的网络也比原版准确",
        "本站",
        ("surgery-operations-cpu",),
        show=equal_operations("full", "original"),
    ),
    **{
        name: Claim(
            "training.md",
            words,
            "本站" if name == "crop-flip" else "笔记第 4 节",
            _CONFIGURATION,
            arms=("everything", *labels),
            show=one_left_out(labels, *more),
        )
        for name, words, labels, more in (
            (
                "momentum",
                "动量能提高准确率，不论学习率相同还是步子一样大",
                ("no-momentum", "no-momentum-same-step"),
                (),
            ),
            ("cosine", "余弦退火比不变的学习率好", ("constant-rate",), ()),
            ("weight-decay", "权重衰减能提高准确率", ("no-weight-decay",), ()),
            (
                "label-smoothing",
                "标签平滑能提高准确率，并让置信度更可信",
                ("no-label-smoothing",),
                (calibration_error,),
            ),
            ("erasing", "随机擦除能提高准确率", ("no-erasing",), ()),
            ("crop-flip", "随机裁剪与翻转能提高准确率", ("no-crop-and-flip",), ()),
        )
    },
}
