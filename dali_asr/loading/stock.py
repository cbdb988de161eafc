"""The graph `stock`, made of DALI's own operators; the same on the CPU and on a GPU.

Rows of the resident frames are gathered by number; padding and masks in time are rows of zeros. Bands of frequency are
cleared by a bitwise *and*, which gives +0.0 where a product with zero would give −0.0.

DALI gathers each sample in one thread, so on the CPU an iteration has one sample per thread.

Shape letters: `R` rows, `B` windows of an iteration, `W` frames of a window, `D` features, `M` bands per window.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np
from nvidia.dali import fn, types

from dali_asr.loading.pipeline import DALI_TYPES, new_pipeline, resident_input
from dali_asr.loading.rows import ZERO_ROW
from dali_asr.plan import Plan

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch
    from numpy.typing import NDArray
    from nvidia.dali.pipeline import Pipeline

    from dali_asr.loading.frames import Frames
    from dali_asr.loading.source import Iteration
    from dali_asr.plan import LoaderSpec, Planner

_MASK_TYPES = {8: types.INT64, 4: types.INT32, 2: types.INT16}
_MAX_THREADS = 8


class StockGraph:
    """The graph `stock`.

    Args:
        planner: plans the steps.
        frames: frames on the device.
        device: where windows are cut.
        prefetch: number of iterations that DALI prepares ahead.
    """

    def __init__(self, planner: Planner, frames: Frames, device: torch.device, prefetch: int) -> None:
        self._planner, self._frames, self._device, self._prefetch = planner, frames, device, prefetch
        self._spec = planner.spec
        self._samples = 1 if device.type == "cuda" else min(len(os.sched_getaffinity(0)), _MAX_THREADS)

    def arrays(self, iteration: Iteration) -> list[list[NDArray[Any]]]:
        """Return frame numbers `[B]` and row order `[B·W]`; if labelled, label rows `[B]`; if masked, `mask_bits`."""
        if iteration.steps:
            plan = self._planner.plan(iteration.epoch, iteration.step, iteration.steps)
            first = self._first_rows(iteration, plan.frame_ids)
        else:
            plan, first = _filler(self._spec), np.zeros(1, np.int64)
        # All samples have one size: the last ones repeat the first window, which is not delivered.
        fill = np.zeros(-len(first) % self._samples, np.intp)
        plan = Plan(*(_extended(part, fill) for part in (plan.frame_ids, plan.time, plan.frequency)))
        first = _extended(first, fill)
        arrays: list[NDArray[Any]] = [plan.frame_ids, row_order(first, plan, self._spec.window)]
        if self._frames.labels is not None:
            arrays.append((first + self._frames.layout.left).astype(np.int32))
        if self._spec.masks_frequency:
            arrays.append(mask_bits(plan, self._spec.feature_dim, self._spec.cut_dtype))
        return [np.split(array, self._samples) for array in arrays]

    def pipeline(self, source: Callable[[int], Any]) -> tuple[Pipeline, list[str]]:
        """Build the pipeline, see `Graph`."""
        spec, samples, device = self._spec, self._samples, self._device
        labelled, masked = self._frames.labels is not None, spec.masks_frequency
        pipeline = new_pipeline(device, prefetch=self._prefetch, samples=samples)
        with pipeline:
            inputs = fn.external_source(source, num_outputs=2 + labelled + masked, device="cpu", batch=True)
            frame_ids, order, *rest = inputs
            rows = resident_input(lambda: self._frames.rows, device, samples)
            windows = fn.sequence_rearrange(rows, new_order=order)
            windows = fn.reshape(windows, shape=[-1, spec.window, spec.feature_dim])
            if str(self._frames.rows.dtype).removeprefix("torch.") != spec.cut_dtype:  # type: ignore[union-attr]
                windows = fn.cast(windows, dtype=DALI_TYPES[spec.cut_dtype])
            if masked:
                windows = self._masked(windows, self._on_device(rest[-1]))
            outputs = {"windows": windows, "frame_ids": self._on_device(frame_ids)}
            if labelled:
                labels = resident_input(self._label_column, device, samples)
                gathered = fn.sequence_rearrange(labels, new_order=rest[0])
                outputs["labels"] = fn.cast(fn.reshape(gathered, shape=[-1]), dtype=types.INT64)
            pipeline.set_outputs(*outputs.values())
        pipeline.build()
        return pipeline, list(outputs)

    def _on_device(self, node: Any) -> Any:
        return node.gpu() if self._device.type == "cuda" else node

    def _masked(self, windows: Any, bits: Any) -> Any:
        word = mask_word(self._spec.cut_dtype, self._spec.feature_dim)
        kept = fn.reinterpret(windows, dtype=_MASK_TYPES[word.itemsize]) & bits
        return fn.reinterpret(kept, dtype=DALI_TYPES[self._spec.cut_dtype])

    def _label_column(self) -> Any:
        labels = self._frames.labels
        return None if labels is None else labels[:, None]

    def _first_rows(self, iteration: Iteration, frame_ids: NDArray[np.int64]) -> NDArray[np.int64]:
        first = self._frames.layout.first_rows(frame_ids)
        chunk = np.searchsorted(self._planner.layout.frames, frame_ids, side="right") - 1
        for group, part in iteration.parts:
            first[part] += self._frames.shifts(group)[chunk[part]]
        return first


def row_order(first: NDArray[np.int64], plan: Plan, window: int) -> NDArray[np.int32]:
    """Return the rows of windows, `[B·W]`, given the first row of each; a masked frame is a row of zeros."""
    order = np.add.outer(first.astype(np.int32), np.arange(window, dtype=np.int32))
    if plan.time.shape[1]:
        np.putmask(order, covered(plan.time, window), ZERO_ROW)
    rows: NDArray[np.int32] = order.ravel()
    return rows


def mask_bits(plan: Plan, feature_dim: int, dtype: str) -> NDArray[Any]:
    """Return all bits or none for each feature of a plan's windows, `[B, 1, words]`, see `mask_word`."""
    element = np.dtype(f"i{np.dtype(dtype).itemsize}")
    bits = covered(plan.frequency, feature_dim).astype(element) - element.type(1)
    words: NDArray[Any] = bits.view(mask_word(dtype, feature_dim))[:, None, :]
    return words


