"""What both DALI graphs share: the pipeline, and the resident frames in it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Protocol

# DALI reads this when it is loaded. Without it every batch on the CPU lies in fresh pages, whose first touch costs
# more than the gather: at 4,096 windows 0.65 instead of 1.15 M windows/s, on two cores.
os.environ.setdefault("DALI_MALLOC_POOL_THRESHOLD", "64k")

from nvidia.dali import backend, fn, types
from nvidia.dali.pipeline import Pipeline

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch
    from numpy.typing import NDArray

    from dali_asr.loading.source import Iteration

OUTPUT_TYPES = {"float32": types.FLOAT, "float16": types.FLOAT16}


class Graph(Protocol):
    """A DALI graph that cuts windows, and what it takes an iteration."""

    def arrays(self, iteration: Iteration) -> list[list[NDArray[Any]]]:
        """Return what the graph takes for an iteration, for each input an array a sample."""
        ...

    def pipeline(self, source: Callable[[int], Any]) -> tuple[Pipeline, list[str]]:
        """Build the pipeline that `source` feeds with these arrays.

        Returns:
            It, and the names of its outputs: `windows`, `frames`, perhaps `labels`.
        """
        ...


def new_pipeline(device: torch.device, *, prefetch: int, samples: int = 1) -> Pipeline:
    """Return a pipeline of few samples an iteration, one a thread, because DALI's bookkeeping is per sample."""
    return Pipeline(
        batch_size=samples,
        num_threads=samples,
        device_id=device.index if device.type == "cuda" else None,
        prefetch_queue_depth=prefetch,
    )


def resident(give: Callable[[], Any], device: torch.device, samples: int = 1) -> Any:
    """Return the node of what lies on the device as a whole, which DALI shares and does not copy, in every sample.

    `give` is asked for it each time: DALI's operators hold each other, and so all that they hold, until Python collects
    garbage.
    """
    where = "gpu" if device.type == "cuda" else "cpu"
    return fn.external_source(lambda _: [give()] * samples, device=where, batch=True, no_copy=True)


def release_unused_memory() -> None:
    """Give back what DALI keeps for pipelines that are gone."""
    backend.ReleaseUnusedMemory()  # type: ignore[attr-defined]
