"""What the commands for using and training networks do; each imports what it needs as it runs.

A command that can fail without an exception returns an exit code; for the others it is 0.
"""

import argparse
import json
import re
import sys
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import asdict, replace
from itertools import islice
from pathlib import Path
from statistics import mean, stdev
from typing import TYPE_CHECKING, Any

from cifar_resnet.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

    from cifar_resnet.data import Dataset
    from cifar_resnet.distributed import World
    from cifar_resnet.hardware import Hardware
    from cifar_resnet.recipe import Recipe
    from cifar_resnet.record import Record

_TOGETHER = 64  # pictures


def train(args: argparse.Namespace) -> None:
    """Train a recipe; the record, the weights and the checkpoint go to ``--out``.

    Several seeds are trained by one process, each into a folder of its own: what is compiled
    or measured for the first one serves all.
    """
    from cifar_resnet.recipe import altered, get_recipe

    old = _to_repeat(args)
    changes = _changes(args.set)
    if args.epochs is not None:
        changes["epochs"] = args.epochs
    recipe = altered(old.recipe, **changes) if old else get_recipe(args.recipe, **changes)
    seeds = args.seed or [old.seed if old else 0]

    from cifar_resnet.data import load
    from cifar_resnet.distributed import join, local_device, on_main
    from cifar_resnet.resume import finished_seeds, refuse_used_folder
    from cifar_resnet.run import refuse_wrong_plan

    for seed in seeds:
        refuse_wrong_plan(recipe, seed)
    hardware = hardware_options(args, local_device(args.device))
    source = "synthetic" if old and old.data.name == "synthetic" else args.data
    data = load(source, val=args.val or (old is not None and old.data.eval_split == "val"))
    folders = _run_folders(args.out, seeds, f"{recipe.name}-{data.name}-{data.split}")
    with join(hardware.device) as world:
        records: dict[int, Record] = {}
        if args.resume:
            here = replace(hardware, processes=world.size)
            records |= on_main(lambda: finished_seeds(recipe, data, here, folders), world)
            for seed, record in records.items() if world.is_main else ():
                print(f"seed {seed}: finished before, accuracy {record.metrics.accuracy:.2%}")
        left = {seed: out for seed, out in folders.items() if seed not in records}
        for out in left.values():  # rather now than after hours of the seeds before it
            refuse_used_folder(out, resume=args.resume)
        settled = hardware
        if hardware.compile is None and records:  # else as was asked for
            settled = _compiled_like([*records.values()][-1], hardware)
        for seed, out in left.items():
            begun = (out / "checkpoint.pt").exists()  # and goes on compiled as it was
            try:
                records[seed] = _train_one(
                    recipe, data, hardware if begun else settled, seed, out, args.resume, world
                )
            except KeyboardInterrupt:
                if world.is_main:
                    _say_what_is_kept(out, len(records))
                raise
            settled = _compiled_like(records[seed], hardware)
    if len(records) > 1 and world.is_main:
        accuracies = [record.metrics.accuracy for record in records.values()]
        print(
            f"{len(records)} seeds: mean {mean(accuracies):.2%}, "
            f"sample standard deviation {stdev(accuracies):.2%}"
        )
    if old and world.is_main:
        print(f"{args.recipe}: accuracy {old.metrics.accuracy:.2%}")


def _to_repeat(args: argparse.Namespace) -> "Record | None":
    """The record whose run is to be repeated, where one is given in place of a recipe's name."""
    if not args.recipe.endswith(".json"):
        return None
    from cifar_resnet.record import read_record

    record = read_record(Path(args.recipe).expanduser())
    images = record.data.name
    if images not in ("cifar10", "synthetic"):
        raise InputError(f"{args.recipe} is of images of one's own, {images!r}: give them to fit")
    if args.data and (args.data == "synthetic") != (images == "synthetic"):
        raise InputError(f"{args.recipe} is of {images}: leave out --data {args.data}")
    return record


