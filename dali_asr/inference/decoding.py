"""From posteriors of frames to labels: frame by frame, by majority, or as the best path.

none       the most probable label of each frame
median:K   the label that most of the K frames around a frame have by `none`
viterbi    the best path of a bigram with durations (`viterbi`), which the checkpoint's counts of segments give

Labels have no order and so no median; as a filter, their majority does what a median does to numbers.

Shape letters: `T` frames of an utterance, `C` labels.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from dali_asr.corpus.segment_counts import MAX_LABELS
from dali_asr.errors import CheckpointError, UsageError, brief
from dali_asr.inference.viterbi import Viterbi

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from dali_asr.corpus.segment_counts import SegmentCounts
    from dali_asr.runs.checkpoint import Checkpoint

NONE, VITERBI = "none", "viterbi"
MEDIAN = "median:5"  # with the window that is compared by `evaluate`
_MEDIAN = re.compile(r"median:([0-9]{1,4})")
_BLOCK = 4096  # frames that votes are counted of at once


@dataclass(frozen=True, eq=False)
class FrameScores:
    """What a model says of consecutive frames.

    Attributes:
        labels: the most probable label, `[T]` int64.
        confidences: its probability, `[T]` float32.
        log_posteriors: of all labels, `[T, C]` float32; None unless they are kept.
    """

    labels: NDArray[np.int64]
    confidences: NDArray[np.float32]
    log_posteriors: NDArray[np.float32] | None = None

    def confidences_of(self, labels: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the probabilities of other labels, `[T]`; needs `log_posteriors`."""
        if labels is self.labels:
            return self.confidences
        assert self.log_posteriors is not None
        probabilities: NDArray[np.float32] = np.exp(self.log_posteriors[np.arange(len(labels)), labels])
        return probabilities


def check_decoding(decode: str) -> None:
    """Check the name of a decoding.

    Raises:
        UsageError: there is no such decoding.
    """
    found = _MEDIAN.fullmatch(str(decode))
    if decode not in (NONE, VITERBI) and (not found or int(found[1]) % 2 == 0):
        raise UsageError(f"decode {brief(decode)}; expected none, viterbi, or median:K with an odd number of frames K")


def build_decoder(decode: str, checkpoint: Checkpoint) -> Callable[[FrameScores], NDArray[np.int64]]:
    """Return the function that gives the labels of an utterance, `[T]`.

    All but that of `none` need the utterance's log posteriors.

    Args:
        decode: `none`, `median:K` with an odd K, or `viterbi`.
        checkpoint: of the model.

    Raises:
        UsageError: no such decoding, or an inventory too large for `viterbi`.
        CheckpointError: the checkpoint has no counts of segments, which `viterbi` needs.
    """
    symbols = len(checkpoint.description.inventory)
    if decode == VITERBI and checkpoint.segments is None and symbols <= MAX_LABELS:
        raise CheckpointError(
            f"{checkpoint.name}: saved by an earlier version, without the counts of segments that viterbi needs; "
            "train the run again, or choose a majority of frames (decode='median:5')"
        )
    return decoder_of(decode, symbols, checkpoint.segments)


def decoder_of(decode: str, symbols: int, counts: SegmentCounts | None) -> Callable[[FrameScores], NDArray[np.int64]]:
    """Return the function that gives the labels of an utterance, as `build_decoder`.

    Args:
        decode: as there.
        symbols: size of the inventory, C.
        counts: of the segments that the model was trained on; None if there are none.

    Raises:
        UsageError: no such decoding, or no counts or an inventory too large for `viterbi`.
    """
    check_decoding(decode)
    if decode == NONE:
        return lambda scores: scores.labels
    if decode == VITERBI:
        return _build_viterbi(symbols, counts)
    window = int(decode.partition(":")[2])
    return lambda scores: majority(scores.labels, window)


def _build_viterbi(symbols: int, counts: SegmentCounts | None) -> Callable[[FrameScores], NDArray[np.int64]]:
    if symbols > MAX_LABELS:
        raise UsageError(
            f"decode viterbi: the inventory has {symbols:,} symbols, viterbi takes up to {MAX_LABELS:,}; "
            "choose a majority of frames (decode='median:5')"
        )
    if counts is None or not counts.frames.any():
        raise UsageError(
            "decode viterbi: no counts of segments, which it needs; give the model those of its training partition "
            "(segment_counts=count_segments(PARTITION)), or choose a majority of frames (decode='median:5')"
        )
    viterbi = Viterbi(counts)

    def decode(scores: FrameScores) -> NDArray[np.int64]:
        assert scores.log_posteriors is not None
        return viterbi.decode(scores.log_posteriors)

    return decode


def majority(labels: NDArray[np.int64], window: int) -> NDArray[np.int64]:
    """Return the most frequent label among the frames around each frame, `[T]`.

    At both ends of the utterance, the window has fewer frames. Of equally frequent labels, the frame's own is taken if
    it is one of them, otherwise the lowest.

    Args:
        labels: `[T]`.
        window: number of frames, odd: as many before as after the frame.
    """
    half = window // 2
    found = np.empty_like(labels)
    for first in range(0, len(labels), _BLOCK):
        low, high = max(first - half, 0), min(first + _BLOCK + half, len(labels))
        occurring, positions = np.unique(labels[low:high], return_inverse=True)
        end = min(first + _BLOCK, len(labels))
        counts = np.zeros((high - low + 1, len(occurring)), np.int32)
        counts[np.arange(1, high - low + 1), positions] = 1
        np.cumsum(counts, axis=0, out=counts)
        frames = np.arange(first, end) - low
        votes = counts[np.minimum(frames + half + 1, high - low)] - counts[np.maximum(frames - half, 0)]
        votes *= 2
        votes[np.arange(end - first), positions[frames]] += 1
        found[first:end] = occurring[votes.argmax(axis=1)]
    return found
