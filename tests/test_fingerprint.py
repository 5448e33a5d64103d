"""The guard: every change of meaning breaks the fingerprint, nothing else does."""

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from cifar_resnet import augment, train
from cifar_resnet import fingerprint as module
from cifar_resnet import recipe as recipes
from cifar_resnet.fingerprint import differences, fingerprint
from cifar_resnet.model import get_cifar_resnet
from cifar_resnet.recipe import Recipe, get_recipe

RECIPE = get_recipe("notes-cpu", network="resnet20")


@pytest.fixture(scope="module")
def recorded() -> dict[str, Any]:
    return fingerprint(RECIPE)


@pytest.fixture(scope="module")
def recorded_resnet18() -> dict[str, Any]:
    return fingerprint(replace(RECIPE, network="resnet18"))


def test_it_repeats_and_leaves_the_random_state_alone(recorded: dict[str, Any]) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    assert fingerprint(RECIPE) == recorded
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize(("network", "third"), [("resnet20", 1e-3), ("resnet18", 8e-3)])
def test_rounding_is_forgiven(request: pytest.FixtureRequest, network: str, third: float) -> None:
    recorded = request.getfixturevalue("recorded" if network == "resnet20" else "recorded_resnet18")
    nudged = recorded | {
        "logits": [value + 2e-4 for value in recorded["logits"]],
        "losses": [
            value + nudge
            for value, nudge in zip(recorded["losses"], (1e-3, -1e-3, third), strict=True)
        ],
    }
    assert differences(recorded, nudged) == []
    for step in range(3):
        losses = list(recorded["losses"])
        losses[step] += (4e-3, 4e-3, 2.5 * third)[step]
        assert differences(recorded, recorded | {"losses": losses}) == ["losses"]


def test_it_is_the_same_whatever_the_number_of_threads() -> None:
    """Of a network whose rounding grows fast: at the end it has one value an image and channel."""
    recipe = get_recipe("notes", network="resnet18-original", epochs=61, warmup_epochs=1.0)
    before = torch.get_num_threads()
    try:
        found = []
        for threads in (1, 2):
            torch.set_num_threads(threads)
            found.append(fingerprint(recipe))
            assert torch.get_num_threads() == threads, "afterwards as before"
    finally:
        torch.set_num_threads(before)
    assert found[0] == found[1]


@pytest.mark.parametrize("part", ["recipe", "parameters", "logits", "optimizer", "losses"])
def test_a_missing_part_is_named(recorded: dict[str, Any], part: str) -> None:
    rest = {name: value for name, value in recorded.items() if name != part}
    assert differences(recorded, rest) == [part]
    assert differences(rest, recorded) == [part]


