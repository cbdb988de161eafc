"""The graph `fused`: one operator that plans, cuts, pads, masks and converts on the GPU, by the kernels of `kernel.py`.

Shape letters: `N` windows of an iteration, `W` frames of a window, `D` features, `M` bands per window.
"""

from __future__ import annotations

import os
from contextlib import nullcontext
from functools import lru_cache
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import torch
from nvidia.dali import fn
from nvidia.dali.python_function_plugin import current_dali_stream
from torch.utils.dlpack import from_dlpack, to_dlpack  # type: ignore[attr-defined]

from dali_asr.errors import UsageError
from dali_asr.loading.description import Describer
from dali_asr.loading.pipeline import OUTPUTS, new_pipeline, resident_input
from dali_asr.plan.masking import BATCH_SCOPE

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from numpy.typing import NDArray
    from nvidia.dali.pipeline import Pipeline

    from dali_asr.loading.frames import Frames
    from dali_asr.loading.source import Iteration
    from dali_asr.plan import LoaderSpec, Planner

_PLANNED_WINDOWS = 256  # per program of plan_windows
_MAX_COPIED = 4096  # values that a program of cut_windows copies at once
_COPIED_PER_WARP = 256  # twice 16 bytes per thread


@lru_cache(maxsize=8)
def fused_problem(device: torch.device) -> str | None:
    """Return why the fused graph cannot run on a device, or None if it can.

    On a GPU, a kernel is compiled and launched once to find out: Triton needs a C compiler and Python.h for that,
    which slim images lack. On the CPU, the kernels run only through Triton's interpreter.
    """
    if device.type != "cuda" and os.environ.get("TRITON_INTERPRET") != "1":
        return "needs a CUDA device"
    if find_spec("triton") is None:
        return "needs triton, which is not installed"
    try:
        from dali_asr.loading.kernel import probe

        found = torch.zeros(1, dtype=torch.int32, device=device)
        with _current_device(device):
            probe[(1,)](found)
        return None if int(found) == 1 else "Triton ran a kernel without effect"
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # noqa: BLE001 - compilers and drivers raise anything
        return f"Triton cannot launch kernels ({' '.join(f'{type(error).__name__}: {error}'.split())[:200]})"


