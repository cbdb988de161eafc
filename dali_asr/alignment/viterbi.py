"""The best path through a graph of states with explicit durations, vectorized over states.

The states are those of a hidden semi-Markov model (Levinson 1986), searched by the Viterbi algorithm (Viterbi 1967).

Only a contiguous range of states is kept active. It is pruned to the states within a beam of the best one when it
becomes wide, so short utterances are searched exactly. Where the best path came near the edge of the beam, the search
is repeated with a beam of twice the width.

Of each frame, one byte per active state is kept (how long had it lasted, if it ended here), one bit (has it just become
longer than the durations with a probability of their own) and one byte per active branch (from which branch). Ten
minutes of speech take some tens of megabytes.

Shape letters: `T` frames, `N` columns of scores, `S` states, `M` durations, `A` active states.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from dali_asr.alignment.durations import Durations
    from dali_asr.alignment.graph import Graph

BEAM = 300.0  # nats
EXACT_WIDTH = 1024  # active states up to which nothing is pruned
MAX_TRACE_BYTES = 1 << 30  # of what is kept to trace the path back
_OBJECT_BYTES = 250  # of the arrays of a frame, besides their values


class NoPathError(Exception):
    """No path leads through the frames; the message says why."""


@dataclass(frozen=True, eq=False)
class Path:
    """The best path.

    Attributes:
        states: state of each frame, `[T]`.
        score: sum of its scores and of the log probabilities of its durations.
    """

    states: NDArray[np.int64]
    score: float


class _Trace:
    """What is kept of each frame, to trace the best path back."""

    def __init__(self, longest: int) -> None:
        self.longest = longest
        self.states: list[int] = []  # first active state
        self.lengths: list[NDArray[np.uint8]] = []  # frames of the active states up to here; 0 if more than M
        self.grown: list[NDArray[np.uint8]] = []  # bits: whether those longer than M have M + 1
        self.branches: list[int] = []  # first active branch
        self.chosen: list[NDArray[np.uint8]] = []  # column of `Graph.sources` of the active branches
        self.bytes = 0

    def add(
        self,
        state: int,
        lengths: NDArray[np.intp],
        grown: NDArray[np.bool_],
        branch: int,
        chosen: NDArray[np.intp],
    ) -> None:
        self.states.append(state)
        self.lengths.append(lengths.astype(np.uint8))
        self.grown.append(np.packbits(grown, bitorder="little"))
        self.branches.append(branch)
        self.chosen.append(chosen.astype(np.uint8))
        self.bytes += self.lengths[-1].nbytes + self.grown[-1].nbytes + self.chosen[-1].nbytes + _OBJECT_BYTES

    def back(self, state: int, graph: Graph) -> NDArray[np.int64]:
        """Return the states of the path that ends in a state, `[T]`."""
        branch_at = {entry: branch for branch, entry in enumerate(graph.entries.tolist())}
        states = np.empty(len(self.states), np.int64)
        end = len(states)
        while True:
            first = end - self._length(end - 1, state)
            states[first:end] = state
            if not first:
                return states
            branch, end = branch_at.get(state), first
            if branch is None:
                state -= 1
            else:
                state = int(graph.sources[branch, self.chosen[first][branch - self.branches[first]]])

    def _length(self, last: int, state: int) -> int:
        """Return how many frames a state has that ends with a frame."""
        length = int(self.lengths[last][state - self.states[last]])
        if length:
            return length
        frame = last
        while True:
            bit = state - self.states[frame]
            if self.grown[frame][bit >> 3] >> (bit & 7) & 1:
                return last - frame + self.longest + 1
            frame -= 1


def best_path(
    scores: NDArray[np.floating],
    graph: Graph,
    durations: Durations,
    *,
    beam: float = BEAM,
    exact_width: int = EXACT_WIDTH,
) -> Path:
    """Return the path with the highest sum of scores from an initial to a final state.

    Args:
        scores: finite scores in each frame, `[T, N]`, such as log posteriors.
        graph: what may be said.
        durations: of the states of the columns, N of them.
        beam: active states are within this score of the best one.
        exact_width: number of active states up to which nothing is pruned.

    Raises:
        NoPathError: there are fewer frames than the shortest path has, or the search needs too much memory.
    """
    if len(scores) < graph.min_frames:
        raise NoPathError(f"{len(scores)} frames are too few: its phones need {graph.min_frames}")
    while True:
        search = _Search(graph, durations, beam, exact_width)
        ends = search.run(scores)[graph.final]
        end = int(graph.final[ends.argmax()])
        if np.isfinite(ends.max()):
            states = search.trace.back(end, graph)
            if not search.pruned or search.margin(scores, states) < beam / 2:
                return Path(states, float(ends.max()))
        beam *= 2


class _Search:
    """One search.

    `entries` holds the scores of the best paths up to a state's first frame, less the sum of the state's scores up to
    there, for the last M frames: a ring of M slots, twice, so that any M are contiguous. So they are compared without
    the frames that have come since.
    """

    def __init__(self, graph: Graph, durations: Durations, beam: float, exact_width: int) -> None:
        self.graph, self.durations, self.beam = graph, durations, beam
        self.exact_width = exact_width if len(graph.columns) > exact_width else len(graph.columns)
        size, self.longest = len(graph.columns), durations.within.shape[1]
        self.trace = _Trace(self.longest)
        self.pruned = False
        self._best: list[float] = []  # score of the best active state in each frame, if there is pruning
        self._entries = np.full((size, 2 * self.longest), -np.inf)
        self._within = durations.within[graph.columns, ::-1]  # of M, ..., 1 frames
        self._beyond, self._stay = durations.beyond[graph.columns], durations.stay[graph.columns]
        self._tail = np.full(size, -np.inf)  # best of those longer than M
        self._ends = np.full(size + 1, -np.inf)  # scores of states that end here; the first element is no state

    def run(self, scores: NDArray[np.floating]) -> NDArray[np.float64]:
        """Run over the frames; return the scores of all states that end with the last one, `[S]`."""
        graph, longest = self.graph, self.longest
        sources, total = graph.sources + 1, np.zeros(scores.shape[1])
        low, high = 0, int(graph.initial.max()) + 1  # active states
        for now, row in enumerate(scores):
            if now:
                high = int(graph.reach[high - 1]) + 1
            first, end = np.searchsorted(graph.entries, (low, high)).tolist()
            active, columns = slice(low, high), graph.columns[low:high]
            come = self._ends[active].copy()
            before = self._ends[sources[first:end]]
            chosen = before.argmax(axis=1)
            come[graph.entries[first:end] - low] = before[np.arange(end - first), chosen]
            if not now:
                come[graph.initial - low] = 0
            slot = now % longest
            self._tail[active] += self._stay[active]
            leaving = self._entries[active, slot] + self._beyond[active]
            grown = leaving > self._tail[active]
            tail = np.maximum(leaving, self._tail[active])
            self._tail[active] = tail
            self._entries[active, slot] = self._entries[active, slot + longest] = come - total[columns]
            total += row
            recent = self._entries[active, slot + 1 : slot + 1 + longest]
            candidates = recent + self._within[active]
            lengths = longest - candidates.argmax(axis=1)
            best = candidates[np.arange(len(lengths)), longest - lengths]
            lengths[tail > best] = 0
            self._ends[low + 1 : high + 1] = np.maximum(best, tail) + total[columns]
            self.trace.add(low, lengths, grown, first, chosen)
            if self.trace.bytes > MAX_TRACE_BYTES:
                raise NoPathError("too long to be searched within the memory; split the recording")
            if len(graph.columns) > self.exact_width:
                low, high = self._prune(low, high, np.maximum(recent.max(axis=1), tail) + total[columns])
        return self._ends[1:]

    def _prune(self, low: int, high: int, reached: NDArray[np.float64]) -> tuple[int, int]:
        """Return the range of active states within the beam, given the score that each has reached, `[A]`."""
        best = reached.max()
        self._best.append(float(best))
        if len(reached) <= self.exact_width:
            return low, high
        alive = np.flatnonzero(reached >= best - self.beam)
        left, right = low + int(alive[0]), low + int(alive[-1]) + 1
        self.pruned |= right - left < high - low
        self._ends[low + 1 : left + 1] = self._ends[right + 1 : high + 1] = -np.inf
        self._entries[right:high] = self._tail[right:high] = -np.inf
        return left, right

    def margin(self, scores: NDArray[np.floating], states: NDArray[np.int64]) -> float:
        """Return by how much a path was behind the best state at most."""
        reached = np.cumsum(scores[np.arange(len(states)), self.graph.columns[states]], dtype=np.float64)
        first = np.flatnonzero(np.diff(states, prepend=-1))
        lengths = np.diff(np.append(first, len(states)))
        columns, over = self.graph.columns[states[first]], lengths - self.longest
        logs = self.durations.within[columns, np.minimum(lengths, self.longest) - 1]
        logs = np.where(over > 0, self.durations.beyond[columns] + (over - 1) * self.durations.stay[columns], logs)
        steps = np.zeros(len(states))
        steps[first[1:]] = logs[:-1]
        return float((np.array(self._best) - reached - np.cumsum(steps)).max())
