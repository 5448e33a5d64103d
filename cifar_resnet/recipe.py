"""Recipes: everything that decides what is trained, in one frozen dataclass.

``cifar-resnet recipes`` lists the named ones; ``cifar-resnet train NAME`` trains one.
"""

import json
import math
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields, replace
from difflib import get_close_matches
from typing import Any

from cifar_resnet.augment import Augmentation
from cifar_resnet.errors import InputError
from cifar_resnet.parse import parse

OPTIMIZERS = ("sgd", "muon")
SCHEDULES = ("cosine", "step", "constant")


# --8<-- [start:recipe]
@dataclass(frozen=True)
class Recipe:
    """A training configuration; the defaults are the note's.

    Attributes:
        name: what the recipe is called in records and on the command line, of letters, digits
            and ``_ . -``, as the record's file is named after it.
        network: which network, a key of `cifar_resnet.networks.NETWORKS`.
        epochs: passes over the training images.
        batch_size: images per optimizer step; the last, incomplete batch of an epoch
            is left out (each epoch shuffles anew).
        optimizer: ``"sgd"``, or ``"muon"``, which makes the steps of convolutions orthogonal
            (`cifar_resnet.optimizer.Muon`).
        learning_rate: the highest learning rate of the schedule.
        schedule: how it falls: ``"cosine"``; ``"step"``, a tenth after half and another
            after three quarters of the epochs (He et al. 2015, section 4.2); or
            ``"constant"``.
        warmup_epochs: epochs in which the learning rate rises linearly from zero.
        momentum: momentum of the optimizer.
        nesterov: look ahead along the momentum (Sutskever et al. 2013, section 2).
        weight_decay: L2 penalty that SGD adds to the gradient of every parameter; Muon leaves
            convolutions out, whose norm it sets.
        label_smoothing: share of the target spread evenly over all classes
            (Szegedy et al. 2016, section 7).
        low_resolution: width and height of the training images in the first epochs.
        low_resolution_share: which share of the epochs that is; the others, and the evaluation
            after the last one, see 32x32.
        low_resolution_stages: equal stages of that share, from each of which to the next, and
            to 32x32, the images grow by the same amount (`resolution`).
        augmentation: what is done to each training image.

    Raises:
        InputError: if a field is out of range; the message names it. Types are checked by
            `get_recipe`, and by `cifar_resnet.run.fit`.

    Example:
        >>> Recipe(name="short", epochs=2).learning_rate
        0.1
        >>> Recipe(name="wrong", epochs=0)
        Traceback (most recent call last):
        cifar_resnet.errors.InputError: recipe 'wrong': epochs must be at least 1, not 0
    """

    name: str
    network: str = "resnet18"
    epochs: int = 200
    batch_size: int = 128
    optimizer: str = "sgd"
    learning_rate: float = 0.1
    schedule: str = "cosine"
    warmup_epochs: float = 0.0
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 5e-4
    label_smoothing: float = 0.1
    low_resolution: int = 32
    low_resolution_share: float = 0.0
    low_resolution_stages: int = 1
    augmentation: Augmentation = field(default_factory=Augmentation)
    # --8<-- [end:recipe]

    def __post_init__(self) -> None:
        everything = flatten(self)
        a = self.augmentation
        for rule, holds in {
            "name must be of letters, digits and _ . - only": re.fullmatch(
                r"[A-Za-z0-9_.-]+", self.name
            ),
            "epochs must be at least 1": self.epochs >= 1,
            "epochs must be at most 100000": self.epochs <= 100_000,
            "batch_size must be at least 2": self.batch_size >= 2,
            "learning_rate must be positive and finite": 0 < self.learning_rate < math.inf,
            f"optimizer must be one of {', '.join(OPTIMIZERS)}": self.optimizer in OPTIMIZERS,
            f"schedule must be one of {', '.join(SCHEDULES)}": self.schedule in SCHEDULES,
            "warmup_epochs must be at least 0 and below epochs": 0
            <= self.warmup_epochs
            < self.epochs,
            "momentum must be in [0, 1)": 0 <= self.momentum < 1,
            "nesterov must be false where momentum is 0": self.momentum > 0 or not self.nesterov,
            "weight_decay must be finite and not negative": 0 <= self.weight_decay < math.inf,
            "label_smoothing must be in [0, 1)": 0 <= self.label_smoothing < 1,
            "low_resolution must be from 8 to 32": 8 <= self.low_resolution <= 32,
            "low_resolution_share must be in [0, 1)": 0 <= self.low_resolution_share < 1,
            "low_resolution_stages must be at least 1": self.low_resolution_stages >= 1,
            "crop_padding must be from 0 to 32": 0 <= a.crop_padding <= 32,
            "flip_probability must be in [0, 1]": 0 <= a.flip_probability <= 1,
            "flip_probability must be 0 with alternating_flip": a.flip_probability == 0
            or not a.alternating_flip,
            "erasing_probability must be in [0, 1]": 0 <= a.erasing_probability <= 1,
            "erasing_area must be rising shares in (0, 1]": 0
            < a.erasing_area[0]
            <= a.erasing_area[1]
            <= 1,
            "erasing_aspect must be rising positive ratios": 0
            < a.erasing_aspect[0]
            <= a.erasing_aspect[1]
            < math.inf,
        }.items():
            if not holds:
                value = everything[rule.split()[0]]
                raise InputError(f"recipe {self.name!r}: {rule}, not {value!r}")


