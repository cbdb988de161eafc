"""What a user should know of a run while it trains: the time lost on data, and signs that it goes wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

MAX_STALL = 0.1  # of the time of an epoch
_MIN_WAIT = 5.0  # seconds of an epoch; a shorter wait is not worth a change, and the first batch weighs too much in it
_WORSENING = 5  # evaluations below the best one, while the loss in training falls
_RISE = 1.05  # times the dev loss of the best evaluation; less is noise
_JUMP = 2.0  # times the lowest loss so far


class Watch:
    """Warns of signs that a run goes wrong, of each once.

    Args:
        warn: receives the warnings.
    """

    def __init__(self, warn: Callable[[str], None]) -> None:
        self._warn = warn
        self._said: set[str] = set()
        self._lowest = float("inf")
        self._jumps = 0
        self._is_high = False

    def waited(self, epoch: int, stall: float, seconds: float) -> None:
        """Take the data stall of an epoch: the fraction of its seconds that training waited for batches."""
        if stall > MAX_STALL and stall * seconds > _MIN_WAIT:
            self._say(
                "stall",
                f"training waited for batches during {stall:.0%} of epoch {epoch}; dali-asr profile shows where the "
                "time goes. A larger loader.memory_budget or batch size, and fewer masks, make the loader faster",
            )

    def read(self, step: int, loss: float | None) -> None:
        """Take the mean loss since the last reading; two rises to twice the lowest are a warning."""
        if loss is None:
            return
        self._lowest = min(self._lowest, loss)
        is_high = loss > _JUMP * self._lowest
        if is_high and not self._is_high:
            self._jumps += 1
        self._is_high = is_high
        if self._jumps == 2:
            self._say(
                "jumps",
                f"the loss rose to more than twice its lowest value for the second time, at step {step:,} ({loss:.3g}, "
                f"lowest {self._lowest:.3g}); lower training.optimizer.learning_rate, or set "
                "training.optimizer.max_gradient_norm: 1",
            )

    def evaluated(self, epochs: Sequence[dict[str, Any]]) -> None:
        """Take the epochs so far, with their evaluations."""
        scored = [epoch for epoch in epochs if epoch["dev"] and epoch["dev"]["accuracy"] is not None]
        if len(scored) <= _WORSENING:
            return
        best = max(scored[:-_WORSENING], key=lambda epoch: float(epoch["dev"]["accuracy"]))
        after = scored[-_WORSENING:]
        worse = all(
            epoch["dev"]["accuracy"] < best["dev"]["accuracy"] and epoch["dev"]["loss"] > _RISE * best["dev"]["loss"]
            for epoch in after
        )
        losses = [epoch["train"]["loss"] for epoch in (best, *after)]
        if worse and None not in losses and losses[-1] < losses[0]:
            self._say(
                "worse",
                f"dev accuracy has been lower and dev loss higher since epoch {best['epoch']}, while the loss in "
                "training falls: the model overfits; use more data, dropout or masks, or stop by "
                "training.early_stopping",
            )

    def _say(self, sign: str, message: str) -> None:
        if sign not in self._said:
            self._said.add(sign)
            self._warn(message)
