"""The runs behind each claim of the notes, one after the other or several at a time.

    cifar-resnet experiments status
    cifar-resnet experiments run --data DIR --budget 9m      # what is still missing, in order
    cifar-resnet experiments run degradation --jobs 4        # one experiment, four at a time

Every run is an ordinary `cifar-resnet train` in a process of its own; on a GPU, where getting
ready takes as long as some training, seeds of an arm that would not run side by side share one.
At the end of the budget the running ones are interrupted; they keep their checkpoints and go on
from there the next time.
"""

import math
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from itertools import chain, count
from pathlib import Path

import torch

from cifar_resnet.checkpoint import load_checkpoint
from cifar_resnet.compiling import WORTH_COMPILING
from cifar_resnet.errors import InputError
from cifar_resnet.experiments import EXPERIMENTS, SET_ASIDE, Job, jobs
from cifar_resnet.files import sole_user
from cifar_resnet.recipe import Recipe
from cifar_resnet.record import Record, read_record
from cifar_resnet.resume import refuse_used_folder
from cifar_resnet.software import software

_HOPELESS = 3  # processes that fail while no run ends well: something is wrong with all
_GRACE = 20.0  # seconds of the budget kept back for interrupting
_PATIENCE = 10.0  # seconds; a checkpoint is written atomically, so that killing loses no epoch
_GETTING_READY = 120.0  # seconds of a process before the run's own: imports, data, how to compile

_Running = dict[tuple[Job, ...], subprocess.Popen[bytes]]


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
) -> list[Path]:
    """Run jobs until they are done or the budget is spent.

    Whether compiling pays is measured once for each network, batch size, kind of device and
    compared precision, and for short and long runs apart: the later ones are told what the first
    one found. What is compared is run in the precision of what is published. Where three
    processes fail and no run has ended well, the rest is not tried.

    Args:
        queue: what to run, in order.
        out: folder of all runs; each job has one of its own in it. The log of a process is in
            the folder of its run, or in the one that holds those of its seeds.
        options: further words for ``cifar-resnet train``, such as ``["--device", "cuda"]``.
        here: records of earlier runs on this machine.
        published: records of other machines, too.
        budget: seconds, some of them kept back for interrupting; a job that is not done by then
            resumes later, or starts anew if its time counts.
        parallel: processes at a time; one whose time counts has the machine to itself.

    Returns:
        The logs of the processes that failed, which say why.

    Raises:
        InputError: if the budget is no longer than what is kept back.
    """
    if budget <= _GRACE:
        raise InputError(f"budget: {_GRACE:g} seconds are kept back for interrupting; give more")
    deadline = time.monotonic() + budget - _GRACE
    waiting, records = list(queue), list(here)
    running: _Running = {}
    failed: list[Path] = []
    ended_well = False
    with _pausing(running, out):
        while (waiting or running) and time.monotonic() < deadline:
            while waiting and len(running) < parallel:
                if running and any(job.timed for job in (waiting[0], *chain(*running))):
                    break
                takes = _published_seconds(waiting[0], published)
                left = deadline - time.monotonic() - _GETTING_READY
                if takes and takes > left:
                    minutes = (takes + _GETTING_READY) / 60
                    print(f"left out  {waiting[0].folder}: it takes {minutes:.0f} minutes in all")
                    del waiting[0]
                    continue
                together = _sharing(waiting, out, alone=parallel == 1)
                if takes:  # a budget without end has room for all
                    together = together[: max(1, int(min(left / takes, len(together))))]
                waiting = [job for job in waiting if job not in together]
                begun = _begun(together[0], out)  # and goes on as it began
                told = [] if begun else _compiled_as_before(together[0], records)
                told += _in_the_same_precision(together[0], published)
                told += _own_cores(together[0], min(parallel, len(queue)))
                running[together] = _start(together, out, told + options)
                for job in together:
                    print(f"started   {job.folder}", flush=True)
            time.sleep(0.2)
            for together, process in list(running.items()):
                if process.poll() is None:
                    continue
                del running[together]
                done = _ended_well(together, process.returncode, out)
                ended_well = ended_well or bool(done)
                for job in done:
                    print(f"finished  {job.folder}")
                    records.append(read_record(out / job.folder / "record.json"))
                lost = [job for job in together if job not in done]
                if lost:
                    failed.append(_folder(together, out) / "log.txt")
                    print(f"failed    {lost[0].folder}: {_last_line(failed[-1])}")
                    waiting[:0] = lost[1:]
                    if len(failed) == _HOPELESS and not ended_well and waiting:
                        print(f"{len(waiting)} more are not tried: all have failed so far")
                        waiting.clear()
    return failed


@contextmanager
def _pausing(running: _Running, out: Path) -> Iterator[None]:
    """Pause in the end what still runs then; stopped, too, or when the terminal is closed.

    Both pause as Ctrl-C does, but not under nohup.
    """
    both = (signal.SIGTERM, signal.SIGHUP)
    before = {n: signal.getsignal(n) for n in both if signal.getsignal(n) is not signal.SIG_IGN}
    for number, handler in before.items():
        if handler is signal.SIG_DFL:
            signal.signal(number, signal.default_int_handler)
    try:
        yield
    finally:
        for number in before:
            signal.signal(number, signal.SIG_IGN)  # it comes twice when a terminal is closed
        _pause(running, out)
        for number, handler in before.items():
            signal.signal(number, handler)


def _pause(running: _Running, out: Path) -> None:
    for process in running.values():
        process.send_signal(signal.SIGINT)
    deadline = time.monotonic() + _PATIENCE  # of all together
    for together, process in running.items():
        try:
            process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:  # a background shell makes its children deaf to it
            process.kill()
            process.wait()
        for job in together:
            ended = (out / job.folder / "record.json").exists()
            with suppress(OSError):
                print(f"{'finished' if ended else 'paused  '}  {job.folder}", flush=True)