def flatten(recipe: Recipe) -> dict[str, Any]:
    """Every field of a recipe and of its augmentation, by name.

    >>> flatten(Recipe(name="example"))["crop_padding"]
    4
    """
    outer = {f.name: getattr(recipe, f.name) for f in fields(recipe)}
    inner = outer.pop("augmentation")
    return outer | {f.name: getattr(inner, f.name) for f in fields(inner)}


# --8<-- [start:learning_rate]
def learning_rate(recipe: Recipe, epoch: float) -> float:
    """The learning rate after ``epoch`` epochs, which may be a fraction.

    Linear warm-up, then the recipe's schedule. The cosine one is half a period down to
    zero (Loshchilov and Hutter 2017, arXiv:1608.03983, equation 5 without restarts).

    Args:
        recipe: gives the peak, the warm-up and the length.
        epoch: from 0 to ``recipe.epochs``.

    Returns:
        The learning rate for the step that starts at ``epoch``.

    Example:
        >>> recipe = Recipe(name="example", epochs=10)
        >>> [round(learning_rate(recipe, epoch), 3) for epoch in (0, 5, 10)]
        [0.1, 0.05, 0.0]
    """
    if epoch < recipe.warmup_epochs:
        return recipe.learning_rate * epoch / recipe.warmup_epochs
    if recipe.schedule == "constant":
        return recipe.learning_rate
    if recipe.schedule == "step":
        drops = (epoch >= 0.5 * recipe.epochs) + (epoch >= 0.75 * recipe.epochs)
        return recipe.learning_rate * float(0.1**drops)
    progress = (epoch - recipe.warmup_epochs) / (recipe.epochs - recipe.warmup_epochs)
    return recipe.learning_rate * (1 + math.cos(math.pi * progress)) / 2
    # --8<-- [end:learning_rate]


def resolution(recipe: Recipe, epoch: int) -> int:
    """Width and height of the training images in an epoch.

    Progressive learning (Tan and Le 2021, arXiv:2104.00298, section 4): the network sees small
    images first, for fewer operations in proportion to their area.

    Args:
        recipe: gives the first size, the share of the epochs that have not the full one, and
            the stages of that share.
        epoch: from 0 to ``recipe.epochs - 1``.

    Example:
        >>> recipe = Recipe(
        ...     "growing", epochs=6, low_resolution=16,
        ...     low_resolution_share=0.7, low_resolution_stages=2,
        ... )
        >>> [resolution(recipe, epoch) for epoch in range(6)]
        [16, 16, 16, 24, 24, 32]
    """
    low_epochs = recipe.low_resolution_share * recipe.epochs
    if epoch >= low_epochs:
        return 32
    stages = recipe.low_resolution_stages
    stage = int(stages * epoch / low_epochs)
    return recipe.low_resolution + round((32 - recipe.low_resolution) * stage / stages)


