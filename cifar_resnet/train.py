"""The training loop, from top to bottom.

    cifar-resnet train notes-cpu --data DIR      # CIFAR-10
    cifar-resnet train smoke --data synthetic    # seconds, no download

One run is `fit`: it walks through the epochs, keeps a checkpoint after each, and returns
the trained model and what a run record needs.
"""

import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

import torch
from torch import Tensor, nn

from cifar_resnet.augment import augment
from cifar_resnet.checkpoint import load_checkpoint, save_checkpoint, save_weights
from cifar_resnet.data import Dataset
from cifar_resnet.display import Display, Silent
from cifar_resnet.errors import InputError
from cifar_resnet.evaluate import Metrics, evaluate
from cifar_resnet.hardware import Hardware
from cifar_resnet.model import get_cifar_resnet
from cifar_resnet.recipe import Recipe, learning_rate
from cifar_resnet.record import SCHEMA, DataInfo, Epoch, Record, software, write_record


# --8<-- [start:make_optimizer]
def make_optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.SGD:
    """SGD with momentum and weight decay on every parameter, in one fused kernel.

    Args:
        model: its parameters must already be on their device.
        recipe: gives momentum, weight decay and the first learning rate.

    Example:
        >>> optimizer = make_optimizer(nn.Linear(2, 2), Recipe(name="example"))
        >>> optimizer.defaults["momentum"], optimizer.defaults["weight_decay"]
        (0.9, 0.0005)
    """
    return torch.optim.SGD(
        model.parameters(),
        lr=learning_rate(recipe, 0),
        momentum=recipe.momentum,
        weight_decay=recipe.weight_decay,
        fused=True,
    )
    # --8<-- [end:make_optimizer]


