"""Packing a course folder, in parallel and in bounded memory.

The first pass reads the shapes from the headers, which gives every utterance its place. The second pass reads,
normalizes, rounds and writes each utterance.

Shape letters: `T` frames of an utterance, `D` features of a frame.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from functools import partial, reduce
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from dali_asr.corpus.course import (
    CoursePartition,
    read_features,
    read_features_blocks,
    read_features_shape,
    read_layout,
    read_transcript,
)
from dali_asr.corpus.draft import PackedDraft, check_destination, new_draft
from dali_asr.corpus.folding import read_fold
from dali_asr.corpus.normalize import Kind, Moments, Normalization
from dali_asr.corpus.packed import PartitionEntry
from dali_asr.corpus.workers import Workers
from dali_asr.corpus.writer import check_stored_dtype, store
from dali_asr.errors import DataError, UsageError, did_you_mean
from dali_asr.inventory import ARPABET, Inventory

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

_LONG = 100_000  # frames; longer utterances are packed in blocks of this size


class Progress(Protocol):
    """Called with the name of a stage, and the number of utterances done, of `total`."""

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Report."""


@dataclass(frozen=True)
class PackSettings:
    """Everything besides the source files that determines a packed corpus.

    Attributes:
        partitions: names of the partitions to pack, in this order; empty: all, sorted by name.
        normalization: `utterance`, `global` or `none`, or a `Normalization` with statistics.
        train: the partitions that `global` computes its statistics from.
        dtype: of the stored frames, `float32` or `float16`.
        inventory: the label set.
        zero_nonfinite: whether NaN and infinity are replaced by zero; otherwise they are errors.
        fold: which symbols in transcripts stand for others, see `folding`: a fold's name or file, or None.
    """

    partitions: tuple[str, ...] = ()
    normalization: Kind | Normalization = "utterance"
    train: tuple[str, ...] = ()
    dtype: str = "float32"
    inventory: Inventory = ARPABET
    zero_nonfinite: bool = False
    fold: str | None = None


@dataclass(frozen=True)
class _Utterance:
    """The files of an utterance and, once it is measured, the row of its first frame and its number of frames."""

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
        dest: the folder to write; it appears when it is complete.
        settings: how to pack.
        overwrite: whether a packed corpus at `dest` is replaced.
        progress: called as utterances are done.

    Raises:
        DataError: a source file is missing, damaged or does not fit the others, or the disk is full.
        UsageError: `dest` exists or is inside `source`, a partition does not exist, or `global` lacks a training
            partition.
    """
    settings = settings or PackSettings()
    check_stored_dtype(settings.dtype)
    fold = read_fold(settings.fold) if settings.fold else None
    if os.path.realpath(source) in map(str, Path(os.path.realpath(dest)).parents):  # Path.resolve fails on link loops
        raise UsageError(f"{dest}: is inside {source}, the folder to pack; choose a place outside")
    check_destination(dest, overwrite=overwrite)
    layout = read_layout(source, settings.partitions)
    with Workers(sum(len(p.utterances) for p in layout)) as workers:
        utterances, feature_dim = _measure(layout, workers, progress)
        normalization = _normalization(utterances, feature_dim, settings, workers, progress)
        inventory, dtype = settings.inventory, settings.dtype
        with new_draft(dest, feature_dim=feature_dim, dtype=dtype, inventory=inventory, overwrite=overwrite) as draft:
            write = partial(
                _write, draft=draft, normalization=normalization, zero_nonfinite=settings.zero_nonfinite, fold=fold
            )
            report = partial(progress, "packing", total=len(utterances))
            try:
                checksums = [pair for chunk in workers.map(write, utterances, report) for pair in chunk]
            except BaseException:
                workers.stop()  # before the draft that they write to is removed
                raise
            entries = tuple(PartitionEntry(p.name, p.utterances, p.labelled) for p in layout)
            draft.finish([u.length for u in utterances], checksums, entries, normalization)


def _measure(layout: Sequence[CoursePartition], workers: Workers, progress: Progress) -> tuple[list[_Utterance], int]:
    """Return all utterances with their places, and D."""
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
                f"{utterance.features}: {dim} features per frame, {feature_dim} in {found[0].features}; "
                "all files of a corpus must agree"
            )
    firsts = np.cumsum([0, *(length for length, _ in shapes)]).tolist()
    placed = [replace(u, first=f, length=s[0]) for u, f, s in zip(found, firsts[:-1], shapes, strict=True)]
    return placed, feature_dim


def _normalization(
    utterances: Sequence[_Utterance],
    feature_dim: int,
    settings: PackSettings,
    workers: Workers,
    progress: Progress,
) -> Normalization:
    """Return the normalization; for `global`, with the statistics of the training partitions."""
    if isinstance(settings.normalization, Normalization):
        settings.normalization.check(str(utterances[0].features), feature_dim)
        return settings.normalization
    if settings.normalization != "global":
        return Normalization(settings.normalization)
    packed = sorted({u.partition for u in utterances})
    unknown = [name for name in settings.train if name not in packed]
    if unknown or not settings.train:
        problem = f"training partition {unknown[0]!r} is not packed" if unknown else "no training partition is named"
        raise UsageError(
            f"global normalization: {problem}; name the partitions to compute statistics from (train=NAME) "
            f"out of {', '.join(packed)}{did_you_mean(unknown[0], packed) if unknown else ''}"
        )
    train = [u for u in utterances if u.partition in settings.train]
    work = partial(_moments, zero_nonfinite=settings.zero_nonfinite)
    parts = workers.map(work, train, partial(progress, "measuring", total=len(train)))
    return reduce(Moments.merge, parts).normalization(settings.train)


def _shapes(utterances: Sequence[_Utterance]) -> list[tuple[int, int]]:
    return [read_features_shape(u.features) for u in utterances]


def _moments(utterances: Sequence[_Utterance], *, zero_nonfinite: bool) -> Moments:
    return reduce(Moments.merge, (Moments.of(block) for u in utterances for block in _blocks(u, zero_nonfinite)))


def _write(
    utterances: Sequence[_Utterance],
    *,
    draft: PackedDraft,
    normalization: Normalization,
    zero_nonfinite: bool,
    fold: Mapping[str, str] | None,
) -> list[tuple[int, int]]:
    """Write utterances to their places; return the checksums of each one's frames and labels."""
    checksums = []
    for u in utterances:
        labels = read_transcript(u.transcript, u.length, draft.inventory, fold) if u.transcript else None
        own = normalization
        if u.length > _LONG and normalization.kind == "utterance":
            own = _moments([u], zero_nonfinite=zero_nonfinite).normalization()
        frames = (store(str(u.features), own.apply(block), draft.dtype) for block in _blocks(u, zero_nonfinite))
        checksums.append(draft.write(u.first, frames, labels))
    return checksums


def _blocks(utterance: _Utterance, zero_nonfinite: bool) -> Iterator[NDArray[Any]]:
    """Yield the features of an utterance; a long one in blocks."""
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
