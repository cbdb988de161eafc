"""How long states last: log probabilities that the search adds to the scores of their frames.

A phone of d frames has states of about d / K frames each, so that the durations of phones, counted in training, give
those of its states. Silence has one state. It may last as long as it likes, but not less than `MIN_FRAMES`.

Shape letters: `C` labels, `K` states of a label, `M` durations with a probability of their own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from dali_asr.corpus.states import state_of
from dali_asr.inference.viterbi import fit_durations

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from dali_asr.corpus.segment_counts import SegmentCounts

MIN_FRAMES = 3  # of a phone, as of hidden Markov models with three states, and of silence
WEIGHT = 4.0  # of log probabilities of durations; of 0, 1, 3, 4, 6 and 10 the best on the dev speakers
_MAX_FRAMES = 72  # of a phone; longer ones are geometric


@dataclass(frozen=True, eq=False)
class Durations:
    """Weighted log probabilities of durations, by label and state.

    Attributes:
        within: of 1, 2, ..., M frames, `[C·K, M]`; −inf below the minimum.
        beyond: of more than M frames, `[C·K]`.
        stay: that a state of more than M frames goes on after one of them, `[C·K]`.
        leave: that it does not, `[C·K]`.
    """

    within: NDArray[np.float64]
    beyond: NDArray[np.float64]
    stay: NDArray[np.float64]
    leave: NDArray[np.float64]

    @property
    def min_frames(self) -> NDArray[np.int64]:
        """The shortest duration of each state, `[C·K]`."""
        first: NDArray[np.int64] = np.isfinite(self.within).argmax(axis=1) + 1
        return first


def free_durations(size: int, min_frames: int) -> Durations:
    """Return durations of which all from a minimum on are alike, `[size]`."""
    within = np.full((size, min_frames), -np.inf)
    within[:, -1] = 0
    return Durations(within, *np.zeros((3, size)))


def trained_durations(counts: SegmentCounts, states: int, silence: int | None) -> Durations:
    """Return the durations of states, given those of the phones in training.

    Args:
        counts: of the segments in training.
        states: number of states of a label, K.
        silence: label of silence; None if there is none.
    """
    phones = counts.durations  # [C, frames]
    lengths = np.arange(1, phones.shape[1] + 1)
    of_states = np.zeros((len(phones), states, phones.shape[1] + 1), np.int64)
    for length in lengths:
        parts = np.bincount(state_of(np.arange(length), np.array(length), states), minlength=states)
        for state, part in enumerate(parts):
            of_states[:, state, part] += phones[:, length - 1]
    longest = _MAX_FRAMES // states
    probabilities, stay = fit_durations(of_states[..., 1:].reshape(len(phones) * states, -1), longest)
    logs = WEIGHT * np.log(probabilities)
    found = Durations(logs[:, :-1], logs[:, -1], WEIGHT * np.log(stay), WEIGHT * np.log1p(-stay))
    if states == 1:
        found.within[:, : MIN_FRAMES - 1] = -np.inf
    if silence is not None:
        for values in (found.within, found.beyond, found.stay, found.leave):
            values[silence * states] = 0
        found.within[silence * states, : MIN_FRAMES - 1] = -np.inf
    return found
