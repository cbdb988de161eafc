"""Size of an iteration, and the memory that a loader takes.

Shape letters: `B` windows of a batch, `W` frames of a window, `D` features of a frame.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from dali_asr.device import free_memory
from dali_asr.plan.spec import checked_integer

if TYPE_CHECKING:
    import torch

    from dali_asr.plan import LoaderSpec, Planner

GraphName = Literal["stock", "fused"]

# Bytes of windows per iteration, unless `batches_per_iteration` is given: enough to make DALI's fixed cost small. On
# the CPU, an iteration larger than the caches is slower, and the host work of `stock` grows with it.
_ITERATION_BYTES: dict[GraphName, int] = {"stock": 32 << 20, "fused": 256 << 20}
_ITERATION_SHARE = 64  # an iteration takes at most this part of the free memory


@dataclass(frozen=True)
class Memory:
    """Memory that a loader takes of its device, in bytes.

    Attributes:
        frames: rows of features, gaps included; two groups of them if the partition is streamed.
        labels: labels of the rows.
        tables: offsets of utterances, if the device needs them.
        batches: windows of all pending iterations, with intermediate copies.
    """

    frames: int
    labels: int
    tables: int
    batches: int

    @property
    def total(self) -> int:
        """Sum of all parts."""
        return self.frames + self.labels + self.tables + self.batches


@dataclass(frozen=True)
class IterationSize:
    """Size of an iteration.

    Attributes:
        max_steps: maximum number of steps.
        capacity: maximum number of windows.
        batch_bytes: bytes of the windows of all pending iterations.
    """

    max_steps: int
    capacity: int
    batch_bytes: int

    @classmethod
    def choose(
        cls,
        spec: LoaderSpec,
        graph: GraphName,
        stored: str,
        prefetch: int,
        batches_per_iteration: int | None,
        device: torch.device,
    ) -> IterationSize:
        """Choose the size of an iteration, before groups limit it.

        Args:
            spec: spec of the loader.
            graph: graph that cuts the windows.
            stored: data type of the stored frames.
            prefetch: number of iterations that DALI prepares ahead.
            batches_per_iteration: maximum number of steps; None to choose by the bytes of their windows.
            device: where the windows are.

        Raises:
            UsageError: `batches_per_iteration` is not a positive integer.
        """
        steps = spec.steps
        window_bytes = spec.window * spec.feature_dim * np.dtype(spec.cut_dtype).itemsize
        if batches_per_iteration is not None:
            wanted = checked_integer("batches_per_iteration", batches_per_iteration, 1)
        else:
            available = min(_ITERATION_BYTES[graph], free_memory(device) // _ITERATION_SHARE)
            wanted = available // (spec.batch_size * window_bytes)
        max_steps = max(1, min(wanted, steps.count))
        capacity = max_steps * steps.max_size
        # The prefetched iterations, the delivered one and the one before it; and the intermediate results of one: the
        # kernel's output beside DALI's copy, or the windows of `stock` before conversion and masking.
        unfinished = 1 if graph == "fused" else (stored != spec.cut_dtype) + spec.masks_frequency
        unfinished += spec.dtype != spec.cut_dtype
        return cls(max_steps, capacity, (prefetch + 2 + unfinished) * capacity * window_bytes)

    def within(self, planner: Planner) -> IterationSize:
        """Return the size of iterations whose windows lie within two groups of a plan."""
        steps = max(1, min(self.max_steps, planner.windows_in_two_groups // planner.steps.global_batch))
        windows, size = self.capacity // self.max_steps, self.batch_bytes // self.max_steps
        return IterationSize(steps, steps * windows, steps * size)
