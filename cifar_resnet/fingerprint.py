"""What a recipe does, in a few numbers: kept by a refactoring, broken by a change of meaning.

A fingerprint is computed on the CPU in float32 from synthetic images, in seconds, and is
stored in every run record; by one thread, since several add up in another order. `differences`
compares two, with tolerances that absorb another processor's rounding and nothing more.
"""

import hashlib
import json
import math
from dataclasses import asdict, replace
from itertools import cycle, pairwise
from typing import Any

import torch
from torch import Tensor, nn

from cifar_resnet.augment import augment
from cifar_resnet.display import Silent
from cifar_resnet.evaluation import predict_logits
from cifar_resnet.networks import build
from cifar_resnet.parse import parse
from cifar_resnet.recipe import Recipe, learning_rate
from cifar_resnet.synthetic import draw
from cifar_resnet.train import make_optimizer, train_epoch

_BATCH = 16
_STEPS = 3
# Deep networks without shortcuts, where one step lets rounding grow beyond any tolerance:
# of their losses only the first is compared.
_CHAOTIC = ("plain44", "plain56")
_TOLERANCE: dict[str, tuple[float, ...]] = {
    "logits": (1e-3,),
    "augmented": (1e-3,),
    "learning_rate": (1e-6,),
    "losses": (2e-3,),
}
_WIDE_LOSSES = (2e-3, 2e-3, 1e-2)  # of the wide ResNet-18, whose rounding grows step by step
_RELATIVE = 1e-5  # for numbers far above 1, such as a deep network's first logits


def fingerprint(recipe: Recipe) -> dict[str, Any]:
    """Measure what a recipe does.

    Args:
        recipe: any.

    Returns:
        The recipe's fields; a digest of the names and shapes of parameters and buffers;
        logits of the seeded network in evaluation mode for two images; one augmented
        batch as the means of its 8x8 blocks; the learning rate at ten points; each
        optimizer group's settings and which parameters it holds; the losses of three
        training steps with batches of 16. All of it can be written as JSON.

    Example:
        >>> from cifar_resnet.recipe import get_recipe
        >>> fingerprint(get_recipe("notes"))["learning_rate"][:2]
        [0.1, 0.096985]
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return _fingerprint(recipe)
    finally:
        torch.set_num_threads(threads)


def _fingerprint(recipe: Recipe) -> dict[str, Any]:
    images, labels = draw(_BATCH * _STEPS, seed=0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = build(recipe.network)
    shapes = [f"{name} {tuple(value.shape)}" for name, value in model.state_dict().items()]
    optimizer = make_optimizer(model, recipe)
    generator = torch.Generator().manual_seed(0)
    augmented = augment(images[:4], recipe.augmentation, generator)
    logits = predict_logits(model, images[:2])
    labels = labels % logits.shape[1]  # a network of one's own may have fewer classes
    return {
        "recipe": json.loads(json.dumps(asdict(recipe))),
        "parameters": hashlib.sha256("\n".join(shapes).encode()).hexdigest(),
        "logits": _rounded(logits),
        "augmented": _rounded(nn.functional.avg_pool2d(augmented, 8)),
        "learning_rate": [
            round(learning_rate(recipe, recipe.epochs * tenth / 9), 6) for tenth in range(10)
        ],
        "optimizer": [
            type(optimizer).__name__,
            *(_group(group, model) for group in optimizer.param_groups),
        ],
        "losses": _losses(model, optimizer, recipe, images, labels),
    }


def _group(group: dict[str, Any], model: nn.Module) -> dict[str, Any]:
    """An optimizer group's settings; how it is computed (fused, foreach) is left out.

    The parameters are named, too, unless the group holds all there are.
    """
    settings = (
        "momentum",
        "dampening",
        "weight_decay",
        "nesterov",
        "maximize",
        "filter_momentum",  # of Muon, as the next
        "filter_nesterov",
    )
    held = {id(parameter) for parameter in group["params"]}
    names = [name for name, parameter in model.named_parameters() if id(parameter) in held]
    everything = len(names) == len(list(model.parameters()))
    return {name: group[name] for name in settings if name in group} | {
        "tensors": len(group["params"]),
        "values": sum(parameter.numel() for parameter in group["params"]),
        **({} if everything else {"names": names}),
    }


class _Losses(Silent):
    """Keeps the loss summed so far after each step."""

    def __init__(self) -> None:
        self.sums: list[float] = []

    def step(self, epoch: int, step: int, steps: int, sums: Tensor, seen: int) -> None:
        self.sums.append(float(sums[0]))


def _losses(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    recipe: Recipe,
    images: Tensor,
    labels: Tensor,
) -> list[float]:
    """Mean loss of each of the first steps of an epoch half way through the schedule.

    At a tenth of the learning rate: at the full one, rounding grows within three steps to
    more than a change of meaning would make.
    """
    kept = _Losses()
    short = replace(recipe, batch_size=_BATCH, learning_rate=recipe.learning_rate / 10)
    train_epoch(
        model, optimizer, short, images, labels, epoch=recipe.epochs // 2, seed=0, display=kept
    )
    return [round((b - a) / _BATCH, 4) for a, b in pairwise([0.0, *kept.sums])]


def _rounded(values: Tensor) -> list[float]:
    return [round(value, 4) for value in values.flatten().tolist()]


def differences(recorded: dict[str, Any], current: dict[str, Any]) -> list[str]:
    """Names of the parts in which two fingerprints differ; empty if they agree.

    Args:
        recorded: one fingerprint, such as a record's.
        current: another, such as that of the code as it is now.

    Example:
        >>> from cifar_resnet.recipe import get_recipe
        >>> one, other = (fingerprint(get_recipe("notes", momentum=m)) for m in (0.9, 0.8))
        >>> differences(one, one)
        []
        >>> differences(one, other)
        ['recipe', 'optimizer']
    """
    network = str(recorded.get("recipe", {}).get("network"))
    if network in _CHAOTIC:
        recorded, current = (f | {"losses": f.get("losses", [])[:1]} for f in (recorded, current))
    tolerance = dict(_TOLERANCE)
    if network.startswith("resnet18"):
        tolerance["losses"] = _WIDE_LOSSES
    return [
        name
        for name in dict.fromkeys([*recorded, *current])
        if not _alike(recorded.get(name), current.get(name), tolerance.get(name))
    ]


def _alike(a: Any, b: Any, tolerance: tuple[float, ...] | None) -> bool:
    if isinstance(a, dict) and isinstance(b, dict):  # a field newer than a has its default
        return bool(parse(Recipe, a) == parse(Recipe, b))
    if tolerance is None or not isinstance(a, list) or not isinstance(b, list):
        return bool(a == b)
    return len(a) == len(b) and all(
        isinstance(x, (int, float))
        and isinstance(y, (int, float))
        and math.isclose(x, y, rel_tol=_RELATIVE, abs_tol=allowed)
        for x, y, allowed in zip(a, b, cycle(tolerance), strict=False)
    )
