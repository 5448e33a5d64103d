import pytest
import torch
from torch import nn

from cifar_resnet.augment import Augmentation, augment
from cifar_resnet.data import Dataset
from cifar_resnet.distributed import ALONE, World
from cifar_resnet.errors import InputError
from cifar_resnet.networks import build
from cifar_resnet.recipe import Recipe
from cifar_resnet.synthetic import draw
from cifar_resnet.train import batches, make_optimizer, train_epoch


def test_one_epoch_by_hand(synthetic: Dataset) -> None:
    """The loop equals the textbook's: torch's own SGD, loss and scheduler, step by step."""

    def network() -> nn.Module:
        torch.manual_seed(0)
        return nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 10))

    recipe = Recipe(name="test", epochs=1, batch_size=16)
    ours = network()
    loss, accuracy = train_epoch(
        ours,
        make_optimizer(ours, recipe),
        recipe,
        synthetic.train_images,
        synthetic.train_labels,
        epoch=0,
        seed=0,
    )

    theirs = network()
    optimizer = torch.optim.SGD(theirs.parameters(), 0.1, momentum=0.9, weight_decay=5e-4)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=4)
    generator = torch.Generator().manual_seed(0)
    total = right = 0.0
    for x, y in batches(synthetic.train_images, synthetic.train_labels, 16, generator):
        logits = theirs(augment(x, recipe.augmentation, generator))
        step_loss = nn.functional.cross_entropy(logits, y, label_smoothing=0.1)
        optimizer.zero_grad()
        step_loss.backward()
        optimizer.step()
        scheduler.step()
        total += step_loss.item() * len(y)
        right += (logits.argmax(1) == y).sum().item()
    assert loss == pytest.approx(total / 64, rel=1e-5)
    assert accuracy == right / 64
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a, b)


def test_epochs_see_other_orders_and_seeds_too() -> None:
    images = torch.arange(8)

    def order(seed: int) -> list[int]:
        generator = torch.Generator().manual_seed(seed)
        return torch.cat([x for x, _ in batches(images, images, 4, generator)]).tolist()

    assert order(0) == order(0)
    assert order(0) != order(1)
    assert sorted(order(0)) == list(range(8))


@pytest.mark.parametrize("world", [ALONE, World(1, 2)])
def test_batches_prepared_together_are_the_same(world: World) -> None:
    images = torch.arange(22)

    def dealt(together: int) -> tuple[list[list[int]], list[int]]:
        prepared = []

        def prepare(x: torch.Tensor) -> torch.Tensor:
            prepared.append(len(x))
            return x + 100

        generator = torch.Generator().manual_seed(0)
        pairs = list(
            batches(images, images, 4, generator, world, prepare=prepare, together=together)
        )
        assert all(torch.equal(x, y + 100) for x, y in pairs)
        return [x.tolist() for x, _ in pairs], prepared

    (alone, one_by_one), (together, at_once) = dealt(1), dealt(2)
    assert together == alone
    share = 4 // world.size
    assert (one_by_one, at_once) == ([share] * 5, [2 * share, 2 * share, share])


def test_only_the_first_epochs_are_of_low_resolution(synthetic: Dataset) -> None:
    seen: list[tuple[int, ...]] = []

    class Network(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            seen.append(tuple(x.shape[2:]))
            return super().forward(x.mean((2, 3)))

    recipe = Recipe(
        name="test", epochs=3, batch_size=64, low_resolution=24, low_resolution_share=0.5
    )
    model = Network(3, 10)
    for epoch in range(recipe.epochs):
        train_epoch(
            model, make_optimizer(model, recipe), recipe,
            synthetic.train_images, synthetic.train_labels, epoch=epoch, seed=0,
        )  # fmt: skip
    assert seen == [(24, 24), (24, 24), (32, 32)]


def test_flips_alternate_over_a_run(synthetic: Dataset) -> None:
    """What the network sees of an epoch is the mirror image of what it saw of the one before."""
    seen: list[torch.Tensor] = []

    class Network(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            seen.append(x.sort(0).values)  # in no order: each epoch shuffles anew
            return super().forward(x.mean((2, 3)))

    recipe = Recipe(
        name="test", epochs=3, batch_size=64,
        augmentation=Augmentation(
            crop_padding=0, flip_probability=0.0, alternating_flip=True, erasing_probability=0.0
        ),
    )  # fmt: skip
    model = Network(3, 10)
    for epoch in range(recipe.epochs):
        train_epoch(
            model, make_optimizer(model, recipe), recipe,
            synthetic.train_images[:64], synthetic.train_labels[:64], epoch=epoch, seed=0,
        )  # fmt: skip
    first, second, third = seen
    assert torch.equal(second, first.flip(-1))
    assert torch.equal(third, first)
    assert not torch.equal(second, first)


def test_bf16_trains_as_fp32_does() -> None:
    """The loss of the first 20 steps, epoch by epoch of four."""
    images, labels = draw(128, seed=0)
    recipe = Recipe(name="test", network="resnet20", epochs=5, batch_size=32, learning_rate=0.02)
    losses: dict[str, list[float]] = {}
    for precision in ("fp32", "bf16"):
        torch.manual_seed(0)
        model = build(recipe.network)
        optimizer = make_optimizer(model, recipe)
        losses[precision] = [
            train_epoch(
                model, optimizer, recipe, images, labels,
                epoch=epoch, seed=0, precision=precision,
            )[0]
            for epoch in range(recipe.epochs)
        ]  # fmt: skip
    assert losses["fp32"][-1] < losses["fp32"][0] - 0.1, "something was learned"
    assert losses["bf16"] == pytest.approx(losses["fp32"], rel=0.02)
    assert losses["bf16"] != losses["fp32"]


def test_too_few_images_are_named(synthetic: Dataset) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 10))
    recipe = Recipe(name="test", batch_size=65)
    with pytest.raises(InputError, match="batch_size 65 is more than the 64 images"):
        train_epoch(
            model, make_optimizer(model, recipe), recipe,
            synthetic.train_images, synthetic.train_labels, epoch=0, seed=0,
        )  # fmt: skip