def _compiled_like(record: "Record", hardware: "Hardware") -> "Hardware":
    used = record.hardware
    return replace(hardware, compile=used.compile, cuda_graphs=used.cuda_graphs)


def hardware_options(args: argparse.Namespace, device: str | None) -> "Hardware":
    """The hardware, as the options of training say.

    Args:
        args: with ``precision``, ``threads``, ``compile`` and ``cuda_graphs``.
        device: as for `cifar_resnet.hardware.detect`.
    """
    from cifar_resnet.hardware import detect

    return detect(
        device,
        precision=args.precision,
        threads=args.threads,
        compile=args.compile,
        cuda_graphs=args.cuda_graphs,
    )


def _train_one(
    recipe: "Recipe",
    data: "Dataset",
    hardware: "Hardware",
    seed: int,
    out: Path,
    resume: bool,
    world: "World",
) -> "Record":
    from cifar_resnet.display import Silent, Terminal
    from cifar_resnet.run import fit

    display = Terminal(recipe.epochs, processes=world.size) if world.is_main else Silent()
    display.say(
        f"{recipe.name}: {recipe.epochs} epoch{'s' * (recipe.epochs > 1)} "
        f"of {len(data.train_images)} {data.name} "
        f"images; evaluated on {len(data.eval_images)} {data.split} images\n"
        f"{hardware.name}: {hardware.device}, "
        f"{hardware.threads} thread{'s' * (hardware.threads > 1)}, "
        f"{hardware.precision}{', compiled' if hardware.compile else ''}"
        f"{f', {world.size} processes' if world.size > 1 else ''}; run folder {out}"
    )
    run = fit(
        recipe, data, hardware, seed=seed, out=out, resume=resume, display=display, world=world
    )
    if world.is_main:
        accuracy = run.record.metrics.accuracy
        with suppress(OSError):  # nobody reads it any more; other seeds may be waiting
            print(f"{data.split} accuracy {accuracy:.2%}  record {out / 'record.json'}", flush=True)
    return run.record


def _run_folders(out: Path | None, seeds: list[int], name: str) -> dict[int, Path]:
    """Where each seed's run goes."""
    if out is None:
        return {seed: Path("runs") / f"{name}-seed{seed}" for seed in seeds}
    return {seed: out if len(seeds) == 1 else out / f"seed{seed}" for seed in seeds}


def _say_what_is_kept(out: Path, finished: int) -> None:
    kept = "no epoch was finished"
    if (out / "checkpoint.pt").exists():
        kept = f"{out} keeps its last checkpoint: add --resume to go on"
    elif finished:
        kept = f"{finished} of the seeds are finished: add --resume to go on with the others"
    print(f"\ninterrupted; {kept}", file=sys.stderr)


def _changes(pairs: list[str]) -> dict[str, Any]:
    """Turn ``["learning_rate=0.05", "schedule=constant"]`` into keyword arguments."""
    changes: dict[str, Any] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals:
            raise InputError(f"--set {pair!r}: write FIELD=VALUE, such as learning_rate=0.05")
        changes[name] = _value(text)
    return changes


def _value(text: str) -> Any:
    """JSON, a number as Python writes it, such as .05, or True or False; else a word."""
    for read in (json.loads, float, {"True": True, "False": False}.__getitem__):
        with suppress(ValueError, KeyError, RecursionError):
            return read(text)
    return text


