"""What may be said in an utterance, as a graph of states.

Words follow one another. The pronunciations of a word are parallel branches. Silence is optional between words and at
both ends:

      ┌──[SIL]──┐   ┌─ DH AH ─┐   ┌──[SIL]──┐   ┌─ K AE T ─┐   ┌──[SIL]──┐
    ──┴─────────┴───┤         ├───┴─────────┴───┤          ├───┴─────────┴──
                    └─ DH IY ─┘                 └──────────┘

A phone is a chain of the states of its label, silence a single state. States are numbered branch by branch in the order
of time, so that within a branch state `s` follows `s − 1`.

Shape letters: `S` states, `P` phones of all branches, `E` branches, `B` branches that may precede one, `C` labels, `K`
states of a label.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

_START = -1  # stands for the beginning of the utterance among the phones before a branch
BETWEEN = -1  # the word of silences between words
Pronunciation = tuple[int, ...]  # the labels of its phones


@dataclass(frozen=True, eq=False)
class Graph:
    """States of an utterance and how they follow one another.

    Attributes:
        columns: column of each state's scores, `[S]`: K · label + its number within the label.
        phones: phone of each state, `[S]`.
        words: word of each phone, `[P]`; `BETWEEN` for silences between words.
        entries: first state of each branch, `[E]`, ascending.
        sources: last states of the branches before each branch, `[E, B]`; −1 fills the rows.
        initial: states in which an utterance may begin.
        final: states in which it may end.
        reach: the last state that directly follows this or an earlier one, `[S]`.
        min_frames: number of frames of the shortest path.
    """

    columns: NDArray[np.int64]
    phones: NDArray[np.int64]
    words: NDArray[np.int64]
    entries: NDArray[np.int64]
    sources: NDArray[np.int64]
    initial: NDArray[np.int64]
    final: NDArray[np.int64]
    reach: NDArray[np.int64]
    min_frames: int


def build_graph(
    words: Sequence[Sequence[Pronunciation]], silence: int | None, min_frames: NDArray[np.integer], states: int = 1
) -> Graph:
    """Return the graph of a sequence of words.

    Args:
        words: for each word, its pronunciations, none of them empty.
        silence: label of silence; None if the model has none.
        min_frames: minimum number of frames of each state, `[C·K]`.
        states: number of states of a label, K.

    Raises:
        ValueError: no word, a word without pronunciations, or an empty pronunciation.
    """
    if not words or not all(words) or not all(all(word) for word in words):
        raise ValueError("build_graph: give at least one word, each with pronunciations that are not empty")
    labels: list[int] = []  # of phones
    word_of: list[int] = []
    branches: list[tuple[int, list[int]]] = []  # first phone, and the last phones before it

    def add(pronunciation: Pronunciation, word: int, before: list[int]) -> int:
        branches.append((len(labels), before))
        labels.extend(pronunciation)
        word_of.extend([word] * len(pronunciation))
        return len(labels) - 1

    before = [_START]
    for number, pronunciations in enumerate(words):
        if silence is not None:
            before = [*before, add((silence,), BETWEEN, before)]
        before = [add(pronunciation, number, before) for pronunciation in dict.fromkeys(pronunciations)]
    if silence is not None:
        before = [*before, add((silence,), BETWEEN, before)]
    of_label = min_frames.reshape(-1, states).sum(axis=1)
    shortest = sum(min(int(of_label[list(said)].sum()) for said in word) for word in words)
    counts = np.where(np.array(labels) == silence, 1, states)
    return _expand(np.array(labels) * states, counts, np.array(word_of), branches, before, shortest)


def _expand(
    first_columns: NDArray[np.int64],
    counts: NDArray[np.int64],
    words: NDArray[np.int64],
    branches: list[tuple[int, list[int]]],
    ends: list[int],
    shortest: int,
) -> Graph:
    """Make the states of all phones, given the first column of each and how many it has, both `[P]`."""
    last = np.cumsum(counts) - 1  # state of each phone
    first = last - counts + 1
    phones = np.arange(len(counts)).repeat(counts)
    reach = np.minimum(np.arange(last[-1] + 1) + 1, last[-1])
    sources = np.full((len(branches), max(len(before) for _, before in branches)), -1, np.int64)
    for at, (phone, before) in enumerate(branches):
        ends_before = last[[other for other in before if other != _START]]
        sources[at, : len(ends_before)] = ends_before
        reach[ends_before] = np.maximum(reach[ends_before], first[phone])
    return Graph(
        columns=first_columns[phones] + np.arange(len(phones)) - first[phones],
        phones=phones,
        words=words,
        entries=first[[phone for phone, _ in branches]],
        sources=sources,
        initial=first[[phone for phone, before in branches if _START in before]],
        final=last[ends],
        reach=np.maximum.accumulate(reach),
        min_frames=shortest,
    )