def _published_seconds(job: Job, published: Iterable[Record]) -> float:
    """How long a run that must not be interrupted took, once its process was ready for it.

    0 if it may be interrupted, or if none is known.
    """
    alike = (r.elapsed_seconds for r in published if job.timed and r.recipe == job.recipe)
    return max(alike, default=0.0)


def _sharing(waiting: Sequence[Job], out: Path, *, alone: bool) -> tuple[Job, ...]:
    """The first job, and the further seeds of its arm that one process will train with it.

    On a GPU they do if their time counts, or if nothing would run beside them (``alone``); on a
    CPU one seed of every arm comes before the next seed. A seed that was begun comes
    first: the others are compiled as it was. Folders that cannot be gone on with are set aside.
    """
    first = waiting[0]
    alike = [job for job in waiting if replace(job, seed=first.seed) == first]
    if first.device == "cpu" or not (alone or first.timed):
        alike = [first]
    for job in alike:
        _set_aside(job, out / job.folder)
    usable = [job for job in alike if _usable(out / job.folder)]
    usable.sort(key=lambda job: not _begun(job, out))
    return tuple(usable) or (first,)  # which says itself what is wrong with its folder


def _usable(folder: Path) -> bool:
    try:
        refuse_used_folder(folder, resume=True)
    except InputError:
        return False
    return True


def _begun(job: Job, out: Path) -> bool:
    return (out / job.folder / "checkpoint.pt").exists()


def _ended_well(together: tuple[Job, ...], code: int, out: Path) -> list[Job]:
    """All, or of several seeds those that were done before one failed."""
    if code == 0:
        return list(together)
    several = len(together) > 1
    return [job for job in together if several and (out / job.folder / "record.json").exists()]


def _folder(together: tuple[Job, ...], out: Path) -> Path:
    """Of one run its own; of several seeds the one that holds theirs."""
    own = out / together[0].folder
    return own.parent if len(together) > 1 else own


def _last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").splitlines() if log.exists() else []
    return lines[-1] if lines else "it said nothing"


def _compiled_as_before(job: Job, records: Iterable[Record]) -> list[str]:
    """How a run alike was compiled, as words for ``cifar-resnet train``."""

    def shape(recipe: Recipe) -> tuple[str, int, bool]:
        return recipe.network, recipe.batch_size, recipe.epochs >= WORTH_COMPILING

    for record in records:
        used = record.hardware
        if shape(record.recipe) == shape(job.recipe) and (
            used.kind == job.device and job.arm.precision in (None, used.precision)
        ):
            if not used.compile:
                return ["--no-compile"]
            return ["--compile", *(["--cuda-graphs"] if used.cuda_graphs else [])]
    return []


def _in_the_same_precision(job: Job, published: Iterable[Record]) -> list[str]:
    """That of the experiment's published runs, as words for ``cifar-resnet train``."""
    alike = jobs(e for e in EXPERIMENTS if e.name == job.experiment)
    found = {
        record.hardware.precision
        for record in published
        if any(other.answered_by(record) for other in alike)
    }
    return ["--precision", *found] if len(found) == 1 else []


def _own_cores(job: Job, parallel: int) -> list[str]:
    """A share of the cores for each run beside others: threads in need of the same ones crawl.

    Who set ``OMP_NUM_THREADS`` has said how many each process is to have.
    """
    if job.device != "cpu" or parallel == 1 or "OMP_NUM_THREADS" in os.environ:
        return []
    return ["--threads", str(max(1, torch.get_num_threads() // parallel))]


def _set_aside(job: Job, folder: Path) -> None:
    """Rename the folder of a run that would not be gone on with.

    It was begun by other code or torch, or its time counts and it was interrupted. What is
    damaged or still being trained stays where it is; training will say so.
    """
    if not folder.exists():
        return
    with suppress(InputError), sole_user(folder):
        began, here = _begun_by(folder), software()
        if began is None:
            return
        other_code = began != (here.source_sha256, here.torch)
        if other_code or (job.timed and _interrupted(folder)):
            why = began[0][:8] if other_code else "interrupted"
            places = (
                folder.with_name(f"{folder.name}{SET_ASIDE}{why}{f'-{i}' * (i > 1)}")
                for i in count(1)
            )
            folder.rename(next(place for place in places if not place.exists()))


def _interrupted(folder: Path) -> bool:
    record = folder / "record.json"
    return not record.exists() or read_record(record).sessions > 1


def _begun_by(folder: Path) -> tuple[str, str] | None:
    """Checksum of the code, and version of torch; None if the folder holds no run."""
    checkpoint, record = folder / "checkpoint.pt", folder / "record.json"
    if checkpoint.exists():
        state = load_checkpoint(checkpoint)
        torch_version = str(state.get("where")).rpartition("torch ")[2]
        return str(state.get("source_sha256")), torch_version
    if record.exists():  # whose checkpoint was deleted
        ran = read_record(record).software
        return ran.source_sha256, ran.torch
    return None


def _start(together: tuple[Job, ...], out: Path, options: list[str]) -> subprocess.Popen[bytes]:
    folder = _folder(together, out)
    folder.mkdir(parents=True, exist_ok=True)
    first, *others = together
    train, *own = first.arguments(*others)  # which come last, and so count
    words = [sys.executable, "-m", "cifar_resnet", train, *options, *own, "--out", str(folder)]
    with (folder / "log.txt").open("ab") as log:
        return subprocess.Popen(words, stdout=log, stderr=log, start_new_session=True)
