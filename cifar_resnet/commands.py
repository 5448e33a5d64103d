"""What each command of the command line does; each imports what it needs when it runs.

A command that can fail without an exception returns an exit code; for the others it is 0.
"""

import argparse
import json
import math
import os
import sys
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from statistics import mean, stdev
from typing import TYPE_CHECKING, Any

from cifar_resnet.errors import InputError

if TYPE_CHECKING:
    from cifar_resnet.data import Dataset
    from cifar_resnet.distributed import World
    from cifar_resnet.experiments import Job
    from cifar_resnet.hardware import Hardware
    from cifar_resnet.recipe import Recipe
    from cifar_resnet.record import Record


def train(args: argparse.Namespace) -> None:
    """Train a recipe; the record, the weights and the checkpoint go to ``--out``.

    Several seeds are trained by one process, each into a folder of its own: what is compiled
    or measured for the first one serves all.
    """
    from cifar_resnet.recipe import get_recipe

    changes = _changes(args.set)
    if args.epochs is not None:
        changes["epochs"] = args.epochs
    recipe = get_recipe(args.recipe, **changes)

    from cifar_resnet.data import load
    from cifar_resnet.distributed import join, local_device, on_main
    from cifar_resnet.resume import finished_seeds, refuse_used_folder
    from cifar_resnet.run import refuse_wrong_plan

    for seed in args.seed:
        refuse_wrong_plan(recipe, seed)
    hardware = _hardware(args, local_device(args.device))
    data = load(args.data, val=args.val)
    folders = _run_folders(args, f"{recipe.name}-{data.name}-{data.split}")
    with join(hardware.device) as world:
        records: dict[int, Record] = {}
        if args.resume and len(folders) > 1:
            here = replace(hardware, processes=world.size)
            records |= on_main(lambda: finished_seeds(recipe, data, here, folders), world)
        left = {seed: out for seed, out in folders.items() if seed not in records}
        for out in left.values():  # rather now than after hours of the seeds before it
            refuse_used_folder(out, resume=args.resume)
        settled = hardware
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
            used = records[seed].hardware
            settled = replace(hardware, compile=used.compile, cuda_graphs=used.cuda_graphs)
    if len(records) > 1 and world.is_main:
        accuracies = [record.metrics.accuracy for record in records.values()]
        print(
            f"{len(records)} seeds: mean {mean(accuracies):.2%}, "
            f"sample standard deviation {stdev(accuracies):.2%}"
        )


def _hardware(args: argparse.Namespace, device: str | None) -> "Hardware":
    """As the options of training say."""
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
        f"{recipe.name}: {recipe.epochs} epochs of {len(data.train_images)} {data.name} "
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


def _run_folders(args: argparse.Namespace, name: str) -> dict[int, Path]:
    """Where each seed's run goes."""
    if args.out is None:
        return {seed: Path("runs") / f"{name}-seed{seed}" for seed in args.seed}
    if len(args.seed) == 1:
        return {args.seed[0]: args.out}
    return {seed: args.out / f"seed{seed}" for seed in args.seed}


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
    from cifar_resnet.evaluate import evaluate
    from cifar_resnet.hardware import detect
    from cifar_resnet.networks import build
    from cifar_resnet.predict import WEIGHTS
    from cifar_resnet.synthetic import SHAPES

    hardware = detect(
        args.device, precision=args.precision or "fp32", threads=args.threads, compile=False
    )
    path = args.weights or WEIGHTS
    model = build(args.network)
    try:
        load_weights(model, path)
    except InputError as error:
        if isinstance(error.__cause__, RuntimeError):  # names or shapes differ
            raise InputError(f"{error}; is it of another --network?") from error
        raise
    model.to(hardware.device)
    data = load(args.data, val=args.val)
    metrics = evaluate(
        model,
        data.eval_images.to(hardware.device),
        data.eval_labels,
        precision=hardware.precision,
    )
    if args.json:
        about = {"weights": str(path), "data": data.name, "split": data.split}
        print(json.dumps(about | asdict(metrics)))
        return
    print(f"{path} on {len(data.eval_images)} {data.name} {data.split} images")
    print(
        f"accuracy {metrics.accuracy:.2%}  loss {metrics.loss:.4f}  "
        f"calibration error {metrics.calibration_error:.2%}"
    )
    classes = SHAPES if data.name == "synthetic" else CLASSES
    for name, accuracy in zip(classes, metrics.per_class_accuracy, strict=True):
        print(f"  {name:<11}{accuracy:.2%}")


