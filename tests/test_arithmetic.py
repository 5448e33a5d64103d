"""What the pages calculate: equations between numbers, and numbers that follow from the network.

The text is computed here and must stand in the page.
"""

import math
import re
from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise

import pytest
from layers import LAYERS, measure
from torch import nn
from torchvision.models import resnet18
from torchvision.models.resnet import BasicBlock, Bottleneck

from cifar_resnet import get_cifar_resnet, get_recipe
from cifar_resnet.depth import Block, get_depth_resnet
from tests import ROOT
from tests.test_docs import NOTEBOOKS, PAGES, as_text

DOCS = ROOT / "docs"
MATH = re.compile(r"\$\$(.+?)\$\$|\$([^$\n]+)\$", re.DOTALL)
LINE = re.compile(r"\\quad|\\(?:begin|end)\{\w+\}|\\\\(?!\s*=)")
LATEX = (
    (r"\{,\}|\\(?:bigl|bigr|left|right|quad|,)|&|\\text\{[^}]*\}|(?<!\S)\{\}", ""),
    (r"\\[td]?frac *(\d)(\d)", r"(\1/\2)"),
    (r"\\[td]?frac *(\d|\{[^{}]*\}|\\pi) *(\d|\{[^{}]*\}|\\pi)", r"((\1)/(\2))"),
    (r"\\cdot|\\times", "*"),
    (r"\\ln *(\d+)", r"log(\1)"),
    (r"\\ln", "log"),
    (r"\\sqrt *", "sqrt"),
    (r"(\d) *\\pi", r"\1*pi"),
    (r"\\pi", "pi"),
    (r"\\%", "*0.01"),
    (r"\^", "**"),
    (r"\{", "("),
    (r"\}", ")"),
    (r"([\d)]) *(?=\(|sqrt|log)", r"\1*"),
)
GIVEN = {
    "training.md": {r"\\mu\b": "0.9"},
    "residual-block.md": {r"(?<=sqrt )c\b": r"(1-1/\pi)"},
}
NUMERIC = re.compile(r"(?:[\d.\s()*/+-]|sqrt(?=\()|log(?=\()|pi)+")


def number(latex: str) -> float | None:
    """The value of a formula without unknowns; None if it is another."""
    text = latex
    for pattern, replacement in LATEX:
        text = re.sub(pattern, replacement, text)
    text = text.strip(" ,.\n")
    if not NUMERIC.fullmatch(text):
        return None
    names = {"sqrt": math.sqrt, "log": math.log, "pi": math.pi, "__builtins__": {}}
    try:
        return float(eval(text, names))
    except SyntaxError:
        return None


def equations(text: str) -> Iterator[tuple[str, float, str, str]]:
    """Each two neighbours in a chain of numbers: the line, left, what is between, right."""
    for formula in MATH.finditer(re.sub(r"```.*?```", "", text, flags=re.DOTALL)):
        for line in LINE.split(formula[1] or formula[2]):
            sides = re.split(r"(=|\\approx)", line.replace(r"\\", ""))
            values = [*map(number, sides[::2])]
            for (left, right), sign, text in zip(
                pairwise(values), sides[1::2], sides[2::2], strict=True
            ):
                if left is not None and right is not None:
                    yield " ".join(line.split()), left, sign, text.strip(" ,.\n")


def known(page: str, text: str) -> str:
    """With the letters that stand for one number throughout a page replaced by it."""
    for letter, value in GIVEN.get(page, {}).items():
        text = re.sub(letter, value.replace("\\", r"\\"), text)
    return text


EQUATIONS = [
    (page.name, *found)
    for page in [*PAGES, *NOTEBOOKS]
    for found in equations(known(page.name, as_text(page)))
]


def test_equations_are_found() -> None:
    assert {page for page, *_ in EQUATIONS} >= {"model.md", "training.md", "training.ipynb"}
    assert len(EQUATIONS) > 30
    assert list(equations(r"$2^{10}=1{,}024$, $x=3$")) == [("2^{10}=1{,}024", 1024, "=", "1{,}024")]


