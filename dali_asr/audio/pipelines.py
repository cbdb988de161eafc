"""DALI pipelines around the feature graph, and what they return.

Shape letters: `S` samples of a recording, `T` frames, `D` features of a frame.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
from nvidia.dali import fn, types
from nvidia.dali import math as dali_math
from nvidia.dali.pipeline import Pipeline

from dali_asr.audio.graph import frames_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from dali_asr.audio.settings import FeatureSettings

Input = Literal["encoded", "samples", "other rate", "part"]
"""What a pipeline is fed with, per recording: `encoded`, the bytes of a file; `samples` `[S]`; samples of `other rate`,
with that rate; a `part` of a recording, with the largest logarithm of the whole."""
FULL_SCALE = 0.99  # of samples that count as clipped; those of 8 bits reach 127 / 128


class Output(NamedTuple):
    """The features of a recording.

    Attributes:
        frames: float32 `[T, D]`.
        samples: their number at the sample rate of the features, S.
        lowest: smallest sample.
        highest: largest sample.
        clipped: fraction of samples at full scale.
        finite: whether no sample is NaN or infinite.
        loudest: largest logarithm.
    """

    frames: NDArray[np.float32]
    samples: int
    lowest: float
    highest: float
    clipped: float
    finite: float
    loudest: float


@dataclass(frozen=True)
class PipelineSettings:
    """How a pipeline runs; no effect on what it returns.

    Attributes:
        batch_size: maximum number of recordings per iteration.
        threads: of the CPU.
        gpu: number of the GPU that computes features; None: the CPU does.
    """

    batch_size: int
    threads: int
    gpu: int | None = None


def feature_pipeline(
    kind: Input, source: Callable[[], Any], settings: FeatureSettings, running: PipelineSettings
) -> Pipeline:
    """Return a built pipeline.

    Args:
        kind: what `source` returns.
        source: returns the inputs of the next iteration, a list per input; raises StopIteration at the end.
        settings: what to compute.
        running: how to run.
    """
    pipeline = Pipeline(running.batch_size, running.threads, running.gpu, prefetch_queue_depth=2)
    with pipeline:
        given, extra = _inputs(kind, source)
        if kind == "encoded":
            samples, _ = fn.decoders.audio(given, dtype=types.FLOAT, downmix=True, sample_rate=settings.sample_rate)
        elif kind == "other rate":
            samples = fn.audio_resample(given, in_rate=extra, out_rate=settings.sample_rate)
        else:
            samples = given
        length = samples.shape()
        if running.gpu is not None:
            samples = samples.gpu()
        device = "cpu" if running.gpu is None else "gpu"
        clipped = fn.reductions.mean(fn.cast(dali_math.abs(samples) >= FULL_SCALE, dtype=types.FLOAT))
        finite = fn.cast(fn.reductions.sum(samples * 0) == 0, dtype=types.FLOAT)  # 0 times NaN or infinity is NaN
        levels = (fn.reductions.min(samples), fn.reductions.max(samples), clipped, finite)
        if kind == "part" and device == "gpu":
            extra = extra.gpu()
        frames, loudest = frames_of(samples, settings, device, extra if kind == "part" else None)
        pipeline.set_outputs(frames, length, *levels, loudest)
    pipeline.build()
    return pipeline


def resampling_pipeline(source: Callable[[], Any], rates: tuple[int, int]) -> Pipeline:
    """Return a built pipeline that resamples one `[S]` per iteration from the first rate to the second, on the CPU."""
    pipeline = Pipeline(1, 1, None, prefetch_queue_depth=2)
    with pipeline:
        samples = fn.external_source(source, batch=True)
        pipeline.set_outputs(fn.audio_resample(samples, in_rate=float(rates[0]), out_rate=float(rates[1])))
    pipeline.build()
    return pipeline


def iterations(pipeline: Pipeline) -> Iterator[list[list[NDArray[Any]]]]:
    """Yield the outputs of iterations, a list of arrays per output, until the source ends.

    Raises:
        RuntimeError: DALI failed; the pipeline cannot be used any more.
    """
    while True:
        try:
            outputs = pipeline.run()
        except StopIteration:
            return
        yield [_arrays(output) for output in outputs]


def results(outputs: list[list[NDArray[Any]]]) -> list[Output]:
    """Return what an iteration of a feature pipeline says of each recording."""
    return [
        Output(frames, int(length[0]), *(float(value) for value in numbers))
        for frames, length, *numbers in zip(*outputs, strict=True)
    ]


def compute(samples: Sequence[NDArray[np.float32]], settings: FeatureSettings) -> list[NDArray[np.float32]]:
    """Return the frames `[T, D]` of each of some arrays of samples `[S]`, on one thread of the CPU."""
    batches = iter([list(samples)])
    pipeline = feature_pipeline("samples", lambda: next(batches), settings, PipelineSettings(len(samples), 1))
    return [output.frames for iteration in iterations(pipeline) for output in results(iteration)]


def _inputs(kind: Input, source: Callable[[], Any]) -> tuple[Any, Any]:
    if kind in ("encoded", "samples"):
        return fn.external_source(lambda: (source(),), num_outputs=1, batch=True)[0], None
    return tuple(fn.external_source(source, num_outputs=2, batch=True))


def _arrays(output: Any) -> list[NDArray[Any]]:
    on_cpu = output.as_cpu() if hasattr(output, "as_cpu") else output
    return [np.array(on_cpu[at]) for at in range(len(on_cpu))]