def evaluate(args: argparse.Namespace) -> None:
    """Measure weights on the test images."""
    from cifar_resnet.checkpoint import load_weights
    from cifar_resnet.data import CLASSES, load
    from cifar_resnet.evaluation import evaluate
    from cifar_resnet.hardware import detect
    from cifar_resnet.networks import build
    from cifar_resnet.predict import WEIGHTS
    from cifar_resnet.record import refuse_seen
    from cifar_resnet.synthetic import SHAPES

    hardware = detect(
        args.device, precision=args.precision or "fp32", threads=args.threads, compile=False
    )
    path = args.weights or WEIGHTS
    model = build(args.network)
    record_id = load_weights(model, path)
    model.to(hardware.device)
    data = load(args.data, val=args.val)
    refuse_seen(record_id, data.name, data.split)
    metrics = evaluate(
        model,
        data.eval_images.to(hardware.device),
        data.eval_labels,
        precision=hardware.precision,
    )
    if args.json:
        about = {"weights": str(path), "data": data.name, "split": data.split}
        print(json.dumps(about | asdict(metrics), allow_nan=False))
        return
    print(f"{path} on {len(data.eval_images)} {data.name} {data.split} images")
    print(
        f"accuracy {metrics.accuracy:.2%}  loss {metrics.loss:.4f}  "
        f"calibration error {metrics.calibration_error:.2%}"
    )
    classes = SHAPES if data.name == "synthetic" else CLASSES
    for name, accuracy in zip(classes, metrics.per_class_accuracy, strict=True):
        print(f"  {name:<11}{accuracy:.2%}")


def predict(args: argparse.Namespace) -> int:
    """Classify pictures; a line for each that cannot be read."""
    import torch

    from cifar_resnet.checkpoint import load_weights
    from cifar_resnet.networks import build
    from cifar_resnet.predict import WEIGHTS, classify

    model = build(args.network)
    names = _class_names(load_weights(model, args.weights or WEIGHTS))
    answers = []
    failed: list[Path] = []
    pictures = _read_pictures(args.images, failed)
    while some := list(islice(pictures, _TOGETHER)):
        paths, images = zip(*some, strict=True)
        rows = classify(model, torch.stack(images)).tolist()
        for path, row in zip(paths, rows, strict=True):
            ranked = sorted(zip(row, names, strict=True), reverse=True)
            if args.json:
                answers.append(
                    {
                        "image": str(path),
                        "class": ranked[0][1],
                        "probabilities": {name: probability for probability, name in ranked},
                    }
                )
            else:
                best = ", ".join(f"{name} {probability:.1%}" for probability, name in ranked[:3])
                print(f"{path}: {best}", flush=True)
    if args.json:
        print(json.dumps(answers, allow_nan=False))
    return 2 if failed else 0


def _class_names(record_id: str) -> tuple[str, ...]:
    """Of the images that weights were trained on; of one's own images the labels."""
    from cifar_resnet.data import CLASSES
    from cifar_resnet.synthetic import SHAPES

    if not record_id:
        return CLASSES
    data = re.search(r"-([^-]+)-[^-]+-seed\d+-", record_id)
    known = {"cifar10": CLASSES, "synthetic": SHAPES}
    labels = tuple(str(label) for label in range(len(CLASSES)))
    return known.get(data[1] if data else "", labels)


def _read_pictures(paths: Iterable[Path], failed: list[Path]) -> "Iterator[tuple[Path, Tensor]]":
    """Those that can be read, a folder's one by one; of the others a line, and ``failed``."""
    from cifar_resnet.predict import pictures_in, read_image

    waiting = deque(paths)
    while waiting:
        path = waiting.popleft()
        try:
            if path.is_dir():
                waiting.extendleft(reversed(pictures_in(path)))
                continue
            image = read_image(path)
        except (InputError, OSError) as error:
            print(f"cifar-resnet: {error}", file=sys.stderr)
            failed.append(path)
        else:
            yield path, image


def recipes(args: argparse.Namespace) -> None:
    """List the recipes, or the fields of one."""
    import inspect

    from cifar_resnet.recipe import RECIPES, assignments, flatten, get_recipe

    if args.which is not None:
        values = flatten(get_recipe(args.which))
        del values["name"]
        print("\n".join(assignments(values)))
        return
    for name, make in RECIPES.items():
        text = " ".join(inspect.cleandoc(make.__doc__ or "").split())
        print(f"{name}\n    {text}")