@pytest.mark.parametrize(("page", "line", "left", "sign", "right"), EQUATIONS)
def test_both_sides_of_an_equation_are_equal(
    page: str, line: str, left: float, sign: str, right: str
) -> None:
    value = number(right)
    if sign == "=":
        close = pytest.approx(value, rel=1e-12)
    elif re.fullmatch(r"\d+\.\d+", right):  # to the decimals given
        close = pytest.approx(value, abs=0.5 * 0.1 ** len(right.split(".")[1]))
    else:  # to the order of magnitude
        close = pytest.approx(value, rel=0.1)
    assert left == close, f"{page}: {line}"


def chain(values: Iterable[int]) -> str:
    return "→".join(map(str, values))


def listed(values: Iterable[int]) -> str:
    return "、".join(map(str, values))


def millions(model: nn.Module) -> float:
    return sum(parameter.numel() for parameter in model.parameters()) / 1e6


def convolved(model: nn.Module) -> int:
    """Weights of its convolutions."""
    return sum(m.weight.numel() for m in model.modules() if isinstance(m, nn.Conv2d))


def blocks(model: nn.Module) -> int:
    return sum(isinstance(module, BasicBlock | Block) for module in model.modules())


STAGES = ("layer1", "layer2", "layer3", "layer4")
OURS, ORIGINAL = get_cifar_resnet(), resnet18(weights=None)
HERE, THERE = measure(OURS), measure(ORIGINAL)
SIDES, SIDES_THERE = ({name: of[name].shape[-1] for name in LAYERS} for of in (HERE, THERE))
FIELDS, FIELDS_THERE = ({name: of[name].field for name in LAYERS} for of in (HERE, THERE))
WORK, WORK_THERE = (sum(layer.multiply_adds for layer in of.values()) for of in (HERE, THERE))
DEPTHS = {depth: get_depth_resnet(depth) for depth in (20, 56, 110)}
IMAGES, NOTES = 50_000, get_recipe("notes")
BATCH = NOTES.batch_size
DECAY = round((1 - NOTES.momentum) / (NOTES.learning_rate * NOTES.weight_decay))  # steps
CROPS = (2 * NOTES.augmentation.crop_padding + 1) ** 2
SQUARE = round((get_recipe("fast").augmentation.erasing_area[0] * 32**2) ** 0.5)
FAST_CPU = get_recipe("fast-cpu")

CALCULATED = (
    *(("model.md", f"2 块，{'×'.join(map(str, HERE[stage].shape))}") for stage in STAGES),
    ("model.md", f"3×3 卷积，{'×'.join(map(str, HERE['conv1'].shape))}"),
    ("model.md", f"全局平均池化，{HERE['avgpool'].shape[0]}"),
    ("model.md", f"全连接层，{HERE['fc'].shape[0]}"),
    ("model.md", f"{millions(OURS) * 100:.0f} 万个参数"),
    (
        "model.md",
        f"所以原版是 32→{SIDES_THERE['conv1']}（`conv1`）→{SIDES_THERE['maxpool']}（池化）"
        f"→{chain(SIDES_THERE[stage] for stage in STAGES)}，"
        f"修改版是 32→{SIDES['conv1']}→{chain(SIDES[stage] for stage in STAGES)}。",
    ),
    (
        "model.md",
        f"修改版逐阶段是 {FIELDS['conv1']}（`conv1`）、{listed(FIELDS[s] for s in STAGES)}；"
        f"原版是 {FIELDS_THERE['conv1']}、{FIELDS_THERE['maxpool']}（池化）、"
        f"{listed(FIELDS_THERE[s] for s in STAGES)}。{FIELDS['layer4']} 像素仍远大于 32",
    ),
    ("model.md", f"原版的 {FIELDS_THERE['layer4']} 像素"),
    ("model.md", f"合起来约为 {WORK / WORK_THERE:.0f} 倍"),
    (
        "model.md",
        f"| {millions(OURS):.1f} M | {millions(DEPTHS[20]):.2f} M（20 层），"
        f"{millions(DEPTHS[110]):.1f} M（110 层） |",
    ),
    ("residual-block.md", f"ResNet-18 有 {blocks(OURS)} 个块，{2 ** blocks(OURS)} 条路"),
    (
        "residual-block.md",
        f"110 层的 CIFAR 网络有 {blocks(DEPTHS[110])} 个块，$2^{{{blocks(DEPTHS[110])}}}$ 条路",
    ),
    ("training.md", f"一轮共 {IMAGES // BATCH} 步；余下的 {IMAGES % BATCH} 张"),
    ("training.md", f"={DECAY}$ 步，大约 {DECAY * BATCH / IMAGES:.0f} 轮"),
    ("training.md", f"={CROPS}$ 种，加上翻转，一张图有 {2 * CROPS} 个样子"),
    ("speed.md", f"每张图擦掉一个 {SQUARE}×{SQUARE} 的方块"),
    ("speed.md", f"边长 {SQUARE} 与"),
    (
        "speed.md",
        f"把图缩小到 {FAST_CPU.low_resolution}×{FAST_CPU.low_resolution}，运算量只有原来的四分之一",
    ),
)


