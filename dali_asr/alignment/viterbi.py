"""The best path through a graph of states (Viterbi 1967), vectorized over states.

Only a contiguous range of states is kept active. It is pruned to the states within a beam of the best one when it
becomes wide, so short utterances are searched exactly. Where the best path came near the edge of the beam, the search
is repeated with a beam of twice the width.

Of each frame, one bit per active state is kept (did the path stay, or come from another state) and one byte per active
branch (from which branch). Ten minutes of speech take some tens of megabytes.

Shape letters: `T` frames, `C` labels, `S` states.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

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
        score: sum of its scores.
    """

    states: NDArray[np.int64]
    score: float


class _Trace:
    """What is kept of each frame but the first, to trace the best path back."""

    def __init__(self) -> None:
        self.states: list[int] = []  # first active state
        self.moved: list[NDArray[np.uint8]] = []  # bits of the active states
        self.branches: list[int] = []  # first active branch
        self.chosen: list[NDArray[np.uint8]] = []  # column of `Graph.sources` of the active branches
        self.best: list[float] = []  # best score
        self.bytes = 0

    def add(self, state: int, moved: NDArray[np.bool_], branch: int, chosen: NDArray[np.intp], best: float) -> None:
        self.states.append(state)
        self.moved.append(np.packbits(moved, bitorder="little"))
        self.branches.append(branch)
        self.chosen.append(chosen.astype(np.uint8))
        self.best.append(best)
        self.bytes += self.moved[-1].nbytes + self.chosen[-1].nbytes + _OBJECT_BYTES

    def back(self, state: int, graph: Graph) -> NDArray[np.int64]:
        """Return the states of the path that ends in a state."""
        branch_at = {entry: branch for branch, entry in enumerate(graph.entries.tolist())}
        states = np.empty(len(self.states) + 1, np.int64)
        states[-1] = state
        for now in range(len(self.states) - 1, -1, -1):
            bit = state - self.states[now]
            if self.moved[now][bit >> 3] >> (bit & 7) & 1:
                branch = branch_at.get(state)
                if branch is None:
                    state -= 1
                else:
                    state = int(graph.sources[branch, self.chosen[now][branch - self.branches[now]]])
            states[now] = state
        return states


def best_path(
    scores: NDArray[np.floating], graph: Graph, *, beam: float = BEAM, exact_width: int = EXACT_WIDTH
) -> Path:
    """Return the path with the highest sum of scores from an initial to a final state.

    Args:
        scores: finite score of each label in each frame, `[T, C]`, such as log posteriors.
        graph: what may be said.
        beam: active states are within this score of the best one.
        exact_width: number of active states up to which nothing is pruned.

    Raises:
        NoPathError: there are fewer frames than the shortest path has, or the search needs too much memory.
    """
    if len(scores) < graph.min_frames:
        raise NoPathError(f"{len(scores)} frames are too few: its phones need {graph.min_frames}")
    while True:
        trace = _Trace()
        last, pruned = _search(scores, graph, beam, exact_width, trace)
        end = int(graph.final[last[graph.final].argmax()])
        if np.isfinite(last[end]):
            states = trace.back(end, graph)
            reached = np.cumsum(scores[np.arange(len(scores)), graph.labels[states]], dtype=np.float64)
            if not pruned or (trace.best - reached[1:]).max() < beam / 2:
                return Path(states, float(last[end]))
        beam *= 2


def _search(
    scores: NDArray[np.floating], graph: Graph, beam: float, exact_width: int, trace: _Trace
) -> tuple[NDArray[np.float64], bool]:
    """Run over the frames; return the scores of all states in the last one, and whether states were pruned."""
    # Scores of all states in this frame and the one before; the first element stands for no state.
    new, old = np.full((2, len(graph.labels) + 1), -np.inf)
    low, high = int(graph.initial.min()), int(graph.initial.max()) + 1  # active states
    new[graph.initial + 1] = scores[0, graph.labels[graph.initial]]
    sources = graph.sources + 1
    pruned = False
    stale = slice(0, 0)
    for now in range(1, len(scores)):
        new, old = old, new
        new[stale] = -np.inf
        stale = slice(low + 1, high + 1)
        high = int(graph.reach[high - 1]) + 1
        first, end = np.searchsorted(graph.entries, (low, high)).tolist()
        before = old[sources[first:end]]
        chosen = before.argmax(axis=1)
        come = old[low:high].copy()
        come[graph.entries[first:end] - low] = before[np.arange(end - first), chosen]
        stay = np.where(graph.repeats[low:high], old[low + 1 : high + 1], -np.inf)
        moved = come > stay
        reached = np.where(moved, come, stay) + scores[now, graph.labels[low:high]]
        best = reached.max()
        trace.add(low, moved, first, chosen, best)
        if trace.bytes > MAX_TRACE_BYTES:
            raise NoPathError("too long to be searched within the memory; split the recording")
        if len(reached) > exact_width:
            alive = np.flatnonzero(reached >= best - beam)
            pruned |= len(alive) > 0 and alive[-1] - alive[0] + 1 < len(reached)
            reached = reached[alive[0] : alive[-1] + 1]
            low += int(alive[0])
        high = low + len(reached)
        new[low + 1 : high + 1] = reached
    return new[1:], bool(pruned)