class FusedGraph:
    """The graph `fused`.

    Each iteration has room for `capacity` windows, so that the host needs to know no shape; what is beyond the
    iteration's own windows is not written.

    Args:
        planner: plans the steps.
        frames: frames on the device.
        device: where windows are cut.
        prefetch: number of iterations that DALI prepares ahead.
        capacity: maximum number of windows per iteration.

    Raises:
        UsageError: the graph cannot run on the device.
    """

    def __init__(self, planner: Planner, frames: Frames, device: torch.device, prefetch: int, capacity: int) -> None:
        if problem := fused_problem(device):
            raise UsageError(f"graph fused on {device}: {problem}; set graph to stock")
        self._frames, self._device = frames, device
        self._prefetch, self._capacity = prefetch, capacity
        self._spec, self._chunks = planner.spec, planner.layout.max_group_chunks
        self._dtype = getattr(torch, self._spec.cut_dtype)
        self._offsets = torch.from_numpy(frames.layout.offsets).to(device)
        self._labelled = frames.labels is not None
        self._describer = Describer(planner, frames)
        self._masks = mask_constants(self._spec)

    @property
    def table_bytes(self) -> int:
        """Bytes of tables on the device."""
        return self._offsets.nbytes

    def arrays(self, iteration: Iteration) -> list[list[NDArray[Any]]]:
        """Return the description of an iteration, see `description.py`."""
        return [[self._describer.describe(iteration)]]

    def pipeline(self, source: Callable[[int], Any]) -> tuple[Pipeline, list[str]]:
        """Build the pipeline, see `Graph`."""
        on_gpu = self._device.type == "cuda"
        outputs = list(OUTPUTS[: 2 + self._labelled])
        pipeline = new_pipeline(self._device, prefetch=self._prefetch)
        with pipeline:
            (described,) = fn.external_source(source, num_outputs=1, device="cpu", batch=True)
            cut = fn.dl_tensor_python_function(
                resident_input(lambda: self._frames.rows, self._device),
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

    def _cut(self, rows: Any, described: Any) -> tuple[Any, ...]:
        """Cut an iteration's windows on DALI's stream; DLPack in and out."""
        # Allocated for this stream, so that torch reuses the memory only after DALI has copied it.
        with self._on_stream():
            return tuple(to_dlpack(tensor) for tensor in self._launch(from_dlpack(rows), from_dlpack(described)))

    def _on_stream(self) -> AbstractContextManager[Any]:
        if self._device.type != "cuda":
            return nullcontext()
        stream = torch.cuda.ExternalStream(current_dali_stream(), self._device)  # type: ignore[no-untyped-call]
        return torch.cuda.stream(stream)  # and its device becomes the current one

    def _launch(self, rows: torch.Tensor, described: torch.Tensor) -> list[torch.Tensor]:
        spec, count, device = self._spec, self._capacity, rows.device
        bands = self._masks["TIME_MAX_COUNT"] + self._masks["FREQUENCY_MAX_COUNT"]
        edges = torch.empty((count, bands, 2), dtype=torch.int32, device=device)
        windows = torch.empty((count, spec.window, spec.feature_dim), dtype=self._dtype, device=device)
        frame_ids, first_rows, labels = torch.empty((3, count), dtype=torch.int64, device=device)
        self._launch_plan(rows, described, frame_ids, first_rows, labels, edges)
        self._launch_cut(rows, described, first_rows, edges, windows)
        return [windows, frame_ids, *([labels] if self._labelled else [])]

    def _launch_plan(
        self,
        rows: torch.Tensor,
        described: torch.Tensor,
        frame_ids: torch.Tensor,
        first_rows: torch.Tensor,
        labels: torch.Tensor,
        edges: torch.Tensor,
    ) -> None:
        from dali_asr.loading.kernel import plan_windows

        spec, layout, utterances = self._spec, self._frames.layout, len(self._offsets) - 1
        by_step = spec.masking is not None and spec.masking.scope == "batch"
        plan_windows[(-(-len(frame_ids) // _PLANNED_WINDOWS),)](
            described,
            self._offsets,
            torch.as_tensor(self._frames.labels) if self._labelled else rows,
            frame_ids,
            labels,
            first_rows,
            edges,
            spec.subset,
            self._chunks,
            utterances,
            layout.gap,
            layout.left,
            BATCH_SCOPE if by_step else 0,
            CHUNK_DEPTH=(self._chunks - 1).bit_length(),
            UTTERANCE_DEPTH=(utterances - 1).bit_length(),
            SHUFFLE=spec.shuffle,
            LABELLED=self._labelled,
            MASKED=spec.masking is not None,
            BY_STEP=by_step,
            BLOCK=_PLANNED_WINDOWS,
            **self._masks,
        )

    def _launch_cut(
        self,
        rows: torch.Tensor,
        described: torch.Tensor,
        first_rows: torch.Tensor,
        edges: torch.Tensor,
        windows: torch.Tensor,
    ) -> None:
        from dali_asr.loading.kernel import cut_windows

        copied = min(1 << (self._spec.window * self._spec.feature_dim - 1).bit_length(), _MAX_COPIED)
        cut_windows[(len(windows),)](
            described,
            rows,
            first_rows,
            edges,
            windows,
            FRAMES=self._spec.window,
            FEATURES=self._spec.feature_dim,
            TIME_BANDS=self._masks["TIME_MAX_COUNT"],
            FREQUENCY_BANDS=self._masks["FREQUENCY_MAX_COUNT"],
            BLOCK=copied,
            num_warps=min(max(copied // _COPIED_PER_WARP, 1), 8),
        )


def mask_constants(spec: LoaderSpec) -> dict[str, int]:
    """Return the masks of a spec as the constants of `plan_windows`."""
    constants = {"FRAMES": spec.window, "FEATURES": spec.feature_dim}
    masking = spec.masking
    for kind, bands in (("TIME", masking and masking.time), ("FREQUENCY", masking and masking.frequency)):
        count, width = (bands.count, bands.width) if bands else ((0, 0), (1, 1))
        constants |= {f"{kind}_MIN_COUNT": count[0], f"{kind}_MAX_COUNT": count[1]}
        constants |= {f"{kind}_MIN_WIDTH": width[0], f"{kind}_MAX_WIDTH": width[1]}
    return constants


def _current_device(device: torch.device) -> AbstractContextManager[Any]:
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()
