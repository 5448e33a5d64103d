import math
import re
from statistics import mean
from typing import Any

import pytest
import torch

from cifar_resnet.augment import Augmentation
from cifar_resnet.errors import InputError
from cifar_resnet.recipe import RECIPES, Recipe, get_recipe, learning_rate, resolution
from cifar_resnet.record import read_record
from tests import ROOT


def test_notes_is_the_notes_configuration() -> None:
    recipe = get_recipe("notes")
    assert (recipe.epochs, recipe.batch_size) == (200, 128)
    assert (recipe.learning_rate, recipe.warmup_epochs) == (0.1, 0)
    assert (recipe.momentum, recipe.weight_decay, recipe.label_smoothing) == (0.9, 5e-4, 0.1)
    a = recipe.augmentation
    assert (a.crop_padding, a.flip_probability, a.erasing_probability) == (4, 0.5, 0.5)


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_is_named(name: str) -> None:
    assert get_recipe(name).name == name


@pytest.mark.parametrize("name", RECIPES)
def test_what_a_docstring_says_was_reached_is_in_the_records(name: str) -> None:
    """What was reached is the mean over the published runs of the recipe."""
    recipe, text = get_recipe(name), RECIPES[name].__doc__ or ""
    runs = [read_record(path) for path in (ROOT / "results" / "runs").glob("*.json")]
    reached = [run.metrics.accuracy for run in runs if run.recipe == recipe]
    said = re.findall(r"Reached ([\d.]+) ?%", " ".join(text.split()))
    assert len(said) == len(re.findall(r"\breach", text, re.IGNORECASE))
    assert said == ([f"{100 * mean(reached):.1f}"] if reached else [])


def test_schedule_is_torchs_cosine_annealing_stepped_per_batch() -> None:
    recipe, steps = Recipe(name="test", epochs=3), 7
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=recipe.learning_rate)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=3 * steps)
    for step in range(3 * steps):
        expected = optimizer.param_groups[0]["lr"]
        assert learning_rate(recipe, step / steps) == pytest.approx(expected, abs=1e-9)
        optimizer.step()
        scheduler.step()


def test_warmup_rises_linearly_to_the_peak() -> None:
    recipe = Recipe(name="test", epochs=10, learning_rate=0.2, warmup_epochs=2)
    rates = [learning_rate(recipe, epoch) for epoch in (0, 1, 2, 6, 10)]
    assert rates == pytest.approx([0, 0.1, 0.2, 0.1, 0])


@pytest.mark.parametrize(
    ("low", "share", "stages", "sizes"),
    [
        (24, 0.0, 1, [32, 32, 32, 32, 32, 32]),
        (24, 0.5, 1, [24, 24, 24, 32, 32, 32]),
        (24, 0.51, 1, [24, 24, 24, 24, 32, 32]),
        (16, 0.7, 2, [16, 16, 16, 24, 24, 32]),
        (16, 0.5, 3, [16, 21, 27, 32, 32, 32]),
        (32, 0.5, 2, [32, 32, 32, 32, 32, 32]),
    ],
)
def test_images_grow_in_stages(low: int, share: float, stages: int, sizes: list[int]) -> None:
    recipe = Recipe(
        name="test", epochs=6, low_resolution=low,
        low_resolution_share=share, low_resolution_stages=stages,
    )  # fmt: skip
    assert [resolution(recipe, epoch) for epoch in range(6)] == sizes


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("epochs", 0),
        ("epochs", 100_001),
        ("batch_size", 1),
        ("learning_rate", 0.0),
        ("optimizer", "adam"),
        ("schedule", "linear"),
        ("warmup_epochs", 200),
        ("momentum", 1.0),
        ("weight_decay", -1e-4),
        ("weight_decay", math.nan),
        ("label_smoothing", 1.0),
        ("low_resolution", 4),
        ("low_resolution", 40),
        ("low_resolution_share", 1.0),
        ("low_resolution_stages", 0),
        ("crop_padding", -1),
        ("flip_probability", 1.5),
        ("alternating_flip", True),  # beside the flips by chance
        ("erasing_probability", -0.1),
        ("erasing_area", (0.4, 0.02)),
        ("erasing_aspect", (0.0, 1.0)),
    ],
)
def test_a_value_out_of_range_is_named(field: str, value: object) -> None:
    with pytest.raises(InputError, match=field):
        get_recipe("notes", **{field: value})


def test_nesterov_needs_momentum() -> None:
    with pytest.raises(InputError, match="nesterov must be false where momentum is 0"):
        get_recipe("notes", nesterov=True, momentum=0.0)


def test_for_an_unknown_field_others_are_named() -> None:
    with pytest.raises(
        InputError, match=r"'learning_rat'; did you mean learning_rate\? fields: network, epochs, "
    ):
        get_recipe("notes", learning_rat=0.1)
    with pytest.raises(InputError, match=r"no field 'xyz'; fields: network, .*erasing_aspect$"):
        get_recipe("notes", xyz=0.1)
    with pytest.raises(InputError, match="its augmentation one by one: crop_padding, flip_pro"):
        get_recipe("notes", augmentation="none")


@pytest.mark.parametrize("name", ["", "a/b", "..\\b", "two words", "line\n"])
def test_a_name_that_no_file_could_have_is_refused(name: str) -> None:
    with pytest.raises(InputError, match=r"name must be of letters, digits and _ \. - only"):
        Recipe(name=name)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("learning_rate", math.inf),
        ("weight_decay", math.inf),
        ("augmentation", Augmentation(erasing_aspect=(1.0, math.inf))),
    ],
)
def test_infinity_is_no_value(field: str, value: Any) -> None:
    with pytest.raises(InputError, match=r"must be .*, not .*inf"):
        Recipe(name="test", **{field: value})


def test_step_schedule_is_the_papers() -> None:
    recipe = Recipe(name="test", epochs=160, schedule="step")
    rates = [learning_rate(recipe, epoch) for epoch in (0, 79, 80, 119, 120, 159)]
    assert rates == pytest.approx([0.1, 0.1, 0.01, 0.01, 0.001, 0.001])


def test_constant_schedule() -> None:
    recipe = Recipe(name="test", epochs=10, schedule="constant", warmup_epochs=1)
    assert [learning_rate(recipe, epoch) for epoch in (0, 1, 9.9)] == [0, 0.1, 0.1]


def test_a_whole_augmentation_can_be_given() -> None:
    plain = Augmentation(crop_padding=0, erasing_probability=0.0)
    assert get_recipe("notes", augmentation=plain).augmentation == plain
    assert get_recipe("notes", augmentation=plain, crop_padding=2).augmentation.crop_padding == 2
