"""The DALI graphs: windows and masks.

Shape letters: `R` rows of the resident buffer, `B` windows of a batch, `W` frames of a window, `D` features.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np

# DALI reads this when it is loaded. Without it every batch on the CPU lies in fresh pages, whose first touch costs
# more than the gather: at 4,096 windows 0.65 instead of 1.15 M windows/s, on two cores.
os.environ.setdefault("DALI_MALLOC_POOL_THRESHOLD", "1M")

from nvidia.dali import backend, fn, types
from nvidia.dali.pipeline import Pipeline

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch

OUTPUT_TYPES = {"float32": types.FLOAT, "float16": types.FLOAT16}
_MASK_TYPES = {8: types.INT64, 4: types.INT32, 2: types.INT16}


def stock_graph(
    rows: Any,
    steps: Callable[[int], Any],
    *,
    device: torch.device,
    shape: tuple[int, int],
    dtype: str,
    labelled: bool,
    masked: bool,
    prefetch: int,
    threads: int,
) -> tuple[Pipeline, list[str]]:
    """Build the graph of DALI's own operators; the same on the CPU and on a GPU.

    A minibatch is one sample, because DALI's bookkeeping is per sample. Rows of the resident frames are gathered
    by number, padding and masks in time being rows of zeros; bands of frequency are cleared by a bitwise *and*,
    which leaves +0.0 where a product with zero would leave −0.0.

    Args:
        rows: resident frames `[R, D]`, shared with DALI, not copied.
        steps: gives frame numbers `[B]`, row order `[B·W]`, then if labelled labels `[B]`, then if masked a mask
            `[B, 1, words]` of all or no bits for each feature, see `mask_word`.
        device: where windows are cut.
        shape: (W, D).
        dtype: of the windows, `float32` or `float16`.
        labelled: whether there are labels.
        masked: whether there are masks of frequency.
        prefetch: iterations in flight.
        threads: CPU threads that DALI uses.

    Returns:
        The pipeline, and the names of its outputs: `windows`, `frames`, perhaps `labels`.
    """
    on_gpu = device.type == "cuda"
    pipeline = Pipeline(
        batch_size=1,
        num_threads=threads,
        device_id=device.index if on_gpu else None,
        prefetch_queue_depth=prefetch,
    )
    stored = str(rows.dtype).removeprefix("torch.")
    with pipeline:
        frames_in = fn.external_source(lambda _: [rows], device="gpu" if on_gpu else "cpu", batch=True, no_copy=True)
        numbers, order, *rest = fn.external_source(steps, num_outputs=2 + labelled + masked, device="cpu", batch=True)
        windows = fn.reshape(fn.sequence_rearrange(frames_in, new_order=order), shape=[-1, *shape])
        if stored != dtype:
            windows = fn.cast(windows, dtype=OUTPUT_TYPES[dtype])
        if masked:
            mask = rest[-1].gpu() if on_gpu else rest[-1]
            word = mask_word(dtype, shape[1])
            bits = fn.reinterpret(windows, dtype=_MASK_TYPES[word.itemsize]) & mask
            windows = fn.reinterpret(bits, dtype=OUTPUT_TYPES[dtype])
        outputs = {"windows": windows, "frames": numbers.gpu() if on_gpu else numbers}
        if labelled:
            outputs["labels"] = rest[0].gpu() if on_gpu else rest[0]
        pipeline.set_outputs(*outputs.values())
    pipeline.build()
    return pipeline, list(outputs)


def release_unused_memory() -> None:
    """Give back what DALI keeps for pipelines that are gone."""
    backend.ReleaseUnusedMemory()  # type: ignore[attr-defined]


def mask_word(dtype: str, feature_dim: int) -> np.dtype[Any]:
    """Return the widest integer that frames of D = `feature_dim` values of `dtype` are a multiple of.

    DALI takes as long for a word of 8 bytes as for one of 2.
    """
    frame = feature_dim * np.dtype(dtype).itemsize
    return np.dtype(f"i{next(size for size in (8, 4, 2) if frame % size == 0)}")
