"""Steps: how the positions of an epoch are split into batches, and a batch among ranks.

The global batch of a step is what all ranks read in it. Its bounds depend only on its size, so 1, 2 or 8 ranks read the
same global batches when the size is the same. Nine positions in batches of four, without `drop_last`:

    step 0          step 1      step 2
    0 1 2 3         4 5 6       7 8          the last two batches share the rest evenly
"""

from __future__ import annotations

from dataclasses import dataclass

MIN_WINDOWS_PER_RANK = 2  # batch norm cannot train on one window


@dataclass(frozen=True)
class Steps:
    """The steps of an epoch.

    No batch is larger than `batch_size`. Where the last global batch would be short, the last two share the rest
    evenly, so no batch is smaller than half of `batch_size` unless the epoch is.

    Attributes:
        positions: N, number of windows in an epoch.
        batch_size: B, windows per rank and step.
        drop_last: drop a short last batch instead.
        rank: number of this process, from 0.
        world_size: number of processes that share the steps.
    """

    positions: int
    batch_size: int
    drop_last: bool = False
    rank: int = 0
    world_size: int = 1

    @property
    def global_batch(self) -> int:
        """Windows per step on all ranks together."""
        return self.batch_size * self.world_size

    @property
    def count(self) -> int:
        """Number of steps per epoch, the same on every rank."""
        whole, rest = divmod(self.positions, self.global_batch)
        return whole if self.drop_last else whole + bool(rest)

    @property
    def whole(self) -> int:
        """Number of steps whose global batch is complete; the ragged steps come after them."""
        if self.drop_last or self.positions % self.global_batch == 0:
            return self.count
        return max(self.count - 2, 0)

    @property
    def max_size(self) -> int:
        """Number of windows in this rank's largest batch."""
        return max(self._edge_sizes, default=0)

    @property
    def min_size(self) -> int:
        """Number of windows in this rank's smallest batch."""
        return min(self._edge_sizes, default=0)

    def bounds(self, step: int) -> tuple[int, int]:
        """Return the first position of a step's global batch and the one after its last."""
        if step < self.whole:
            return step * self.global_batch, (step + 1) * self.global_batch
        first, end = self.whole * self.global_batch, self.positions
        if self.count - self.whole == 1:
            return first, end
        middle = first + (end - first + 1) // 2
        return (first, middle) if step == self.whole else (middle, end)

    def span(self, step: int) -> tuple[int, int]:
        """Return the first position of this rank's batch in a step and the one after its last."""
        first, end = self.bounds(step)
        size = end - first
        return first + size * self.rank // self.world_size, first + size * (self.rank + 1) // self.world_size

    @property
    def _edge_sizes(self) -> list[int]:
        steps = {step for step in (0, self.whole, self.count - 1) if 0 <= step < self.count}
        return [end - first for first, end in map(self.span, steps)]
