"""The command line. torch is imported only once a command needs it.

Exit codes: 0 done; 1 a check or a run of an experiment failed, or the reader of the output went
away; 2 wrong input (one line on standard error); 130 interrupted; 143 told to end (SIGTERM).
"""

import argparse
import io
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NoReturn

from cifar_resnet import __version__, commands, evidence_commands
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
    subcommands = parser.add_subparsers(metavar="COMMAND", required=True, parser_class=_Parser)

    data = _Parser(add_help=False)
    data.add_argument(
        "--data",
        type=_data,
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
        "--precision",
        help="bf16 or fp32 (default: bf16 where the hardware multiplies it; evaluate: fp32)",
    )
    machine.add_argument("--threads", type=int, metavar="N", help="CPU threads")
    compiling = _Parser(add_help=False)
    compiling.add_argument(
        "--compile",
        action=argparse.BooleanOptionalAction,
        help="torch.compile the network (default: if a measurement before the first step finds "
        "it faster; train: for five epochs and more)",
    )
    compiling.add_argument(
        "--cuda-graphs",
        action="store_true",
        help="with --compile, on a GPU: replay its code as CUDA graphs",
    )

    train = subcommands.add_parser(
        "train",
        parents=[data, machine, compiling],
        help="train a recipe and write a run record",
        description="Train a recipe; write checkpoint.pt, weights.safetensors and record.json.",
    )
    train.add_argument(
        "recipe",
        help="its name, which `cifar-resnet recipes` lists; or a run's record.json, to repeat it",
    )
    train.add_argument(
        "--seed",
        type=_seeds,
        metavar="N[,N...]",
        help="default: 0, or the record's; several, such as 0,1,2, one after the other",
    )
    train.add_argument("--epochs", type=int, metavar="N", help="instead of the recipe's")
    train.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="FIELD=VALUE",
        help="change a field of the recipe, such as learning_rate=0.05; can be repeated",
    )
    train.add_argument(
        "--out",
        type=_path,
        metavar="DIR",
        help="the run's folder (default: runs/RECIPE-DATA-SPLIT-seedN); of several seeds, "
        "the folder of theirs",
    )
    train.add_argument("--resume", action="store_true", help="go on from the last checkpoint")
    train.set_defaults(run=commands.train)

    evaluate = subcommands.add_parser(
        "evaluate",
        parents=[data, machine],
        help="measure weights on the test images",
        description="Measure weights: accuracy, loss, per-class accuracy, calibration.",
    )
    evaluate.add_argument(
        "weights", nargs="?", type=_path, help="a .safetensors file (default: the shipped weights)"
    )
    evaluate.add_argument(
        "--network", default="resnet18", help="which one the weights are of (default: resnet18)"
    )
    evaluate.add_argument("--json", action="store_true", help="print every metric as JSON")
    evaluate.set_defaults(run=commands.evaluate)

    predict = subcommands.add_parser(
        "predict",
        help="classify pictures",
        description="Classify pictures; each is cut to its centred square and shrunk to 32x32.",
    )
    predict.add_argument(
        "images",
        nargs="+",
        type=_path,
        metavar="IMAGE",
        help="a picture, or a folder for all the pictures in it",
    )
    predict.add_argument("--weights", type=_path, help="default: the shipped weights")
    predict.add_argument(
        "--network", default="resnet18", help="which one the weights are of (default: resnet18)"
    )
    predict.add_argument("--json", action="store_true", help="print all probabilities as JSON")
    predict.set_defaults(run=commands.predict)

    results = subcommands.add_parser("results", help="publish records, check the published ones")
    actions = results.add_subparsers(metavar="ACTION", required=True, parser_class=_Parser)
    add = actions.add_parser("add", help="publish finished runs, analyses and benchmarks")
    add.add_argument(
        "run_folders",
        type=_path,
        nargs="*",
        metavar="RUN",
        help="the folder of a run, or the file of an analysis or a benchmark",
    )
    add.set_defaults(run=evidence_commands.results_add)
    check = actions.add_parser(
        "check", help="fail if the code no longer stands behind a record or the weights"
    )
    check.set_defaults(run=evidence_commands.results_check)
    for action in (add, check):
        action.add_argument(
            "--results", type=_path, default=Path("results"), metavar="DIR", help="default: results"
        )

    experiments = subcommands.add_parser("experiments", help="the queue of runs behind each claim")
    actions = experiments.add_subparsers(metavar="ACTION", required=True, parser_class=_Parser)
    listed = actions.add_parser("list", help="list the experiments and what each of them compares")
    listed.set_defaults(run=evidence_commands.experiments_list)
    status = actions.add_parser("status", help="how far the experiments are")
    status.set_defaults(run=evidence_commands.experiments_status)
    run = actions.add_parser(
        "run",
        parents=[machine, compiling],
        help="run what is still missing",
        description="Run what is still missing, in the precision of what is published.",
    )
    run.add_argument("names", nargs="*", metavar="NAME", help="default: all for the device")
    run.add_argument(
        "--data", type=_data, metavar="DIR", help="folder that holds cifar-10-batches-py"
    )
    run.add_argument("--budget", metavar="TIME", help="stop by then, such as 9m (default: never)")
    run.add_argument(
        "--again", action="store_true", help="repeat what is published, and compare with it"
    )
    run.add_argument("--jobs", type=int, default=1, metavar="N", help="runs at a time")
    run.set_defaults(run=evidence_commands.experiments_run)
    for action in (status, run):
        action.add_argument(
            "--out",
            type=_path,
            default=Path("runs"),
            metavar="DIR",
            help="folder of all runs (default: runs)",
        )
        action.add_argument(
            "--results", type=_path, default=Path("results"), metavar="DIR", help="default: results"
        )

    analyze = subcommands.add_parser(
        "analyze",
        parents=[data],
        help="measure gradients, residuals, or a network with single blocks removed",
    )
    analyze.add_argument("name", metavar="NAME", help="gradients, identity or lesion")
    analyze.add_argument(
        "--run-folder",
        type=_path,
        metavar="RUN",
        help="a finished run, for its weights (default: the shipped weights)",
    )
    analyze.add_argument(
        "--out",
        type=_path,
        default=Path("runs") / "analyses",
        metavar="DIR",
        help="for the record (default: runs/analyses)",
    )
    analyze.set_defaults(run=evidence_commands.analyze)

    bench = subcommands.add_parser(
        "bench", parents=[machine, compiling], help="how fast training is, beside the plain loop"
    )
    bench.add_argument("--network", default="resnet18", help="default: resnet18")
    bench.add_argument(
        "--batch-size", type=int, metavar="N", help="default: 128, on a GPU that of recipe fast"
    )
    bench.add_argument("--rounds", type=int, default=5, metavar="N", help="default: 5")
    bench.add_argument("--steps", type=int, metavar="N", help="steps a round")
    bench.add_argument(
        "--out",
        type=_path,
        metavar="DIR",
        help="for the record (default: results/bench; of uncommitted code runs/bench)",
    )
    bench.set_defaults(run=evidence_commands.bench)

    recipes = subcommands.add_parser("recipes", help="list the recipes, or the fields of one")
    recipes.add_argument(
        "which",
        nargs="?",
        metavar="NAME",
        help="print every field and value of this one, as --set of train takes them",
    )
    recipes.set_defaults(run=commands.recipes)
    return parser


