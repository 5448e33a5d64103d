"""A run from the first epoch to its record, interrupted and resumed as often as need be.

cifar-resnet train notes-cpu --data DIR      # CIFAR-10
cifar-resnet train smoke --data synthetic    # seconds, no download
"""

import hashlib
import json
import math
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from functools import cache, partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from cifar_resnet.checkpoint import save_checkpoint, save_weights
from cifar_resnet.compiling import WORTH_COMPILING, compile_ahead, compiled, fastest, limits_kept
from cifar_resnet.data import Dataset, check
from cifar_resnet.display import Display, Silent
from cifar_resnet.distributed import (
    ALONE,
    World,
    all_gather,
    broadcast_buffers,
    data_parallel,
    on_main,
    shard,
)
from cifar_resnet.errors import InputError
from cifar_resnet.evaluation import measure, predict_logits
from cifar_resnet.files import sole_user
from cifar_resnet.fingerprint import fingerprint
from cifar_resnet.hardware import Hardware, check_precision, spare_busy_cores
from cifar_resnet.networks import NETWORKS, build, check_name
from cifar_resnet.parse import parse
from cifar_resnet.recipe import Recipe, changes, resolution
from cifar_resnet.record import SCHEMA, DataInfo, Epoch, Record, write_record
from cifar_resnet.resume import contents, refuse_used_folder, resumable, running_code, where
from cifar_resnet.train import make_optimizer, train_epoch

# Writing a checkpoint takes as long as a good part of a GPU's epoch; losing this little does not.
_SECONDS_BETWEEN_CHECKPOINTS = 10.0


@dataclass(frozen=True)
class Run:
    """A finished run.

    Attributes:
        model: with the last epoch's weights, in evaluation mode.
        record: what it was and what came out.
    """

    model: nn.Module
    record: Record


def fit(
    recipe: Recipe,
    data: Dataset,
    hardware: Hardware,
    *,
    seed: int = 0,
    out: str | Path,
    resume: bool = False,
    display: Display | None = None,
    world: World = ALONE,
) -> Run:
    """Train, evaluate after each epoch, and write record, weights and checkpoint.

    The reported metrics are those of the last epoch, whatever the epochs before it
    reached. The folder ``out`` gets ``checkpoint.pt`` after every epoch, though not more often
    than every ten seconds, and at the end ``record.json`` and ``weights.safetensors``; its
    ``.lock`` keeps other processes out.

    Torch's global random generator is seeded anew, and not put back.

    Args:
        recipe: what to train.
        data: on which images.
        hardware: where and how (`cifar_resnet.hardware.detect`).
        seed: of the initial weights, the order of images and the augmentation.
        out: folder of this run.
        resume: go on from the checkpoint in ``out`` if there is one.
        display: told of progress.
        world: the processes that share the work; the first one writes.

    Returns:
        The model, on the hardware's device, and the record, on every process the same.

    Raises:
        InputError: if a field of the recipe is of another type than its own or the seed is out
            of range; if ``out`` holds a finished run, weights without a record, a run and
            ``resume`` is not set, or a checkpoint of another configuration, data set, network,
            machine, code or version of torch; if another process trains there;
            if the batch size does not fit the data set or the number of processes; or if the
            loss is no longer finite.
        OSError: if ``out`` cannot be made or written.
        KeyboardInterrupt: passed on; the last checkpoint stays.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> from cifar_resnet import get_recipe
        >>> from cifar_resnet.data import load
        >>> from cifar_resnet.hardware import detect
        >>> recipe = get_recipe("smoke", network="resnet20", epochs=1, warmup_epochs=0)
        >>> here = detect("cpu", threads=1, compile=False)
        >>> with TemporaryDirectory() as out:
        ...     run = fit(recipe, load("synthetic"), here, out=out)
        >>> len(run.record.history), run.record.seed
        (1, 0)
    """
    out = Path(out)
    recipe = parse(Recipe, asdict(recipe))  # as its record will be read
    check_precision(hardware.precision)
    _refuse_wrong_input(recipe, data, seed, world)
    out.mkdir(parents=True, exist_ok=True)  # a folder that cannot be written is said at once
    with ExitStack() as stack:
        on_main(lambda: stack.enter_context(sole_user(out)), world)
        on_main(lambda: refuse_used_folder(out, resume=resume), world)
        stack.enter_context(limits_kept())
        stack.callback(torch.set_num_threads, torch.get_num_threads())  # some may be spared
        torch.set_num_threads(hardware.threads)
        return _fit(recipe, data, hardware, seed, out, display or Silent(), world)