def mask_word(dtype: str, feature_dim: int) -> np.dtype[Any]:
    """Return the widest integer type that divides a frame of `feature_dim` values of `dtype`.

    DALI takes as long for a word of 8 bytes as for one of 2.
    """
    frame = feature_dim * np.dtype(dtype).itemsize
    return np.dtype(f"i{next(size for size in (8, 4, 2) if frame % size == 0)}")


def covered(bands: NDArray[np.int32], size: int) -> NDArray[np.bool_]:
    """Return which of `size` places are inside one of the bands `[B, M, 2]`, `[B, size]`."""
    # In unsigned arithmetic, places before a band wrap around to large distances, so one comparison is enough.
    unsigned = np.min_scalar_type(size)
    places = np.arange(size, dtype=unsigned)
    first = bands[:, :, 0].astype(unsigned)
    width = (bands[:, :, 1] - bands[:, :, 0]).astype(unsigned)
    inside = np.zeros((len(bands), size), np.bool_)
    for band in range(bands.shape[1]):
        inside |= places - first[:, band, None] < width[:, band, None]
    return inside


def _extended(array: NDArray[Any], fill: NDArray[np.intp]) -> NDArray[Any]:
    return np.concatenate([array, array[fill]]) if len(fill) else array


def _filler(spec: LoaderSpec) -> Plan:
    """Return a plan of one window that is not delivered: DALI cannot gather an empty batch."""
    bands = spec.masking.frequency.count[1] if spec.masking else 0
    return Plan(np.zeros(1, np.int64), np.zeros((1, 0, 2), np.int32), np.zeros((1, bands, 2), np.int32))
