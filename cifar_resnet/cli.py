"""The command line. torch is imported only once a command needs it.

Exit codes: 0 done, 1 a check failed, 2 wrong input (one line on standard error), 130 interrupted.
"""

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any, NoReturn

from cifar_resnet import __version__
from cifar_resnet.errors import InputError


class _Parser(argparse.ArgumentParser):
    """Reports a wrong argument in one line, like every other wrong input."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message} (see {self.prog} --help)\n")


def _parser() -> _Parser:
    parser = _Parser(
        prog="cifar-resnet", description="ResNet-18 on CIFAR-10: train it, measure it, use it."
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(metavar="COMMAND", required=True, parser_class=_Parser)

    data = _Parser(add_help=False)
    data.add_argument(
        "--data",
        metavar="DIR",
        help="folder that holds cifar-10-batches-py, or the word synthetic for a drawn "
        "stand-in (default: CIFAR10_ROOT, else a download into the user's cache)",
    )
    data.add_argument(
        "--val",
        action="store_true",
        help="hold out 5,000 training images and evaluate on them, not on the test images",
    )
    machine = _Parser(add_help=False)
    machine.add_argument("--device", help="cpu, cuda or cuda:N (default: cuda if there is any)")
    machine.add_argument(
        "--precision", help="bf16 or fp32 (default: bf16 where the hardware multiplies it)"
    )
    machine.add_argument("--threads", type=int, metavar="N", help="CPU threads")

    train = commands.add_parser(
        "train",
        parents=[data, machine],
        help="train a recipe and write a run record",
        description="Train a recipe; write checkpoint.pt, weights.safetensors and record.json.",
    )
    train.add_argument("recipe", help="name of a recipe; `cifar-resnet recipes` lists them")
    train.add_argument("--seed", type=int, default=0, help="default: 0")
    train.add_argument("--epochs", type=int, metavar="N", help="instead of the recipe's")
    train.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="FIELD=VALUE",
        help="change a field of the recipe, such as learning_rate=0.05; can be repeated",
    )
    train.add_argument(
        "--out", type=Path, metavar="DIR", help="the run's folder (default: runs/NAME)"
    )
    train.add_argument("--resume", action="store_true", help="go on from the last full epoch")
    train.add_argument(
        "--compile",
        action=argparse.BooleanOptionalAction,
        help="torch.compile the network: a minute of preparation, then faster epochs "
        "(default: for five epochs and more, where a C++ compiler is at hand)",
    )
    train.set_defaults(run=_train)

    evaluate = commands.add_parser(
        "evaluate",
        parents=[data, machine],
        help="measure weights on the test images",
        description="Measure weights: accuracy, loss, per-class accuracy, calibration.",
    )
    evaluate.add_argument(
        "weights", nargs="?", type=Path, help="a .safetensors file (default: the shipped weights)"
    )
    evaluate.add_argument("--json", action="store_true", help="print every metric as JSON")
    evaluate.set_defaults(run=_evaluate)

    predict = commands.add_parser(
        "predict",
        help="classify pictures",
        description="Classify pictures; each is cut to its centred square and shrunk to 32x32.",
    )
    predict.add_argument("images", nargs="+", type=Path, metavar="IMAGE")
    predict.add_argument("--weights", type=Path, help="default: the shipped weights")
    predict.add_argument("--json", action="store_true", help="print all probabilities as JSON")
    predict.set_defaults(run=_predict)

    results = commands.add_parser("results", help="publish records, check the published ones")
    actions = results.add_subparsers(metavar="ACTION", required=True, parser_class=_Parser)
    add = actions.add_parser("add", help="publish a finished run")
    add.add_argument("run_folder", type=Path, metavar="RUN")
    add.set_defaults(run=_results_add)
    check = actions.add_parser(
        "check", help="fail if the code no longer stands behind a record or the weights"
    )
    check.set_defaults(run=_results_check)
    for action in (add, check):
        action.add_argument(
            "--results", type=Path, default=Path("results"), metavar="DIR", help="default: results"
        )

    experiments = commands.add_parser("experiments", help="the queue of runs behind each claim")
    actions = experiments.add_subparsers(metavar="ACTION", required=True, parser_class=_Parser)
    status = actions.add_parser("status", help="list the experiments and how far they are")
    status.set_defaults(run=_experiments_status)
    run = actions.add_parser("run", parents=[machine], help="run what is still missing")
    run.add_argument("names", nargs="*", metavar="NAME", help="default: all")
    run.add_argument("--data", metavar="DIR", help="folder that holds cifar-10-batches-py")
    run.add_argument("--budget", default="inf", help="stop by then, such as 9m (default: never)")
    run.add_argument("--jobs", type=int, default=1, metavar="N", help="runs at a time")
    run.add_argument(
        "--compile", action=argparse.BooleanOptionalAction, help="as in cifar-resnet train"
    )
    run.set_defaults(run=_experiments_run)
    for action in (status, run):
        action.add_argument(
            "--out",
            type=Path,
            default=Path("runs"),
            metavar="DIR",
            help="folder of all runs (default: runs)",
        )
        action.add_argument(
            "--results", type=Path, default=Path("results"), metavar="DIR", help="default: results"
        )

    bench = commands.add_parser(
        "bench", parents=[machine], help="how fast training is, beside the plain loop"
    )
    bench.add_argument("--network", default="resnet18", help="default: resnet18")
    bench.add_argument("--batch-size", type=int, default=128, metavar="N", help="default: 128")
    bench.add_argument("--rounds", type=int, default=5, metavar="N", help="default: 5")
    bench.add_argument("--steps", type=int, metavar="N", help="steps a round")
    bench.add_argument(
        "--compile", action=argparse.BooleanOptionalAction, help="as in cifar-resnet train"
    )
    bench.add_argument(
        "--out", type=Path, default=Path("results/bench"), metavar="DIR", help="for the record"
    )
    bench.set_defaults(run=_bench)

    fingerprint = commands.add_parser(
        "fingerprint", help="what a recipe does, in a few numbers, as JSON"
    )
    fingerprint.add_argument("recipe")
    fingerprint.set_defaults(run=_fingerprint)

    recipes = commands.add_parser("recipes", help="list the recipes")
    recipes.set_defaults(run=_recipes)
    return parser


def _train(args: argparse.Namespace) -> None:
    from cifar_resnet.recipe import get_recipe

    changes = _changes(args.set)
    if args.epochs is not None:
        changes["epochs"] = args.epochs
    recipe = get_recipe(args.recipe, **changes)

    from cifar_resnet.data import load
    from cifar_resnet.display import Silent, Terminal
    from cifar_resnet.distributed import join, local_device
    from cifar_resnet.hardware import detect
    from cifar_resnet.run import fit

    compiled = False if args.compile is None and recipe.epochs < 5 else args.compile
    hardware = detect(
        local_device(args.device), precision=args.precision, threads=args.threads, compile=compiled
    )
    data = load(args.data, val=args.val)
    out = args.out or Path("runs") / f"{recipe.name}-{data.name}-{data.split}-seed{args.seed}"
    with join(hardware.device) as world:
        if world.leads:
            print(
                f"{recipe.name}: {recipe.epochs} epochs of {len(data.train_images)} {data.name} "
                f"images; evaluated on {len(data.eval_images)} {data.split} images\n"
                f"{hardware.name}: {hardware.device}, {hardware.threads} threads, "
                f"{hardware.precision}{', compiled' if hardware.compile else ''}"
                f"{f', {world.size} processes' if world.size > 1 else ''}; run folder {out}",
                file=sys.stderr,
            )
        try:
            run = fit(
                recipe,
                data,
                hardware,
                seed=args.seed,
                out=out,
                resume=args.resume,
                display=Terminal(recipe.epochs) if world.leads else Silent(),
                world=world,
            )
        except KeyboardInterrupt:
            if world.leads:
                _say_what_is_kept(out)
            raise
    if world.leads:
        accuracy = run.record.metrics.accuracy
        print(f"{data.split} accuracy {accuracy:.2%}  record {out / 'record.json'}")


def _say_what_is_kept(out: Path) -> None:
    kept = "no epoch was finished"
    if (out / "checkpoint.pt").exists():
        kept = f"{out} keeps every full epoch: add --resume to go on"
    print(f"\ninterrupted; {kept}", file=sys.stderr)


def _changes(pairs: list[str]) -> dict[str, Any]:
    """Turn ``["learning_rate=0.05", "schedule=constant"]`` into keyword arguments."""
    changes: dict[str, Any] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals:
            raise InputError(f"--set {pair!r}: write FIELD=VALUE, such as learning_rate=0.05")
        try:
            changes[name] = json.loads(text)
        except ValueError:
            changes[name] = text
    return changes


def _evaluate(args: argparse.Namespace) -> None:
    from cifar_resnet.data import CLASSES, load
    from cifar_resnet.evaluate import evaluate
    from cifar_resnet.hardware import detect
    from cifar_resnet.predict import WEIGHTS, load_pretrained

    hardware = detect(
        args.device, precision=args.precision or "fp32", threads=args.threads, compile=False
    )
    path = args.weights or WEIGHTS
    model = load_pretrained(path).to(hardware.device)
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
    for name, accuracy in zip(CLASSES, metrics.per_class_accuracy, strict=True):
        print(f"  {name:<11}{accuracy:.2%}")


def _predict(args: argparse.Namespace) -> None:
    import torch

    from cifar_resnet.data import CLASSES
    from cifar_resnet.predict import classify, load_pretrained, read_image

    images = torch.stack([read_image(path) for path in args.images])
    probabilities = classify(load_pretrained(args.weights), images)
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


def _results_add(args: argparse.Namespace) -> None:
    from cifar_resnet.results import add

    print(add(args.run_folder, args.results))


def _results_check(args: argparse.Namespace) -> None:
    from cifar_resnet.predict import WEIGHTS
    from cifar_resnet.results import check

    problems = list(check(args.results, WEIGHTS))
    for problem in problems:
        print(f"cifar-resnet: {problem}", file=sys.stderr)
    if problems:
        raise SystemExit(1)
    print("every published record and the weights still hold")


def _experiments_status(args: argparse.Namespace) -> None:
    from cifar_resnet.experiments import EXPERIMENTS, finished, jobs, missing

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


def _experiments_run(args: argparse.Namespace) -> None:
    from cifar_resnet.experiments import finished, jobs, missing, parse_budget, run, select

    wanted = jobs(select(args.names))
    if args.jobs < 1:
        raise InputError(f"--jobs must be at least 1, not {args.jobs}")
    budget = float("inf") if args.budget == "inf" else parse_budget(args.budget)
    options = []
    for name in ("data", "device", "precision", "threads"):
        value = getattr(args, name)
        options += [] if value is None else [f"--{name}", str(value)]
    if args.compile is not None:
        options.append("--compile" if args.compile else "--no-compile")
    queue = missing(wanted, finished([args.results / "runs", args.out]))
    failed = run(queue, args.out, options=options, budget=budget, parallel=args.jobs)
    if failed:
        logs = ", ".join(str(args.out / job.folder / "log.txt") for job in failed)
        print(f"cifar-resnet: {len(failed)} runs failed; see {logs}", file=sys.stderr)
        raise SystemExit(1)


def _bench(args: argparse.Namespace) -> None:
    from cifar_resnet.bench import bench, summary
    from cifar_resnet.hardware import detect
    from cifar_resnet.recipe import get_recipe
    from cifar_resnet.record import write_record

    if args.rounds < 1 or (args.steps or 1) < 1:
        raise InputError("--rounds and --steps must be at least 1")
    hardware = detect(
        args.device, precision=args.precision, threads=args.threads, compile=args.compile
    )
    recipe = get_recipe("notes", network=args.network, batch_size=args.batch_size)
    record = bench(hardware, recipe, rounds=args.rounds, steps=args.steps)
    path = args.out / f"{record.id}.json"
    write_record(record, path)
    print(f"{summary(record)}\nrecord {path}")


def _fingerprint(args: argparse.Namespace) -> None:
    from cifar_resnet.fingerprint import fingerprint
    from cifar_resnet.recipe import get_recipe

    print(json.dumps(fingerprint(get_recipe(args.recipe)), indent=1))


def _recipes(args: argparse.Namespace) -> None:
    import inspect

    from cifar_resnet.recipe import RECIPES

    for name, make in RECIPES.items():
        text = " ".join(inspect.cleandoc(make.__doc__ or "").split())
        print(f"{name}\n    {text}")


def main(argv: list[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: arguments; default: those of the process.

    Returns:
        The exit code.

    Example:
        >>> main(["predict", "nowhere.png"])
        2
    """
    args = _parser().parse_args(argv)
    try:
        args.run(args)
    except InputError as error:
        print(f"cifar-resnet: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    return 0
