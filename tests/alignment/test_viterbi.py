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

from dali_asr.alignment.graph import BETWEEN, Graph, build_graph
from dali_asr.alignment.viterbi import NoPathError, best_path

SILENCE, LABELS = 0, 4
Words = list[list[tuple[int, ...]]]

pronunciations = st.lists(st.integers(1, LABELS - 1), min_size=1, max_size=3).map(tuple)
transcripts = st.lists(st.lists(pronunciations, min_size=1, max_size=2), min_size=1, max_size=2)
durations = st.lists(st.integers(1, 3), min_size=LABELS, max_size=LABELS)


def random_scores(frames: int, labels: int = LABELS, seed: int = 0) -> NDArray[np.float64]:
    return np.log(np.random.default_rng(seed).dirichlet(np.ones(labels), frames))


def phone_sequences(words: Words, silence: int | None) -> Iterator[tuple[int, ...]]:
    """Yield every sequence of labels that may be said."""
    pauses: list[tuple[int, ...]] = [()] if silence is None else [(), (silence,)]
    for chosen in itertools.product(pauses, *(choice for word in words for choice in (word, pauses))):
        yield tuple(itertools.chain.from_iterable(chosen))


def enumerated_best(scores: NDArray[Any], words: Words, silence: int | None, min_durations: list[int]) -> float | None:
    """Return the best score of all sequences and all their durations, summed one by one; None if none fits."""
    frames, best = len(scores), None
    sums = np.vstack([np.zeros(scores.shape[1]), np.cumsum(scores, axis=0)])
    for phones in set(phone_sequences(words, silence)):
        for cuts in itertools.combinations(range(1, frames), len(phones) - 1):
            edges = (0, *cuts, frames)
            if all(b - a >= min_durations[p] for p, (a, b) in zip(phones, itertools.pairwise(edges), strict=True)):
                score = sum(
                    sums[b, p] - sums[a, p] for p, (a, b) in zip(phones, itertools.pairwise(edges), strict=True)
                )
                best = score if best is None else max(best, score)
    return best


def plain_best(scores: NDArray[Any], graph: Graph) -> float:
    """Return the best score by a search over all states and all pairs of them."""
    size = len(graph.labels)
    follows = np.zeros((size, size), bool)
    follows[np.arange(size - 1), np.arange(1, size)] = True
    follows[:, graph.entries] = False
    for entry, sources in zip(graph.entries, graph.sources, strict=True):
        follows[sources[sources >= 0], entry] = True
    follows[graph.repeats, graph.repeats.nonzero()[0]] = True
    steps = np.where(follows, 0.0, -np.inf)
    reached = np.full(size, -np.inf)
    reached[graph.initial] = scores[0, graph.labels[graph.initial]]
    for row in scores[1:]:
        reached = (reached[:, None] + steps).max(axis=0) + row[graph.labels]
    return float(reached[graph.final].max())


def spoken(graph: Graph, states: NDArray[np.int64]) -> list[tuple[int, int, int]]:
    """Return the phones of a path as (word, label, frames)."""
    runs = ((phone, len(list(run))) for phone, run in itertools.groupby(graph.phones[states].tolist()))
    label_of = dict(zip(graph.phones.tolist(), graph.labels.tolist(), strict=True))
    return [(int(graph.words[phone]), label_of[phone], length) for phone, length in runs]


@settings(max_examples=80, deadline=None)
@given(transcripts, st.sampled_from([None, SILENCE]), durations, st.integers(1, 9), st.integers(0, 99))
def test_the_best_path_is_the_best_of_all(
    words: Words, silence: int | None, min_durations: list[int], frames: int, seed: int
) -> None:
    scores = random_scores(frames, seed=seed)
    expected = enumerated_best(scores, words, silence, min_durations)
    graph = build_graph(words, silence, np.array(min_durations))
    if expected is None:
        with pytest.raises(NoPathError, match="frames"):
            best_path(scores, graph)
        return
    path = best_path(scores, graph)
    assert path.score == pytest.approx(expected)
    said = spoken(graph, path.states)
    assert path.score == pytest.approx(scores[np.arange(frames), graph.labels[path.states]].sum())
    assert all(length >= min_durations[label] for _, label, length in said)
    assert tuple(label for _, label, _ in said) in set(phone_sequences(words, silence))
    by_word = {w: tuple(p for _, p, _ in run) for w, run in itertools.groupby(said, lambda phone: phone[0])}
    assert all(by_word[number] in word for number, word in enumerate(words))
    assert set(by_word) - set(range(len(words))) <= {BETWEEN}


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.integers(4, 15), st.integers(1, 3))
def test_a_narrow_beam_finds_the_path_of_an_exact_search(seed: int, count: int, min_duration: int) -> None:
    """Frames that follow a path with silences of any length; the beam prunes all but some states."""
    rng = np.random.default_rng(seed)
    words = [[tuple(rng.integers(1, 20, rng.integers(1, 5)).tolist()) for _ in range(2)] for _ in range(count)]
    graph = build_graph(words, SILENCE, np.full(20, min_duration))
    said = [SILENCE, *itertools.chain.from_iterable(word[rng.integers(2)] for word in words), SILENCE]
    labels = np.repeat(said, rng.integers(min_duration, 9, len(said)))
    scores = rng.normal(-3, 1, (len(labels), 20))
    scores[np.arange(len(labels)), labels] += 2
    path = best_path(scores, graph, beam=20, exact_width=16)
    assert path.score == pytest.approx(plain_best(scores, graph))


def test_a_beam_that_loses_the_path_is_widened() -> None:
    """A hundred frames in which another path looks better, by far more than the beam."""
    graph = build_graph([[(label,)] for label in (1, 2, 3)], SILENCE, np.ones(LABELS, int))
    scores = np.full((120, LABELS), -10.0)
    scores[:100, 3] = 0.0  # the third word, which can follow the first two only at once
    scores[:100, 1] = -1.0
    scores[100:110, 2], scores[110:, 3] = 90.0, 0.0
    path = best_path(scores, graph, beam=2, exact_width=1)
    assert path.score == pytest.approx(plain_best(scores, graph))
    assert (graph.labels[path.states][:99] == 1).all()


def test_invalid_words_are_refused() -> None:
    refused: list[Words] = [[], [[]], [[(1,), ()]]]
    for words in refused:
        with pytest.raises(ValueError, match="at least one word"):
            build_graph(words, SILENCE, np.ones(LABELS, int))
