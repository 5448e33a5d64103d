"""What a person sees while a run goes on: a live bar in a terminal, plain lines elsewhere."""

import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING, TextIO

from tqdm import tqdm

if TYPE_CHECKING:
    from torch import Tensor

    from cifar_resnet.record import Epoch


class Display:
    """Told of each step and each epoch, and shows nothing; others override what they need.

    Whatever a display shows never stops the training.
    """

    def say(self, text: str) -> None:
        """Between two epochs, or before the first: something that was decided."""

    def step(self, epoch: int, step: int, steps: int, sums: "Tensor", seen: int) -> None:
        """After a step.

        Args:
            epoch: from 0, unlike an `Epoch`'s own.
            step: from 1.
            steps: how many the epoch has.
            sums: float ``[2]`` on the device: the loss and the right answers, summed over it.
            seen: images of the epoch so far, of this process alone.
        """

    def epoch(self, epoch: "Epoch") -> None:
        """After an epoch and its evaluation.

        Args:
            epoch: what it came to.
        """


Silent = Display


class Terminal(Display):
    """A bar for the running epoch and one line for each finished one.

    Losses are read from the device only where that is free (CPU); on a GPU the bar shows
    speed and time, and the epoch's line the loss.

    Args:
        epochs: length of the run, for the remaining time.
        stream: where to write; a bar is drawn only if it is a terminal.
        processes: how many share the work, which the speed counts together.
    """

    def __init__(self, epochs: int, stream: TextIO | None = None, processes: int = 1) -> None:
        self._stream = stream or sys.stderr
        self._live = self._stream is not None and self._stream.isatty()
        self._processes = processes
        self._bar: tqdm | None = None
        self._epochs = epochs
        self._start = 0.0  # the end of the first step: what came before it says little of the rest
        self._first_epoch: int | None = None
        self._seen = 0

    def say(self, text: str) -> None:
        """Print it."""
        if self._stream is not None:
            with suppress(OSError, ValueError):  # whoever read it is gone
                print(text, file=self._stream, flush=True)

    def step(self, epoch: int, step: int, steps: int, sums: "Tensor", seen: int) -> None:
        """Move the bar."""
        if self._first_epoch is None:
            self._first_epoch, self._start = epoch, time.perf_counter()
        self._seen = seen * self._processes
        if self._live:
            with suppress(OSError, ValueError):
                self._draw(epoch, step, steps, sums, seen)

    def _draw(self, epoch: int, step: int, steps: int, sums: "Tensor", seen: int) -> None:
        first = self._first_epoch or 0
        if self._bar is None:
            self._bar = tqdm(
                total=steps,
                desc=f"epoch {epoch + 1}/{self._epochs}",
                file=self._stream,
                leave=False,
                unit="step",
                bar_format="{desc} {percentage:3.0f}%|{bar}| {n}/{total}{postfix}",
            )
        timed = (epoch - first) * steps + step - 1
        text = ""
        if timed:
            pace = (time.perf_counter() - self._start) / timed  # seconds a step
            left = (self._epochs - first) * steps - timed - 1
            text = f"{self._seen / step / pace:.0f} img/s  ETA {_clock(left * pace)}"
        if sums.device.type == "cpu":
            loss, right = sums.tolist()
            text = f"loss {loss / seen:.3f}  acc {right / seen:.1%}  {text}"
        self._bar.set_postfix_str(text, refresh=False)
        self._bar.update()

    def epoch(self, epoch: "Epoch") -> None:
        """Print the epoch's line."""
        if self._bar is not None:
            with suppress(OSError, ValueError):
                self._bar.close()
            self._bar = None
        done = epoch.epoch - (self._first_epoch or 0)
        left = (self._epochs - epoch.epoch) * (time.perf_counter() - self._start) / done
        self.say(
            f"epoch {epoch.epoch:3d}/{self._epochs}  lr {epoch.learning_rate:.4f}  "
            f"train loss {epoch.train_loss:.3f} acc {epoch.train_accuracy:.2%}  "
            f"eval loss {epoch.eval_loss:.3f} acc {epoch.eval_accuracy:.2%}  "
            f"{epoch.seconds:.0f} s  {self._seen / epoch.seconds:.0f} img/s  ETA {_clock(left)}"
        )
        if epoch.epoch == self._epochs:  # what comes next is another run
            self._first_epoch = None


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