def batches(
    images: Tensor, labels: Tensor, batch_size: int, generator: torch.Generator
) -> Iterator[tuple[Tensor, Tensor]]:
    """One epoch's batches in random order, all of the same size.

    Args:
        images: ``[N, ...]``.
        labels: ``[N]`` on the same device.
        batch_size: at most N; the N % batch_size images left over wait for another epoch.
        generator: source of the order, on the same device.

    Example:
        >>> images, labels = torch.arange(5), torch.arange(5)
        >>> [len(x) for x, _ in batches(images, labels, 2, torch.Generator())]
        [2, 2]
    """
    order = torch.randperm(len(images), generator=generator, device=images.device)
    for step in range(len(images) // batch_size):
        chosen = order[step * batch_size : (step + 1) * batch_size]
        yield images[chosen], labels[chosen]


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

    Returns:
        Mean loss (nats, with label smoothing) and accuracy over the epoch's images.

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
    generator = torch.Generator(device).manual_seed(seed * 1_000_003 + epoch)
    criterion = nn.CrossEntropyLoss(label_smoothing=recipe.label_smoothing)
    steps = len(images) // recipe.batch_size
    # Sums stay on the device; reading them once an epoch is the only synchronisation.
    sums = torch.zeros(2, device=device)

    model.train()
    for step, (x, y) in enumerate(batches(images, labels, recipe.batch_size, generator)):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(recipe, epoch + step / steps)
        x = augment(x, recipe.augmentation, generator).to(memory_format=torch.channels_last)
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
            logits = model(x)
            loss = criterion(logits, y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            sums += torch.stack((loss * len(y), (logits.argmax(1) == y).sum()))
        display.step(epoch, step + 1, steps, sums, (step + 1) * recipe.batch_size)

    loss_sum, right = sums.tolist()
    seen = steps * recipe.batch_size
    return loss_sum / seen, right / seen
    # --8<-- [end:train_epoch]


@dataclass(frozen=True)
class Run:
    """A finished run: the model with the last epoch's weights, and its record."""

    model: nn.Module
    record: Record


def fit(
    recipe: Recipe,
    data: Dataset,
    hardware: Hardware,
    *,
    seed: int = 0,
    out: Path,
    resume: bool = False,
    display: Display | None = None,
) -> Run:
    """Train, evaluate after each epoch, and write record, weights and checkpoint.

    The reported metrics are those of the last epoch, whatever the epochs before it
    reached. The folder ``out`` gets ``checkpoint.pt`` after every epoch, and at the end
    ``record.json`` and ``weights.safetensors``.

    Args:
        recipe: what to train.
        data: on which images.
        hardware: where and how (`cifar_resnet.hardware.detect`).
        seed: of the initial weights, the order of images and the augmentation.
        out: folder of this run.
        resume: go on from the checkpoint in ``out`` if there is one.
        display: told of progress.

    Raises:
        InputError: if ``out`` holds a run and ``resume`` is not set, if its checkpoint is
            of another configuration, or if a batch is larger than the data set.
        KeyboardInterrupt: passed on; the checkpoint of the last full epoch stays.
    """
    display = display or Silent()
    if len(data.train_images) < recipe.batch_size:
        raise InputError(
            f"batch_size {recipe.batch_size} is more than the {len(data.train_images)} images"
        )
    checkpoint = out / "checkpoint.pt"
    if (out / "record.json").exists():
        raise InputError(f"{out} holds a finished run; choose another --out")
    if checkpoint.exists() and not resume:
        raise InputError(f"{out} holds an unfinished run; add --resume or choose another --out")

    torch.manual_seed(seed)
    device = torch.device(hardware.device)
    model = get_cifar_resnet().to(device, memory_format=torch.channels_last)
    optimizer = make_optimizer(model, recipe)
    train_images, train_labels = data.train_images.to(device), data.train_labels.to(device)
    eval_images, eval_labels = data.eval_images.to(device), data.eval_labels.to(device)

    code = software()
    identity = {"recipe": asdict(recipe), "seed": seed, "data": data.name, "split": data.split}
    history: list[Epoch] = []
    started, sessions = _now(), 1
    metrics: Metrics | None = None
    if checkpoint.exists():
        state = load_checkpoint(checkpoint)
        if state["identity"] != identity:
            raise InputError(f"{checkpoint} is of another configuration; choose another --out")
        if state["source_sha256"] != code.source_sha256:
            raise InputError(
                f"{checkpoint} was written by other code than this; go back to that code "
                "or start anew with another --out"
            )
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        history = [Epoch(**epoch) for epoch in state["history"]]
        started, sessions = state["started"], state["sessions"] + 1

    forward: nn.Module = torch.compile(model) if hardware.compile else model  # type: ignore[assignment]
    for epoch in range(len(history), recipe.epochs):
        start = time.perf_counter()
        loss, accuracy = train_epoch(
            forward,
            optimizer,
            recipe,
            train_images,
            train_labels,
            epoch=epoch,
            seed=seed,
            precision=hardware.precision,
            display=display,
        )
        seconds = time.perf_counter() - start
        metrics = evaluate(model, eval_images, eval_labels, precision=hardware.precision)
        history.append(
            Epoch(
                epoch=epoch + 1,
                learning_rate=optimizer.param_groups[0]["lr"],
                train_loss=loss,
                train_accuracy=accuracy,
                eval_loss=metrics.loss,
                eval_accuracy=metrics.accuracy,
                seconds=seconds,
            )
        )
        display.epoch(history[-1], recipe.epochs)
        save_checkpoint(
            checkpoint,
            {
                "identity": identity,
                "source_sha256": code.source_sha256,
                "model": model.state_dict(),
                "optimizer": optimizer.state_dict(),
                "history": [asdict(epoch) for epoch in history],
                "started": started,
                "sessions": sessions,
            },
        )

    finished = _now()
    if metrics is None:  # interrupted between the last checkpoint and the record
        metrics = evaluate(model, eval_images, eval_labels, precision=hardware.precision)
    seen = len(train_images) // recipe.batch_size * recipe.batch_size
    stamp = datetime.fromisoformat(finished).strftime("%Y%m%dT%H%M%SZ")
    record_id = f"{recipe.name}-{data.name}-{data.split}-seed{seed}-{stamp}"
    record = Record(
        schema=SCHEMA,
        id=record_id,
        recipe=recipe,
        seed=seed,
        data=DataInfo(
            name=data.name,
            md5=data.md5,
            train_images=len(train_images),
            eval_split=data.split,
            eval_images=len(eval_images),
        ),
        software=code,
        hardware=hardware,
        started=started,
        finished=finished,
        sessions=sessions,
        train_seconds=sum(epoch.seconds for epoch in history),
        images_per_second=median(seen / epoch.seconds for epoch in history),
        history=tuple(history),
        metrics=metrics,
        weights_sha256=save_weights(out / "weights.safetensors", model, record_id),
    )
    write_record(record, out / "record.json")
    return Run(model, record)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
