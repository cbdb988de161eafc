"""The interface through which a training run reports its progress."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from dali_asr.runs.curves import epoch_label

if TYPE_CHECKING:
    from pathlib import Path

    from dali_asr.loading import WindowLoader
    from dali_asr.runs.folder import EpochTiming


class Reporter:
    """Receives the progress of a training run, on rank 0. Every method does nothing; override those of interest."""

    def packing(self, stage: str, done: int, total: int) -> None:
        """Called while a course folder is packed, with the number of utterances that are done."""

    def started(self, run: Path, loader: WindowLoader, parameters: int, step: int, steps: int) -> None:
        """Called before the first step.

        Args:
            run: the run's folder.
            loader: the loader of training batches.
            parameters: the number of trainable parameters.
            step: the number of steps done by the run before it was resumed, else 0.
            steps: the number of steps of the whole run.
        """

    def advanced(self, step: int) -> None:
        """Called after every step, with the number of steps done; has to be quick."""

    def stepped(self, step: int, metrics: dict[str, float | None], speed: float) -> None:
        """Called every `training.log_every` steps.

        Args:
            step: the number of steps done.
            metrics: `loss` and `accuracy` over the frames since the previous call.
            speed: frames per second over the epoch so far.
        """

    def evaluated(self, epoch: dict[str, Any], timing: EpochTiming) -> None:
        """Called at the end of an epoch, with its line of metrics and how long it took to train."""

    def noted(self, message: str) -> None:
        """Called before the first step with what is worth knowing: the weights it starts from, settings that change."""

    def warned(self, message: str) -> None:
        """Called when something is wrong but training continues."""


class Printer(Reporter):
    """Prints the metrics of every epoch on standard output, and notes and warnings on standard error."""

    def evaluated(self, epoch: dict[str, Any], timing: EpochTiming) -> None:
        """Print the lines of an epoch."""
        print(*epoch_lines(epoch, timing), sep="\n", flush=True)

    def noted(self, message: str) -> None:
        """Print a note."""
        print(message, file=sys.stderr)

    def warned(self, message: str) -> None:
        """Print a warning."""
        print(f"warning: {message}", file=sys.stderr)


def epoch_lines(epoch: dict[str, Any], timing: EpochTiming) -> list[str]:
    """Return the metrics of an epoch as text, a line for each partition that was measured."""
    lines = []
    for name, after in (("train", _stall(timing)), ("dev", "")):
        if measured := epoch[name]:
            loss, accuracy = shown(measured["loss"], ".3f"), shown(measured["accuracy"], ".2%")
            lines.append(f"epoch {epoch_label(epoch)}  {name:<5}  loss {loss}  accuracy {accuracy}{after}")
    return lines


def _stall(timing: EpochTiming) -> str:
    """Return the data stall of an epoch as text; nothing if only its evaluation was left to a resumed run."""
    if not timing["frames_per_second"]:
        return ""
    since = f" (from step {timing['from_step']:,})" if "from_step" in timing else ""
    return f"  data stall {timing['data_stall']:.1%}{since}"


def shown(number: float | None, form: str) -> str:
    """Return a metric in a format; `nan` if it has no value."""
    return "nan" if number is None else format(number, form)
