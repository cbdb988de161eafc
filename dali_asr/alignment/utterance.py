"""One utterance: when its words and their phones were said.

Boundaries lie between frames, and are then moved to where the log posteriors of the two phones cross, interpolated
between the centers of the frames before and after the boundary.

Shape letters: `T` frames, `C` labels, `K` states of a label, `N` phones that were said.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from dali_asr.alignment.durations import MIN_FRAMES, Durations, free_durations
from dali_asr.alignment.graph import BETWEEN, build_graph
from dali_asr.alignment.viterbi import NoPathError, best_path
from dali_asr.segments import Segment

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from dali_asr.alignment.graph import Pronunciation
    from dali_asr.inventory import Inventory
    from dali_asr.segments import FrameTiming


@dataclass(frozen=True)
class AlignedUtterance:
    """When words and phones were said.

    Attributes:
        words: the words, with silences between them labelled by an empty text, from 0 to the end of the recording.
        phones: the phones, in the symbols of the inventory, silences included. A confidence is the mean posterior
            probability of the phone over its frames.
        labels: label of each frame, `[T]`.
        mean_log_posterior: of the labels over all frames, in nats.
    """

    words: list[Segment]
    phones: list[Segment]
    labels: NDArray[np.int64]
    mean_log_posterior: float


def align_utterance(
    log_posteriors: NDArray[np.floating],
    words: Sequence[tuple[str, Sequence[Pronunciation]]],
    inventory: Inventory,
    timing: FrameTiming,
    *,
    duration: float | None = None,
    log_priors: NDArray[np.floating] | None = None,
    durations: Durations | None = None,
    states: int = 1,
    shift: float = 0.0,
    refine: bool = True,
) -> AlignedUtterance:
    """Find when the words of an utterance were said.

    Args:
        log_posteriors: of each frame, finite, `[T, C·K]`: those of a label's states follow one another.
        words: each with its pronunciations.
        inventory: the labels.
        timing: of the frames.
        duration: of the recording in seconds; by default its last frame's end.
        log_priors: subtracted from the posteriors for the search, `[C·K]`.
        durations: of the states; by default a phone has `MIN_FRAMES` or more, all alike. Where there are too few
            frames, labels have one state, of any duration.
        states: number of states of a label, K.
        shift: added to boundaries, in seconds; see `Corpus.label_shift`.
        refine: whether boundaries may lie within frames.

    Raises:
        NoPathError: there are more phones than frames, or too many of both.
    """
    said_ways = [said for _, said in words]
    silence, of_labels = inventory.silence(), _sum_states(log_posteriors, states)
    durations = durations or free_durations(log_posteriors.shape[1], -(-MIN_FRAMES // states))
    graph = build_graph(said_ways, silence, durations.min_frames, states)
    scores = log_posteriors if log_priors is None else log_posteriors - log_priors
    if graph.min_frames > len(scores):
        durations, states, log_posteriors, scores = free_durations(len(inventory), 1), 1, of_labels, of_labels
        graph = build_graph(said_ways, silence, durations.min_frames)
        if graph.min_frames > len(scores):
            raise NoPathError(f"its words have at least {graph.min_frames} phones, the recording {len(scores)} frames")
    found = best_path(scores, graph, durations).states
    first = np.flatnonzero(np.diff(graph.phones[found], prepend=-1))  # frame of each phone
    columns = graph.columns[found]
    labels = columns // states
    edges = timing.edges(len(found))
    bounds = edges[np.append(first, len(found))]
    if refine:
        bounds[1:-1] += _offsets(log_posteriors, columns, first[1:]) * timing.period
    bounds[1:-1] += shift
    bounds[0] = 0.0
    bounds[-1] = bounds[-1] if duration is None else max(duration, float(bounds[-2]))
    said = of_labels[np.arange(len(found)), labels].astype(np.float64)
    confidences = np.add.reduceat(np.exp(said), first) / np.diff(np.append(first, len(found)))
    phones = [
        Segment(float(bounds[n]), float(bounds[n + 1]), inventory.symbols[labels[frame]], float(confidences[n]))
        for n, frame in enumerate(first)
    ]
    of_words = graph.words[graph.phones[found[first]]].tolist()
    return AlignedUtterance(_words(phones, of_words, [text for text, _ in words]), phones, labels, float(said.mean()))


def _sum_states(log_posteriors: NDArray[np.floating], states: int) -> NDArray[np.floating]:
    """Return the log posteriors of labels, `[T, C]`."""
    if states == 1:
        return log_posteriors
    found: NDArray[np.floating] = np.logaddexp.reduce(log_posteriors.reshape(len(log_posteriors), -1, states), axis=2)
    return found


def _offsets(
    log_posteriors: NDArray[np.floating], columns: NDArray[np.int64], boundaries: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Return where boundaries before frames `[N]` move, in frames, from −0.5 to 0.5."""
    before, after = columns[boundaries - 1], columns[boundaries]
    # By how much the second phone is ahead in the frames on both sides of the boundary.
    left = (log_posteriors[boundaries - 1, after] - log_posteriors[boundaries - 1, before]).astype(np.float64)
    right = (log_posteriors[boundaries, after] - log_posteriors[boundaries, before]).astype(np.float64)
    crosses = (left < 0) & (right > 0)
    return np.where(crosses, -left / np.where(crosses, right - left, 1.0) - 0.5, 0.0)


def _words(phones: Sequence[Segment], of_words: Sequence[int], texts: Sequence[str]) -> list[Segment]:
    """Join the phones of each word."""
    words: list[Segment] = []
    numbers: list[int] = []
    for phone, number in zip(phones, of_words, strict=True):
        if numbers and number == numbers[-1] and number != BETWEEN:
            words[-1] = words[-1]._replace(end=phone.end)
        else:
            words.append(Segment(phone.start, phone.end, "" if number == BETWEEN else texts[number]))
            numbers.append(number)
    return words
