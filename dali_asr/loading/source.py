"""What DALI reads: the resident frames, and step after step the plan in the form the stock graph takes.

Shape letters: `R` rows of the resident buffer, `B` windows of a batch, `W` frames of a window, `F` frames of a
partition, `D` features of a frame, `M` bands of a mask.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from dali_asr.errors import DeviceError, UsageError
from dali_asr.loading.graph import mask_word
from dali_asr.loading.plan import MOST_ROWS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from dali_asr.corpus import Partition
    from dali_asr.loading.plan import Plan, Planner

_STAGING_BYTES = 64 << 20
_ZERO_ROW = 0


class ResidentFrames:
    """A partition's frames in the memory of a device, with rows of zeros between utterances.

    `gap` rows of zeros stand before the first utterance, between utterances and after the last, so that every
    window is one contiguous run of rows and none touches another utterance.

    Args:
        partition: whose frames.
        left: frames before a window's own.
        right: frames after it.
        device: where the rows lie.
        working_memory: bytes of the device that must stay free beside them.

    Attributes:
        rows: `[R, D]` in the partition's dtype; a NumPy array on the CPU, else a tensor.
        gap: rows of zeros, at least one.

    Raises:
        DeviceError: the rows do not fit the free memory of the GPU.
        UsageError: more rows than can be numbered.
    """

    def __init__(
        self, partition: Partition, left: int, right: int, device: torch.device, *, working_memory: int = 0
    ) -> None:
        self.gap = max(left, right, 1)
        self._left = left
        self._offsets = partition.offsets
        count = partition.frame_count + (len(partition.lengths) + 1) * self.gap
        if count >= MOST_ROWS:
            raise UsageError(
                f"{partition.name}: {partition.frame_count:,} frames and the gaps of context {max(left, right)} are "
                f"{count:,} rows; DALI numbers fewer than {MOST_ROWS:,}, read fewer partitions"
            )
        shape = (count, partition.feature_dim)
        self.rows: NDArray[Any] | torch.Tensor
        if device.type == "cpu":
            self.rows = np.zeros(shape, partition.dtype)
            self._lay_out(partition, self.rows)
        else:
            size = count * shape[1] * partition.dtype.itemsize
            _check_memory(partition, size, working_memory, device)
            with torch.cuda.device(device):
                self.rows = _zeros(partition, shape, size, device)
                self._upload(partition, self.rows)
                torch.cuda.synchronize()  # DALI shares the rows and records no event of its own

    def first_rows(self, frames: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the row that opens each frame's window, `[B]`."""
        utterances = np.searchsorted(self._offsets, frames, side="right") - 1
        return frames + utterances * self.gap + (self.gap - self._left)

    def _lay_out(self, partition: Partition, rows: NDArray[Any]) -> None:
        at = self.gap
        for frames in partition.frames():
            rows[at : at + len(frames)] = frames
            at += len(frames) + self.gap

    def _upload(self, partition: Partition, rows: torch.Tensor) -> None:
        """Copy to the GPU, a pinned block of whole utterances at a time."""
        row_bytes = partition.feature_dim * partition.dtype.itemsize
        most = max(_STAGING_BYTES // row_bytes, int(partition.lengths.max()) + self.gap)
        staging = torch.empty((most, partition.feature_dim), dtype=rows.dtype, pin_memory=True)
        block = staging.numpy()
        first, filled = self.gap, 0
        for frames in partition.frames():
            needed = len(frames) + self.gap
            if filled + needed > most:
                rows[first : first + filled].copy_(staging[:filled])
                first, filled = first + filled, 0
            block[filled : filled + len(frames)] = frames
            block[filled + len(frames) : filled + needed] = 0
            filled += needed
        rows[first : first + filled].copy_(staging[:filled])


@dataclass(frozen=True)
class IssuedStep:
    """A step that was handed to DALI; `turn` counts how often the source was sent elsewhere."""

    turn: int
    epoch: int
    step: int


class StepSource:
    """The external source of plans: an endless run of steps, epoch after epoch.

    Running on into the next epoch keeps the pipeline full where an epoch ends. What was issued and is not yet
    delivered stands in `issued`, so that the loader can tell a step that is no longer wanted.

    Args:
        planner: plans the steps.
        resident: where windows are cut from.
        labels: `[F]` int64; None in an unlabelled partition.
        dtype: of the windows.
    """

    def __init__(
        self,
        planner: Planner,
        resident: ResidentFrames,
        labels: NDArray[np.int64] | None,
        dtype: str,
    ) -> None:
        self.issued: deque[IssuedStep] = deque()
        self._planner, self._resident, self._labels = planner, resident, labels
        self._element = np.dtype(f"i{np.dtype(dtype).itemsize}")
        self._word = mask_word(dtype, planner.feature_dim)
        self._next = IssuedStep(0, 0, 0)

    @property
    def upcoming(self) -> IssuedStep:
        """The step that the pipeline delivers next."""
        return self.issued[0] if self.issued else self._next

    def seek(self, epoch: int, step: int) -> None:
        """Go on from another step; what was issued before belongs to an earlier turn."""
        self._next = IssuedStep(self._next.turn + 1, epoch, step)

    @property
    def turn(self) -> int:
        """How often the source was sent elsewhere."""
        return self._next.turn

    def __call__(self, _iteration: int) -> tuple[list[NDArray[Any]], ...]:
        """Return the arrays of the next step, one list of one sample an output of the graph's source."""
        now = self._next
        arrays = self.arrays(self._planner.plan(now.epoch, now.step))
        ends = now.step + 1 >= self._planner.steps
        # Last, so that an interrupt on the way here leaves nothing half counted.
        self._next = IssuedStep(now.turn, now.epoch + ends, 0 if ends else now.step + 1)
        self.issued.append(now)
        return tuple([array] for array in arrays)

    def arrays(self, plan: Plan) -> list[NDArray[Any]]:
        """Return a plan in the form the graph takes: frames, row order, labels if any, mask if any."""
        arrays: list[NDArray[Any]] = [plan.frames, self._row_order(plan)]
        if self._labels is not None:
            arrays.append(self._labels[plan.frames])
        if plan.frequency.shape[1]:
            zeroed = covered(plan.frequency, self._planner.feature_dim)
            bits = zeroed.astype(self._element) - self._element.type(1)
            arrays.append(bits.view(self._word)[:, None, :])
        return arrays

    def _row_order(self, plan: Plan) -> NDArray[np.int32]:
        """Return the rows that make up the windows, `[B·W]`; what is masked in time is a row of zeros."""
        first = self._resident.first_rows(plan.frames).astype(np.int32)
        order = np.add.outer(first, np.arange(self._planner.window, dtype=np.int32))
        if plan.time.shape[1]:
            np.putmask(order, covered(plan.time, self._planner.window), _ZERO_ROW)
        rows: NDArray[np.int32] = order.ravel()
        return rows


def covered(bands: NDArray[np.int32], size: int) -> NDArray[np.bool_]:
    """Return which of `size` places the bands `[B, M, 2]` cover, `[B, size]`."""
    # Unsigned, what lies before a band wraps around to far behind it; one comparison does, in the narrowest type.
    unsigned = np.min_scalar_type(size)
    places = np.arange(size, dtype=unsigned)
    first = bands[:, :, 0].astype(unsigned)
    width = (bands[:, :, 1] - bands[:, :, 0]).astype(unsigned)
    anywhere = np.zeros((len(bands), size), np.bool_)
    for band in range(bands.shape[1]):
        anywhere |= places - first[:, band, None] < width[:, band, None]
    return anywhere


def _check_memory(partition: Partition, frames: int, working: int, device: torch.device) -> None:
    torch.cuda.empty_cache()  # what torch keeps and does not use is free
    free, _ = torch.cuda.mem_get_info(device)
    if frames + working > free:
        raise _does_not_fit(partition, frames, working, free, device)


def _zeros(partition: Partition, shape: tuple[int, int], size: int, device: torch.device) -> torch.Tensor:
    try:
        return torch.zeros(shape, dtype=torch.from_numpy(partition.blocks[0][:0]).dtype, device=device)
    except torch.OutOfMemoryError as error:  # somebody else took it meanwhile
        free, _ = torch.cuda.mem_get_info(device)
        raise _does_not_fit(partition, size, 0, free, device) from error


def _does_not_fit(partition: Partition, frames: int, working: int, free: int, device: torch.device) -> DeviceError:
    batches = f" and its batches {working / 2**30:.2f} GiB" if working else ""
    smaller = "data.dtype: float16 (half of the frames), or " if partition.dtype == np.float32 else ""
    return DeviceError(
        f"{partition.name}: its frames take {frames / 2**30:.2f} GiB{batches}, {device} has {free / 2**30:.2f} GiB "
        f"free; set {smaller}loader.device: cpu"
    )
