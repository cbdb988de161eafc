"""Packing the source files of a layout, in parallel and in bounded memory.

The first pass reads the shapes from the headers, which gives every utterance its place. The second pass reads,
normalizes, rounds and writes each utterance.

Shape letters: `T` frames of an utterance, `D` features of a frame.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial, reduce
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from dali_asr.corpus import storing
from dali_asr.corpus.draft import PackedDraft, new_draft
from dali_asr.corpus.folding import read_fold
from dali_asr.corpus.layouts import find_layout
from dali_asr.corpus.normalize import Kind, Moments, Normalization
from dali_asr.corpus.packed import PartitionEntry
from dali_asr.corpus.workers import Workers, chunked
from dali_asr.corpus.writer import stored_labels
from dali_asr.errors import DataError, UsageError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from dali_asr.corpus.layouts import Layout, SourceUtterance
    from dali_asr.inventory import Inventory


class Progress(Protocol):
    """Called with the name of a stage, and the number of utterances done, of `total`."""

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Report."""


@dataclass(frozen=True)
class PackSettings:
    """Everything besides the source files that determines a packed corpus.

    Attributes:
        partitions: names of the partitions to pack, in this order; empty: all, in the order of the layout.
        normalization: `utterance`, `global` or `none`, or a `Normalization` with statistics.
        train: the partitions that `global` computes its statistics from.
        dtype: of the stored frames, `float32` or `float16`.
        inventory: the label set; None: that of the layout, which is the course's 42 symbols for most.
        zero_nonfinite: whether NaN and infinity are replaced by zero; otherwise they are errors.
        fold: which symbols of labels stand for others, see `folding`: a fold's name or file, or None.
    """

    partitions: tuple[str, ...] = ()
    normalization: Kind | Normalization = "utterance"
    train: tuple[str, ...] = ()
    dtype: str = "float32"
    inventory: Inventory | None = None
    zero_nonfinite: bool = False
    fold: str | None = None


@dataclass(frozen=True)
class _Placed:
    """An utterance with its partition, the row of its first frame in the packed corpus, and its number of frames."""

    source: SourceUtterance
    partition: str
    labelled: bool
    first: int
    length: int


def quiet(stage: str, done: int, total: int) -> None:
    """Report no progress."""


def pack_layout(source: Path, dest: Path, settings: PackSettings, *, overwrite: bool, progress: Progress) -> None:
    """Pack a folder of source files; arguments and errors as in `pack_corpus`."""
    fold = read_fold(settings.fold) if settings.fold else None
    layout = find_layout(source, settings.partitions)
    inventory, dtype = settings.inventory or layout.inventory, settings.dtype
    with Workers(sum(len(p.utterances) for p in layout.partitions)) as workers:
        utterances, feature_dim = _measure(layout, workers, progress)
        normalization = _normalization(utterances, feature_dim, settings, workers, progress)
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
            entries = tuple(PartitionEntry(p.name, p.utterances, p.labelled) for p in layout.partitions)
            draft.finish([u.length for u in utterances], checksums, entries, normalization)


def settled(settings: PackSettings, packed: Sequence[str], where: str, feature_dim: int) -> Normalization | None:
    """Return the normalization if it is known before the statistics of `global` are; check that they can be computed.

    Args:
        settings: how to pack.
        packed: names of the partitions.
        where: the first utterance, as errors name it.
        feature_dim: features per frame, D.

    Raises:
        DataError: given statistics do not fit D.
        UsageError: `global` lacks a training partition.
    """
    if isinstance(settings.normalization, Normalization):
        settings.normalization.check(where, feature_dim)
        return settings.normalization
    if settings.normalization != "global":
        return Normalization(settings.normalization)
    packed = sorted(packed)
    unknown = [name for name in settings.train if name not in packed]
    if unknown or not settings.train:
        problem = f"training partition {unknown[0]!r} is not packed" if unknown else "no training partition is named"
        raise UsageError(
            f"global normalization: {problem}; name the partitions to compute statistics from (train=NAME) "
            f"out of {', '.join(packed)}{did_you_mean(unknown[0], packed) if unknown else ''}"
        )
    return None