def notes() -> Recipe:
    """The note's configuration, with usual values for what it leaves open.

    200 epochs, batches of 128, learning rate 0.1 without warm-up, crop and flip, erasing with
    the paper's parameters.

    Reached 96.0 % on the test images. Meant for a GPU, where it takes about five minutes; on two
    CPU cores it takes half a day to a day.
    """
    return Recipe(name="notes")


def notes_cpu() -> Recipe:
    """The note's configuration in 16 epochs, for two CPU cores: a good hour.

    Reached 92.6 % on the test images. Everything the note lists stays on. Peak learning rate,
    warm-up and erasing probability were chosen on 5,000 held-out training images, in the runs
    under ``results/tuning``.
    """
    return Recipe(
        name="notes-cpu",
        epochs=16,
        learning_rate=0.2,
        warmup_epochs=1.0,
        augmentation=Augmentation(erasing_probability=0.1),
    )


def fast_cpu() -> Recipe:
    """The note's network, made for two CPU cores and about an hour.

    Reached 94.1 % on the test images. Muon instead of SGD; images of 16x16, then 24x24, then
    32x32; alternating flips; no random erasing.
    """
    return Recipe(
        name="fast-cpu",
        epochs=22,
        batch_size=256,
        optimizer="muon",
        learning_rate=0.08,
        warmup_epochs=0.5,
        momentum=0.85,
        nesterov=True,
        low_resolution=16,
        low_resolution_share=0.77,
        low_resolution_stages=2,
        augmentation=Augmentation(
            flip_probability=0.0, alternating_flip=True, erasing_probability=0.0
        ),
    )


def fast_cpu_short() -> Recipe:
    """The note's network, made for two CPU cores and about 20 minutes.

    Reached 91.1 % on the test images. As ``fast-cpu``, with seven epochs, of which only the
    last sees 32x32 images.
    """
    return replace(fast_cpu(), name="fast-cpu-short", epochs=7, low_resolution_share=0.8)


def fast() -> Recipe:
    """The note's network, made for one GPU: less than a minute once compiled.

    Reached 96.1 % on the test images. Muon and Nesterov momentum instead of SGD, large batches,
    and a square of 12x12 pixels erased from every image (DeVries and Taylor 2017,
    arXiv:1708.04552, cut out 16x16 in training for 200 epochs).
    """
    return Recipe(
        name="fast",
        epochs=90,
        batch_size=1024,
        optimizer="muon",
        learning_rate=0.06,
        momentum=0.85,
        nesterov=True,
        augmentation=Augmentation(
            erasing_probability=1.0, erasing_area=(0.15, 0.15), erasing_aspect=(1.0, 1.0)
        ),
    )


def depth() -> Recipe:
    """He et al. 2015, section 4.2: the configuration of their networks of 20 to 56 layers.

    64,000 steps with batches of 128, learning rate 0.1 divided by 10 after half and after
    three quarters of them, weight decay 1e-4, crop and flip. Meant for a GPU, where it has not
    been run yet.
    """
    return Recipe(
        name="depth",
        network="resnet20",
        epochs=164,
        schedule="step",
        weight_decay=1e-4,
        label_smoothing=0.0,
        augmentation=Augmentation(erasing_probability=0.0),
    )


def smoke() -> Recipe:
    """Two epochs with small batches: shows in seconds on synthetic data that all works."""
    return Recipe(name="smoke", epochs=2, batch_size=32, learning_rate=0.02, warmup_epochs=0.5)


RECIPES: dict[str, Callable[[], Recipe]] = {
    "notes": notes,
    "notes-cpu": notes_cpu,
    "fast": fast,
    "fast-cpu": fast_cpu,
    "fast-cpu-short": fast_cpu_short,
    "depth": depth,
    "smoke": smoke,
}


