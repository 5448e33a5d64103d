"""Measurements on single networks: gradients, residuals, and networks with a block removed.

    cifar-resnet analyze gradients --data DIR
    cifar-resnet analyze lesion --run-folder runs/degradation-cpu/plain20/seed0 --data DIR

Each writes a record of its own; the site draws its figures from those records.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock

from cifar_resnet.augment import normalize
from cifar_resnet.checkpoint import load_weights
from cifar_resnet.data import Dataset
from cifar_resnet.depth import Block, get_depth_resnet
from cifar_resnet.errors import InputError
from cifar_resnet.evaluation import predict_logits
from cifar_resnet.files import sha256
from cifar_resnet.networks import build
from cifar_resnet.predict import WEIGHTS
from cifar_resnet.recipe import get_recipe
from cifar_resnet.record import SCHEMA, DataInfo, read_record, refuse_seen
from cifar_resnet.software import Software, software
from cifar_resnet.synthetic import draw
from cifar_resnet.train import make_optimizer

_BATCH = 128
_FACTORS = tuple(2.0 ** (k / 2) for k in range(-8, 17))
_STEPS = 5
BARE, LATER = "-bare", "-later"  # without normalisation; after some steps of training
STEPS = "steps"  # how many
CHANGE = "-change"  # of a block's output by its residual
SCALED = ", scaled"  # of a loss: by the factor that makes it smallest


@dataclass(frozen=True)
class AnalysisRecord:
    """What one analysis found.

    Attributes:
        schema: version of this layout.
        id: analysis and network; also the file's name.
        analysis: a key of ``ANALYSES``.
        network: a key of `cifar_resnet.networks.NETWORKS`; empty if several were measured.
        weights_record: id of the run whose weights were measured; empty for fresh ones.
        weights_sha256: of those weights; empty for fresh ones.
        data: which images.
        software: which code and libraries.
        finished: UTC, ISO 8601.
        values: by label, one number a layer or block, from the input to the output; and
            how many steps were taken, if any.
        fingerprint: the same measurement on a fresh network and synthetic images.
        checksum: SHA-256 over everything else.
    """

    schema: int
    id: str
    analysis: str
    network: str
    weights_record: str
    weights_sha256: str
    data: DataInfo
    software: Software
    finished: str
    values: dict[str, tuple[float, ...]]
    fingerprint: dict[str, tuple[float, ...]]
    checksum: str = ""


def blocks(model: nn.Module) -> dict[str, nn.Module]:
    """The residual (or plain) blocks by name, from the input to the output.

    >>> list(blocks(build("resnet18")))[:3]
    ['layer1.0', 'layer1.1', 'layer2.0']
    """
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, BasicBlock | Block)
    }


def shortcut(block: nn.Module, x: Tensor) -> Tensor:
    """What the shortcut of a block brings to the sum, or would bring if there were one.

    Args:
        block: torchvision's ``BasicBlock`` or ours.
        x: the block's input ``[N, C, H, W]``.

    Returns:
        A tensor of the shape of the block's output.

    Example:
        >>> shortcut(Block(16, 32, stride=2), torch.zeros(1, 16, 8, 8)).shape
        torch.Size([1, 32, 4, 4])
    """
    if isinstance(block, Block):
        return block.shortcut(x)
    downsample: Any = block.downsample
    return x if downsample is None else downsample(x)


# --8<-- [start:gradient_norms]
def gradient_norms(model: nn.Module, images: Tensor, labels: Tensor) -> list[float]:
    """Norm of the loss's gradient with respect to each convolution's weight.

    Args:
        model: in training mode; its gradients are replaced.
        images: float ``[N, 3, H, W]``, normalised.
        labels: int64 ``[N]``.

    Returns:
        One number a convolution, from the input to the output.

    Example:
        >>> model = nn.Sequential(nn.Conv2d(3, 10, 32), nn.Flatten())
        >>> len(gradient_norms(model, torch.zeros(2, 3, 32, 32), torch.tensor([0, 1])))
        1
    """
    model.zero_grad()
    nn.functional.cross_entropy(model(images), labels).backward()  # type: ignore[no-untyped-call]
    convolutions = (module for module in model.modules() if isinstance(module, nn.Conv2d))
    return [float(conv.weight.grad.norm()) for conv in convolutions if conv.weight.grad is not None]
    # --8<-- [end:gradient_norms]


# --8<-- [start:residual_ratios]
@torch.inference_mode()
def residual_ratios(model: nn.Module, images: Tensor) -> tuple[list[float], list[float]]:
    """How large the residual of each block is, and how much it changes the block's output.

    Means of |F(x)| / |x| and of |ReLU(F(x) + x) - ReLU(x)| / |ReLU(x)|. They differ because x
    comes out of a ReLU and is often 0: where F(x) is negative there, the last ReLU cuts it off.
    Where the shape changes, x is what the shortcut makes of the input.

    Args:
        model: its mode decides which statistics batch normalisation uses.
        images: uint8 ``[N, 3, H, W]``.

    Returns:
        Two lists, one number a block.

    Example:
        >>> images, _ = draw(8, seed=0)
        >>> residuals, changes = residual_ratios(build("resnet18"), images)
        >>> len(residuals), len(changes)
        (8, 8)
    """
    sums: dict[nn.Module, Tensor] = {}
    seen: dict[str, Tensor] = {}

    def before(block: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        seen["x"] = shortcut(block, inputs[0])

    # Taken at once: torchvision adds the shortcut into this very tensor.
    def residual(norm: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        seen["F"] = sizes(output)

    def after(block: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        x = seen["x"]
        ratios = seen["F"] / sizes(x), sizes(output - x.relu()) / sizes(x.relu())
        sums[block] = sums.get(block, 0) + torch.stack(ratios).sum(dim=1)

    def sizes(batch: Tensor) -> Tensor:
        norms: Tensor = batch.flatten(1).norm(dim=1)
        return norms

    handles = []
    for block in blocks(model).values():
        last_norm: Any = block.norm2 if isinstance(block, Block) else block.bn2
        handles += [
            block.register_forward_pre_hook(before),
            last_norm.register_forward_hook(residual),
            block.register_forward_hook(after),
        ]
    try:
        for batch in torch.split(images, _BATCH):
            model(normalize(batch))
    finally:
        for handle in handles:
            handle.remove()
    residuals, changes = (torch.stack([*sums.values()]) / len(images)).T.tolist()
    return residuals, changes
    # --8<-- [end:residual_ratios]


# --8<-- [start:without]
@contextmanager
def without(block: nn.Module) -> Iterator[None]:
    """A network with one block removed: its input takes the shortcut alone.

    The experiment of Veit et al. 2016 (arXiv:1605.06431), section 4.1. In a plain network,
    which has no shortcut, the block is replaced by the one that it would have.

    Args:
        block: one of `blocks`.

    Example:
        >>> model, x = build("resnet20").eval(), torch.randn(1, 3, 32, 32)
        >>> with without(blocks(model)["3"]):
        ...     cut = model(x)
        >>> bool((cut == model(x)).all())
        False
    """

    def skip(block: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        return shortcut(block, inputs[0]).relu()

    handle = block.register_forward_hook(skip)
    try:
        yield
    finally:
        handle.remove()
    # --8<-- [end:without]


_Values = dict[str, list[float]]


def _fresh(make: Callable[[], nn.Module]) -> nn.Module:
    """A network with the same weights each time."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return make()


