"""One utterance: when its words and their phones were said.

Boundaries lie between frames, and are then moved to where the log posteriors of the two phones cross, interpolated
between the centers of the frames before and after the boundary.

Shape letters: `T` frames, `C` labels, `N` phones that were said.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from dali_asr.alignment.graph import BETWEEN, build_graph
from dali_asr.alignment.viterbi import NoPathError, best_path
from dali_asr.segments import Segment

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from dali_asr.alignment.graph import Graph, Pronunciation
    from dali_asr.inventory import Inventory
    from dali_asr.segments import FrameTiming

MIN_DURATION = 3  # frames of a phone, as of hidden Markov models with three states


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
    min_durations: NDArray[np.integer] | None = None,
    refine: bool = True,
) -> AlignedUtterance:
    """Find when the words of an utterance were said.

    Args:
        log_posteriors: of each frame, finite, `[T, C]`.
        words: each with its pronunciations.
        inventory: the labels.
        timing: of the frames.
        duration: of the recording in seconds; by default its last frame's end.
        log_priors: subtracted from the posteriors for the search, `[C]`.
        min_durations: minimum number of frames per phone, by label, `[C]`; by default `MIN_DURATION`. They are
            lowered where there are too few frames.
        refine: whether boundaries may lie within frames.

    Raises:
        NoPathError: there are more phones than frames, or too many of both.
    """
    if min_durations is None:
        min_durations = np.full(len(inventory), MIN_DURATION)
    graph = _fitting_graph([said for _, said in words], inventory.silence(), min_durations, len(log_posteriors))
    scores = log_posteriors if log_priors is None else log_posteriors - log_priors
    states = best_path(scores, graph).states
    first = np.flatnonzero(np.diff(graph.phones[states], prepend=-1))  # frame of each phone
    labels = graph.labels[states]
    edges = timing.edges(len(states))
    bounds = edges[np.append(first, len(states))]
    if refine:
        bounds[1:-1] += _offsets(log_posteriors, labels, first[1:]) * timing.period
    bounds[0] = 0.0
    bounds[-1] = bounds[-1] if duration is None else max(duration, float(bounds[-2]))
    said = log_posteriors[np.arange(len(states)), labels].astype(np.float64)
    confidences = np.add.reduceat(np.exp(said), first) / np.diff(np.append(first, len(states)))
    phones = [
        Segment(float(bounds[n]), float(bounds[n + 1]), inventory.symbols[labels[frame]], float(confidences[n]))
        for n, frame in enumerate(first)
    ]
    of_words = graph.words[graph.phones[states[first]]].tolist()
    return AlignedUtterance(_words(phones, of_words, [text for text, _ in words]), phones, labels, float(said.mean()))


def _fitting_graph(
    words: Sequence[Sequence[Pronunciation]],
    silence: int | None,
    min_durations: NDArray[np.integer],
    frames: int,
) -> Graph:
    """Return the graph with the given minimum durations, or the highest upper limit to them that fits."""
    for limit in range(int(min_durations.max()), 0, -1):
        graph = build_graph(words, silence, np.minimum(min_durations, limit))
        if graph.min_frames <= frames:
            return graph
    raise NoPathError(f"its words have at least {graph.min_frames} phones, the recording {frames} frames")


def _offsets(
    log_posteriors: NDArray[np.floating], labels: NDArray[np.int64], boundaries: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Return where boundaries before frames `[N]` move, in frames, from −0.5 to 0.5."""
    before, after = labels[boundaries - 1], labels[boundaries]
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