def get_recipe(name: str, /, **changes: Any) -> Recipe:
    """A named recipe, with fields replaced.

    Args:
        name: a key of ``RECIPES``.
        changes: fields of `Recipe` or `Augmentation` and their new values; or a whole
            ``augmentation``.

    Returns:
        The recipe; its name stays, since a record holds every field anyway.

    Raises:
        InputError: if the name or a field is unknown, or a value out of range.

    Example:
        >>> get_recipe("notes", epochs=5).epochs
        5
        >>> get_recipe("nots")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        cifar_resnet.errors.InputError: recipe 'nots' is unknown; choose one of: notes, ...
    """
    if name not in RECIPES:
        raise InputError(f"recipe {name!r} is unknown; choose one of: {', '.join(RECIPES)}")
    return altered(RECIPES[name](), **changes)


def altered(recipe: Recipe, /, **changes: Any) -> Recipe:
    """A recipe with fields replaced, as `get_recipe` does it.

    Args:
        recipe: any; its name stays.
        changes: as for `get_recipe`.

    Raises:
        InputError: if a field is unknown, or a value of another type or out of range.

    Example:
        >>> altered(Recipe(name="mine"), erasing_probability=0.2).name
        'mine'
    """
    name, everything = recipe.name, flatten(recipe)
    if isinstance(changes.get("augmentation"), Augmentation):
        changes = asdict(changes.pop("augmentation")) | changes
    for unknown in sorted(set(changes) - set(everything) | set(changes) & {"name"}):
        raise InputError(f"recipe {name!r} {_no_field(unknown)}")
    everything |= changes
    own = {f.name for f in fields(Recipe)} - {"augmentation"}
    inner = {key: everything.pop(key) for key in set(everything) - own}
    found: Recipe = parse(Recipe, everything | {"augmentation": inner}, f"recipe {name!r}: ")
    return found


def _no_field(unknown: str) -> str:
    """What is wrong with a field, and which there are."""
    inner = [f.name for f in fields(Augmentation)]
    if unknown == "augmentation":
        return f"takes the fields of its augmentation one by one: {', '.join(inner)}"
    own = [f.name for f in fields(Recipe) if f.name not in ("name", "augmentation")]
    close = get_close_matches(unknown, own + inner, 1)
    meant = f"did you mean {close[0]}? " if close else ""
    return f"has no field {unknown!r}; {meant}fields: {', '.join(own + inner)}"


def assignments(changes: dict[str, Any]) -> list[str]:
    """Changed fields as the command line's ``--set`` reads them.

    Args:
        changes: fields and values, as for `get_recipe`.

    Example:
        >>> assignments({"nesterov": False, "erasing_area": (0.1, 0.2), "network": "resnet20"})
        ['nesterov=false', 'erasing_area=[0.1,0.2]', 'network=resnet20']
    """
    return [
        f"{name}={value if isinstance(value, str) else json.dumps(value, separators=(',', ':'))}"
        for name, value in changes.items()
    ]


def changes(recipe: Recipe) -> dict[str, Any]:
    """The fields in which a recipe differs from the named one it was made from.

    Args:
        recipe: any; one whose name is not in ``RECIPES`` differs in nothing.

    Returns:
        Field names of `Recipe` and `Augmentation` with their values, so that
        ``get_recipe(recipe.name, **changes(recipe)) == recipe``.

    Example:
        >>> changes(get_recipe("notes", epochs=5, crop_padding=2))
        {'epochs': 5, 'crop_padding': 2}
    """
    return difference(RECIPES[recipe.name](), recipe) if recipe.name in RECIPES else {}


def difference(old: Recipe, new: Recipe) -> dict[str, Any]:
    """The fields in which one recipe differs from another, with its values.

    >>> difference(Recipe(name="example"), Recipe(name="example", epochs=5))
    {'epochs': 5}
    """
    before = flatten(old)
    return {name: value for name, value in flatten(new).items() if value != before[name]}