def _sigmoid_stack() -> nn.Module:
    """19 convolutions with sigmoids: no shortcuts, no normalisation."""
    layers: list[nn.Module] = []
    for channels in (3, *[16] * 18):
        conv = nn.Conv2d(channels, 16, 3, padding=1, bias=False)
        nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
        layers += [conv, nn.Sigmoid()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10))


def _gradients(network: str, model: nn.Module, images: Tensor, labels: Tensor) -> _Values:
    """Fresh networks with and without shortcuts and normalisation; the arguments' is not used.

    Those with normalisation are measured again after some steps of training, which residual
    ones without it do not survive.
    """
    x, y = normalize(images), labels
    values: _Values = {STEPS: [_STEPS]}
    values["sigmoid20"] = gradient_norms(_fresh(_sigmoid_stack), x, y)
    for depth in (20, 56):
        for kind in ("plain", "resnet"):
            for end, norm in (("", True), (BARE, False)):
                residual = kind == "resnet"
                model = _fresh(partial(get_depth_resnet, depth, residual=residual, batch_norm=norm))
                values[f"{kind}{depth}{end}"] = gradient_norms(model, x, y)
                if norm:
                    values[f"{kind}{depth}{LATER}"] = _norms_later(model, x, y)
    return values


def _norms_later(model: nn.Module, x: Tensor, y: Tensor) -> list[float]:
    """Gradient norms after some steps on the one batch, as recipe ``depth`` takes them."""
    optimizer = make_optimizer(model, get_recipe("depth"))
    norms = gradient_norms(model, x, y)
    for _ in range(_STEPS):
        optimizer.step()
        norms = gradient_norms(model, x, y)
    return norms


def _identity(network: str, model: nn.Module, images: Tensor, labels: Tensor) -> _Values:
    """The network's residuals, and those of the same network with fresh weights.

    Fresh batch normalisation has no statistics yet, so it normalises by each batch's own.
    """
    fresh = _fresh(partial(build, network)).train()
    values: _Values = {}
    for name, one in (("trained", model.eval()), ("fresh", fresh)):
        values[name], values[f"{name}{CHANGE}"] = residual_ratios(one, images)
    return values