def predict(args: argparse.Namespace) -> None:
    """Classify pictures."""
    import torch

    from cifar_resnet.data import CLASSES
    from cifar_resnet.predict import classify, load_pretrained, read_image

    images = torch.stack([read_image(path) for path in args.images])
    probabilities = classify(load_pretrained(args.weights, args.network), images)
    answers = []
    for path, row in zip(args.images, probabilities.tolist(), strict=True):
        ranked = sorted(zip(row, CLASSES, strict=True), reverse=True)
        answers.append(
            {
                "image": str(path),
                "class": ranked[0][1],
                "probabilities": {name: probability for probability, name in ranked},
            }
        )
        if not args.json:
            best = ", ".join(f"{name} {probability:.1%}" for probability, name in ranked[:3])
            print(f"{path}: {best}")
    if args.json:
        print(json.dumps(answers))


def results_add(args: argparse.Namespace) -> int:
    """Publish finished runs, analyses and benchmarks; a line for each that cannot be."""
    from cifar_resnet.results import add

    code = 0
    for folder in args.run_folders:
        try:
            print(add(folder, args.results))
        except InputError as error:
            print(f"cifar-resnet: {error}", file=sys.stderr)
            code = 2
    return code


def results_check(args: argparse.Namespace) -> int:
    """Fail with a line for each published thing that no longer holds."""
    from cifar_resnet.predict import WEIGHTS
    from cifar_resnet.results import check

    _needs_results(args.results)
    code = 0
    for problem in check(args.results, WEIGHTS):
        print(f"cifar-resnet: {problem}", file=sys.stderr)
        code = 1
    if code == 0:
        print("every published record and the weights still hold")
    return code


def experiments_list(args: argparse.Namespace) -> None:
    """List the experiments: claim, arms, seeds, device."""
    from cifar_resnet.experiments import EXPERIMENTS

    for experiment in EXPERIMENTS:
        print(f"{experiment.name:<18} {experiment.claim}")
        labels = ", ".join(arm.label for arm in experiment.arms)
        seeds = ", ".join(map(str, experiment.seeds))
        print(f"    {labels}; seeds {seeds}; on {experiment.device}")


def experiments_status(args: argparse.Namespace) -> None:
    """Say how many runs of each experiment are done, and which are open."""
    from cifar_resnet.experiments import EXPERIMENTS, finished, jobs, missing

    _needs_results(args.results)
    records = finished([args.results / "runs", args.out])
    for experiment in EXPERIMENTS:
        wanted = jobs([experiment])
        open_jobs = missing(wanted, records)
        print(
            f"{experiment.name:<18} {len(wanted) - len(open_jobs):>3} of {len(wanted):>3} runs"
            f"  {experiment.claim}"
        )
        for job in open_jobs:
            kept = (args.out / job.folder / "checkpoint.pt").exists()
            print(f"    {job.folder}{'  (begun)' if kept else ''}")


def experiments_run(args: argparse.Namespace) -> int:
    """Run what is missing within the budget."""
    import torch

    from cifar_resnet.experiments import finished, jobs, missing, select
    from cifar_resnet.hardware import find_device
    from cifar_resnet.queue import parse_budget, run

    _needs_posix("experiments run")
    _needs_results(args.results)
    if args.data == "synthetic":
        raise InputError("experiments are run on CIFAR-10; --data synthetic is for `train`")
    if args.jobs < 1:
        raise InputError(f"--jobs must be at least 1, not {args.jobs}")
    budget = math.inf if args.budget is None else parse_budget(args.budget)
    meant_for = {experiment.device for experiment in select(args.names)}
    if args.device is None and len(meant_for) == 1:
        (args.device,) = meant_for
        if args.device == "cuda" and not torch.cuda.is_available():
            raise InputError(
                f"{', '.join(args.names)}: for a GPU, and torch sees none; "
                "`cifar-resnet experiments list` tells which are for a CPU"
            )
    wanted = jobs(select(args.names, find_device(args.device).partition(":")[0]))
    published, done = finished([args.results / "runs"]), finished([args.out])
    if args.again:
        ids = {record.id for record in done} & {record.id for record in published}
        if any(r.id in ids and any(job.answered_by(r) for job in wanted) for r in done):
            raise InputError(
                f"{args.out} holds the published runs themselves; repeat them in another --out"
            )
    queue = missing(wanted, done + ([] if args.again else published))
    if not queue:
        print("nothing is missing" + ("" if args.again else "; --again repeats what is published"))
    failed = run(
        queue,
        args.out,
        options=_training_options(args),
        here=[] if args.compile is not None else done,
        published=published,
        budget=budget,
        parallel=args.jobs,
    )
    if failed:
        logs = ", ".join(map(str, failed))
        print(f"cifar-resnet: {len(failed)} runs failed; see {logs}", file=sys.stderr)
        return 1
    if args.again:
        _compare(wanted, finished([args.out]), published)
    return 0