def refuse_wrong_plan(recipe: Recipe, seed: int) -> None:
    """Refuse what no data set could be trained with, before one is downloaded.

    Args:
        recipe: its network must be known.
        seed: from 0 to 2**32 - 1.

    Raises:
        InputError: if one of them is wrong.

    Example:
        >>> refuse_wrong_plan(Recipe(name="example"), -1)
        Traceback (most recent call last):
        cifar_resnet.errors.InputError: seed must be between 0 and 2**32 - 1, not -1
    """
    check_name(recipe.network)
    if type(seed) is not int or not 0 <= seed < 2**32:
        raise InputError(f"seed must be between 0 and 2**32 - 1, not {seed!r}")


def _refuse_wrong_input(recipe: Recipe, data: Dataset, seed: int, world: World) -> None:
    refuse_wrong_plan(recipe, seed)
    check(data)
    top = int(max(data.train_labels.max(), data.eval_labels.max()))
    outputs = _outputs(NETWORKS[recipe.network])
    if top >= outputs:
        raise InputError(
            f"labels go up to {top}, but network {recipe.network!r} has {outputs} outputs; "
            "add one of your own to cifar_resnet.networks.NETWORKS"
        )
    if len(data.train_images) < recipe.batch_size:
        raise InputError(
            f"batch_size {recipe.batch_size} is more than the {len(data.train_images)} images"
        )
    if recipe.batch_size % world.size:
        raise InputError(f"batch_size {recipe.batch_size} is no multiple of {world.size} processes")


@cache
def _outputs(build: Callable[[], nn.Module]) -> int:
    model = build().eval()
    with torch.no_grad():
        scores: Tensor = model(torch.zeros(1, 3, 32, 32))
    return scores.shape[1]


@cache
def _fingerprint(recipe: Recipe, build: object) -> dict[str, Any]:
    """Once for all the seeds of a recipe, for as long as its network's name means the same."""
    found = fingerprint(recipe)
    try:
        json.dumps(found, allow_nan=False)  # as its record will be written
    except ValueError as error:
        raise InputError("the first steps give NaN or infinity; lower learning_rate") from error
    return found


