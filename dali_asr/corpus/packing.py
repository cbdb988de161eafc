"""Packing a course folder, in parallel and in bounded memory.

Two passes: shapes from the headers, which give every utterance its place, then each utterance read, normalized,
rounded and written there.
"""

from __future__ import annotations

import os
import signal
from collections import deque
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial, reduce
from multiprocessing import resource_tracker
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import numpy as np

from dali_asr.corpus.course import (
    CoursePartition,
    read_features,
    read_features_blocks,
    read_features_header,
    read_layout,
    read_transcript,
)
from dali_asr.corpus.normalize import Kind, Moments, Normalization
from dali_asr.corpus.packed import PartitionEntry
from dali_asr.corpus.writer import ArrayWriter, PackedDraft, check_destination, store
from dali_asr.errors import DataError, UsageError, did_you_mean
from dali_asr.inventory import ARPABET, Inventory

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from concurrent.futures import Future
    from pathlib import Path

    from loky import ProcessPoolExecutor
    from numpy.typing import NDArray

_R = TypeVar("_R")
_CHUNK = 64  # utterances handed to a process at once
# glibc's malloc gives freed arrays back to the system and faults them in again for the next utterance, which takes
# a quarter of the time of packing; so it keeps what it has, a few MB.
_KEEP_MEMORY = {"MALLOC_TRIM_THRESHOLD_": str(1 << 30), "MALLOC_MMAP_THRESHOLD_": str(1 << 30)}
_MOST_PROCESSES = 8  # each takes some 25 MiB; the disk is slower than eight
_LONG = 100_000  # frames; longer utterances are worked through in blocks of so many
_UTTERANCES_A_PROCESS = 500  # fewer are packed before a process has started


class Progress(Protocol):
    """Called with a stage, and how many utterances of `total` are done."""

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Report."""


@dataclass(frozen=True)
class PackSettings:
    """All that shapes a packed corpus, beside its files.

    Attributes:
        partitions: which to pack, in this order; all, sorted, when empty.
        normalization: `utterance`, `global` or `none`, or a `Normalization` with statistics.
        train: the partitions that `global` takes its statistics from.
        dtype: of the stored frames, `float32` or `float16`.
        inventory: the label set.
        zero_nonfinite: whether NaN and infinity become zeros instead of an error.
    """

    partitions: tuple[str, ...] = ()
    normalization: Kind | Normalization = "utterance"
    train: tuple[str, ...] = ()
    dtype: str = "float32"
    inventory: Inventory = ARPABET
    zero_nonfinite: bool = False


@dataclass(frozen=True)
class _Utterance:
    """An utterance's files, and once they are measured its place."""

    features: Path
    transcript: Path | None
    partition: str
    first: int = 0
    length: int = 0


def quiet(stage: str, done: int, total: int) -> None:
    """Report no progress."""


def pack_course(
    source: Path,
    dest: Path,
    settings: PackSettings | None = None,
    *,
    overwrite: bool = False,
    progress: Progress = quiet,
) -> None:
    """Pack a course folder into `dest`.

    Args:
        source: the folder that holds the partitions.
        dest: the folder to write; it is there whole or not at all.
        settings: what shapes the result.
        overwrite: whether a packed corpus at `dest` is replaced.
        progress: told how far it is.

    Raises:
        DataError: a file that is not what it should be, or no space left.
        UsageError: `dest` exists or lies in `source`, a partition is not there, or `global` has nothing to learn from.
    """
    settings = settings or PackSettings()
    if source.resolve() in dest.resolve().parents:
        raise UsageError(f"{dest}: lies in {source}, which is to be packed; choose a place outside")
    check_destination(dest, overwrite=overwrite)
    layout = read_layout(source, settings.partitions)
    with _Workers(sum(len(p.utterances) for p in layout)) as workers:
        utterances, feature_dim = _measure(layout, workers, progress)
        normalization = _normalization(utterances, feature_dim, settings, workers, progress)
        draft = PackedDraft(
            dest,
            feature_dim=feature_dim,
            dtype=settings.dtype,
            inventory=settings.inventory,
            overwrite=overwrite,
        )
        try:
            write = partial(
                _write,
                arrays=draft.arrays,
                normalization=normalization,
                zero_nonfinite=settings.zero_nonfinite,
            )
            offsets = np.cumsum([0, *(u.length for u in utterances)], dtype=np.int64)
            draft.arrays.write_headers(int(offsets[-1]))
            for frames in workers.map(write, utterances, partial(progress, "packing", total=len(utterances))):
                draft.digest(frames)
            entries = tuple(PartitionEntry(p.name, p.utterances, p.labelled) for p in layout)
            draft.finish(offsets, entries, normalization)
        except BaseException:
            workers.stop()  # nobody writes into the draft any more
            draft.discard()
            raise


