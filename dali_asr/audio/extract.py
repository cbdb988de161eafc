"""Features of many recordings: batches of whole recordings, long ones part by part, all in bounded memory.

    paths ─▶ headers ─▶ batches of bounded length ─▶ DALI: decode, features ─▶ frames, in the order of the paths
                    └─▶ long recordings, in parts ─▶ DALI: features ─────────▶

DALI does not pad recordings to a common length, so batches are of neighbours and need not be sorted by length.

Shape letters: `S` samples of a recording, `T` frames, `D` features of a frame.
"""

from __future__ import annotations

import os
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from dali_asr.audio.long import long_features
from dali_asr.audio.pipelines import Input, Output, PipelineSettings, feature_pipeline, iterations, results
from dali_asr.audio.recordings import Header, damaged, decoding_error, overflowing, read_blocks, read_header
from dali_asr.audio.settings import FeatureSettings
from dali_asr.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from numpy.typing import NDArray

_MAX_BATCH = 32  # recordings
_MAX_BATCH_BYTES = 1 << 22  # of decoded samples
_LONG_BYTES = 1 << 25  # 8.7 minutes of one channel at 16 kHz
_CLIPPED = 1e-3  # fraction of samples from which on a recording counts as clipped
_DECODED_HERE = ("MP3",)  # not by DALI


class Extracted(NamedTuple):
    """The features of a recording.

    Attributes:
        position: of its path among those given.
        frames: float32 `[T, D]`.
        samples: its number of samples, S, at the sample rate of the features.
        remark: what is odd about it, on one line: it is silent or clipped, or its sample rate is low; None if nothing.
    """

    position: int
    frames: NDArray[np.float32]
    samples: int
    remark: str | None = None


class Failed(NamedTuple):
    """A recording that has no features.

    Attributes:
        position: of its path among those given.
        error: why.
    """

    position: int
    error: DataError


@dataclass(frozen=True)
class _Item:
    position: int
    path: Path
    header: Header


@dataclass(frozen=True)
class _Batch:
    kind: Input
    items: list[_Item]


def extract(
    recordings: Sequence[str | Path],
    settings: FeatureSettings | None = None,
    *,
    keep_going: bool = False,
    threads: int | None = None,
    gpu: int | None = None,
) -> Iterator[Extracted | Failed]:
    """Compute the features of recordings, in their order, in memory that does not grow with their number.

    Args:
        recordings: paths of files in any format that libsndfile reads; all channels are averaged.
        settings: what to compute; by default the preset `course`.
        keep_going: yield `Failed` for a recording that cannot be used, instead of raising its error.
        threads: of the CPU; by default one per core.
        gpu: number of the GPU that computes the features; by default the CPU does. Decoding is on the CPU.

    Yields:
        `Extracted`, or `Failed` with `keep_going`.

    Raises:
        DataError: a recording is missing, empty, damaged, or shorter than a window.
    """
    settings = settings or FeatureSettings()
    running = PipelineSettings(_MAX_BATCH, threads or len(os.sched_getaffinity(0)), gpu)
    results_in_order = _in_order(_results(recordings, settings, running))
    yield from results_in_order if keep_going else map(_raise_if_failed, results_in_order)


def _raise_if_failed(result: Extracted | Failed) -> Extracted | Failed:
    if isinstance(result, Failed):
        raise result.error
    return result


def _in_order(found: Iterable[Extracted | Failed]) -> Iterator[Extracted | Failed]:
    """Sort results by their positions; those out of order are few."""
    waiting: dict[int, Extracted | Failed] = {}
    position = 0
    for result in found:
        waiting[result.position] = result
        del result  # the frames of a long recording take memory
        while position in waiting:
            yield waiting.pop(position)
            position += 1


def _results(
    recordings: Sequence[str | Path], settings: FeatureSettings, running: PipelineSettings
) -> Iterator[Extracted | Failed]:
    planned = _plan(recordings, settings)
    with ThreadPoolExecutor(running.threads) as pool:
        while (step := next(planned, None)) is not None:
            if isinstance(step, Failed):
                yield step
            elif isinstance(step, _Item):
                yield _of_long(step, settings, running)
            else:
                run = _Run(step, planned, settings, running, pool)
                yield from run.results()
                planned = run.rest()


def _plan(recordings: Sequence[str | Path], settings: FeatureSettings) -> Iterator[Failed | _Item | _Batch]:
    """Yield batches of recordings, long recordings by themselves, and recordings that failed."""
    kind: Input = "encoded"
    items: list[_Item] = []
    total = 0
    for position, given in enumerate(recordings):
        path = Path(given)
        try:
            header = read_header(path)
            check_length(path, header, settings)
        except DataError as error:
            yield Failed(position, error)
            continue
        item, size = _Item(position, path, header), _decoded_bytes(header, settings)
        of_kind = _kind(header, settings)
        if items and (of_kind != kind or total + size > _MAX_BATCH_BYTES or len(items) == _MAX_BATCH):
            yield _Batch(kind, items)
            items, total = [], 0
        if size > _LONG_BYTES:
            yield item
            continue
        kind, items, total = of_kind, [*items, item], total + size
    if items:
        yield _Batch(kind, items)


def _kind(header: Header, settings: FeatureSettings) -> Input:
    if header.format not in _DECODED_HERE:
        return "encoded"
    return "samples" if header.sample_rate == settings.sample_rate else "other rate"