def statistics(moments: Sequence[Sequence[Moments]], partitions: tuple[str, ...]) -> Normalization:
    """Return the `global` normalization with the moments of all blocks of each utterance, in the packed order.

    They are merged chunk by chunk, as several processes do it, since the order of merging decides the last bits.
    """
    chunks = (merged(block for utterance in chunk for block in utterance) for chunk in chunked(moments))
    return merged(chunks).normalization(partitions)


def merged(moments: Iterable[Moments]) -> Moments:
    """Return the moments of the union; there is at least one."""
    return reduce(Moments.merge, moments)


def check_feature_dim(where: str, feature_dim: int, first: str, expected: int) -> None:
    """Check that an utterance has the D of the first one.

    Raises:
        DataError: it has another.
    """
    if feature_dim != expected:
        raise DataError(
            f"{where}: {feature_dim} features per frame, {expected} in {first}; all files of a corpus must agree"
        )


def _measure(layout: Layout, workers: Workers, progress: Progress) -> tuple[list[_Placed], int]:
    """Return all utterances with their places, and D."""
    found = [(p, p.source(name)) for p in layout.partitions for name in p.utterances]
    sources = [source for _, source in found]
    report = partial(progress, "reading headers", total=len(found))
    shapes = [shape for chunk in workers.map(_shapes, sources, report) for shape in chunk]
    for source, (_, dim) in zip(sources, shapes, strict=True):
        check_feature_dim(source.where, dim, sources[0].where, shapes[0][1])
    firsts = np.cumsum([0, *(length for length, _ in shapes)]).tolist()
    placed = [
        _Placed(source, p.name, p.labelled, first, length)
        for (p, source), first, (length, _) in zip(found, firsts[:-1], shapes, strict=True)
    ]
    return placed, shapes[0][1]


def _normalization(
    utterances: Sequence[_Placed],
    feature_dim: int,
    settings: PackSettings,
    workers: Workers,
    progress: Progress,
) -> Normalization:
    """Return the normalization; for `global`, with the statistics of the training partitions."""
    packed = list(dict.fromkeys(u.partition for u in utterances))
    known = settled(settings, packed, utterances[0].source.where, feature_dim)
    if known:
        return known
    train = [u for u in utterances if u.partition in settings.train]
    work = partial(_moments, zero_nonfinite=settings.zero_nonfinite)
    parts = workers.map(work, train, partial(progress, "measuring", total=len(train)))
    return merged(parts).normalization(settings.train)


def _shapes(sources: Sequence[SourceUtterance]) -> list[tuple[int, int]]:
    return [source.shape() for source in sources]


def _moments(utterances: Sequence[_Placed], *, zero_nonfinite: bool) -> Moments:
    return merged(Moments.of(block) for u in utterances for block in _blocks(u, zero_nonfinite))


def _write(
    utterances: Sequence[_Placed],
    *,
    draft: PackedDraft,
    normalization: Normalization,
    zero_nonfinite: bool,
    fold: Mapping[str, str] | None,
) -> list[tuple[int, int]]:
    """Write utterances to their places; return the checksums of each one's frames and labels."""
    checksums = []
    for u in utterances:
        labels = (
            stored_labels(u.source.labels(u.length, draft.inventory, fold), draft.inventory) if u.labelled else None
        )
        blocks = partial(_blocks, u, zero_nonfinite)
        frames = storing.stored_frames(u.source.where, blocks, u.length, normalization, draft.dtype)
        checksums.append(draft.write(u.first, frames, labels))
    return checksums


def _blocks(utterance: _Placed, zero_nonfinite: bool) -> Iterator[NDArray[Any]]:
    """Yield the frames of an utterance: at once, or a long one in blocks."""
    source, frames = utterance.source, 0
    if utterance.length > storing.LONG:
        blocks = source.blocks(storing.LONG, zero_nonfinite=zero_nonfinite)
    else:
        blocks = iter((source.frames(zero_nonfinite=zero_nonfinite),))
    for block in blocks:
        frames += len(block)
        yield block
    if frames != utterance.length:
        raise DataError(f"{source.where}: changed while it was packed; pack the corpus again")
