"""Figures that show what the package's code does, computed from that code."""

import base64
import io
import math
from itertools import pairwise

import charts
import torch
from charts import Axis, Line, Panel, bar_chart, line_chart, table
from mkdocs.exceptions import PluginError
from PIL import Image
from torch import Tensor, nn
from wording import CLASSES

from cifar_resnet.augment import random_crop, random_erasing, random_flip
from cifar_resnet.recipe import Recipe, get_recipe, learning_rate
from cifar_resnet.synthetic import draw
from cifar_resnet.train import make_optimizer

_SHOWN = 4


def figure(name: str) -> str:
    """The figure of that name."""
    if name not in _FIGURES:
        raise PluginError(f"no figure is called {name!r}; there are: {', '.join(_FIGURES)}")
    return _FIGURES[name]()


def lr_schedule() -> str:
    """Learning rate over the epochs, for the note's recipe and its short form."""
    panels, tables = [], []
    for name in ("notes", "notes-cpu"):
        recipe = get_recipe(name)
        steps = [recipe.epochs * i / 200 for i in range(201)]
        points = [(step, learning_rate(recipe, step)) for step in steps]
        warm = f"先用 {recipe.warmup_epochs:g} 轮线性预热，" if recipe.warmup_epochs else ""
        title = f"{name}：{recipe.epochs} 轮"
        description = (
            f"{title}的学习率曲线：{warm}最高 {recipe.learning_rate:g}，按半个余弦降到 0。"
        )
        top = Axis("学习率", 0, recipe.learning_rate * 1.05)
        epochs = Axis("轮次", 0, recipe.epochs)
        panels.append(Panel(title, line_chart(description, epochs, top, [Line("eval", points)])))
        rows = [[f"{epoch:g}", f"{value:.4f}"] for epoch, value in points[::20]]
        tables.append(table((f"轮次（{name}）", "学习率"), rows))
    caption = "学习率在每一步都重新计算；曲线由包里的 learning_rate 函数算出。"
    return charts.figure(caption, panels, "".join(tables))


def momentum() -> str:
    """How far SGD goes in each step while the gradient stays 1, with and without momentum."""
    steps = 40
    lines, columns = {}, []
    for label, style, value in (
        ("有动量", "depth-0", get_recipe("notes").momentum),
        ("没有动量", "depth-1", 0.0),
    ):
        places = [0.0, *_walk(get_recipe("notes", momentum=value, weight_decay=0.0), 0, 1, steps)]
        lengths = [a - b for a, b in pairwise(places)]
        lines[label] = Line(style, list(enumerate(lengths, 1)))
        columns.append([f"{lengths[step - 1]:.3f}" for step in (1, 10, 20, 30, 40)])
    last = "，".join(f"{label}到 {line.points[-1][1]:.2f}" for label, line in lines.items())
    top = Axis("步长", 0, 1.05)
    return charts.figure(
        "梯度一直是 1、学习率取峰值时，make_optimizer 建的优化器每一步走多远。",
        [
            Panel(
                "一步的长度",
                line_chart(
                    f"每一步的长度：{last}。", Axis("第几步", 1, steps), top, [*lines.values()]
                ),
            )
        ],
        table(
            ("曲线", "第 1 步", "第 10 步", "第 20 步", "第 30 步", "第 40 步"),
            _named(lines, columns),
        ),
        legend=[(line.style, label) for label, line in lines.items()],
    )


def weight_decay() -> str:
    """A weight without any gradient, pulled to zero by weight decay alone."""
    steps, every = 4000, 100
    lines, columns = {}, []
    for style, value in (("depth-0", get_recipe("notes").weight_decay), ("depth-1", 1e-4)):
        places = [1.0, *_walk(get_recipe("notes", weight_decay=value), 1, 0, steps)]
        label = f"λ = {value:g}"
        lines[label] = Line(style, list(enumerate(places))[::every])
        columns.append([f"{places[step]:.3f}" for step in (0, 1000, 2000, 3000, 4000)])
    reference = Line("reference", [(0, math.exp(-1)), (steps, math.exp(-1))])
    last = "，".join(f"{label} 时剩 {line.points[-1][1]:.2f}" for label, line in lines.items())
    return charts.figure(
        "没有梯度时，一个从 1 开始的权重怎样缩小；动量与学习率的峰值同 notes。点线是 1/e。",
        [
            Panel(
                "权重",
                line_chart(
                    f"权重随步数变小：{last}。",
                    Axis("步", 0, steps),
                    Axis("权重", 0, 1.05),
                    [*lines.values(), reference],
                ),
            )
        ],
        table(("曲线", "0 步", "1000 步", "2000 步", "3000 步", "4000 步"), _named(lines, columns)),
        legend=[(line.style, label) for label, line in lines.items()],
    )


