"""The fused graph: one operator that plans, cuts, pads, masks and converts on the GPU, by the kernels of `kernel.py`.

Shape letters: `N` windows of an iteration, `W` frames of a window, `D` features, `M` bands of a window.
"""

from __future__ import annotations

import os
from contextlib import nullcontext
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from nvidia.dali import fn
from nvidia.dali.python_function_plugin import current_dali_stream
from torch.utils.dlpack import from_dlpack, to_dlpack  # type: ignore[attr-defined]

from dali_asr.errors import UsageError
from dali_asr.loading.graph import new_pipeline, resident
from dali_asr.plan.masking import BATCH_SCOPE
from dali_asr.plan.order import ROUNDS, round_keys, rows_and_columns

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from numpy.typing import NDArray
    from nvidia.dali.pipeline import Pipeline

    from dali_asr.loading.frames import ResidentFrames, StreamedFrames
    from dali_asr.loading.source import Iteration
    from dali_asr.plan.planner import Planner

HEADER, TABLES = 8, 4 + ROUNDS  # of the description, see kernel.py
_OF_BANDS = ("LEAST", "MOST", "NARROWEST", "WIDEST")
_PLANNED = 256  # windows of a program
_MOST_COPIED = 4096  # values that a program copies at once
_COPIED_A_WARP = 256  # of them: twice 16 bytes a thread


def can_fuse(device: torch.device) -> bool:
    """Say whether the fused graph runs on a device: on CUDA with Triton, on the CPU through Triton's interpreter."""
    if find_spec("triton") is None:
        return False
    return device.type == "cuda" or os.environ.get("TRITON_INTERPRET") == "1"


def check_can_fuse(device: torch.device) -> None:
    """Check that the fused graph runs on a device.

    Raises:
        UsageError: it does not.
    """
    if not can_fuse(device):
        missing = "needs a CUDA device" if device.type != "cuda" else "needs triton, which is not installed"
        raise UsageError(f"graph fused on {device}: {missing}; set loader.graph: stock")


