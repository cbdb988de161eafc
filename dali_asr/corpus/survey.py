"""What the frames and labels of partitions are like, and what is odd about them.

Shape letters: `U` utterances, `D` features of a frame, `C` labels.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from typing import TYPE_CHECKING

import numpy as np

from dali_asr.corpus.normalize import Moments
from dali_asr.corpus.packing import quiet
from dali_asr.errors import printable
from dali_asr.inventory import END_SYMBOL, START_SYMBOL

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from dali_asr.corpus.corpus import Corpus
    from dali_asr.corpus.packing import Progress
    from dali_asr.corpus.partition import Partition
    from dali_asr.inventory import Inventory

_BLOCK = 1 << 16  # frames; of a longer utterance, all frames are in memory
_FACTOR = 9.5  # by which features are larger or smaller that are odd: rounded, ten times
_MAX_NAMED = 5  # symbols or utterances in a warning


@dataclass(frozen=True, eq=False)
class Survey:
    """What a partition is like.

    Attributes:
        name: of the partition.
        inventory: the label set.
        labelled: whether it has labels.
        lengths: frames per utterance, `[U]` int64.
        counts: frames with each label, `[C]` int64.
        mean: of each feature, `[D]` float64.
        deviation: standard deviation of each feature (population), `[D]` float64.
        silent: names of the utterances that have labels, all of them silence.
    """

    name: str
    inventory: Inventory
    labelled: bool
    lengths: NDArray[np.int64]
    counts: NDArray[np.int64]
    mean: NDArray[np.float64]
    deviation: NDArray[np.float64]
    silent: tuple[str, ...]


def survey(
    partition: Partition, silence: int | None = None, *, max_utterances: int | None = None, progress: Progress = quiet
) -> Survey:
    """Read a partition and return what it is like.

    Args:
        partition: what is read, in blocks.
        silence: the label of silence; None if there is none.
        max_utterances: measure the features of only so many utterances, evenly spaced; None for all.
        progress: called with a stage and the number of utterances done, of a total.

    Raises:
        DataError: the corpus changed since it was opened, or an utterance is damaged.
    """
    counts, silent = _labels(partition, silence)
    moments = _moments(partition, max_utterances, progress)
    return Survey(
        partition.name,
        partition.inventory,
        partition.labelled,
        partition.lengths,
        counts,
        moments.mean,
        np.sqrt(moments.squares / moments.count),
        tuple(partition.utterances[at] for at in silent),
    )


def training_partition(corpus: Corpus) -> str:
    """Return the partition to compare others with: the largest that is named as a training partition, or of all."""
    partitions = corpus.partitions.values()
    named = [p for p in partitions if p.name in corpus.normalization.partitions or p.name.startswith("train")]
    return max(named or partitions, key=lambda partition: partition.frame_count).name


def find_oddities(surveys: Sequence[Survey], training: str, silence: int | None = None) -> list[str]:
    """Return a line per oddity: features of another size, labels of one partition alone, utterances without speech.

    Args:
        surveys: of all partitions.
        training: name of the partition that others are compared with.
        silence: the label of silence.
    """
    reference = next(found for found in surveys if found.name == training)
    lines = [line for found in surveys if found is not reference and (line := _size(found, reference))]
    labelled = [found for found in surveys if found.counts.any()]
    for found in labelled if len(labelled) > 1 else ():
        others = sum((other.counts for other in labelled if other is not found), np.zeros_like(found.counts))
        alone = [found.inventory.symbols[label] for label in np.flatnonzero((found.counts > 0) & (others == 0))]
        alone = [symbol for symbol in alone if symbol not in (START_SYMBOL, END_SYMBOL)]
        if alone:
            lines.append(f"{_called(found)}: labels that occur in no other partition: {_named(alone)}")
    for found in surveys:
        if found.silent and silence is not None:
            symbol = printable(found.inventory.symbols[silence])
            count = "1 utterance is" if len(found.silent) == 1 else f"{len(found.silent):,} utterances are"
            lines.append(f"{_called(found)}: {count} all {symbol}, without speech: {_named(found.silent)}")
    return lines


def _labels(partition: Partition, silence: int | None) -> tuple[NDArray[np.int64], list[int]]:
    """Return the number of frames with each label, and the numbers of the utterances that are all silence."""
    counts = np.zeros(len(partition.inventory), np.int64)
    silent: list[int] = []
    for first, end in _runs(partition) if partition.labelled else ():
        bounds = partition.offsets[first : end + 1]
        labels = partition.labels(int(bounds[0]), int(bounds[-1]))
        assert labels is not None
        counts += np.bincount(labels[labels >= 0], minlength=len(counts))
        if silence is not None:
            starts = bounds[:-1] - bounds[0]
            speech = np.logical_or.reduceat((labels >= 0) & (labels != silence), starts)
            quiet_frames = np.logical_or.reduceat(labels == silence, starts)
            silent += (first + np.flatnonzero(quiet_frames & ~speech)).tolist()
    return counts, silent


def _moments(partition: Partition, max_utterances: int | None, progress: Progress) -> Moments:
    """Return the moments of the features of all utterances, or of some that are evenly spaced."""
    count = len(partition.utterances)
    runs = list(_runs(partition))
    if max_utterances is not None and max_utterances < count:
        chosen = np.linspace(0, count - 1, max_utterances).round().astype(int).tolist()
        runs = [(at, at + 1) for at in chosen]
    parts = []
    for first, end in runs:
        progress("measuring", first, count)
        lengths = partition.lengths[first:end]
        frames = np.empty((int(lengths.sum()), partition.feature_dim), partition.dtype)
        partition.read_into(np.split(frames, np.cumsum(lengths)[:-1]), first)
        parts.append(_of_blocks(frames))
    progress("measuring", count, count)
    return reduce(Moments.merge, parts)


def _of_blocks(frames: NDArray[np.floating]) -> Moments:
    """Return the moments of frames `[F, D]`, which are converted to float64 block by block."""
    blocks = (frames[at : at + _BLOCK] for at in range(0, len(frames), _BLOCK))
    return reduce(Moments.merge, map(Moments.of, blocks))


def _runs(partition: Partition) -> Iterator[tuple[int, int]]:
    """Yield runs of utterances of about `_BLOCK` frames, as the number of the first and of the one after the last."""
    offsets, first = partition.offsets, 0
    while first < len(partition.utterances):
        fitting = int(np.searchsorted(offsets, offsets[first] + _BLOCK, side="right")) - 1
        end = max(fitting, first + 1)
        yield first, end
        first = end


def _size(found: Survey, reference: Survey) -> str | None:
    """Return a line if features have another size than in the reference, by their deviation or root mean square."""
    factors = np.ones_like(found.mean)
    for ours, theirs in (
        (found.deviation, reference.deviation),
        (np.hypot(found.mean, found.deviation), np.hypot(reference.mean, reference.deviation)),
    ):
        usable = (ours > 0) & (theirs > 0)  # a constant feature is normalized to zeros
        ratio = np.divide(ours, theirs, where=usable, out=np.ones_like(ours))
        factors = np.where(np.abs(np.log(ratio)) > np.abs(np.log(factors)), ratio, factors)
    odd = factors[np.abs(np.log(factors)) >= np.log(_FACTOR)]
    if not len(odd):
        return None
    typical = float(np.median(odd))
    times = f"{typical:,.0f} times as large as" if typical > 1 else f"{1 / typical:,.0f} times smaller than"
    return (
        f"{_called(found)}: {len(odd)} of {len(factors)} features are {times} in {_called(reference)}; "
        "check that they were computed alike"
    )


def _called(found: Survey) -> str:
    return printable(found.name)


def _named(names: Sequence[str]) -> str:
    more = f" and {len(names) - _MAX_NAMED:,} more" if len(names) > _MAX_NAMED else ""
    return ", ".join(map(printable, names[:_MAX_NAMED])) + more
