"""The training loop: optimizer, batches, and one epoch from top to bottom.

`cifar_resnet.run.fit` calls `train_epoch` once for each epoch of a run.
"""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from cifar_resnet.augment import alternating_flip, augment, shrink
from cifar_resnet.display import Display, Silent
from cifar_resnet.distributed import ALONE, World, all_reduce, shard
from cifar_resnet.errors import InputError
from cifar_resnet.optimizer import Muon
from cifar_resnet.recipe import Recipe, learning_rate, resolution

_TOGETHER = 8192  # images augmented at once on a GPU


# --8<-- [start:make_optimizer]
def make_optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.SGD:
    """SGD with momentum and weight decay on every parameter, in fused kernels; or Muon.

    Args:
        model: its parameters must already be on their device.
        recipe: gives the kind, momentum, weight decay and the first learning rate.

    Example:
        >>> optimizer = make_optimizer(nn.Linear(2, 2), Recipe(name="example"))
        >>> optimizer.defaults["momentum"], optimizer.defaults["weight_decay"]
        (0.9, 0.0005)
    """
    if recipe.optimizer == "muon":
        return Muon(
            model,
            lr=learning_rate(recipe, 0),
            momentum=recipe.momentum,
            weight_decay=recipe.weight_decay,
            nesterov=recipe.nesterov,
        )
    return torch.optim.SGD(
        model.parameters(),
        lr=learning_rate(recipe, 0),
        momentum=recipe.momentum,
        weight_decay=recipe.weight_decay,
        nesterov=recipe.nesterov,
        fused=True,
    )
    # --8<-- [end:make_optimizer]


def batches(
    images: Tensor,
    labels: Tensor,
    batch_size: int,
    generator: torch.Generator,
    world: World = ALONE,
    *,
    prepare: Callable[[Tensor], Tensor] = lambda images: images,
    together: int = 1,
) -> Iterator[tuple[Tensor, Tensor]]:
    """One epoch's batches in random order, all of the same size.

    Args:
        images: uint8 ``[N, 3, H, W]``.
        labels: int64 ``[N]``.
        batch_size: at most N; the N % batch_size images left over wait for another epoch.
        generator: of the order, on the images' device.
        world: the processes that share each batch.
        prepare: augments images, before they are dealt out in batches.
        together: how many batches' images it gets at once.

    Yields:
        Images and labels of each batch, of this process's share of it.

    Example:
        >>> images, labels = torch.arange(5), torch.arange(5)
        >>> [len(x) for x, _ in batches(images, labels, 2, torch.Generator())]
        [2, 2]
    """
    order = torch.randperm(len(images), generator=generator, device=images.device)
    whole = order[: len(images) // batch_size * batch_size]
    share = batch_size // world.size
    for several in torch.split(whole, together * batch_size):
        chosen = torch.cat([shard(batch, world) for batch in torch.split(several, batch_size)])
        x, y = prepare(images[chosen]), labels[chosen]
        yield from zip(torch.split(x, share), torch.split(y, share), strict=True)


def batches_together(batch_size: int, device: torch.device) -> int:
    """How many batches to augment at once.

    On a GPU many, since their many small operations take hardly longer for thousands of images
    than for a hundred, and the CPU starts each of them. On a CPU each by itself, in its cache.

    >>> batches_together(128, torch.device("cpu"))
    1
    """
    return max(1, _TOGETHER // batch_size) if device.type == "cuda" else 1


# --8<-- [start:train_epoch]
def train_epoch(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    recipe: Recipe,
    images: Tensor,
    labels: Tensor,
    *,
    epoch: int,
    seed: int,
    precision: str = "fp32",
    display: Display | None = None,
    world: World = ALONE,
) -> tuple[float, float]:
    """Train for one epoch.

    Args:
        model: maps float images ``[N, 3, H, W]`` to logits ``[N, classes]``.
        optimizer: holds the model's parameters; its learning rate is set at every step.
        recipe: the rest of the configuration.
        images: uint8 ``[N, 3, H, W]`` on the model's device.
        labels: int64 ``[N]`` on the model's device.
        epoch: counted from 0; the order of images and the augmentation depend on it and
            on the seed alone, so that a resumed run repeats nothing and skips nothing.
        seed: the run's seed.
        precision: ``"bf16"`` runs forward and loss under autocast.
        display: told of each step.
        world: the processes that share each batch; their gradients must be averaged by
            the model (`cifar_resnet.distributed.data_parallel`).

    Returns:
        Mean loss (nats, with label smoothing) and accuracy over the epoch's images.

    Raises:
        InputError: if there are fewer images than a batch has.

    Example:
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 10))
        >>> recipe = Recipe(name="example", epochs=1, batch_size=4)
        >>> images = torch.zeros(8, 3, 32, 32, dtype=torch.uint8)
        >>> labels = torch.zeros(8, dtype=torch.long)
        >>> loss, accuracy = train_epoch(
        ...     model, make_optimizer(model, recipe), recipe, images, labels, epoch=0, seed=0
        ... )
        >>> 0 <= accuracy <= 1
        True
    """
    device = images.device
    display = display or Silent()
    number = seed * 1_000_003 + epoch
    generator = torch.Generator(device).manual_seed(number)
    noise = generator  # processes share the order of the images, not the augmentation
    if not world.is_main:
        noise = torch.Generator(device).manual_seed((number * 65_537 + world.rank) % 2**63)
    criterion = nn.CrossEntropyLoss(label_smoothing=recipe.label_smoothing)
    steps = len(images) // recipe.batch_size
    if steps == 0:
        raise InputError(f"batch_size {recipe.batch_size} is more than the {len(images)} images")
    size = resolution(recipe, epoch)
    if recipe.augmentation.alternating_flip:
        halves = torch.Generator(device).manual_seed(seed * 1_000_003 + recipe.epochs)
        images = alternating_flip(images, epoch, halves)
    # Sums stay on the device; reading them once an epoch is the only synchronisation.
    sums = torch.zeros(2, device=device)

    def prepare(x: Tensor) -> Tensor:
        x = shrink(augment(x, recipe.augmentation, noise), size)
        return x.to(memory_format=torch.channels_last)

    dealt = batches(
        images,
        labels,
        recipe.batch_size,
        generator,
        world,
        prepare=prepare,
        together=batches_together(recipe.batch_size, device),
    )
    model.train()
    for step, (x, y) in enumerate(dealt):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(recipe, epoch + step / steps)
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
            logits = model(x)
            loss = criterion(logits, y)
        optimizer.zero_grad()
        loss.backward()
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
            optimizer.step()  # the matrix products in it, if there are any
        with torch.no_grad():
            sums += torch.stack((loss * len(y), (logits.argmax(1) == y).sum()))
        display.step(epoch, step + 1, steps, sums, (step + 1) * len(y))

    loss_sum, right = all_reduce(sums, world).tolist()
    seen = steps * recipe.batch_size
    return loss_sum / seen, right / seen
    # --8<-- [end:train_epoch]
