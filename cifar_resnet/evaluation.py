"""Single-view evaluation: accuracy, loss, per-class accuracy, confusion, calibration."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from cifar_resnet.augment import normalize, shrink
from cifar_resnet.data import check_images, check_labels
from cifar_resnet.errors import InputError
from cifar_resnet.hardware import check_precision

CALIBRATION_BINS = 15


@dataclass(frozen=True)
class Metrics:
    """How well a model does on one set of images.

    Attributes:
        accuracy: share of images whose most probable class is the right one.
        loss: mean cross-entropy in nats, without label smoothing.
        per_class_accuracy: accuracy on the images of each class.
        confusion: ``confusion[i][j]`` counts images of class i predicted as class j.
        calibration_error: expected calibration error (Guo et al. 2017, arXiv:1706.04599)
            with 15 equal-width bins.
        calibration: for each bin, ``[images, mean confidence, accuracy]``.
    """

    accuracy: float
    loss: float
    per_class_accuracy: tuple[float, ...]
    confusion: tuple[tuple[int, ...], ...]
    calibration_error: float
    calibration: tuple[tuple[int, float, float], ...]


@torch.no_grad()
def predict_logits(
    model: nn.Module,
    images: Tensor,
    *,
    size: int | None = None,
    batch_size: int = 1000,
    precision: str = "fp32",
) -> Tensor:
    """Run the model in evaluation mode, one view an image, and leave its mode as it was.

    Args:
        model: maps float images ``[N, 3, H, W]``, which come in the precision of its first
            parameter, to logits ``[N, classes]``.
        images: uint8 ``[N, 3, H, W]`` on the model's device.
        size: larger images are scaled down to this width and height, if it is given.
        batch_size: images at once; it changes the speed and the memory, not the result.
        precision: ``"bf16"`` runs under autocast.

    Returns:
        float32 ``[N, classes]`` on the same device.

    Raises:
        InputError: if the images are of another type or shape, or the precision is unknown.

    Example:
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 10))
        >>> predict_logits(model, torch.zeros(5, 3, 32, 32, dtype=torch.uint8)).shape
        torch.Size([5, 10])
    """
    check_images(images, any_size=True)
    check_precision(precision)
    size = size or images.shape[-1]
    dtype = next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.float32)
    with (
        _evaluating(model),
        torch.autocast(images.device.type, torch.bfloat16, enabled=precision == "bf16"),
    ):
        logits = [
            model(batch.to(dtype, memory_format=torch.channels_last)).float()
            for batch in (shrink(normalize(b), size) for b in torch.split(images, batch_size))
        ]
    return torch.cat(logits)


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode, and each module's own again; on a GPU without tuning.

    To try cuDNN's algorithms takes longer than a few batches.
    """
    modes, tuning = {m: m.training for m in model.modules()}, torch.backends.cudnn.benchmark
    if any(modes.values()):
        with suppress(NotImplementedError):  # an exported network keeps the mode it was exported in
            model.eval()
    torch.backends.cudnn.benchmark = False
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = tuning
        for module, mode in modes.items():
            module.training = mode


def refuse_no_answer(logits: Tensor) -> None:
    """Refuse NaN and infinity, of which `measure` would make numbers that say nothing.

    Args:
        logits: of any shape.

    Raises:
        InputError: if one of them is not finite.

    Example:
        >>> refuse_no_answer(torch.tensor([[0.0, float("nan")]]))  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        cifar_resnet.errors.InputError: the model's weights give no finite answer; ...
    """
    if not logits.isfinite().all():
        raise InputError("the model's weights give no finite answer; load those of another run")


def measure(logits: Tensor, labels: Tensor) -> Metrics:
    """Turn logits into metrics.

    Args:
        logits: float ``[N, classes]``.
        labels: int64 ``[N]``.

    Example:
        >>> metrics = measure(torch.tensor([[2.0, 0.0], [2.0, 0.0]]), torch.tensor([0, 1]))
        >>> metrics.accuracy, metrics.confusion
        (0.5, ((1, 0), (1, 0)))
    """
    logits, labels = logits.cpu(), labels.cpu()
    classes = logits.shape[1]
    confidence, predicted = logits.softmax(1).max(1)
    right = predicted == labels
    pairs = torch.bincount(labels * classes + predicted, minlength=classes**2)
    confusion = pairs.reshape(classes, classes)
    per_class = confusion.diag() / confusion.sum(1).clamp(min=1)

    bins = (confidence * CALIBRATION_BINS).long().clamp(max=CALIBRATION_BINS - 1)
    calibration = []
    for index in range(CALIBRATION_BINS):
        inside = bins == index
        count = int(inside.sum())
        calibration.append(
            (
                count,
                float(confidence[inside].mean()) if count else 0.0,
                float(right[inside].float().mean()) if count else 0.0,
            )
        )
    gap = sum(count * abs(conf - acc) for count, conf, acc in calibration)
    return Metrics(
        accuracy=float(right.double().mean()),
        loss=float(nn.functional.cross_entropy(logits.double(), labels)),
        per_class_accuracy=tuple(per_class.tolist()),
        confusion=tuple(map(tuple, confusion.tolist())),
        calibration_error=gap / len(labels),
        calibration=tuple(calibration),
    )


def evaluate(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    precision: str = "fp32",
) -> Metrics:
    """`predict_logits`, then `measure`.

    Args:
        model: maps float images ``[N, 3, H, W]`` to logits ``[N, classes]``.
        images: uint8 ``[N, 3, H, W]`` on the model's device.
        labels: int64 ``[N]``.
        precision: ``"bf16"`` runs under autocast.

    Raises:
        InputError: if the images are of another type or shape, if the labels are not one for
            each image or not of the model's classes, or if the model's answer is not finite.

    Example:
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 10))
        >>> images = torch.zeros(4, 3, 32, 32, dtype=torch.uint8)
        >>> metrics = evaluate(model, images, torch.zeros(4, dtype=torch.long))
        >>> sum(map(sum, metrics.confusion))
        4
    """
    check_images(images, any_size=True)
    check_labels(labels, len(images))
    logits = predict_logits(model, images, precision=precision)
    if labels.max() >= logits.shape[1]:
        raise InputError(f"label {int(labels.max())} is none of the {logits.shape[1]} classes")
    refuse_no_answer(logits)
    return measure(logits, labels)
