"""The interface through which a sweep reports its progress."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dali_asr.sweeps.results import RunOutcome


class SweepReporter:
    """Receives the progress of a sweep. Every method does nothing; override those of interest."""

    def packing(self, stage: str, done: int, total: int) -> None:
        """Called while a course folder is packed, with the number of utterances that are done."""

    def began(self, names: Sequence[str], done: int, total: int) -> None:
        """Called before runs that train together, with the number of runs that are done."""

    def advanced(self, step: int, steps: int) -> None:
        """Called after every step of the present runs, with the steps done and all steps; has to be quick."""

    def finished(self, run: RunOutcome, done: int, total: int) -> None:
        """Called after each run, with the number of runs that are done or failed."""

    def warned(self, message: str) -> None:
        """Called when something is wrong but the sweep continues."""
