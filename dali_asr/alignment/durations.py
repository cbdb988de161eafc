"""How long states last: log probabilities that the search adds to the scores of their frames.

The durations of a label's phones in training have a mean and a variance, and so has the gamma distribution of them
(Levinson 1986, "Continuously variable duration hidden Markov models for automatic speech recognition"). A phone of d
frames has states of about d / K frames each. Silence has one state. It may last as long as it likes, but not less than
`MIN_FRAMES`.

Shape letters: `C` labels, `K` states of a label, `M` durations with a probability of their own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from dali_asr.corpus.segment_counts import SegmentCounts

MIN_FRAMES = 3  # of a phone, as of hidden Markov models with three states, and of silence
WEIGHT = 4.0  # of log probabilities of durations; of 2, 4 and 8 the best on recordings of the training
_MAX_FRAMES = 72  # of a phone; longer ones are geometric
_MIN_COUNT = 20  # phones that a label's durations are estimated from
_ROUNDING = 1 / 12  # variance of whole frames


@dataclass(frozen=True, eq=False)
class Durations:
    """Weighted log probabilities of durations, by label and state.

    Attributes:
        within: of 1, 2, ..., M frames, `[C·K, M]`; −inf below the minimum.
        beyond: of M + 1 frames, `[C·K]`.
        stay: what each further frame adds, `[C·K]`.
    """

    within: NDArray[np.float64]
    beyond: NDArray[np.float64]
    stay: NDArray[np.float64]

    @property
    def min_frames(self) -> NDArray[np.int64]:
        """The shortest duration of each state, `[C·K]`."""
        first: NDArray[np.int64] = np.isfinite(self.within).argmax(axis=1) + 1
        return first


def free_durations(size: int, min_frames: int) -> Durations:
    """Return durations of which all from a minimum on are alike, `[size]`."""
    within = np.full((size, min_frames), -np.inf)
    within[:, -1] = 0
    return Durations(within, *np.zeros((2, size)))


def trained_durations(counts: SegmentCounts, states: int, silence: int | None) -> Durations:
    """Return the durations of states, given those of the phones in training.

    Args:
        counts: of the segments in training.
        states: number of states of a label, K.
        silence: label of silence; None if there is none.
    """
    phones = counts.durations.astype(np.float64)  # [C, frames]
    everything = np.delete(phones, [] if silence is None else silence, axis=0).sum(axis=0)
    if everything.sum() < _MIN_COUNT:
        return free_durations(len(phones) * states, -(-MIN_FRAMES // states))
    phones[phones.sum(axis=1) < _MIN_COUNT] = everything
    frames = np.arange(1, phones.shape[1] + 1)
    total = phones.sum(axis=1)
    mean = phones @ frames / total
    variance = (phones @ frames**2 / total - mean**2) / states**2 + _ROUNDING
    mean /= states
    shape, scale = mean**2 / variance, variance / mean
    logs = (shape[:, None] - 1) * np.log(frames) - frames / scale[:, None]
    logs = WEIGHT * (logs - np.logaddexp.reduce(logs, axis=1, keepdims=True)).repeat(states, axis=0)
    longest = _MAX_FRAMES // states
    found = Durations(logs[:, :longest], logs[:, longest], logs[:, longest] - logs[:, longest - 1])
    if states == 1:
        found.within[:, : MIN_FRAMES - 1] = -np.inf
    if silence is not None:
        found.within[silence * states] = found.beyond[silence * states] = found.stay[silence * states] = 0
        found.within[silence * states, : MIN_FRAMES - 1] = -np.inf
    return found