def _decide_on_compiling(
    hardware: Hardware, recipe: Recipe, state: dict[str, Any] | None, display: Display, world: World
) -> Hardware:
    """As before the interruption; else as asked for; else whatever trains faster."""
    if state:
        before = replace(hardware, compile=state["compile"], cuda_graphs=state["cuda_graphs"])
        if hardware.compile is not None and hardware != before:
            raise InputError(
                f"the run was begun {'compiled' if before.compile else 'uncompiled'}; go on with "
                "the same --compile and --cuda-graphs, where there is a compiler if need be"
            )
        return before
    if hardware.compile is not None:
        return hardware
    if recipe.epochs < WORTH_COMPILING:
        return replace(hardware, compile=False)
    mine = replace(recipe, batch_size=max(2, recipe.batch_size // world.size))
    alone = world.size == 1  # graphs of a process that waits for others are untried
    best, speedup = on_main(lambda: fastest(hardware, mine, graphs=alone), world)
    told = f"{speedup:.2f} times as fast as without" if speedup else "does not work here"
    display.say(f"torch.compile{' and CUDA graphs' if best.cuda_graphs else ''}: {told}, measured")
    return replace(hardware, compile=best.compile, cuda_graphs=best.cuda_graphs)


def _fit(
    recipe: Recipe,
    data: Dataset,
    hardware: Hardware,
    seed: int,
    out: Path,
    display: Display,
    world: World,
) -> Run:
    code = running_code()
    checkpoint = out / "checkpoint.pt"
    same: dict[str, Any] = {
        "identity": _identity(recipe, data, seed),
        "contents": contents(data),
        "source_sha256": code.source_sha256,
        "where": where(replace(hardware, processes=world.size), code),
    }
    # The record needs it in the end; what it finds wrong is said before hours of training.
    same["fingerprint"] = on_main(lambda: _fingerprint(recipe, NETWORKS[recipe.network]), world)
    state = on_main(lambda: resumable(checkpoint, same), world)
    hardware = _decide_on_compiling(hardware, recipe, state, display, world)
    model, optimizer, progress = _prepare(recipe, hardware, seed, state)
    device = torch.device(hardware.device)
    train_images, train_labels = data.train_images.to(device), data.train_labels.to(device)
    eval_images = shard(data.eval_images, world).to(device)
    logits: Tensor | None = None
    saved = -math.inf

    def predict(images: Tensor, size: int | None = None, precision: str = "fp32") -> Tensor:
        broadcast_buffers(model, world)
        logits = predict_logits(model, images, size=size, precision=precision)
        return all_gather(logits, len(data.eval_labels), world).cpu()

    def keep(last: bool) -> None:
        nonlocal saved
        if last or time.monotonic() - saved >= _SECONDS_BETWEEN_CHECKPOINTS:
            saved = time.monotonic()
            settings = {"compile": hardware.compile, "cuda_graphs": hardware.cuda_graphs}
            states = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
            save_checkpoint(checkpoint, same | settings | states | asdict(progress))
        display.epoch(progress.history[-1])

    forward: Any = data_parallel(model, world)
    if (hardware.compile or device.type == "cuda") and len(progress.history) < recipe.epochs:
        begin = time.perf_counter()
        if hardware.compile:
            forward = compiled(forward, optimizer, hardware)
        try:
            compile_ahead(forward, model, optimizer, recipe, hardware, world)
        except torch._dynamo.exc.TorchDynamoException as error:
            why = str(error).strip().partition("\n")[0]
            raise InputError(
                f"torch.compile does not work here ({why}); use --no-compile"
            ) from error
        progress.compile_seconds += time.perf_counter() - begin
    for epoch in range(len(progress.history), recipe.epochs):
        threads = torch.get_num_threads()
        spare_busy_cores(hardware)
        if torch.get_num_threads() != threads:
            display.say(f"as many threads as cores are free: {torch.get_num_threads()}")
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
            world=world,
        )
        seconds = time.perf_counter() - start
        if not math.isfinite(loss):
            raise InputError(f"epoch {epoch + 1}: the loss is {loss}; lower learning_rate")
        last = epoch + 1 == recipe.epochs
        if last:  # what is reported is measured as `cifar-resnet evaluate` does
            logits = predict(eval_images)
        else:  # the network does not know larger images yet
            logits = predict(eval_images, resolution(recipe, epoch), hardware.precision)
        metrics = measure(logits, data.eval_labels)
        if not math.isfinite(metrics.loss):
            raise InputError(f"epoch {epoch + 1}: the {data.split} loss is {metrics.loss}")
        progress.history.append(
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
        on_main(partial(keep, last), world)

    if logits is None:  # interrupted between the last checkpoint and the record
        logits = predict(eval_images)
    mirrored = predict(eval_images.flip(-1))

    def finish(logits: Tensor) -> Record:
        used = replace(hardware, processes=world.size)
        record = _record(recipe, data, used, seed, progress, logits, mirrored)
        digest = save_weights(out / "weights.safetensors", model, record.id)
        record = replace(record, weights_sha256=digest)
        write_record(record, out / "record.json")
        return record

    record = on_main(partial(finish, logits), world)
    model.zero_grad()
    return Run(model.eval(), record)


def _identity(recipe: Recipe, data: Dataset, seed: int) -> dict[str, Any]:
    """What a run is of."""
    return {"recipe": asdict(recipe), "seed": seed, "data": data.name, "split": data.split}


@dataclass
class _Progress:
    """How far a run is; a checkpoint keeps it beside the model and the optimizer."""

    history: list[Epoch]
    started: str
    sessions: int
    compile_seconds: float


def _prepare(
    recipe: Recipe, hardware: Hardware, seed: int, state: dict[str, Any] | None
) -> tuple[nn.Module, torch.optim.SGD, _Progress]:
    """Model, optimizer and progress: of a new run, or as a checkpoint has them."""
    torch.manual_seed(seed)
    model = build(recipe.network).to(hardware.device).to(memory_format=torch.channels_last)
    optimizer = make_optimizer(model, recipe)
    if not state:
        return model, optimizer, _Progress([], _now(), 1, 0.0)
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    history = [Epoch(**epoch) for epoch in state["history"]]
    sessions, seconds = state["sessions"] + 1, state["compile_seconds"]
    return model, optimizer, _Progress(history, state["started"], sessions, seconds)


def _record(
    recipe: Recipe,
    data: Dataset,
    hardware: Hardware,
    seed: int,
    progress: _Progress,
    logits: Tensor,
    mirrored: Tensor,
) -> Record:
    """Of a run that has just ended, but for the checksum of its weights."""
    finished = _now()
    stamp = datetime.fromisoformat(finished).strftime("%Y%m%dT%H%M%SZ")
    digest = hashlib.sha256(repr(_identity(recipe, data, seed)).encode()).hexdigest()[:6]
    seen = len(data.train_images) // recipe.batch_size * recipe.batch_size
    seconds = [epoch.seconds for epoch in progress.history]
    return Record(
        schema=SCHEMA,
        id=f"{recipe.name}-{data.name}-{data.split}-seed{seed}-{stamp}-{digest}",
        recipe=recipe,
        changes=changes(recipe),
        seed=seed,
        data=DataInfo(
            name=data.name,
            md5=data.md5,
            train_images=len(data.train_images),
            eval_split=data.split,
            eval_images=len(data.eval_images),
        ),
        software=running_code(),
        hardware=hardware,
        started=progress.started,
        finished=finished,
        sessions=progress.sessions,
        compile_seconds=progress.compile_seconds,
        train_seconds=sum(seconds),
        images_per_second=median(seen / each for each in seconds),
        history=tuple(progress.history),
        metrics=measure(logits, data.eval_labels),
        flip_averaged_accuracy=measure(logits + mirrored, data.eval_labels).accuracy,
        fingerprint=_fingerprint(recipe, NETWORKS[recipe.network]),
        weights_sha256="",
    )


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
