import io
import re
import time
from dataclasses import replace

import pytest
import torch

from cifar_resnet import display
from cifar_resnet.display import Terminal
from cifar_resnet.record import Epoch

EPOCH = Epoch(1, 0.05, 1.5, 0.5, 1.2, 0.625, 12.0)


class FakeTerminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def show(stream: io.StringIO) -> str:
    display = Terminal(2, stream)
    display.step(0, 1, 2, torch.tensor([3.0, 1.0]), 2)
    time.sleep(0.15)  # the bar is redrawn ten times a second at most
    display.step(0, 2, 2, torch.tensor([6.0, 2.0]), 4)
    display.epoch(EPOCH)
    return stream.getvalue()


def test_plain_lines_where_there_is_no_terminal() -> None:
    printed = show(io.StringIO())
    assert printed.count("\n") == 1
    assert "\r" not in printed
    assert "epoch   1/2" in printed
    assert "acc 62.50%" in printed


def test_what_comes_before_the_first_step_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(display.time, "perf_counter", lambda: now[0])
    terminal = Terminal(2, FakeTerminal())
    for step, moment in ((1, 100.0), (2, 101.0)):  # compiling took a hundred seconds
        now[0] = moment
        terminal.step(0, step, 2, torch.tensor([3.0, 1.0]), 4 * step)
    assert "4 img/s  ETA 0:02" in str(terminal._bar)


def test_another_run_begins_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(display.time, "perf_counter", lambda: now[0])
    stream = io.StringIO()
    terminal = Terminal(2, stream)
    for start in (0.0, 1000.0):
        for epoch in (0, 1):
            now[0] = start + epoch
            terminal.step(epoch, 1, 1, torch.tensor([3.0, 1.0]), 4)
            now[0] = start + epoch + 1
            terminal.epoch(replace(EPOCH, epoch=epoch + 1))
    assert re.findall(r"ETA (\S+)", stream.getvalue()) == ["0:01", "0:00"] * 2


def test_a_live_bar_in_a_terminal() -> None:
    printed = show(FakeTerminal())
    for text in ("epoch 1/2", "loss 1.500", "acc 50.0%", "img/s", "ETA"):
        assert text in printed


class Gone(FakeTerminal):
    def write(self, _: str) -> int:
        raise BrokenPipeError


def test_training_goes_on_when_nobody_reads_any_more(monkeypatch: pytest.MonkeyPatch) -> None:
    closed = FakeTerminal()
    closed.close()
    for stream in (Gone(), closed):
        terminal = Terminal(2)
        terminal._stream, terminal._live = stream, True
        for step in (1, 2):
            terminal.step(0, step, 2, torch.tensor([3.0, 1.0]), 2 * step)
        terminal.epoch(EPOCH)
    monkeypatch.setattr(display.sys, "stderr", None)
    Terminal(2).say("nothing")


def test_processes_count_together() -> None:
    stream = io.StringIO()
    terminal = Terminal(2, stream, processes=2)
    terminal.step(0, 1, 1, torch.tensor([3.0, 1.0]), 600)
    terminal.epoch(EPOCH)
    assert " 100 img/s" in stream.getvalue()
