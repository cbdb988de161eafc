"""Steps: how the positions of an epoch are dealt out to batches, and a batch to ranks.

The global batch of a step is what all ranks read in it. Its bounds follow from its size alone, so that 1, 2 or 8
ranks read the same global batches when the global batch is equal.
"""

from __future__ import annotations

from dataclasses import dataclass

from dali_asr.errors import UsageError

LEAST = 2  # windows of a rank in a step: batch norm cannot train on one


@dataclass(frozen=True)
class Steps:
    """The steps of an epoch.

    Where the last global batch would be short, the last two share what is left evenly: no batch is larger than
    `batch_size`, and none is smaller than half of it unless the epoch is.

    Attributes:
        positions: N, windows of an epoch.
        batch_size: B, windows of a rank in a step.
        drop_last: whether a last batch of fewer windows is dropped instead.
        rank: which of the processes this is, from 0.
        world_size: how many processes share the steps.

    Raises:
        UsageError: an argument out of its range, or so few windows that a rank would have fewer than two.
    """

    positions: int
    batch_size: int
    drop_last: bool = False
    rank: int = 0
    world_size: int = 1

    def __post_init__(self) -> None:
        if self.world_size < 1 or not 0 <= self.rank < self.world_size:
            raise UsageError(f"loader: rank {self.rank} of world size {self.world_size}; ranks count from 0")
        if self.world_size == 1:
            return
        if self.batch_size < 2 * LEAST:
            raise UsageError(
                f"loader: batch_size {self.batch_size} on {self.world_size} ranks; at least {2 * LEAST} a rank, so "
                f"that none has fewer than {LEAST} windows at the end of an epoch"
            )
        if self.positions < LEAST * self.world_size and not self.drop_last:
            raise UsageError(
                f"loader: {self.positions} windows for {self.world_size} ranks; each needs {LEAST}, use fewer ranks"
            )

    @property
    def global_batch(self) -> int:
        """Windows of all ranks in a step."""
        return self.batch_size * self.world_size

    @property
    def count(self) -> int:
        """Steps of an epoch, the same on every rank."""
        whole, rest = divmod(self.positions, self.global_batch)
        if not rest or self.drop_last or self._joins:
            return whole
        return whole + 1

    @property
    def largest(self) -> int:
        """Windows of this rank's largest batch."""
        steps = [step for step in (0, self._tail_step, self.count - 1) if 0 <= step < self.count]
        return max((end - first for first, end in map(self.span, steps)), default=0)

    def is_whole(self, step: int) -> bool:
        """Say whether a step has a whole global batch."""
        return self.positions % self.global_batch == 0 or self.drop_last or step < self._tail_step

    def bounds(self, step: int) -> tuple[int, int]:
        """Return the first position of a step's global batch and the one after its last."""
        if self.is_whole(step):
            return step * self.global_batch, (step + 1) * self.global_batch
        first, end = self._tail_step * self.global_batch, self.positions
        if self.count - self._tail_step == 1:
            return first, end
        middle = first + (end - first + 1) // 2
        return (first, middle) if step == self._tail_step else (middle, end)

    def span(self, step: int) -> tuple[int, int]:
        """Return the first position of this rank's batch in a step and the one after its last."""
        first, end = self.bounds(step)
        shares = (end - first) * self.rank // self.world_size, (end - first) * (self.rank + 1) // self.world_size
        return first + shares[0], first + shares[1]

    @property
    def _tail_step(self) -> int:
        """The first step whose batch is not whole, where the positions do not divide into whole ones."""
        return max(self.positions // self.global_batch - 1, 0)

    @property
    def _joins(self) -> bool:
        """Whether what is left is too little to share: three windows in batches of two."""
        whole, rest = divmod(self.positions, self.global_batch)
        return bool(whole and self.global_batch + rest < 2 * LEAST)