def _named(lines: dict[str, Line], columns: list[list[str]]) -> list[list[str]]:
    return [[label, *column] for label, column in zip(lines, columns, strict=True)]


def _walk(recipe: Recipe, start: float, gradient: float, steps: int) -> list[float]:
    """One weight after each step of the recipe's optimizer, the gradient always the same."""
    layer = nn.Linear(1, 1, bias=False)
    nn.init.constant_(layer.weight, start)
    optimizer = make_optimizer(layer, recipe)
    layer.weight.grad = torch.full_like(layer.weight, gradient)
    places = []
    for _ in range(steps):
        optimizer.step()
        places.append(layer.weight.item())
    return places


def label_smoothing() -> str:
    """The target distribution with and without smoothing, taken from the loss itself.

    The gradient of cross-entropy with respect to the logits is softmax minus target.
    """
    share = get_recipe("notes").label_smoothing
    label = CLASSES.index("猫")

    def target(smoothing: float) -> list[float]:
        logits = torch.zeros(1, len(CLASSES), dtype=torch.float64, requires_grad=True)
        loss = nn.CrossEntropyLoss(label_smoothing=smoothing)(logits, torch.tensor([label]))
        (slope,) = torch.autograd.grad(loss, logits)
        return (logits.softmax(1) - slope)[0].clamp(min=0).tolist()

    panels, columns = [], []
    for title, smoothing in (("不平滑", 0.0), (f"平滑 ε = {share:g}", share)):
        values = target(smoothing)
        bars = [(name, value, f"{value:.2f}") for name, value in zip(CLASSES, values, strict=True)]
        description = (
            f"一张猫的图片的目标分布，{title}：猫 {values[label]:.2f}，其余各类 {values[0]:.2f}。"
        )
        panels.append(Panel(title, bar_chart(description, bars)))
        columns.append([f"{value:.3f}" for value in values])
    rows = list(zip(CLASSES, *columns, strict=True))
    return charts.figure(
        "一张“猫”的目标分布，由损失函数的梯度反推得到。",
        panels,
        table(("类别", *(panel.title for panel in panels)), rows),
    )


def augmentations() -> str:
    """The same drawn pictures, as they are and after each step of the augmentation."""
    images, _ = draw(_SHOWN, seed=0)
    a = get_recipe("notes").augmentation

    def generator() -> torch.Generator:
        return torch.Generator().manual_seed(1)

    def crop(batch: Tensor) -> Tensor:
        return random_crop(batch, a.crop_padding, generator())

    def flip(batch: Tensor) -> Tensor:
        return random_flip(batch, a.flip_probability, generator())

    def erase(batch: Tensor) -> Tensor:
        return random_erasing(
            batch, a.erasing_probability, a.erasing_area, a.erasing_aspect, generator()
        )

    strips = (
        ("原图", "形状、颜色、纹理各不相同的合成图片", images),
        ("随机裁剪", f"四周补 {a.crop_padding} 像素黑边后随机裁回原大小，图形有平移", crop(images)),
        ("水平翻转", f"每张以概率 {a.flip_probability:g} 左右翻转", flip(images)),
        ("随机擦除", f"每张以概率 {a.erasing_probability:g} 把一块矩形换成噪声", erase(images)),
        ("三者合用", "先裁剪、再翻转、后擦除，网络训练时看到的图片", erase(flip(crop(images)))),
    )
    size = f'width="{_SHOWN * 32}" height="32"'
    rows = "".join(
        f'<div class="strip"><span>{title}</span>'
        f'<img src="{_picture(batch)}" alt="{title}：{alt}。" {size}></div>'
        for title, alt, batch in strips
    )
    return (
        f'<figure class="strips">{rows}<figcaption>同一批合成图片逐步增强，'
        "每一行都由包里的函数算出（归一化之前）。</figcaption></figure>"
    )


def _picture(batch: Tensor) -> str:
    """A batch ``[N, 3, H, W]`` side by side, as a data URL."""
    strip = torch.cat(list(batch), dim=2).permute(1, 2, 0).numpy()
    file = io.BytesIO()
    Image.fromarray(strip).save(file, "WEBP", quality=90)
    return "data:image/webp;base64," + base64.b64encode(file.getvalue()).decode()


_FIGURES = {
    f.__name__: f for f in (momentum, lr_schedule, weight_decay, label_smoothing, augmentations)
}
