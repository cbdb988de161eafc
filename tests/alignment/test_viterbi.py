"""The search, judged by the enumeration of all that may be said, and by a plain search over whole arrays.

Shape letters: `T` frames, `C` labels, `S` states.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from dali_asr.alignment.durations import Durations, free_durations
from dali_asr.alignment.graph import BETWEEN, Graph, build_graph
from dali_asr.alignment.viterbi import NoPathError, best_path

SILENCE, LABELS = 0, 4
Words = list[list[tuple[int, ...]]]

pronunciations = st.lists(st.integers(1, LABELS - 1), min_size=1, max_size=3).map(tuple)
transcripts = st.lists(st.lists(pronunciations, min_size=1, max_size=2), min_size=1, max_size=2)


def random_scores(frames: int, labels: int, seed: int) -> NDArray[np.float64]:
    return np.log(np.random.default_rng(seed).dirichlet(np.ones(labels), frames))


def phone_sequences(words: Words, silence: int | None) -> Iterator[tuple[int, ...]]:
    """Yield every sequence of labels that may be said."""
    pauses: list[tuple[int, ...]] = [()] if silence is None else [(), (silence,)]
    for chosen in itertools.product(pauses, *(choice for word in words for choice in (word, pauses))):
        yield tuple(itertools.chain.from_iterable(chosen))


def random_durations(size: int, longest: int, seed: int) -> Durations:
    """Return log probabilities of which the shortest may be impossible."""
    rng = np.random.default_rng(seed)
    within = -rng.exponential(2, (size, longest))
    within[np.arange(longest) < rng.integers(0, longest, size)[:, None]] = -np.inf
    return Durations(within, *-rng.exponential(1, (2, size)))


def log_duration(durations: Durations, column: int, length: int) -> float:
    longest = durations.within.shape[1]
    if length <= longest:
        return float(durations.within[column, length - 1])
    return float(durations.beyond[column] + (length - longest - 1) * durations.stay[column])


def enumerated_best(
    scores: NDArray[Any], words: Words, silence: int | None, durations: Durations, states: int
) -> float:
    """Return the best score of all sequences and all their durations, summed one by one; −inf if none fits."""
    frames, best = len(scores), -np.inf
    sums = np.vstack([np.zeros(scores.shape[1]), np.cumsum(scores, axis=0)])
    for phones in set(phone_sequences(words, silence)):
        columns = [p * states + k for p in phones for k in range(1 if p == silence else states)]
        for cuts in itertools.combinations(range(1, frames), len(columns) - 1):
            spans = zip(columns, itertools.pairwise((0, *cuts, frames)), strict=True)
            score = sum(sums[b, c] - sums[a, c] + log_duration(durations, c, b - a) for c, (a, b) in spans)
            best = max(best, score)
    return float(best)


def plain_best(scores: NDArray[Any], graph: Graph, durations: Durations) -> float:
    """Return the best score by a search over all states, their predecessors and all their durations."""
    frames, size = len(scores), len(graph.columns)
    sums = np.vstack([np.zeros(scores.shape[1]), np.cumsum(scores, axis=0)])[:, graph.columns]
    logs = np.array([[log_duration(durations, c, n) for c in graph.columns] for n in range(1, frames + 1)])
    begun = np.full((frames, size), -np.inf)  # that a state begins with a frame
    begun[0, graph.initial] = 0
    for end in range(1, frames + 1):
        ended = (begun[:end] + sums[end] - sums[:end] + logs[:end][::-1]).max(axis=0)
        if end < frames:
            begun[end, 1:] = ended[:-1]
            begun[end, graph.entries] = [ended[row[row >= 0]].max(initial=-np.inf) for row in graph.sources]
    return float(ended[graph.final].max())


def spoken(graph: Graph, states: NDArray[np.int64]) -> list[tuple[int, int]]:
    """Return the phones of a path as (word, first column)."""
    phones = [phone for phone, _ in itertools.groupby(graph.phones[states].tolist())]
    first = {phone: int(graph.columns[graph.phones == phone][0]) for phone in phones}
    return [(int(graph.words[phone]), first[phone]) for phone in phones]


def path_score(scores: NDArray[Any], graph: Graph, durations: Durations, states: NDArray[np.int64]) -> float:
    runs = [(int(graph.columns[state]), len(list(run))) for state, run in itertools.groupby(states.tolist())]
    logs = sum(log_duration(durations, column, length) for column, length in runs)
    return float(scores[np.arange(len(states)), graph.columns[states]].sum() + logs)


@settings(max_examples=80, deadline=None)
@given(
    transcripts,
    st.sampled_from([None, SILENCE]),
    st.integers(1, 2),
    st.integers(1, 3),
    st.integers(1, 8),
    st.integers(0, 99),
)
def test_the_best_path_is_the_best_of_all(
    words: Words, silence: int | None, count: int, longest: int, frames: int, seed: int
) -> None:
    """Labels have one state or two; silence has one."""
    scores = random_scores(frames, LABELS * count, seed)
    durations = random_durations(LABELS * count, longest, seed)
    expected = enumerated_best(scores, words, silence, durations, count)
    graph = build_graph(words, silence, durations.min_frames, count)
    if expected == -np.inf:
        with pytest.raises(NoPathError, match="frames"):
            best_path(scores, graph, durations)
        return
    path = best_path(scores, graph, durations)
    assert path.score == pytest.approx(expected)
    assert path.score == pytest.approx(path_score(scores, graph, durations, path.states))
    said = [(word, column // count) for word, column in spoken(graph, path.states)]
    assert tuple(label for _, label in said) in set(phone_sequences(words, silence))
    by_word = {w: tuple(p for _, p in run) for w, run in itertools.groupby(said, lambda phone: phone[0])}
    assert all(by_word[number] in word for number, word in enumerate(words))
    assert set(by_word) - set(range(len(words))) <= {BETWEEN}


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.integers(4, 15), st.integers(1, 3))
def test_a_narrow_beam_finds_the_path_of_an_exact_search(seed: int, count: int, longest: int) -> None:
    """Frames that follow a path with silences of any length; the beam prunes all but some states."""
    rng = np.random.default_rng(seed)
    words = [[tuple(rng.integers(1, 20, rng.integers(1, 5)).tolist()) for _ in range(2)] for _ in range(count)]
    durations = random_durations(20, longest, seed)
    graph = build_graph(words, SILENCE, durations.min_frames)
    said = [SILENCE, *itertools.chain.from_iterable(word[rng.integers(2)] for word in words), SILENCE]
    labels = np.repeat(said, rng.integers(longest, 9, len(said)))
    scores = rng.normal(-3, 1, (len(labels), 20))
    scores[np.arange(len(labels)), labels] += 2
    path = best_path(scores, graph, durations, beam=20, exact_width=16)
    assert path.score == pytest.approx(plain_best(scores, graph, durations))


def test_a_beam_that_loses_the_path_is_widened() -> None:
    """A hundred frames in which another path looks better, by far more than the beam."""
    durations = free_durations(LABELS, 1)
    graph = build_graph([[(label,)] for label in (1, 2, 3)], SILENCE, durations.min_frames)
    scores = np.full((120, LABELS), -10.0)
    scores[:100, 3] = 0.0  # the third word, which can follow the first two only at once
    scores[:100, 1] = -1.0
    scores[100:110, 2], scores[110:, 3] = 90.0, 0.0
    path = best_path(scores, graph, durations, beam=2, exact_width=1)
    assert path.score == pytest.approx(plain_best(scores, graph, durations))
    assert (graph.columns[path.states][:99] == 1).all()


def test_invalid_words_are_refused() -> None:
    refused: list[Words] = [[], [[]], [[(1,), ()]]]
    for words in refused:
        with pytest.raises(ValueError, match="at least one word"):
            build_graph(words, SILENCE, np.ones(LABELS, int))
