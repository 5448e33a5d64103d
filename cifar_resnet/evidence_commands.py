"""Commands on the evidence: published results, experiments, analyses, benchmarks.

As in `cifar_resnet.commands`, each imports what it needs when it runs.
"""

import argparse
import math
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from cifar_resnet.commands import hardware_options
from cifar_resnet.errors import InputError

if TYPE_CHECKING:
    from cifar_resnet.experiments import Job
    from cifar_resnet.record import Record


def results_add(args: argparse.Namespace) -> int:
    """Publish finished runs, analyses and benchmarks; a line for each that cannot be."""
    from cifar_resnet.results import add

    _needs_results(args.results)
    if not args.run_folders:
        print("nothing to add: no run was named")
    code = 0
    for folder in args.run_folders:
        try:
            print(add(folder, args.results))
        except (InputError, OSError) as error:
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
    elif failed := run(
        queue,
        args.out,
        options=_training_options(args),
        here=[] if args.compile is not None else done,
        published=published,
        budget=budget,
        parallel=args.jobs,
    ):
        logs = ", ".join(dict.fromkeys(map(str, failed)))
        print(f"cifar-resnet: not every run ended well; see {logs}", file=sys.stderr)
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
        new, old = (
            next((f"{r.metrics.accuracy:.2%}" for r in found if job.answered_by(r)), "")
            for found in (again, published)
        )
        print(f"{job.folder}: {new or 'not finished'}, published {old or 'not yet'}")


def _needs_results(folder: Path) -> None:
    """Without what is published, everything would seem to be missing."""
    if not folder.is_dir():
        raise InputError(f"there is no folder {folder}; run it in the checkout or give --results")


def _needs_posix(command: str) -> None:
    if os.name != "posix":
        raise InputError(f"{command} works on Linux and macOS alone")


def analyze(args: argparse.Namespace) -> None:
    """Measure single networks, and write a record."""
    from cifar_resnet.analysis import AnalysisRecord, analyze, network_of
    from cifar_resnet.data import load
    from cifar_resnet.files import must_be_writable
    from cifar_resnet.record import read, write_record

    network_of(args.name, args.run_folder)  # refused before a data set is downloaded
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
    from dataclasses import replace

    from cifar_resnet.bench import bench, summary
    from cifar_resnet.contention import contention
    from cifar_resnet.files import must_be_writable
    from cifar_resnet.recipe import get_recipe
    from cifar_resnet.record import write_record
    from cifar_resnet.software import software

    _needs_posix("bench")
    if args.rounds < 1 or (args.steps is not None and args.steps < 1):
        raise InputError("--rounds and --steps must be at least 1")
    hardware = hardware_options(args, args.device)
    usual = get_recipe("notes" if hardware.device == "cpu" else "fast").batch_size
    batch_size = usual if args.batch_size is None else args.batch_size
    recipe = get_recipe("notes", network=args.network, batch_size=batch_size)
    # Uncommitted code cannot publish.
    out = args.out or Path("results" if software().clean else "runs") / "bench"
    must_be_writable(out)
    record = bench(hardware, recipe, rounds=args.rounds, steps=args.steps)
    path = out / f"{record.id}.json"
    write_record(record, path)  # before what may yet be interrupted
    record = replace(record, contention=contention(hardware, recipe, rounds=args.rounds))
    write_record(record, path)
    print(summary(record))
    print(f"record {path}")
