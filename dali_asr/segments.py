"""When frames are: their number and times in a recording, and segments of equal labels.

Frame `t` is computed from `window` samples. It begins at sample `t·hop`, or is centered there:

    number of frames of S samples    T = 1 + (S − window) // hop         (0 if S < window)
                        centered     T = 1 + S // hop
    center of frame t, in samples    t·hop + window / 2
                        centered     t·hop

A frame stands for the time from half a hop before its center to half a hop after it. Labels are read from alignments
and written into segments by these formulas alone, so that both agree.

Shape letters: `S` samples of a recording, `T` frames.
"""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from dali_asr.errors import DataError, UsageError, brief

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray

NO_LABEL = -100  # of a frame that has none; torch's ignore_index
_COMMON = 0.25  # of the boundaries


class Segment(NamedTuple):
    """A stretch of a recording with one label.

    Attributes:
        start: in seconds.
        end: in seconds, exclusive.
        label: the symbol.
        confidence: mean probability of the label over the segment's frames, in [0, 1]; None if unknown.
    """

    start: float
    end: float
    label: str
    confidence: float | None = None


@dataclass(frozen=True)
class FrameTiming:
    """Where frames lie in a recording.

    Attributes:
        sample_rate: of the samples that frames are computed from, in Hz.
        window: number of samples per frame.
        hop: number of samples from one frame to the next.
        centered: whether frame `t` is centered at sample `t·hop`, rather than beginning there.
    """

    sample_rate: int = 16_000
    window: int = 400
    hop: int = 160
    centered: bool = False

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            UsageError: a value is not a positive integer, or `centered` is not a boolean.
        """
        for name, unit in (("sample_rate", "Hz"), ("window", "samples"), ("hop", "samples")):
            object.__setattr__(self, name, _positive(name, getattr(self, name), unit))
        if not isinstance(self.centered, (bool, np.bool_)):
            raise UsageError(f"centered: {brief(self.centered)}; expected True or False")
        object.__setattr__(self, "centered", bool(self.centered))

    @property
    def period(self) -> float:
        """The time from one frame to the next, in seconds."""
        return self.hop / self.sample_rate

    def frame_count(self, samples: int) -> int:
        """Return the number of frames of a recording of S samples."""
        if self.centered:
            return 1 + samples // self.hop
        return 1 + (samples - self.window) // self.hop if samples >= self.window else 0

    def centers(self, frames: int) -> NDArray[np.float64]:
        """Return the centers of the first T frames in seconds, `[T]`."""
        return self._halves(frames, 0) / (2 * self.sample_rate)

    def edges(self, frames: int) -> NDArray[np.float64]:
        """Return the times in seconds at which frames begin and end, `[T + 1]`; frame t ends at `edges[t + 1]`."""
        return self._halves(frames + 1, -self.hop) / (2 * self.sample_rate)

    def _halves(self, count: int, offset: int) -> NDArray[np.int64]:
        """Return centers in halves of a sample, which are whole numbers, moved by `offset`."""
        return 2 * self.hop * np.arange(count, dtype=np.int64) + (0 if self.centered else self.window) + offset


def covering_segments(segments: Sequence[Segment], timing: FrameTiming, frames: int) -> NDArray[np.int64]:
    """Return the position of the segment in which each frame's center lies, `[T]`; −1 in gaps.

    Args:
        segments: in order of time, without overlaps.
        timing: of the frames.
        frames: number of frames, T.
    """
    if not segments:
        return np.full(frames, -1, np.int64)
    starts, ends = (np.array([segment[at] for segment in segments]) for at in (0, 1))
    centers = timing.centers(frames)
    found = np.searchsorted(starts, centers, side="right") - 1
    return np.where((found >= 0) & (centers < ends[found]), found, -1)


def boundary_shifts(segments: Sequence[Segment], timing: FrameTiming) -> NDArray[np.float64]:
    """Return by how many seconds the beginnings of segments lie after the edges of frames where labels change.

    They are within half a hop.

    Args:
        segments: in order of time.
        timing: of the frames.
    """
    starts = np.array([segment.start for segment in segments[1:]])
    first = timing.centers(1)[0]
    # The first center that is not before a start, by a microsecond or more: rounding must not decide.
    frames = np.ceil(np.round((starts - first) / timing.period, 4))
    shifts: NDArray[np.float64] = starts - (first + (frames - 0.5) * timing.period)
    return shifts


def common_shift(shifts: Sequence[NDArray[np.float64]]) -> float:
    """Return the shift that boundaries have in common, to 0.1 ms; 0 if no shift is that of a quarter of them.

    Aligners that work frame by frame write times in whole hops. All of these have one shift, and so have the frames'
    labels, where a model learns to change them. Times that are set by hand have all shifts, and a mean near 0.

    Args:
        shifts: of the boundaries of each recording, see `boundary_shifts`.
    """
    values, counts = np.unique(np.round(np.concatenate([np.zeros(0), *shifts]), 4), return_counts=True)
    if not len(values) or counts.max() < counts.sum() * _COMMON:
        return 0.0
    return float(values[counts.argmax()])


def segments_of(
    labels: ArrayLike,
    symbols: Sequence[str],
    timing: FrameTiming,
    *,
    duration: float | None = None,
    probabilities: ArrayLike | None = None,
) -> list[Segment]:
    """Return the runs of equal labels as segments, in order of time.

    Frames without a label are in no segment: they leave a gap. Where all frames are labelled, segments follow one
    another without gaps. A segment of the first frame begins at 0, one of the last frame ends with the recording.

    Args:
        labels: label of each frame, `[T]` integers; −100 where a frame has none.
        symbols: symbol of each label, C of them.
        timing: of the frames.
        duration: of the recording in seconds; a segment of the last frame ends with this frame if None.
        probabilities: probability of each frame's label, `[T]`; its mean becomes a segment's confidence.

    Raises:
        DataError: a label is neither −100 nor one of 0 to C − 1, or shapes or dtypes do not fit.
    """
    labels = _checked_labels(labels, len(symbols))
    if not len(labels):
        return []
    first = np.flatnonzero(np.append(True, labels[1:] != labels[:-1]))
    end = np.append(first[1:], len(labels))
    edges = timing.edges(len(labels))
    edges[0] = 0.0
    if duration is not None:
        edges[-1] = max(duration, edges[-2])
    confidences = [None] * len(first)
    if probabilities is not None:
        given = np.asarray(probabilities, np.float64)
        if given.shape != labels.shape:
            raise DataError(f"segments_of: probabilities {list(given.shape)}; expected {list(labels.shape)}, as labels")
        sums = np.add.reduceat(given, first)
        confidences = (sums / (end - first)).tolist()
    return [
        Segment(float(edges[a]), float(edges[b]), symbols[labels[a]], confidence)
        for a, b, confidence in zip(first, end, confidences, strict=True)
        if labels[a] != NO_LABEL
    ]


def _checked_labels(labels: ArrayLike, symbols: int) -> NDArray[np.int64]:
    """Return labels as int64 `[T]`, after checking them against the number of symbols."""
    given = np.asarray(labels)
    if given.ndim != 1 or (len(given) and given.dtype.kind not in "iu"):
        raise DataError(f"segments_of: labels are {given.dtype} {list(given.shape)}; expected integers [frames]")
    checked = given.astype(np.int64)
    wrong = ((checked < 0) | (checked >= symbols)) & (checked != NO_LABEL)
    if wrong.any():
        at = int(wrong.argmax())
        raise DataError(
            f"segments_of: label {given[at]} at frame {at}; the symbols have labels 0 to {symbols - 1}, and "
            f"{NO_LABEL} stands for none"
        )
    return checked


def _positive(name: str, value: object, unit: str) -> int:
    try:
        number = 0 if isinstance(value, bool) else operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        number = 0
    if number < 1:
        raise UsageError(f"{name}: {brief(value)}; expected a positive integer number of {unit}")
    return number