def sgd(**settings: Any) -> Callable[[nn.Module, Recipe], torch.optim.Optimizer]:
    def build(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
        usual = {"momentum": recipe.momentum, "weight_decay": recipe.weight_decay}
        return torch.optim.SGD(model.parameters(), lr=0.1, **(usual | settings))

    return build


def no_decay_for(part: str) -> Callable[[nn.Module, Recipe], torch.optim.Optimizer]:
    def build(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
        named = list(model.named_parameters())
        groups = [
            {"params": [p for name, p in named if part not in name]},
            {"params": [p for name, p in named if part in name], "weight_decay": 0.0},
        ]
        return torch.optim.SGD(groups, lr=0.1, momentum=0.9, weight_decay=recipe.weight_decay)

    return build


def reflecting_crop(images: Tensor, padding: int, generator: torch.Generator) -> Tensor:
    padded = nn.functional.pad(images.float(), (padding,) * 4, mode="reflect").to(images.dtype)
    windows = padded.unfold(2, 32, 1).unfold(3, 32, 1)
    top, left = torch.randint(0, 2 * padding + 1, (2, len(images)), generator=generator)
    return windows[torch.arange(len(images)), :, top, left]


def test_groups_of_equal_size_with_other_parameters_differ(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first, second = (
        monkeypatch.setattr(module, "make_optimizer", no_decay_for(part)) or fingerprint(RECIPE)
        for part in ("norm1.weight", "norm1.bias")
    )
    assert first["optimizer"][2]["values"] == second["optimizer"][2]["values"] > 0
    assert "optimizer" in differences(first, second)


def halve_no_more(model: nn.Module) -> None:
    model.layer2[0].conv1.stride = (1, 1)
    model.layer2[0].downsample[0].stride = (1, 1)


def bias_on_conv1(model: nn.Module) -> None:
    model.conv1 = nn.Conv2d(3, 64, 3, padding=1)


def pooling_left_in(model: nn.Module) -> None:
    model.maxpool = nn.MaxPool2d(3, 2, 1)


@pytest.mark.parametrize(
    ("change", "part"),
    [(halve_no_more, "logits"), (bias_on_conv1, "parameters"), (pooling_left_in, "logits")],
)
def test_a_changed_network_breaks_it(
    recorded_resnet18: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    change: Callable[[nn.Module], None],
    part: str,
) -> None:
    def build(name: str) -> nn.Module:
        model = get_cifar_resnet()
        change(model)
        return model

    monkeypatch.setattr(module, "build", build)
    assert part in differences(recorded_resnet18, fingerprint(replace(RECIPE, network="resnet18")))


CHANGES: dict[str, tuple[Any, str, Any, str]] = {
    "nesterov": (module, "make_optimizer", sgd(nesterov=True), "optimizer"),
    "momentum": (module, "make_optimizer", sgd(momentum=0.8), "optimizer"),
    "no decay for norms": (module, "make_optimizer", no_decay_for("norm"), "optimizer"),
    "padding mode": (augment, "random_crop", reflecting_crop, "augmented"),
    "normalisation constants": (augment, "STD", (0.2023, 0.1994, 0.2010), "augmented"),
    "warm-up shape": (
        module,
        "learning_rate",
        lambda recipe, epoch: 0.99 * recipes.learning_rate(recipe, epoch),
        "learning_rate",
    ),
    "no label smoothing in the loss": (
        train.nn,
        "CrossEntropyLoss",
        lambda label_smoothing: nn.modules.loss.CrossEntropyLoss(),
        "losses",
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_of_meaning_breaks_it(
    recorded: dict[str, Any], monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    target, name, replacement, part = CHANGES[change]
    monkeypatch.setattr(target, name, replacement)
    assert part in differences(recorded, fingerprint(RECIPE))


@pytest.mark.parametrize(
    "change",
    [
        {"learning_rate": 0.11},
        {"warmup_epochs": 0.5},
        {"weight_decay": 4e-4},
        {"flip_probability": 0.4},
        {"erasing_area": (0.02, 0.33)},
        {"label_smoothing": 0.0},
    ],
)
def test_a_changed_field_breaks_more_than_the_field(
    recorded: dict[str, Any], change: dict[str, Any]
) -> None:
    recipe = get_recipe("notes-cpu", network="resnet20", **change)
    changed = differences(recorded, fingerprint(recipe))
    assert "recipe" in changed
    assert len(changed) > 1


@pytest.mark.parametrize("name", ["fast-cpu", "fast-cpu-short"])
def test_how_images_are_shrunk_is_part_of_it(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = get_recipe(name, network="resnet20")
    before = fingerprint(recipe)
    monkeypatch.setattr(train, "shrink", lambda images, size: images[..., :size, :size])
    assert differences(before, fingerprint(recipe)) == ["losses"]


def test_of_chaotic_networks_only_the_first_loss_counts() -> None:
    def made(network: str, *losses: float) -> dict[str, object]:
        recipe = json.loads(json.dumps(asdict(get_recipe("depth", network=network))))
        return {"recipe": recipe, "losses": list(losses)}

    assert differences(made("plain56", 2.34, 2.30), made("plain56", 2.34, 2.20)) == []
    assert differences(made("plain56", 2.34), made("plain56", 2.30)) == ["losses"]
    assert differences(made("plain20", 2.34, 2.30), made("plain20", 2.34, 2.20)) == ["losses"]