def _decoded_bytes(header: Header, settings: FeatureSettings) -> int:
    at_rate = -(-header.samples * settings.sample_rate // header.sample_rate)
    return 4 * max(header.samples * header.channels, at_rate)


def check_length(path: Path, header: Header, settings: FeatureSettings) -> None:
    """Check that a recording has a frame, by its header.

    Raises:
        DataError: it is shorter than a window.
    """
    samples = -(-header.samples * settings.sample_rate // header.sample_rate)
    if not settings.timing.frame_count(samples):
        raise _too_short(path, samples, settings)


def _too_short(path: Path, samples: int, settings: FeatureSettings) -> DataError:
    return DataError(
        f"{path}: lasts {1000 * samples / settings.sample_rate:.3g} ms, less than a window of "
        f"{1000 * settings.window:.3g} ms; record it longer, or remove it"
    )


class _Run:
    """Consecutive batches of one kind, through one pipeline that works ahead.

    Args:
        first: the first batch.
        planned: what follows, taken from until something else than a batch of this kind comes.
        settings: what to compute.
        running: how to run.
        pool: threads that decode what DALI cannot.
    """

    def __init__(
        self,
        first: _Batch,
        planned: Iterator[Failed | _Item | _Batch],
        settings: FeatureSettings,
        running: PipelineSettings,
        pool: ThreadPoolExecutor,
    ) -> None:
        self._kind = first.kind
        self._planned: Iterator[Failed | _Item | _Batch] = chain([first], planned)
        self._settings, self._running, self._pool = settings, running, pool
        self._ahead: deque[_Batch] = deque()  # in the pipeline
        self._failed: list[Failed] = []
        self._next: list[_Item | _Batch] = []  # what ended the run

    def results(self) -> Iterator[Extracted | Failed]:
        """Yield the results of the batches."""
        pipeline = None
        while pipeline is None or self._ahead:
            try:
                pipeline = feature_pipeline(self._kind, self._load_next, self._settings, self._running)
                for outputs in iterations(pipeline):
                    batch = self._ahead.popleft()
                    for item, output in zip(batch.items, results(outputs), strict=True):
                        yield _checked(item, output, self._settings)
                    yield from self._take_failed()
            except (
                RuntimeError,
                OSError,
                DataError,
            ):  # of one of the recordings in the pipeline, which is of no use any more
                suspects = [item for batch in self._ahead for item in batch.items]
                self._ahead.clear()
                for item in suspects:
                    yield self._alone(item)
                pipeline = None
        yield from self._take_failed()

    def rest(self) -> Iterator[Failed | _Item | _Batch]:
        """Return what is planned after the run."""
        return chain(self._next, self._planned)

    def _take_failed(self) -> Iterator[Failed]:
        yield from self._failed
        self._failed.clear()

    def _load_next(self) -> Any:
        for step in () if self._next else self._planned:
            if isinstance(step, Failed):
                self._failed.append(step)
            elif isinstance(step, _Item) or step.kind != self._kind:
                self._next.append(step)
                break
            else:
                self._ahead.append(step)
                return self._load(step.items)
        raise StopIteration

    def _load(self, items: Sequence[_Item]) -> Any:
        """Return the inputs of an iteration."""
        if self._kind == "encoded":
            return [np.fromfile(item.path, np.uint8) for item in items]
        samples = list(self._pool.map(_decode, items))
        if self._kind == "samples":
            return samples
        return samples, [np.float32(item.header.sample_rate) for item in items]

    def _alone(self, item: _Item) -> Extracted | Failed:
        """Return the result of one recording through a pipeline of its own."""
        batches = iter([[item]])
        try:
            pipeline = feature_pipeline(
                self._kind, lambda: self._load(next(batches)), self._settings, PipelineSettings(1, 1, self._running.gpu)
            )
            ((output,),) = map(results, iterations(pipeline))
        except DataError as error:
            return Failed(item.position, error)
        except (RuntimeError, OSError) as error:
            return Failed(item.position, decoding_error(item.path) or damaged(item.path, error))
        return _checked(item, output, self._settings)


def _decode(item: _Item) -> NDArray[np.float32]:
    return np.concatenate(list(read_blocks(item.path, 1 << 20)))


def _of_long(item: _Item, settings: FeatureSettings, running: PipelineSettings) -> Extracted | Failed:
    try:
        output = long_features(item.path, item.header, settings, running)
    except DataError as error:
        return Failed(item.position, error)
    except RuntimeError as error:
        return Failed(item.position, damaged(item.path, error))
    return _checked(item, output, settings)


def _checked(item: _Item, output: Output, settings: FeatureSettings) -> Extracted | Failed:
    """Return the result of a recording; its header may have stated more samples than there are."""
    if not output.finite:
        return Failed(item.position, decoding_error(item.path) or overflowing(item.path))
    if settings.timing.frame_count(output.samples) != len(output.frames):
        return Failed(item.position, _too_short(item.path, output.samples, settings))
    return Extracted(item.position, output.frames, output.samples, _remark(item, output, settings))


def _remark(item: _Item, output: Output, settings: FeatureSettings) -> str | None:
    if output.lowest == output.highest:
        return f"{item.path}: is silent, all samples are {output.lowest:g}"
    if output.clipped > _CLIPPED:
        return f"{item.path}: {output.clipped:.1%} of the samples are at full scale, so it is clipped; record it lower"
    rate = item.header.sample_rate
    if 2 * rate <= settings.sample_rate:
        return f"{item.path}: recorded at {rate:,} Hz, so its features contain nothing above {rate // 2:,} Hz"
    return None
