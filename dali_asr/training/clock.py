"""How fast an epoch trains, and how much of its time goes into waiting for batches."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, TypeVar

from dali_asr.runs.folder import EpochTiming

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_T = TypeVar("_T")


class DataWait:
    """Measures how long a loop waits for its batches.

    On a GPU the loop runs ahead of the device, so that this is an upper bound of the time that the device idles.

    Attributes:
        seconds: waited so far.
    """

    def __init__(self) -> None:
        self.seconds = 0.0

    def over(self, batches: Iterable[_T]) -> Iterator[_T]:
        """Yield the batches and count the time until each is there."""
        begun = time.perf_counter()
        for batch in batches:
            self.seconds += time.perf_counter() - begun
            yield batch
            begun = time.perf_counter()


class EpochClock:
    """Measures the speed of an epoch.

    Args:
        from_step: the first step, if a run was resumed there within the epoch; None for a whole epoch.

    Attributes:
        frames: the number of frames trained on.
        wait: the time that the loop waited for batches.
    """

    def __init__(self, from_step: int | None) -> None:
        self._from_step = from_step
        self._begun = time.perf_counter()
        self._seconds: float | None = None
        self.frames = 0
        self.wait = DataWait()

    @property
    def speed(self) -> float:
        """The frames per second so far."""
        return self.frames / (time.perf_counter() - self._begun)

    def stop(self) -> float:
        """Return the seconds from the first step to the first call."""
        if self._seconds is None:
            self._seconds = time.perf_counter() - self._begun
        return self._seconds

    def timing(self, epoch: int) -> EpochTiming:
        """Return how long the epoch of a number took from its first step to `stop`."""
        seconds = self.stop()
        timing = EpochTiming(
            epoch=epoch,
            train_seconds=seconds,
            frames_per_second=self.frames / seconds,
            data_stall=self.wait.seconds / seconds,
        )
        if self._from_step is not None:
            timing["from_step"] = self._from_step
        return timing
