import math
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cifar_resnet import cli, experiments, queue
from cifar_resnet.checkpoint import save_checkpoint
from cifar_resnet.experiments import Arm, Experiment, Job, finished
from cifar_resnet.files import sole_user
from cifar_resnet.queue import parse_budget, run
from cifar_resnet.record import Record, read_record, write_record
from tests.site_build import invented

QUICK = Arm("quick", "smoke", {"epochs": 1, "network": "resnet20", "warmup_epochs": 0})
SLOW = Arm("slow", "smoke", {"epochs": 500, "network": "resnet20"})
OPTIONS = ["--data", "synthetic", "--threads", "1", "--no-compile"]
JOB = Job("test", QUICK, 0)
RECORD = invented(JOB.recipe, 0, 0.5)


def on(record: Record, **hardware: Any) -> Record:
    """The same on other hardware."""
    return replace(record, hardware=replace(record.hardware, **hardware))


def begin(folder: Path, **changes: str) -> None:
    """Leave a checkpoint of this code there, or of some other."""
    here = queue.software()
    mine = {"source_sha256": here.source_sha256, "where": f"1 x CPU, fp32, torch {here.torch}"}
    save_checkpoint(folder / "checkpoint.pt", mine | changes)


@pytest.fixture
def only(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Makes some arms and seeds the only experiment there is."""

    def choose(*seeds: int, arms: tuple[Arm, ...] = (QUICK,)) -> None:
        everything = (Experiment("test", "a claim", arms, seeds),)
        for module in (experiments, queue):
            monkeypatch.setattr(module, "EXPERIMENTS", everything)

    return choose


@pytest.fixture
def main(tmp_path: Path) -> Callable[..., int]:
    """The command, with the temporary folder in place of ``results`` and of ``runs``."""

    def call(action: str, *words: str) -> int:
        here = ["--results", str(tmp_path), "--out", str(tmp_path / "out")]
        return cli.main(["experiments", action, *here, *words])

    return call


def pretend(
    monkeypatch: pytest.MonkeyPatch, record: Record, seconds: int = 0
) -> tuple[list[list[str]], list[int]]:
    """Have every job leave this record; tells each one's options, and how many ran beside it."""
    given: list[list[str]] = []
    beside: list[int] = []
    started: list[subprocess.Popen[bytes]] = []

    def start(together: tuple[Job, ...], out: Path, words: list[str]) -> "subprocess.Popen[bytes]":
        given.append(words)
        beside.append(sum(process.poll() is None for process in started))
        for job in together:
            write_record(record, out / job.folder / "record.json")
        code = f"import time; time.sleep({seconds})"
        started.append(subprocess.Popen([sys.executable, "-c", code]))
        return started[-1]

    monkeypatch.setattr(queue, "_start", start)
    return given, beside


def test_a_job_leaves_the_record_of_its_recipe(tmp_path: Path) -> None:
    assert run([JOB], tmp_path, options=OPTIONS) == []
    assert JOB.answered_by(read_record(tmp_path / JOB.folder / "record.json"))
    assert finished([tmp_path]) == [], "synthetic images do not count"


def test_how_to_compile_is_measured_once_for_runs_alike(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given, _ = pretend(monkeypatch, on(RECORD, compile=True, cuda_graphs=True))
    larger = replace(QUICK, changes=QUICK.changes | {"batch_size": 64})
    three = [JOB, replace(JOB, seed=1), replace(JOB, arm=larger)]
    assert run(three, tmp_path, options=["--device", "cuda"]) == []
    settled = ["--compile", "--cuda-graphs"]
    assert given == [["--device", "cuda"], [*settled, "--device", "cuda"], ["--device", "cuda"]]

    known = [on(RECORD, compile=False)]
    assert run(three, tmp_path, options=[], here=known) == []
    assert given[3:] == [["--no-compile"], ["--no-compile"], []]

    (tmp_path / JOB.folder / "record.json").unlink()
    begin(tmp_path / JOB.folder)
    assert run([JOB], tmp_path, options=[], here=known) == []
    assert given[6:] == [[]], "what was begun goes on as it began"


def test_a_wish_about_compiling_stands_against_earlier_runs(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    only: Callable[..., None],
    main: Callable[..., int],
) -> None:
    write_record(RECORD, tmp_path / "out" / "one.json")
    only(0, 1)
    known: list[list[str]] = []

    def note(*_: object, **given: list[Record]) -> list[Job]:
        known.append([found.id for found in given["here"]])
        return []

    monkeypatch.setattr(queue, "run", note)
    for wish in ([], ["--no-compile"]):
        assert main("run", "--device", "cpu", *wish) == 0
    assert known == [[RECORD.id], []]


def test_a_failed_job_is_named_and_its_log_says_why(tmp_path: Path) -> None:
    bad = Job("test", Arm("bad", "smoke", {"network": "vgg"}), 0)
    (log,) = run([bad], tmp_path, options=OPTIONS)
    assert log == tmp_path / bad.folder / "log.txt"
    assert "network 'vgg' is unknown" in log.read_text()


def test_where_all_fail_the_rest_is_not_tried(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = [Job("test", Arm("bad", "smoke", {"network": "vgg"}), seed) for seed in range(5)]
    assert len(run(bad, tmp_path, options=OPTIONS)) == 3
    printed = capsys.readouterr().out
    assert "2 more are not tried" in printed
    assert "failed    test/bad/seed0: cifar-resnet: network 'vgg' is unknown" in printed
    assert len(run(bad, tmp_path / "other", options=OPTIONS, here=[RECORD])) == 3
    assert len(run([JOB, *bad], tmp_path, options=OPTIONS)) == 5


def test_a_run_of_other_code_is_set_aside(tmp_path: Path) -> None:
    folder = tmp_path / JOB.folder
    begin(folder, source_sha256="f" * 64)
    assert run([JOB], tmp_path, options=OPTIONS) == []
    assert (folder / "record.json").exists()
    aside = tmp_path / f"{JOB.folder}.set-aside-ffffffff"
    assert (aside / "checkpoint.pt").exists()
    for number in (2, 3):  # nothing set aside is written over
        begin(folder, source_sha256="f" * 64)
        queue._set_aside(JOB, folder)
        assert aside.with_name(f"{aside.name}-{number}").exists()
    for change, goes_on in (({}, True), ({"where": "1 x CPU, fp32, torch 0.4.1"}, False)):
        begin(folder, **change)
        queue._set_aside(JOB, folder)
        assert folder.exists() == goes_on


def test_a_finished_run_of_other_code_is_set_aside_without_its_checkpoint(tmp_path: Path) -> None:
    folder, here = tmp_path / "run", queue.software()
    for torch_version, stays in ((here.torch, True), ("0.4.1", False)):
        made = replace(RECORD, software=replace(here, torch=torch_version))
        write_record(made, folder / "record.json")
        queue._set_aside(JOB, folder)
        assert folder.exists() == stays
    (aside,) = tmp_path.iterdir()
    real = replace(made, data=replace(made.data, name="cifar10"))
    write_record(real, aside / "record.json")
    assert [record.id for record in finished([aside])] == [real.id]
    assert finished([tmp_path]) == [], "what was set aside is out of the count"


def test_a_run_whose_time_counts_starts_anew_if_interrupted(tmp_path: Path) -> None:
    folder, timed = tmp_path / JOB.folder, replace(JOB, timed=True)
    begin(folder)
    queue._set_aside(JOB, folder)
    assert folder.exists()
    queue._set_aside(timed, folder)
    assert not folder.exists()
    for sessions, stays in ((1, True), (2, False)):
        made = replace(RECORD, software=queue.software(), sessions=sessions)
        assert timed.answered_by(replace(made, recipe=timed.recipe)) == stays
        write_record(made, folder / "record.json")
        queue._set_aside(timed, folder)
        assert folder.exists() == stays


def test_a_run_that_cannot_end_in_time_is_not_started(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    times = {"started": "2026-01-01T00:00:00+00:00", "finished": "2026-01-01T00:10:00+00:00"}
    timed, known = replace(JOB, timed=True), replace(RECORD, recipe=JOB.recipe, **times)
    for budget in (80, 670):  # getting ready takes time, too
        run([timed], tmp_path, options=OPTIONS, published=[known], budget=budget)
        assert capsys.readouterr().out == f"left out  {JOB.folder}: it takes 12 minutes in all\n"


@pytest.mark.parametrize(("budget", "together"), [(parse_budget("8.5m"), 5), (math.inf, 8)])
def test_seeds_share_a_process_as_the_budget_allows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, budget: float, together: int
) -> None:
    given, _ = pretend(monkeypatch, RECORD)
    times = {"started": "2026-01-01T00:00:00+00:00", "finished": "2026-01-01T00:01:10+00:00"}
    known = replace(RECORD, recipe=JOB.recipe, **times)
    eight = [replace(JOB, seed=seed, device="cuda", timed=True) for seed in range(8)]
    shares: list[int] = []
    start = queue._start
    monkeypatch.setattr(
        queue, "_start", lambda jobs, *rest: shares.append(len(jobs)) or start(jobs, *rest)
    )
    run(eight, tmp_path, options=[], published=[known], budget=budget)
    assert shares[0] == together
    assert len(given) == len(shares)


def test_a_run_that_goes_on_elsewhere_stays_where_it_is(tmp_path: Path) -> None:
    begin(tmp_path / "run", source_sha256="f" * 64)
    with sole_user(tmp_path / "run"):
        queue._set_aside(JOB, tmp_path / "run")
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_the_budget_pauses_what_is_not_done(tmp_path: Path) -> None:
    slow, never = Job("test", SLOW, 0), Job("test", SLOW, 1)
    assert run([slow, never], tmp_path, options=OPTIONS, budget=26) == []
    assert (tmp_path / slow.folder / "log.txt").exists()
    assert not (tmp_path / slow.folder / "record.json").exists()
    assert not (tmp_path / never.folder).exists()


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_a_stopped_queue_or_a_closed_terminal_pauses_its_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    number = getattr(signal, name)
    before = signal.signal(number, signal.SIG_DFL)  # the tests themselves may run under nohup
    timer = threading.Timer(3, os.kill, (os.getpid(), number))
    timer.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            run([Job("test", SLOW, 0)], tmp_path, options=OPTIONS)
    finally:
        timer.join()
        signal.signal(number, before)
    assert "paused    test/slow/seed0" in capsys.readouterr().out


def test_a_signal_that_is_handled_already_is_left_to_its_handler(tmp_path: Path) -> None:
    def stop(*_: object) -> None:
        raise Stopped

    class Stopped(KeyboardInterrupt):
        pass

    before = signal.signal(signal.SIGTERM, stop)
    try:
        with pytest.raises(Stopped), queue._pausing({}, tmp_path):
            signal.raise_signal(signal.SIGTERM)
        assert signal.getsignal(signal.SIGTERM) is stop
    finally:
        signal.signal(signal.SIGTERM, before)


def test_under_nohup_a_closed_terminal_changes_nothing(tmp_path: Path) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    timer = threading.Timer(1, os.kill, (os.getpid(), signal.SIGHUP))
    timer.start()
    try:
        assert run([JOB], tmp_path, options=OPTIONS) == []
    finally:
        timer.join()
        signal.signal(signal.SIGHUP, before)
    assert (tmp_path / JOB.folder / "record.json").exists()


def test_a_run_that_hears_no_interrupt_is_stopped_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Children of a background shell ignore SIGINT."""
    monkeypatch.setattr(queue, "_PATIENCE", 0.5)
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        assert run([Job("test", SLOW, 0)], tmp_path, options=OPTIONS, budget=23) == []
    finally:
        signal.signal(signal.SIGINT, before)


def test_all_that_hear_no_interrupt_are_waited_for_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = "import signal, time; signal.signal(2, signal.SIG_IGN); print(flush=1); time.sleep(60)"
    deaf = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) for _ in "abc"]
    for process in deaf:
        assert process.stdout
        process.stdout.readline()
    patience: list[float] = []
    for process in deaf:
        wait = process.wait

        def note(seconds: float | None = None, wait: Callable[..., int] = wait) -> int:
            patience.append(seconds or 0.0)
            return wait(seconds)

        monkeypatch.setattr(process, "wait", note)
    monkeypatch.setattr(queue, "_PATIENCE", 0.5)
    queue._pause({(replace(JOB, seed=i),): process for i, process in enumerate(deaf)}, tmp_path)
    assert sum(patience) <= 0.5
    for process in deaf:
        assert process.returncode == -signal.SIGKILL
        assert process.stdout
        process.stdout.close()


def test_status_counts_and_run_skips_what_is_finished(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    only: Callable[..., None],
    main: Callable[..., int],
) -> None:
    write_record(RECORD, tmp_path / "runs" / "one.json")
    only(0)
    assert main("status") == 0
    assert "1 of   1 runs  a claim" in capsys.readouterr().out

    def fail(*_: object) -> None:
        raise AssertionError("nothing is missing")

    monkeypatch.setattr(queue, "_start", fail)
    assert main("run", "--device", "cpu") == 0
    assert "--again repeats what is published" in capsys.readouterr().out


def test_a_published_experiment_can_be_repeated_and_compared(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    only: Callable[..., None],
    main: Callable[..., int],
) -> None:
    write_record(RECORD, tmp_path / "runs" / "one.json")
    only(0)

    def rerun(jobs: list[Job], out: Path, **_: object) -> list[Path]:
        (job,) = jobs
        made = replace(invented(job.recipe, job.seed, 0.25), id="again")
        write_record(made, out / job.folder / "record.json")
        return []

    monkeypatch.setattr(queue, "run", rerun)
    assert main("run", "--again", "--device", "cpu") == 0
    assert "25.00%, published 50.00%" in capsys.readouterr().out


def test_what_is_published_is_no_repetition_of_itself(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    only: Callable[..., None],
    main: Callable[..., int],
) -> None:
    only(0)
    for folder in ("runs", "out"):
        write_record(RECORD, tmp_path / folder / "one.json")
    assert main("run", "--again", "--device", "cpu") == 2
    assert "repeat them in another --out" in capsys.readouterr().err
    told: list[Any] = []
    monkeypatch.setattr(queue, "run", lambda *_, **given: told.append(given["published"]) or [])
    assert main("run", "--again", "--device", "cpu", "--out", str(tmp_path / "new")) == 0
    assert [record.id for record in told[0]] == [RECORD.id], "whose precision counts"
    assert "not finished, published 50.00%" in capsys.readouterr().out


def test_what_two_precisions_gave_is_compared_with_its_own_kind(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    only: Callable[..., None],
    main: Callable[..., int],
) -> None:
    only(0, arms=tuple(replace(QUICK, label=kind, precision=kind) for kind in ("bf16", "fp32")))
    monkeypatch.setattr(queue, "run", lambda *_, **__: [])
    for kind, accuracy in (("bf16", 0.25), ("fp32", 0.75)):
        made = on(invented(JOB.recipe, 0, accuracy), precision=kind)
        write_record(made, tmp_path / "runs" / f"{kind}.json")
        write_record(replace(made, id="again"), tmp_path / "out" / f"{kind}.json")
    (tmp_path / "out" / "fp32.json").unlink()
    assert main("run", "--again", "--device", "cpu") == 0
    printed = capsys.readouterr().out
    assert "test/bf16/seed0: 25.00%, published 25.00%" in printed
    assert "test/fp32/seed0: not finished, published 75.00%" in printed


def test_what_an_arm_compares_stands_against_other_wishes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[list[str]] = []
    monkeypatch.setattr(queue.subprocess, "Popen", lambda words, **_: said.append(words))
    job = replace(JOB, arm=replace(QUICK, precision="fp32"), timed=True)
    queue._start((job,), tmp_path, ["--precision", "bf16", "--threads", "1", "--data", "d"])
    args = cli._parser().parse_args(said[0][3:])
    assert (args.recipe, args.precision, args.threads, args.data) == ("smoke", "fp32", 2, "d")


def test_further_runs_are_in_the_precision_of_those_published(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, only: Callable[..., None]
) -> None:
    only(0, 1)
    given, _ = pretend(monkeypatch, RECORD)
    other = on(RECORD, precision="fp16")
    for published in ([], [other], [other, RECORD]):
        left = [replace(JOB, seed=1)]
        assert run(left, tmp_path, options=["--data", "d"], published=published) == []
    assert given == [["--data", "d"], ["--precision", "fp16", "--data", "d"], ["--data", "d"]]


def test_seeds_that_share_a_process_leave_a_record_each(tmp_path: Path) -> None:
    """As on a GPU, which is not there."""
    two = [Job("test", QUICK, seed, "cuda", timed=True) for seed in (0, 1)]
    assert run(two, tmp_path, options=[*OPTIONS, "--device", "cpu"]) == []
    made = [read_record(tmp_path / job.folder / "record.json") for job in two]
    assert [(record.recipe, record.seed) for record in made] == [(JOB.recipe, 0), (JOB.recipe, 1)]
    assert "2 seeds: mean " in (tmp_path / "test" / "quick" / "log.txt").read_text()


def test_seeds_on_a_gpu_share_a_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    said: list[list[str]] = []

    def leave_one_record(words: list[str], **_: object) -> "subprocess.Popen[bytes]":
        args = cli._parser().parse_args(words[3:])
        said.append([args.recipe, *map(str, args.seed), str(args.out.relative_to(tmp_path))])
        folder = args.out / f"seed{args.seed[0]}" if len(args.seed) > 1 else args.out
        write_record(RECORD, folder / "record.json")
        return popen([sys.executable, "-c", f"exit({len(args.seed) - 1})"])

    popen = subprocess.Popen
    monkeypatch.setattr(queue, "subprocess", SimpleNamespace(Popen=leave_one_record))
    other = replace(QUICK, label="other", recipe="notes")
    timed = [
        Job("test", arm, seed, "cuda", timed=True) for seed in range(3) for arm in (QUICK, other)
    ]
    begin(tmp_path / timed[2].folder)
    several = [replace(timed[index], timed=False) for index in (0, 2, 4, 1)]
    failed = run(several, tmp_path, options=[])
    assert said == [
        ["smoke", "1", "0", "2", "test/quick"],  # what was begun comes first
        ["smoke", "2", "test/quick/seed2"],
        ["notes", "0", "test/other/seed0"],
    ]
    assert failed == [tmp_path / "test" / "quick" / "log.txt"]
    printed = capsys.readouterr().out
    assert "finished  test/quick/seed1\nfailed    test/quick/seed0: " in printed

    odd = tmp_path / "odd" / timed[2].folder
    odd.mkdir(parents=True)
    (odd / "weights.safetensors").touch()
    usable = queue._sharing(timed, tmp_path / "odd", alone=False)
    assert usable == (timed[0], timed[4]), "what one folder lacks is no harm to the others"

    said.clear()
    times = {"started": "2026-01-01T00:00:00+00:00", "finished": "2026-01-01T00:10:00+00:00"}
    known = replace(RECORD, recipe=timed[0].recipe, **times)
    run(timed[::2], tmp_path / "short", options=[], published=[known], budget=1420)
    assert said[0][:3] == ["smoke", "0", "1"], "no more than can end in time"

    said.clear()
    shared = [replace(job, device="cpu") for job in timed[::2]]
    run(shared, tmp_path / "cpu", options=[])
    apart = [replace(job, timed=False) for job in timed[1::2]]
    run(apart, tmp_path / "beside", options=[], parallel=2)
    assert len(said) == 6, "elsewhere each has its own"
    assert len(queue._sharing(apart, tmp_path / "alone", alone=True)) == 3


def test_a_run_whose_time_counts_has_the_machine_to_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, beside = pretend(monkeypatch, RECORD, seconds=1)
    four = [Job("test", QUICK, seed, timed=seed == 2) for seed in range(4)]
    assert run(four, tmp_path, options=[], parallel=2) == []
    assert beside == [0, 1, 0, 0]


def test_runs_side_by_side_share_the_cores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given, _ = pretend(monkeypatch, RECORD)
    monkeypatch.setattr("torch.get_num_threads", lambda: 16)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    for jobs, parallel, threads in (
        ([JOB], 4, []),  # has nobody beside it
        ([JOB, JOB], 4, ["--threads", "8"]),
        ([JOB] * 32, 32, ["--threads", "1"]),
        ([replace(JOB, device="cuda")] * 2, 2, []),
    ):
        given.clear()
        run(jobs, tmp_path / "some", options=["--data", "d"], parallel=parallel)
        assert given[0] == [*threads, "--data", "d"]
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    given.clear()
    run([JOB, JOB], tmp_path / "told", options=[], parallel=2)
    assert given[0] == []