class _Workers:
    """Processes that work through chunks of utterances, a bounded number in flight; none for a small corpus.

    loky's processes, unlike multiprocessing's, do not import the caller's `__main__` again.
    """

    def __init__(self, utterances: int) -> None:
        self._count = min(len(os.sched_getaffinity(0)), _MOST_PROCESSES, utterances // _UTTERANCES_A_PROCESS)
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> _Workers:
        if self._count > 1:
            from loky import ProcessPoolExecutor
            from loky.backend import resource_tracker as loky_tracker

            for tracker in (resource_tracker, loky_tracker):
                tracker.ensure_running()  # later they would lift what holds interrupts back
            self._pool = ProcessPoolExecutor(self._count, env=_KEEP_MEMORY)
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """End the processes, in the middle of their work if need be."""
        if self._pool:
            self._pool.shutdown(wait=True, kill_workers=True)

    def map(
        self,
        work: Callable[[Sequence[_Utterance]], _R],
        utterances: Sequence[_Utterance],
        report: Callable[[int], None],
    ) -> Iterator[_R]:
        """Yield the results of `work` on chunks of utterances, in order; report how many are done."""
        chunks = [utterances[i : i + _CHUNK] for i in range(0, len(utterances), _CHUNK)]
        done = 0
        for chunk, result in zip(chunks, self._results(work, chunks), strict=True):
            done += len(chunk)
            report(done)
            yield result

    def _results(
        self, work: Callable[[Sequence[_Utterance]], _R], chunks: Sequence[Sequence[_Utterance]]
    ) -> Iterator[_R]:
        if self._pool is None:
            yield from map(work, chunks)
            return
        flying: deque[Future[_R]] = deque()
        for chunk in chunks:
            with _interrupts_held():
                flying.append(self._pool.submit(work, chunk))
            if len(flying) > 2 * self._count:
                yield flying.popleft().result()
        while flying:
            yield flying.popleft().result()


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """Block Ctrl-C, also in processes that are started meanwhile: it reaches all, and the parent alone answers it."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _measure(layout: Sequence[CoursePartition], workers: _Workers, progress: Progress) -> tuple[list[_Utterance], int]:
    """Give every utterance its length and its place; return them and D."""
    found = [
        _Utterance(p.features_path(name), p.transcript_path(name) if p.labelled else None, p.name)
        for p in layout
        for name in p.utterances
    ]
    report = partial(progress, "reading headers", total=len(found))
    shapes = [shape for chunk in workers.map(_shapes, found, report) for shape in chunk]
    feature_dim = shapes[0][1]
    for utterance, (_, dim) in zip(found, shapes, strict=True):
        if dim != feature_dim:
            raise DataError(
                f"{utterance.features}: {dim} features a frame, {feature_dim} in {found[0].features}; "
                "all files of a corpus must agree"
            )
    firsts = np.cumsum([0, *(length for length, _ in shapes)]).tolist()
    placed = [replace(u, first=f, length=s[0]) for u, f, s in zip(found, firsts[:-1], shapes, strict=True)]
    return placed, feature_dim


def _normalization(
    utterances: Sequence[_Utterance],
    feature_dim: int,
    settings: PackSettings,
    workers: _Workers,
    progress: Progress,
) -> Normalization:
    """Return the normalization, with the statistics of the training partitions where it is `global`."""
    if isinstance(settings.normalization, Normalization):
        settings.normalization.check(str(utterances[0].features), feature_dim)
        return settings.normalization
    if settings.normalization != "global":
        return Normalization(settings.normalization)
    packed = sorted({u.partition for u in utterances})
    strange = [name for name in settings.train if name not in packed]
    if strange or not settings.train:
        lacks = f"training partition {strange[0]!r} is not packed" if strange else "no training partition is named"
        raise UsageError(
            f"global normalization: {lacks}; name those to take its statistics from (data.train, "
            f"data pack --train), of {', '.join(packed)}{did_you_mean(strange[0], packed) if strange else ''}"
        )
    train = [u for u in utterances if u.partition in settings.train]
    work = partial(_moments, zero_nonfinite=settings.zero_nonfinite)
    parts = workers.map(work, train, partial(progress, "measuring", total=len(train)))
    return reduce(Moments.merge, parts).normalization(settings.train)


def _shapes(utterances: Sequence[_Utterance]) -> list[tuple[int, ...]]:
    return [read_features_header(u.features).shape for u in utterances]


def _moments(utterances: Sequence[_Utterance], *, zero_nonfinite: bool) -> Moments:
    return reduce(Moments.merge, (Moments.of(block) for u in utterances for block in _blocks(u, zero_nonfinite)))


def _write(
    utterances: Sequence[_Utterance],
    *,
    arrays: ArrayWriter,
    normalization: Normalization,
    zero_nonfinite: bool,
) -> int:
    """Write utterances to their places; return where the last one ends."""
    for u in utterances:
        labels = read_transcript(u.transcript, u.length, arrays.inventory) if u.transcript else None
        own = normalization
        if u.length > _LONG and normalization.kind == "utterance":
            own = _moments([u], zero_nonfinite=zero_nonfinite).normalization()
        at = 0
        for block in _blocks(u, zero_nonfinite):
            end = at + len(block)
            stored = store(str(u.features), own.apply(block), arrays.dtype)
            arrays.write(u.first + at, stored, labels[at:end] if labels is not None else None)
            at = end
    return utterances[-1].first + utterances[-1].length


def _blocks(utterance: _Utterance, zero_nonfinite: bool) -> Iterator[NDArray[Any]]:
    """Yield the features of an utterance, whole or, of a long one, in blocks."""
    path, frames = utterance.features, 0
    if utterance.length > _LONG:
        blocks = read_features_blocks(path, _LONG, zero_nonfinite=zero_nonfinite)
    else:
        blocks = iter((read_features(path, zero_nonfinite=zero_nonfinite),))
    for block in blocks:
        frames += len(block)
        yield block
    if frames != utterance.length:
        raise DataError(f"{utterance.features}: changed while it was packed; pack the corpus again")
