"""How fast training is: against the plain loop, and against the hardware's own limit.

    cifar-resnet bench                        # the best device of this machine
    cifar-resnet bench --network resnet20

Each round measures four things one after the other, so that a machine whose speed drifts does
not favour one of them: the plain loop of most tutorials (`reference_steps`), this project's
loop (`cifar_resnet.train.train_epoch`), augmentation alone, and matrix products in the same
precision. Warm-up and compilation come before the first round and are reported apart.
"""

import re
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from statistics import median

import torch
from torch import Tensor, nn
from torch._inductor import config as inductor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as MapDataset
from torch.utils.flop_counter import FlopCounterMode

from cifar_resnet.augment import MEAN, STD, augment
from cifar_resnet.compiling import fastest, seconds, training_steps
from cifar_resnet.contention import Contention, kept
from cifar_resnet.hardware import Hardware
from cifar_resnet.networks import build
from cifar_resnet.recipe import Recipe
from cifar_resnet.record import SCHEMA
from cifar_resnet.software import Software, software
from cifar_resnet.synthetic import draw
from cifar_resnet.train import batches_together


@dataclass(frozen=True)
class BenchRecord:
    """What one benchmark measured.

    Attributes:
        schema: version of this layout.
        id: unique name; also the file's name.
        network: what was trained.
        batch_size: images a step, for both loops.
        steps: steps measured in each round.
        software: which code and libraries.
        hardware: which processor, and how this project's loop used it.
        started: UTC, ISO 8601.
        reference: the plain loop, images/s in each round.
        ours: this project's loop, images/s in each round.
        ceiling: matrix products, floating-point operations a second in each round.
        flops: floating-point operations to train on one image (convolutions and products).
        augment: augmentation alone, images/s in each round.
        first_step_seconds: from the built network to the end of its first step,
            compilation included.
        peak_bytes: the process's largest memory (CPU), or what our loop allocated at most (GPU).
        contention: our loop beside a busy process; None where that was not measured.
        checksum: SHA-256 over everything else.
    """

    schema: int
    id: str
    network: str
    batch_size: int
    steps: int
    software: Software
    hardware: Hardware
    started: str
    reference: tuple[float, ...]
    ours: tuple[float, ...]
    ceiling: tuple[float, ...]
    flops: int
    augment: tuple[float, ...]
    first_step_seconds: float
    peak_bytes: int
    contention: Contention | None = None
    checksum: str = ""


