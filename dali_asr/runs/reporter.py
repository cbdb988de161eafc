"""Whom a training run tells how it goes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from pathlib import Path

    from dali_asr.loading import WindowLoader
    from dali_asr.training.metrics import Measured


class Reporter(Protocol):
    """Told how a training run goes, on rank 0."""

    def packing(self, stage: str, done: int, total: int) -> None:
        """So many utterances of a course folder are packed."""

    def started(self, run: Path, loader: WindowLoader, step: int, steps: int) -> None:
        """Training begins after a step, on what the loader delivers; it will take so many steps in all."""

    def stepped(self, step: int, metrics: Measured, speed: float) -> None:
        """A step was done; metrics are those of the epoch so far, and so is the speed, in frames a second."""

    def evaluated(self, epoch: dict[str, Any]) -> None:
        """An epoch ended, with this line of metrics."""

    def warned(self, message: str) -> None:
        """Something is not as it should be; training goes on."""


class _Silence:
    def packing(self, *_: Any, **__: Any) -> None:
        return

    started = stepped = evaluated = warned = packing


SILENCE: Reporter = _Silence()
