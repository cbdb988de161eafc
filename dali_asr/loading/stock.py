"""The graph of DALI's own operators; the same on the CPU and on a GPU.

Rows of the resident frames are gathered by number, padding and masks in time being rows of zeros; bands of frequency
are cleared by a bitwise *and*, which leaves +0.0 where a product with zero would leave −0.0.

DALI gathers a sample in one thread, so on the CPU an iteration is as many samples as there are threads.

Shape letters: `R` rows, `B` windows of an iteration, `W` frames of a window, `D` features, `M` bands of a mask.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np
from nvidia.dali import fn, types

from dali_asr.loading.graph import OUTPUT_TYPES, new_pipeline, resident
from dali_asr.loading.rows import ZERO_ROW
from dali_asr.plan.planner import Plan

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch
    from numpy.typing import NDArray
    from nvidia.dali.pipeline import Pipeline

    from dali_asr.loading.frames import ResidentFrames, StreamedFrames
    from dali_asr.loading.source import Iteration
    from dali_asr.plan.planner import Planner

_MASK_TYPES = {8: types.INT64, 4: types.INT32, 2: types.INT16}
_MOST_THREADS = 8


class StockGraph:
    """The graph `stock`.

    Args:
        planner: plans the steps.
        frames: where windows are cut from.
        device: where they are cut.
        dtype: of the windows, `float32` or `float16`.
        prefetch: iterations in flight.
    """

    def __init__(
        self,
        planner: Planner,
        frames: ResidentFrames | StreamedFrames,
        device: torch.device,
        dtype: str,
        prefetch: int,
    ) -> None:
        self._planner, self._frames, self._device = planner, frames, device
        self._dtype, self._prefetch = dtype, prefetch
        self._masked = planner.masking is not None and planner.masking.frequency.count[1] > 0
        self._samples = 1 if device.type == "cuda" else min(len(os.sched_getaffinity(0)), _MOST_THREADS)

    def arrays(self, iteration: Iteration) -> list[list[NDArray[Any]]]:
        """Return frame numbers `[B]` and row order `[B·W]`; if labelled, rows `[B]`; if masked, see `mask_bits`."""
        planner = self._planner
        if iteration.is_empty:
            plan, first = _nothing(planner), np.zeros(1, np.int64)
        else:
            plan = planner.plan(iteration.epoch, iteration.step, len(iteration.sizes))
            first = self._first_rows(iteration, plan.frames)
        # Samples of one size: what is left over is filled with the first window, and not delivered.
        fill = np.zeros(-len(first) % self._samples, np.intp)
        plan = Plan(*(_extended(part, fill) for part in (plan.frames, plan.frequency, plan.time)))
        first = _extended(first, fill)
        arrays: list[NDArray[Any]] = [plan.frames, row_order(first, plan, planner.window)]
        if self._frames.labels is not None:
            arrays.append((first + self._frames.layout.left).astype(np.int32))
        if self._masked:
            arrays.append(mask_bits(plan, planner.feature_dim, self._dtype))
        return [np.split(array, self._samples) for array in arrays]

    def pipeline(self, source: Callable[[int], Any]) -> tuple[Pipeline, list[str]]:
        """Build the pipeline, see `Graph`."""
        on_gpu = self._device.type == "cuda"
        labelled, stored = self._frames.labels is not None, str(self._frames.rows.dtype).removeprefix("torch.")
        shape = (self._planner.window, self._planner.feature_dim)
        samples = self._samples
        pipeline = new_pipeline(self._device, prefetch=self._prefetch, samples=samples)
        with pipeline:
            count = 2 + labelled + self._masked
            numbers, order, *rest = fn.external_source(source, num_outputs=count, device="cpu", batch=True)
            rows = resident(lambda: self._frames.rows, self._device, samples)
            windows = fn.sequence_rearrange(rows, new_order=order)
            windows = fn.reshape(windows, shape=[-1, *shape])
            if stored != self._dtype:
                windows = fn.cast(windows, dtype=OUTPUT_TYPES[self._dtype])
            if self._masked:
                mask = rest[-1].gpu() if on_gpu else rest[-1]
                bits = fn.reinterpret(windows, dtype=_MASK_TYPES[mask_word(self._dtype, shape[1]).itemsize]) & mask
                windows = fn.reinterpret(bits, dtype=OUTPUT_TYPES[self._dtype])
            outputs = {"windows": windows, "frame_ids": numbers.gpu() if on_gpu else numbers}
            if labelled:
                labels = resident(lambda: self._frames.labels[:, None], self._device, samples)
                gathered = fn.sequence_rearrange(labels, new_order=rest[0])
                outputs["labels"] = fn.cast(fn.reshape(gathered, shape=[-1]), dtype=types.INT64)
            pipeline.set_outputs(*outputs.values())
        pipeline.build()
        return pipeline, list(outputs)

    def _first_rows(self, iteration: Iteration, frames: NDArray[np.int64]) -> NDArray[np.int64]:
        first = self._frames.layout.first_rows(frames)
        chunk = np.searchsorted(self._planner.layout.frames, frames, side="right") - 1
        for group, part in iteration.parts:
            first[part] += self._frames.shifts(group)[chunk[part]]
        return first


def row_order(first: NDArray[np.int64], plan: Plan, window: int) -> NDArray[np.int32]:
    """Return the rows that make up windows, `[B·W]`, from the first of each; a masked frame is a row of zeros."""
    order = np.add.outer(first.astype(np.int32), np.arange(window, dtype=np.int32))
    if plan.time.shape[1]:
        np.putmask(order, covered(plan.time, window), ZERO_ROW)
    rows: NDArray[np.int32] = order.ravel()
    return rows


def mask_bits(plan: Plan, feature_dim: int, dtype: str) -> NDArray[Any]:
    """Return all or no bits for each feature of a plan's windows, `[B, 1, words]`, see `mask_word`."""
    element = np.dtype(f"i{np.dtype(dtype).itemsize}")
    bits = covered(plan.frequency, feature_dim).astype(element) - element.type(1)
    words: NDArray[Any] = bits.view(mask_word(dtype, feature_dim))[:, None, :]
    return words


def mask_word(dtype: str, feature_dim: int) -> np.dtype[Any]:
    """Return the widest integer that frames of D = `feature_dim` values of `dtype` are a multiple of.

    DALI takes as long for a word of 8 bytes as for one of 2.
    """
    frame = feature_dim * np.dtype(dtype).itemsize
    return np.dtype(f"i{next(size for size in (8, 4, 2) if frame % size == 0)}")


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


def _extended(array: NDArray[Any], fill: NDArray[np.intp]) -> NDArray[Any]:
    return np.concatenate([array, array[fill]]) if len(fill) else array


def _nothing(planner: Planner) -> Plan:
    """Return a plan of one window that nobody gets: DALI gathers no empty batch."""
    most = planner.masking.frequency.count[1] if planner.masking else 0
    return Plan(np.zeros(1, np.int64), np.zeros((1, most, 2), np.int32), np.zeros((1, 0, 2), np.int32))
