"""The interface through which a training run reports its progress."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

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
        """Called before the first step with what is worth knowing: which weights the run starts from."""

    def warned(self, message: str) -> None:
        """Called when something is wrong but training continues."""
