"""What a run has reached so far: its epochs and its best checkpoint."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dali_asr.runs.checkpoint import checkpoint_name

if TYPE_CHECKING:
    from collections.abc import Iterable


class History:
    """The epochs of a run so far, and the best of its saved checkpoints.

    Args:
        epochs: the lines of metrics of its epochs.
        best: name and dev accuracy of the best checkpoint.
    """

    def __init__(self, epochs: Iterable[dict[str, Any]] = (), best: tuple[str, float | None] | None = None) -> None:
        self.epochs, self.best = list(epochs), best

    @property
    def last(self) -> dict[str, Any] | None:
        """The metrics of the last epoch; None before the first."""
        return self.epochs[-1] if self.epochs else None

    @property
    def completed(self) -> int:
        """The number of complete epochs; one that `max_steps` cut short has a line, but goes on in a resumed run."""
        return sum(epoch["complete"] for epoch in self.epochs)

    @property
    def number(self) -> int:
        """The number of the epoch under way, from 1."""
        return self.completed + 1

    @property
    def waited(self) -> int:
        """The number of evaluations since the one with the best dev accuracy."""
        scores = [epoch["dev"]["accuracy"] for epoch in self.epochs if epoch["dev"]]
        return len(scores) - 1 - scores.index(max(scores)) if scores else 0

    def checkpoint_name(self, step: int) -> str:
        """Return the name of a checkpoint that is saved now, at a step."""
        return checkpoint_name(self.completed, step)

    def best_at(self, step: int, *, evaluates: bool) -> tuple[str, float | None] | None:
        """Return the best checkpoint, counting one that is saved now.

        Args:
            step: the number of steps done.
            evaluates: whether the run has a dev partition; if not, the last epoch is the best.
        """
        last = self.last
        if last is None or last["step"] != step or (evaluates and not last["dev"]):
            return self.best
        score = last["dev"]["accuracy"] if last["dev"] else None
        known = self.best[1] if self.best else None
        better = score is None or known is None or score > known
        return (self.checkpoint_name(step), score) if better else self.best