def _lesion(network: str, model: nn.Module, images: Tensor, labels: Tensor) -> _Values:
    """Accuracy and loss (nats) of the whole network, and with each block removed in turn.

    A loss is also given for scores that are all multiplied by the same number, whichever of
    some makes it smallest: how far the network is from knowing, and not from being sure.
    """

    def results() -> tuple[float, float, float]:
        logits = predict_logits(model, images)
        losses = [float(nn.functional.cross_entropy(logits * k, labels)) for k in (1, *_FACTORS)]
        right = int((logits.argmax(1) == labels).sum())
        return right / len(labels), losses[0], min(losses)

    whole, cut = results(), []
    for block in blocks(model).values():
        with without(block):
            cut.append(results())
    return {
        "accuracy": [whole[0]],
        "loss": [whole[1]],
        "accuracy without": [accuracy for accuracy, _, _ in cut],
        "loss without": [loss for _, loss, _ in cut],
        f"loss{SCALED}": [whole[2]],
        f"loss without{SCALED}": [loss for _, _, loss in cut],
    }


# What measures, and on how many images.
ANALYSES: dict[str, tuple[Callable[[str, nn.Module, Tensor, Tensor], _Values], int]] = {
    "gradients": (_gradients, 128),
    "identity": (_identity, 2000),
    "lesion": (_lesion, 2000),
}


def network_of(name: str, run: Path | None = None) -> str:
    """The network that an analysis measures; what cannot be measured is refused at once.

    Args:
        name: a key of ``ANALYSES``.
        run: folder of a finished run.

    Returns:
        A key of `cifar_resnet.networks.NETWORKS`; empty for ``"gradients"``, which measures
        several.

    Raises:
        InputError: if the name is unknown, takes no run, or the run has no record.

    Example:
        >>> network_of("lesion")
        'resnet18'
    """
    if name not in ANALYSES:
        raise InputError(f"analysis {name!r} is unknown; choose one of: {', '.join(ANALYSES)}")
    if name == "gradients":
        if run:
            raise InputError("analysis 'gradients' measures fresh networks; leave out --run-folder")
        return ""
    return read_record(run / "record.json").recipe.network if run else "resnet18"


def analyze(name: str, data: Dataset, run: Path | None = None) -> AnalysisRecord:
    """Measure.

    Args:
        name: a key of ``ANALYSES``.
        data: its first evaluation images are used, 128 for gradients, else 2,000.
        run: folder of a finished run whose weights are measured; default: the shipped ones.
            ``"gradients"`` measures fresh networks and takes none.

    Raises:
        InputError: if the name is unknown, takes no run, the run's record or weights are not
            there, or the network was trained on these images.

    Example:
        >>> from cifar_resnet.data import load
        >>> analyze("sizes", load("synthetic"))  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        cifar_resnet.errors.InputError: analysis 'sizes' is unknown; choose one of: gradients, ...
    """
    network = network_of(name, run)
    code = software()  # first: files may be edited while the rest goes on
    weights_record, digest = "", ""
    model: nn.Module = nn.Identity()
    if name != "gradients":
        weights = run / "weights.safetensors" if run else WEIGHTS
        model = build(network)
        weights_record = load_weights(model, weights)
        refuse_seen(weights_record, data.name, data.split)
        digest = sha256(weights)
    measure, count = ANALYSES[name]
    images, labels = data.eval_images[:count], data.eval_labels[:count]
    values = measure(network, model, images, labels)
    return AnalysisRecord(
        schema=SCHEMA,
        id=f"{name}-{network}" if network else name,
        analysis=name,
        network=network,
        weights_record=weights_record,
        weights_sha256=digest,
        data=DataInfo(data.name, data.md5, 0, data.split, len(images)),
        software=code,
        finished=datetime.now(UTC).isoformat(timespec="seconds"),
        values={label: tuple(numbers) for label, numbers in values.items()},
        fingerprint=fingerprint(name, network),
    )


def fingerprint(name: str, network: str) -> dict[str, tuple[float, ...]]:
    """The analysis of a fresh network on a few synthetic images.

    Args:
        name: a key of ``ANALYSES``.
        network: a key of `cifar_resnet.networks.NETWORKS`, or empty for ``"gradients"``.

    Example:
        >>> list(fingerprint("lesion", "resnet20"))  # doctest: +ELLIPSIS
        ['accuracy', 'loss', 'accuracy without', 'loss without', ...]
    """
    model = _fresh(partial(build, network)) if network else nn.Identity()
    found = ANALYSES[name][0](network, model, *draw(16, seed=0))
    return {
        label: tuple(float(f"{number:.4g}") for number in numbers)
        for label, numbers in found.items()
        if not label.endswith(LATER)  # rounding grows with every step
    }


def behaves_as_before(record: AnalysisRecord) -> bool:
    """Whether the code still measures what it measured when the record was written.

    Args:
        record: any.
    """
    now = fingerprint(record.analysis, record.network)
    return now.keys() == record.fingerprint.keys() and all(
        len(numbers) == len(now[label])
        and all(
            math.isclose(a, b, rel_tol=0.05, abs_tol=1e-12)  # processors round differently
            for a, b in zip(numbers, now[label], strict=True)
        )
        for label, numbers in record.fingerprint.items()
    )