def _training_options(args: argparse.Namespace) -> list[str]:
    """What ``experiments run`` was given for each run, as words for ``cifar-resnet train``."""
    options = []
    for name in ("data", "device", "precision", "threads"):
        value = getattr(args, name)
        options += [] if value is None else [f"--{name}", str(value)]
    if args.compile is not None:
        options.append("--compile" if args.compile else "--no-compile")
    if args.cuda_graphs:
        options.append("--cuda-graphs")
    return options


def _compare(jobs: "list[Job]", again: "list[Record]", published: "list[Record]") -> None:
    """Print the accuracy of each repeated run beside the published one."""
    for job in jobs:
        new, old = (_accuracy(filter(job.answered_by, found)) for found in (again, published))
        print(f"{job.folder}: {new or 'not finished'}, published {old or 'not yet'}")


def _accuracy(records: "Iterable[Record]") -> str:
    """Of the first one, if there is any."""
    return next((f"{record.metrics.accuracy:.2%}" for record in records), "")


def _needs_results(folder: Path) -> None:
    """Without what is published, everything would seem to be missing."""
    if not folder.is_dir():
        raise InputError(f"there is no folder {folder}; run it in the checkout or give --results")


def _needs_posix(command: str) -> None:
    if os.name != "posix":
        raise InputError(f"{command} works on Linux and macOS alone")


def analyze(args: argparse.Namespace) -> None:
    """Measure single networks, and write a record."""
    from cifar_resnet.analysis import AnalysisRecord, analyze
    from cifar_resnet.data import load
    from cifar_resnet.files import must_be_writable
    from cifar_resnet.record import read, write_record

    must_be_writable(args.out)
    record = analyze(args.name, load(args.data, val=args.val), args.run_folder)
    for label, numbers in record.values.items():
        print(f"{label}: {' '.join(f'{number:.4g}' for number in numbers)}")
    path = args.out / f"{record.id}.json"
    kept = read(AnalysisRecord, path) if path.exists() else record
    if (kept.weights_record, kept.data) != (record.weights_record, record.data):
        of = " ".join(filter(None, (kept.weights_record, kept.data.name, kept.data.eval_split)))
        raise InputError(
            f"{path} is the analysis of another run or other data ({of}); choose another --out"
        )
    write_record(record, path)
    print(f"record {path}")


def bench(args: argparse.Namespace) -> None:
    """Measure the speed of training, and write a record."""
    from cifar_resnet.bench import bench, summary
    from cifar_resnet.files import must_be_writable
    from cifar_resnet.recipe import get_recipe
    from cifar_resnet.record import write_record
    from cifar_resnet.software import software

    _needs_posix("bench")
    if args.rounds < 1 or (args.steps is not None and args.steps < 1):
        raise InputError("--rounds and --steps must be at least 1")
    hardware = _hardware(args, args.device)
    usual = get_recipe("notes" if hardware.device == "cpu" else "fast").batch_size
    batch_size = usual if args.batch_size is None else args.batch_size
    recipe = get_recipe("notes", network=args.network, batch_size=batch_size)
    # Uncommitted code cannot publish.
    out = args.out or Path("results" if software().clean else "runs") / "bench"
    must_be_writable(out)
    record = bench(hardware, recipe, rounds=args.rounds, steps=args.steps)
    path = out / f"{record.id}.json"
    print(summary(record))
    write_record(record, path)
    print(f"record {path}")


def recipes(args: argparse.Namespace) -> None:
    """List the recipes."""
    import inspect

    from cifar_resnet.recipe import RECIPES

    for name, make in RECIPES.items():
        text = " ".join(inspect.cleandoc(make.__doc__ or "").split())
        print(f"{name}\n    {text}")