def _path(text: str) -> Path:
    if not text:
        raise argparse.ArgumentTypeError("it is empty; give a path")
    return Path(os.path.expanduser(text))


def _data(text: str) -> str:
    _path(text)
    return os.path.expanduser(text)


def _seeds(text: str) -> list[int]:
    try:
        seeds = [int(word) for word in text.split(",")]
    except ValueError:
        seeds = []
    if not seeds or len(set(seeds)) < len(seeds):
        raise argparse.ArgumentTypeError(f"{text!r}: write a number, or several such as 0,1,2")
    return seeds


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
    try:
        try:
            return _main(argv)
        finally:  # after --help, --version and wrong words, too
            if sys.stdout:
                sys.stdout.flush()
    except OSError as error:
        if error.filename is None:  # standard output, of which Python would complain once more
            with suppress(OSError, AttributeError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):  # whoever read our output has seen enough
            return 1
        where = error.filename or "system"
        print(f"cifar-resnet: {where}: {error.strerror or error}", file=sys.stderr)
        return 2


def _main(argv: list[str] | None) -> int:
    args = _parser().parse_args(argv)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # names that a terminal cannot show
    try:
        with _sigterm_interrupts():
            code: int | None = args.run(args)
    except InputError as error:
        print(f"cifar-resnet: {error}", file=sys.stderr)
        return 2
    except (RuntimeError, MemoryError) as error:
        short = type(error).__name__ in ("OutOfMemoryError", "MemoryError")
        if not short and "allocate memory" not in str(error):
            raise
        print("cifar-resnet: out of memory; lower batch_size, or use fewer --jobs", file=sys.stderr)
        return 2
    except KeyboardInterrupt as stop:
        return 143 if isinstance(stop, _Terminated) else 130
    return code or 0


class _Terminated(KeyboardInterrupt):
    """By SIGTERM, with which batch systems, containers and `timeout` end a process."""


@contextmanager
def _sigterm_interrupts() -> Iterator[None]:
    """Have SIGTERM stop a command as Ctrl-C does, where nobody else handles it.

    Python lets only the main thread handle signals.
    """

    def stop(number: int, _: object) -> NoReturn:
        signal.signal(number, signal.SIG_IGN)  # some send it twice
        raise _Terminated

    ours = threading.current_thread() is threading.main_thread()
    if not ours or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
