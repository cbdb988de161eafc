"""Features of a long recording, part by part.

Parts overlap, and the frames that reach beyond a part's ends are left out, so that the frames are those of the whole.

Shape letters: `S` samples of a recording, `T` frames, `D` features of a frame.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import chain, pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from dali_asr.audio.pipelines import Output, feature_pipeline, iterations, resampling_pipeline, results
from dali_asr.audio.recordings import read_blocks

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from dali_asr.audio.pipelines import Input, PipelineSettings
    from dali_asr.audio.recordings import Header
    from dali_asr.audio.settings import FeatureSettings
    from dali_asr.segments import FrameTiming

_BLOCK_SECONDS, _BLOCK_BYTES = 30, 1 << 25  # of decoded samples, at most, but at least a second
_OVERLAP_SECONDS = 1  # of blocks that are resampled; DALI's filter reaches 16 samples of the lower rate


class _Part(NamedTuple):
    """A part of a recording.

    Attributes:
        samples: float32 `[S]`.
        first: number of its frames to leave out at the start.
        end: number of its frames after which the rest is left out; None if none is.
        new: number of its samples that no part before has.
    """

    samples: NDArray[np.float32]
    first: int
    end: int | None
    new: int


def long_features(path: Path, header: Header, settings: FeatureSettings, running: PipelineSettings) -> Output:
    """Return the features of a recording, decoded by libsndfile.

    Raises:
        DataError: it is damaged.
    """
    loudest = np.float32(np.inf)
    if settings.top_decibels is not None:  # of the whole recording, so it is read twice
        loudest = np.float32(_features(path, header, settings, running, loudest).loudest)
    return _features(path, header, settings, running, loudest)


def _features(
    path: Path, header: Header, settings: FeatureSettings, running: PipelineSettings, loudest: np.float32
) -> Output:
    ahead: list[_Part] = []
    parts = parts_of(_at_rate(path, header, settings.sample_rate), settings.timing)

    def load() -> Any:
        part = next(parts)
        ahead.append(part)
        return [part.samples] if settings.top_decibels is None else ([part.samples], [loudest])

    kind: Input = "samples" if settings.top_decibels is None else "part"
    pipeline = feature_pipeline(kind, load, settings, replace(running, batch_size=1))
    found = []
    for iteration in iterations(pipeline):
        (output,), part = results(iteration), ahead.pop(0)
        found.append(output._replace(frames=output.frames[part.first : part.end], samples=part.new))
    return _joined(found)


def parts_of(blocks: Iterator[NDArray[np.float32]], timing: FrameTiming) -> Iterator[_Part]:
    """Cut the samples of a recording, which come in blocks, into parts that overlap."""
    overlap = -(-timing.window // timing.hop) + 1  # frames; the filter of pre-emphasis looks back as well
    held, new, first = np.zeros(0, np.float32), 0, 0
    end = held  # which is no block
    for block, following in pairwise(chain(blocks, [end])):
        held, new = np.concatenate([held, block]), new + len(block)
        if following is end:
            yield _Part(held, first, None, new)
            return
        frames = 1 + (len(held) - timing.window) // timing.hop  # that end within
        if frames > 2 * overlap:
            yield _Part(held, first, frames, new)
            held, new, first = held[(frames - overlap) * timing.hop :], 0, overlap


def _at_rate(path: Path, header: Header, wanted: int) -> Iterator[NDArray[np.float32]]:
    """Yield the samples of a recording at the wanted rate, in blocks."""
    rate = header.sample_rate
    seconds = min(max(_BLOCK_BYTES // (4 * rate * header.channels), 1), _BLOCK_SECONDS)
    if rate == wanted:
        yield from read_blocks(path, seconds * rate)
        return
    blocks = read_blocks(path, seconds * rate, _OVERLAP_SECONDS * rate)
    before = 0
    for ((block,),) in iterations(resampling_pipeline(lambda: [next(blocks)], (rate, wanted))):
        yield block[before : before + seconds * wanted]
        before = _OVERLAP_SECONDS * wanted


def _joined(parts: list[Output]) -> Output:
    weights = np.array([part.samples for part in parts], np.float64)
    return Output(
        np.concatenate([part.frames for part in parts]),
        sum(part.samples for part in parts),
        min(part.lowest for part in parts),
        max(part.highest for part in parts),
        float(np.average([part.clipped for part in parts], weights=weights)),
        min(part.finite for part in parts),
        max(part.loudest for part in parts),
    )
