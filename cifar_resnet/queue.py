"""The runs behind each claim of the notes, one after the other or several at a time.

    cifar-resnet experiments status
    cifar-resnet experiments run --data DIR --budget 9m      # what is still missing, in order
    cifar-resnet experiments run degradation --jobs 4        # one experiment, four at a time

Every run is an ordinary `cifar-resnet train` in a process of its own. At the end of the
budget the running ones are interrupted; they keep their checkpoints and go on from there the
next time.
"""

import math
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from itertools import count
from pathlib import Path

from cifar_resnet.checkpoint import load_checkpoint, sole_user
from cifar_resnet.compiling import WORTH_COMPILING
from cifar_resnet.errors import InputError
from cifar_resnet.experiments import Job, siblings
from cifar_resnet.recipe import Recipe
from cifar_resnet.record import Record, read_record, software

_HOPELESS = 3  # runs that fail while none ends well: something is wrong with all
_PATIENCE = 10.0  # seconds; a checkpoint is written atomically, so that killing loses no epoch


def parse_budget(text: str) -> float:
    """Seconds in a time such as ``"90"``, ``"9m"`` or ``"1.5h"``.

    Raises:
        InputError: if it is no such time.

    Example:
        >>> parse_budget("9m")
        540.0
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh]?)", text)
    if not match:
        raise InputError(f"budget {text!r}: write a time such as 90s, 9m or 1.5h")
    return float(match[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[match[2]]


def run(
    queue: list[Job],
    out: Path,
    *,
    options: list[str],
    here: Iterable[Record] = (),
    published: Sequence[Record] = (),
    budget: float = math.inf,
    parallel: int = 1,
    grace: float = 20.0,
) -> list[Job]:
    """Run jobs in processes of their own until they are done or the budget is spent.

    Whether compiling pays is measured once for each network and batch size: the later runs are
    told what the first one found. What is compared is run in the precision of what is
    published. Where three fail and none has ended well here, the rest is not tried.

    Args:
        queue: what to run, in order.
        out: folder of all runs; each job has one of its own in it, with its log.
        options: further words for ``cifar-resnet train``, such as ``["--device", "cuda"]``.
        here: records of earlier runs on this machine.
        published: records of other machines, too.
        budget: seconds; a job that is not done by then is interrupted and resumes later.
        parallel: jobs at a time; one whose time counts has the machine to itself.
        grace: seconds kept back from the budget for interrupting.

    Returns:
        The jobs that failed; their logs say why.

    Raises:
        InputError: if the budget is not longer than the grace.
    """
    if budget <= grace:
        raise InputError(f"budget: {grace:g} seconds are kept back for interrupting; give more")
    before = {  # stopped, or the terminal closed: pauses as Ctrl-C does; not under nohup
        number: signal.signal(number, signal.default_int_handler)
        for number in (signal.SIGTERM, signal.SIGHUP)
        if signal.getsignal(number) is not signal.SIG_IGN
    }
    deadline = time.monotonic() + budget - grace
    waiting, running, failed = list(queue), dict[Job, subprocess.Popen[bytes]](), []
    records = list(here)
    try:
        while (waiting and time.monotonic() < deadline) or running:
            while waiting and len(running) < parallel and time.monotonic() < deadline:
                if running and any(job.timed for job in (waiting[0], *running)):
                    break
                job = waiting.pop(0)
                begun = (out / job.folder / "checkpoint.pt").exists()  # and goes on as it began
                told = [] if begun else _compiled_as_before(job, records)
                told += _in_the_same_precision(job, published)
                running[job] = _start(job, out, told + options)
                print(f"started   {job.folder}", flush=True)
            time.sleep(0.2)
            for job, process in list(running.items()):
                if process.poll() is None:
                    continue
                del running[job]
                print(f"{'finished' if process.returncode == 0 else 'failed  '}  {job.folder}")
                if process.returncode != 0:
                    failed.append(job)
                    if len(failed) == _HOPELESS and not records and waiting:
                        print(f"{len(waiting)} more are not tried: all have failed so far")
                        waiting.clear()
                else:
                    records.append(read_record(out / job.folder / "record.json"))
            if time.monotonic() >= deadline:
                break
    finally:
        for number in before:
            signal.signal(number, signal.SIG_IGN)  # it comes twice when a terminal is closed
        for process in running.values():
            process.send_signal(signal.SIGINT)
        for job, process in running.items():
            try:
                process.wait(_PATIENCE)
            except subprocess.TimeoutExpired:  # a background shell makes its children deaf to it
                process.kill()
                process.wait()
            with suppress(OSError):
                print(f"paused    {job.folder}", flush=True)
        for number, handler in before.items():
            signal.signal(number, handler)
    return failed


def _compiled_as_before(job: Job, records: Iterable[Record]) -> list[str]:
    """How a run alike was compiled, as words for ``cifar-resnet train``."""

    def shape(recipe: Recipe) -> tuple[str, int, bool]:
        return recipe.network, recipe.batch_size, recipe.epochs >= WORTH_COMPILING

    for record in records:
        used = record.hardware
        if shape(record.recipe) == shape(job.recipe) and (
            used.device.partition(":")[0] == job.device
            and job.arm.precision in (None, used.precision)
        ):
            if not used.compile:
                return ["--no-compile"]
            return ["--compile", *(["--cuda-graphs"] if used.cuda_graphs else [])]
    return []


def _in_the_same_precision(job: Job, published: Iterable[Record]) -> list[str]:
    """That of the experiment's published runs, as words for ``cifar-resnet train``."""
    alike = siblings(job)
    found = {
        record.hardware.precision
        for record in published
        if any(other.answered_by(record) for other in alike)
    }
    return ["--precision", *found] if len(found) == 1 else []


def _set_aside_other_code(folder: Path) -> None:
    """Rename a run that was begun by other code or torch, which would not be gone on with.

    What is damaged or still being trained stays where it is; training will say so.
    """
    checkpoint = folder / "checkpoint.pt"
    if not checkpoint.exists():
        return
    with suppress(InputError), sole_user(folder):
        state, here = load_checkpoint(checkpoint), software()
        began, where = state.get("source_sha256"), str(state.get("where"))
        if began != here.source_sha256 or not where.endswith(f"torch {here.torch}"):
            places = (
                folder.with_name(f"{folder.name}.other-code-{str(began)[:8]}{f'-{i}' * (i > 1)}")
                for i in count(1)
            )
            folder.rename(next(place for place in places if not place.exists()))


def _start(job: Job, out: Path, options: list[str]) -> "subprocess.Popen[bytes]":
    folder = out / job.folder
    _set_aside_other_code(folder)
    folder.mkdir(parents=True, exist_ok=True)
    train, *own = job.arguments()  # which come last, and so count
    words = [sys.executable, "-m", "cifar_resnet", train, *options, *own, "--out", str(folder)]
    with (folder / "log.txt").open("ab") as log:
        return subprocess.Popen(words, stdout=log, stderr=log, start_new_session=True)