def bench(
    hardware: Hardware, recipe: Recipe, *, rounds: int = 5, steps: int | None = None
) -> BenchRecord:
    """Measure.

    Args:
        hardware: the device and the settings of this project's loop.
        recipe: gives network, batch size, augmentation and loss.
        rounds: how often everything is measured.
        steps: steps a round; default: 6 on a CPU, 100 on a GPU.

    Returns:
        The record; `summary` puts it into words.
    """
    code = software()  # first: files may be edited while the rest goes on
    gpu = hardware.device != "cpu"
    steps = steps or (100 if gpu else 6)
    device = torch.device(hardware.device)
    images, labels = draw(max(recipe.batch_size, min(recipe.batch_size * steps, 8192)), seed=0)
    if hardware.compile is None:
        hardware, _ = fastest(hardware, recipe)
    started = datetime.now(UTC).isoformat(timespec="seconds")

    reference = reference_steps(recipe, images, labels, device)
    _step(reference, 2)

    torch.compiler.reset()
    before = _allocated(device)
    with warnings.catch_warnings(), inductor.patch(force_disable_caches=True):
        warnings.simplefilter("ignore")  # about the caches, which would hide the time to compile
        begin = time.perf_counter()
        ours = training_steps(hardware, recipe, images, labels)
        ours(1)
        first_step = time.perf_counter() - begin
    ours(3)
    peak = _peak_bytes(device) - before

    generator = torch.Generator(device).manual_seed(0)
    together = batches_together(recipe.batch_size, device)
    several = images[: together * recipe.batch_size].to(device)
    times = -(-steps // together)
    size = 8192 if gpu else 2048
    dtype = torch.bfloat16 if hardware.precision == "bf16" else torch.float32
    a = torch.randn(size, size, device=device).to(dtype)
    measured: dict[str, list[float]] = {n: [] for n in ("reference", "ours", "ceiling", "augment")}
    for _ in range(rounds):
        done = recipe.batch_size * steps
        measured["reference"].append(done / seconds(lambda: _step(reference, steps), device))
        measured["ours"].append(done / seconds(lambda: ours(steps), device))
        measured["augment"].append(
            times
            * len(several)
            / seconds(
                lambda: _repeat(lambda: augment(several, recipe.augmentation, generator), times),
                device,
            )
        )
        measured["ceiling"].append(
            2 * size**3 * steps / seconds(lambda: _repeat(lambda: a @ a, steps), device)
        )
    where = re.sub(r"[^a-z0-9.]+", "-", hardware.name.lower())  # some have a slash
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    return BenchRecord(
        schema=SCHEMA,
        id=f"{recipe.network}-{where}-{stamp}",
        network=recipe.network,
        batch_size=recipe.batch_size,
        steps=steps,
        software=code,
        hardware=hardware,
        started=started,
        reference=tuple(measured["reference"]),
        ours=tuple(measured["ours"]),
        ceiling=tuple(measured["ceiling"]),
        flops=training_flops(recipe.network),
        augment=tuple(measured["augment"]),
        first_step_seconds=first_step,
        peak_bytes=peak,
    )


class _Pictures(MapDataset[tuple[Tensor, int]]):
    """Images one at a time through Pillow and torchvision's transforms."""

    def __init__(self, images: Tensor, labels: Tensor, recipe: Recipe) -> None:
        from torchvision import transforms

        a = recipe.augmentation
        self.pixels = images.permute(0, 2, 3, 1).numpy()
        self.labels = labels.tolist()
        self.transform = transforms.Compose(
            [
                transforms.RandomCrop(32, padding=a.crop_padding),
                transforms.RandomHorizontalFlip(a.flip_probability),
                transforms.ToTensor(),
                transforms.Normalize(MEAN, STD),
                transforms.RandomErasing(
                    a.erasing_probability, a.erasing_area, a.erasing_aspect, value="random"
                ),
            ]
        )

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        from PIL import Image

        return self.transform(Image.fromarray(self.pixels[index])), self.labels[index]


# --8<-- [start:reference_steps]
def reference_steps(
    recipe: Recipe, images: Tensor, labels: Tensor, device: torch.device
) -> Iterator[None]:
    """The plain loop that most tutorials show, one step for each ``next``.

    A ``DataLoader`` with two workers that transform one picture after the other, float32,
    the default memory layout, SGD without fusion, and the loss read after every step.

    Args:
        recipe: network, batch size, augmentation and loss, the same as for our loop.
        images: uint8 ``[N, 3, 32, 32]`` on the CPU.
        labels: int64 ``[N]`` on the CPU.
        device: where to train.
    """
    loader = DataLoader(
        _Pictures(images, labels, recipe),
        batch_size=recipe.batch_size,
        shuffle=True,
        drop_last=True,
        num_workers=2,
        persistent_workers=True,
        pin_memory=device.type == "cuda",
    )
    model = build(recipe.network).to(device)
    optimizer = torch.optim.SGD(
        model.parameters(),
        lr=recipe.learning_rate,
        momentum=recipe.momentum,
        weight_decay=recipe.weight_decay,
    )
    criterion = nn.CrossEntropyLoss(label_smoothing=recipe.label_smoothing)
    running_loss, right = 0.0, 0
    while True:
        for x, y in loader:
            x, y = x.to(device), y.to(device)
            optimizer.zero_grad()
            output = model(x)
            loss = criterion(output, y)
            loss.backward()
            optimizer.step()
            running_loss += loss.item()
            right += (output.argmax(1) == y).sum().item()
            yield
    # --8<-- [end:reference_steps]


def _step(loop: Iterator[None], count: int) -> None:
    """Steps of the plain loop, with the TF32 that is PyTorch's default and `detect` forbids."""
    forbidden = not torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = True
    for _ in range(count):
        next(loop)
    torch.backends.cudnn.allow_tf32 = not forbidden


def _repeat(work: Callable[[], object], times: int) -> None:
    """Call again and again, without keeping what comes back."""
    for _ in range(times):
        work()


def _allocated(device: torch.device) -> int:
    """What is allocated on a GPU, where `_peak_bytes` starts anew from here."""
    if device.type != "cuda":
        return 0
    torch.cuda.reset_peak_memory_stats(device)
    return torch.cuda.memory_allocated(device)


def _peak_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    import resource  # not on Windows

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def training_flops(network: str) -> int:
    """Floating-point operations of forward and backward pass for one image.

    Convolutions and matrix products alone, two operations for each multiply-add.

    Args:
        network: a key of `cifar_resnet.networks.NETWORKS`.

    Example:
        >>> training_flops("resnet18")
        3328997376
    """
    model = build(network)
    with FlopCounterMode(display=False) as counter:
        model(torch.zeros(2, 3, 32, 32)).sum().backward()
    return int(counter.get_total_flops()) // 2


def speedups(record: BenchRecord) -> list[float]:
    """How many times as fast as the plain loop ours was, round by round.

    Args:
        record: any.
    """
    return [a / b for a, b in zip(record.ours, record.reference, strict=True)]


def utilization(record: BenchRecord) -> list[float]:
    """Which share of the matrix products' rate our loop reached, round by round.

    Args:
        record: any.
    """
    return [a * record.flops / b for a, b in zip(record.ours, record.ceiling, strict=True)]


def augmentation_share(record: BenchRecord) -> list[float]:
    """Which share of a step's time augmentation takes, round by round.

    Args:
        record: any.
    """
    return [a / b for a, b in zip(record.ours, record.augment, strict=True)]


def summary(record: BenchRecord) -> str:
    """What a benchmark found, in a few lines.

    The ratio of the two loops is taken round by round: the median and the range.
    """
    times = speedups(record)
    h = record.hardware
    lines = [
        f"{record.network}, batch {record.batch_size}, {len(times)} rounds of {record.steps} steps",
        f"{h.name}: {h.device}, {h.threads} thread{'s' * (h.threads > 1)}, {h.precision}"
        f"{', compiled' if h.compile else ''}{', CUDA graphs' if h.cuda_graphs else ''}",
        f"plain loop       {median(record.reference):9.0f} images/s",
        f"this loop        {median(record.ours):9.0f} images/s",
        f"ratio            {median(times):9.2f} ({min(times):.2f} to {max(times):.2f})",
        f"matrix products  {median(record.ceiling) / 1e12:9.2f} TFLOP/s, of which this loop "
        f"uses {median(utilization(record)):.0%}",
        f"augmentation     {median(augmentation_share(record)):9.1%} of a step",
        f"first step       {record.first_step_seconds:9.1f} s",
        f"peak memory      {record.peak_bytes / 2**20:9.0f} MiB",
    ]
    beside = record.contention
    if beside:
        lines += (
            f"one core taken   {median(beside.adapted):9.0f} images/s uncompiled, "
            f"{median(kept(beside)):.0%} of one thread alone "
            f"({h.threads} threads: {median(beside.oversubscribed):.0f})",
        )
    return "\n".join(lines)