class FusedGraph:
    """The graph `fused`.

    Every iteration gives room for `capacity` windows, so that no shape has to be known to the host; what is beyond
    the iteration's own windows is not written.

    Args:
        planner: plans the steps.
        frames: where windows are cut from.
        device: where they are cut.
        dtype: of the windows, `float32` or `float16`.
        prefetch: iterations in flight.
        capacity: N, at most.

    Raises:
        UsageError: there is no Triton, or no CUDA device.
    """

    def __init__(
        self,
        planner: Planner,
        frames: ResidentFrames | StreamedFrames,
        device: torch.device,
        dtype: str,
        prefetch: int,
        capacity: int,
    ) -> None:
        check_can_fuse(device)
        self._planner, self._frames, self._device = planner, frames, device
        self._prefetch, self._capacity = prefetch, capacity
        self._dtype = getattr(torch, dtype)
        self._chunks = int(np.diff(planner.layout.group_bounds).max())
        self._offsets = torch.from_numpy(frames.layout.offsets).to(device)
        self._labelled = frames.labels is not None

    @property
    def table_bytes(self) -> int:
        """Bytes of the device that tables take."""
        return self._offsets.nbytes

    def arrays(self, iteration: Iteration) -> list[list[NDArray[Any]]]:
        """Return the description of an iteration, int64; its layout is that of kernel.py."""
        planner, chunks = self._planner, self._chunks
        epoch, step = iteration.epoch, iteration.step
        record = TABLES + 3 * chunks
        described = np.zeros(HEADER + 2 * record, np.int64)
        groups = planner.groups(epoch)
        for at in range(2):
            number, _ = iteration.parts[min(at, len(iteration.parts) - 1)]
            group = number - epoch * planner.layout.group_count
            self._describe_group(described[HEADER + at * record :][:record], epoch, group, number)
        first, end = planner.steps.span(step)
        boundary = groups.positions[iteration.parts[0][0] - epoch * planner.layout.group_count + 1]
        described[:HEADER] = (
            epoch,
            first,
            end - first,
            planner.steps.global_batch,
            sum(iteration.sizes),
            epoch * planner.steps.count + step,
            boundary,
            np.uint64(planner.seed).view(np.int64),
        )
        return [[described]]

    def pipeline(self, source: Callable[[int], Any]) -> tuple[Pipeline, list[str]]:
        """Build the pipeline, see `Graph`."""
        on_gpu = self._device.type == "cuda"
        outputs = ["windows", "frame_ids", *(["labels"] if self._labelled else [])]
        pipeline = new_pipeline(self._device, prefetch=self._prefetch)
        with pipeline:
            (described,) = fn.external_source(source, num_outputs=1, device="cpu", batch=True)
            cut = fn.dl_tensor_python_function(
                resident(lambda: self._frames.rows, self._device),
                described.gpu() if on_gpu else described,
                function=self._cut,
                num_outputs=len(outputs),
                batch_processing=False,
                device="gpu" if on_gpu else "cpu",
                synchronize_stream=False,
            )
            pipeline.set_outputs(*(cut if isinstance(cut, (list, tuple)) else [cut]))
        pipeline.build()
        return pipeline, outputs

    def _describe_group(self, record: NDArray[np.int64], epoch: int, group: int, number: int) -> None:
        planner, chunks = self._planner, self._chunks
        groups = planner.groups(epoch)
        members = groups.members(group)
        first, end = groups.positions[group : group + 2].tolist()
        size = max(end - first, 1)
        keys = round_keys(planner.seed, epoch, group=group)
        record[:TABLES] = (first, size, *rows_and_columns(size), *keys)
        starts, before, shifts = record[TABLES:].reshape(3, chunks)
        count = members.stop - members.start
        starts[:count] = groups.starts[members] - first
        starts[count:] = size
        before[:count] = groups.before[members]
        shifts[:count] = self._frames.shifts(number)[groups.chunks[members]]

    def _cut(self, rows: Any, described: Any) -> tuple[Any, ...]:
        """Cut an iteration's windows on DALI's stream; DLPack in and out."""
        # Allocated for this stream, so that torch gives the memory to nobody else while DALI still copies it.
        with self._on_stream():
            return tuple(to_dlpack(tensor) for tensor in self._launch(from_dlpack(rows), from_dlpack(described)))

    def _on_stream(self) -> AbstractContextManager[Any]:
        if self._device.type != "cuda":
            return nullcontext()
        stream = torch.cuda.ExternalStream(current_dali_stream(), self._device)  # type: ignore[no-untyped-call]
        return torch.cuda.stream(stream)  # which makes its device the current one, too

    def _launch(self, rows: torch.Tensor, described: torch.Tensor) -> list[torch.Tensor]:
        from dali_asr.loading.kernel import cut_windows, plan_windows

        planner, layout, count = self._planner, self._frames.layout, self._capacity
        masks = _masks(planner)
        by_step = planner.masking is not None and planner.masking.scope == "batch"
        time_bands, frequency_bands = masks["TIME_MOST"], masks["FREQUENCY_MOST"]
        bands = torch.empty((count, time_bands + frequency_bands, 2), dtype=torch.int32, device=rows.device)
        windows = torch.empty((count, planner.window, planner.feature_dim), dtype=self._dtype, device=rows.device)
        frames, first_rows, labels = torch.empty((3, count), dtype=torch.int64, device=rows.device)
        plan_windows[(-(-count // _PLANNED),)](
            described,
            self._offsets,
            torch.as_tensor(self._frames.labels) if self._labelled else rows,
            frames,
            labels,
            first_rows,
            bands,
            planner.subset,
            self._chunks,
            len(layout.offsets) - 1,
            layout.gap,
            layout.left,
            BATCH_SCOPE if by_step else 0,
            CHUNK_DEPTH=(self._chunks - 1).bit_length(),
            UTTERANCE_DEPTH=(len(layout.offsets) - 2).bit_length(),
            SHUFFLE=planner.shuffle,
            LABELLED=self._labelled,
            MASKED=planner.masking is not None,
            BY_STEP=by_step,
            BLOCK=_PLANNED,
            **masks,
        )
        copied = min(1 << (planner.window * planner.feature_dim - 1).bit_length(), _MOST_COPIED)
        cut_windows[(count,)](
            described,
            rows,
            first_rows,
            bands,
            windows,
            FRAMES=planner.window,
            FEATURES=planner.feature_dim,
            TIME_BANDS=time_bands,
            FREQUENCY_BANDS=frequency_bands,
            BLOCK=copied,
            num_warps=min(max(copied // _COPIED_A_WARP, 1), 8),
        )
        return [windows, frames, *([labels] if self._labelled else [])]


def _masks(planner: Planner) -> dict[str, int]:
    """Return the masks in the form the kernel takes."""
    numbers: dict[str, int] = {}
    masking = planner.masking
    for name, bands in (("TIME", masking and masking.time), ("FREQUENCY", masking and masking.frequency)):
        values = (*bands.count, *bands.width) if bands else (0, 0, 1, 1)
        numbers |= {f"{name}_{what}": v for what, v in zip(_OF_BANDS, values, strict=True)}
    return numbers | {"FRAMES": planner.window, "FEATURES": planner.feature_dim}
