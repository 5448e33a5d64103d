"""What the notes claim, and which experiment or analysis tests it."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from analyses import gradients_highway, gradients_vanish, residuals_small, single_blocks
from comparisons import depth_family, equal_operations, one_left_out, stem_variants
from findings import Shown
from records import calibration_error

from cifar_resnet.experiments import select


@dataclass(frozen=True)
class Claim:
    """A claim of the notes.

    Attributes:
        page: where it stands, and its evidence.
        words: the claim.
        origin: who makes it: the note, in which section; a paper; or this site.
        quote: the note's own words, where it makes the claim.
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
    quote: str = ""
    show: Callable[..., Shown] = field(kw_only=True)


_SURGERY = ("surgery", "surgery-cpu")
_FULL = select(["surgery-operations-cpu"])[0].arms[0]
_CONFIGURATION = ("configuration", "configuration-cpu")
_DEGRADATION = ("degradation", "degradation-cpu")

CLAIMS: dict[str, Claim] = {
    "vanishing": Claim(
        "background.md",
        "用 Sigmoid 的网络，梯度越往浅层越小；换成 ReLU 和合适的初始化，再加上 BN，就不再消失",
        "笔记第 1 节",
        analyses=("gradients",),
        quote="反向传播时梯度越来越小，导致浅层参数无法更新。",
        show=gradients_vanish,
    ),
    "degradation": Claim(
        "background.md",
        "朴素网络加深，训练和测试的准确率反而下降",
        "笔记第 1 节",
        _DEGRADATION,
        quote="随着网络层数增加，准确率反而饱和甚至下降（并非过拟合）。",
        show=partial(depth_family, "plain"),
    ),
    "shortcut": Claim(
        "background.md",
        "加上快捷连接，深的网络好过同样深的朴素网络，也不比浅的差",
        "笔记第 1 节",
        _DEGRADATION,
        quote="ResNet 通过引入 ‘跳跃连接’ (Skip Connections / Shortcuts) 解决了这个问题",
        show=partial(depth_family, "resnet"),
    ),
    "highway": Claim(
        "residual-block.md",
        "快捷连接让梯度直达浅层，不随深度失控",
        "笔记第 1 节",
        analyses=("gradients",),
        quote="打通了梯度的‘高速公路’，使得训练数百层的网络成为可能。",
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
        quote="避免在第一层就将 32x32 的图片下采样，保留更多细节。",
        show=partial(stem_variants, ("full", "no-pooling"), ("small-conv", "original")),
    ),
    "pooling": Claim(
        "model.md",
        "去掉第一个池化能提高准确率",
        "笔记第 3 节",
        _SURGERY,
        quote="避免分辨率进一步降低，保持特征图尺寸。",
        show=partial(stem_variants, ("full", "small-conv"), ("no-pooling", "original")),
    ),
    "operations": Claim(
        "model.md",
        f"运算量只够改造后的网络训练 {_FULL.changes['epochs']} 轮时，它也比原版准确",
        "本站",
        ("surgery-operations-cpu",),
        show=partial(equal_operations, "full", "original"),
    ),
    **{
        name: Claim(
            "training.md",
            words,
            "本站" if name == "crop-flip" else "笔记第 4 节",
            _CONFIGURATION,
            arms=("everything", *labels),
            quote=quote,
            show=partial(one_left_out, labels, *more),
        )
        for name, words, quote, labels, more in (
            (
                "momentum",
                "动量能提高准确率，不论学习率相同还是等效步长相同",
                "SGD + Momentum (0.9)",
                ("no-momentum", "no-momentum-same-step"),
                (),
            ),
            (
                "cosine",
                "余弦退火比不变的学习率好",
                "Cosine Annealing (余弦退火，让 LR 平滑下降)",
                ("constant-rate",),
                (),
            ),
            (
                "weight-decay",
                "权重衰减能提高准确率",
                "Weight Decay (5×10⁻⁴)",
                ("no-weight-decay",),
                (),
            ),
            (
                "label-smoothing",
                "标签平滑能提高准确率，并让置信度更可信",
                "Label Smoothing (标签平滑 0.1)",
                ("no-label-smoothing",),
                (calibration_error,),
            ),
            (
                "erasing",
                "随机擦除能提高准确率",
                "Random Erasing (随机擦除增强)",
                ("no-erasing",),
                (),
            ),
            ("crop-flip", "随机裁剪与翻转能提高准确率", "", ("no-crop-and-flip",), ()),
        )
    },
}