@pytest.mark.parametrize(("page", "text"), CALCULATED)
def test_what_is_calculated_is_what_is_said(page: str, text: str) -> None:
    assert text in (DOCS / page).read_text(), f"{page} says another number"


IN_WORDS: tuple[tuple[str, str, Callable[[], bool]], ...] = (
    (
        "model.md",
        "`layer4` 的参数占全网的七成以上",
        lambda: 0.7 < millions(ORIGINAL.layer4) / millions(resnet18(num_classes=10)) < 0.8,
    ),
    (
        "model.md",
        "规模却差十几倍到四十倍",
        lambda: (
            10 < millions(OURS) / millions(DEPTHS[56]) < 20
            and 38 < millions(OURS) / millions(DEPTHS[20]) < 43
        ),
    ),
    (
        "model.md",
        "这四个阶段的乘加次数恰好是原来的 16 倍",
        lambda: all(HERE[s].multiply_adds == 16 * THERE[s].multiply_adds for s in STAGES),
    ),
    ("model.md", "训练一张图的运算是原版的十几倍", lambda: 10 < WORK / WORK_THERE < 20),
    (
        "residual-block.md",
        "约为 BasicBlock 的十七分之一",
        lambda: round(convolved(BasicBlock(256, 256)) / convolved(Bottleneck(256, 64))) == 17,
    ),
    ("speed.md", "约占面积的七分之一", lambda: round(32**2 / SQUARE**2) == 7),
    ("speed.md", "运算量只有原来的四分之一", lambda: (FAST_CPU.low_resolution / 32) ** 2 == 1 / 4),
    (
        "residual-block.md",
        "1 个起始卷积，8 个块各 2 个卷积，1 个全连接层",
        lambda: (
            18
            == 1 + 8 * 2 + 1
            == sum(
                isinstance(module, nn.Conv2d | nn.Linear) and "downsample" not in name
                for name, module in OURS.named_modules()
            )
        ),
    ),
    (
        "background.md",
        "每个阶段 6 层或 18 层，首尾再各有一层",
        lambda: [2 * blocks(DEPTHS[depth]) // 3 for depth in (20, 56)] == [6, 18],
    ),
    (
        "background.md",
        "56 层网络的第一个卷积有 432 个权重，最后一个有 36,864 个，单这一点就能差到 9 倍",
        lambda: (
            (sizes := [m.weight.numel() for m in DEPTHS[56].modules() if isinstance(m, nn.Conv2d)])
            and (sizes[0], sizes[-1]) == (432, 36_864)
            and round((sizes[-1] / sizes[0]) ** 0.5) == 9
        ),
    ),
    (
        "background.md",
        "在三个阶段的末尾各插入 12 层",
        lambda: 2 * (blocks(DEPTHS[56]) - blocks(DEPTHS[20])) == 3 * 12,
    ),
)


@pytest.mark.parametrize(
    ("page", "sentence", "holds"), IN_WORDS, ids=[sentence for _, sentence, _ in IN_WORDS]
)
def test_what_is_calculated_is_said_in_words(
    page: str, sentence: str, holds: Callable[[], bool]
) -> None:
    assert sentence in (DOCS / page).read_text(), f"{page} says it otherwise now"
    assert holds()
