"""Decodings, judged by searching everything."""

from __future__ import annotations

from collections import Counter
from itertools import groupby, pairwise, product
from math import exp, inf, log

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dali_asr import HiddenLayer, Inventory, Normalization
from dali_asr.corpus.segment_counts import SegmentCounts
from dali_asr.errors import CheckpointError, UsageError
from dali_asr.inference.decoding import FrameScores, build_decoder, majority
from dali_asr.inference.viterbi import Viterbi, ViterbiWeights
from dali_asr.runs.checkpoint import Checkpoint
from dali_asr.runs.description import ModelDescription


@given(labels=st.lists(st.integers(0, 3), max_size=30), half=st.integers(0, 4), block=st.integers(1, 9))
def test_the_majority_is_that_of_counting(labels: list[int], half: int, block: int) -> None:
    expected = []
    for at, own in enumerate(labels):
        votes = Counter(labels[max(at - half, 0) : at + half + 1])
        first = [label for label in sorted(votes) if votes[label] == max(votes.values())]
        expected.append(own if own in first else first[0])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("dali_asr.inference.decoding._BLOCK", block)
        assert majority(np.array(labels, np.int64), 2 * half + 1).tolist() == expected


class Search:
    """Scores any path by the formula of the module, in plain Python."""

    def __init__(self, utterances: list[list[int]], weights: ViterbiWeights) -> None:
        self.weights = weights
        frames = Counter(label for u in utterances for label in u)
        self.labels = sorted(frames)
        self.log_prior = {label: log(count / frames.total()) for label, count in frames.items()}
        runs = [[(label, len(list(run))) for label, run in groupby(u)] for u in utterances]
        pairs = Counter(pair for u in runs for pair in pairwise([None, *(label for label, _ in u), None]))
        self.states = [*self.labels, None]
        self.pairs, self.runs = pairs, [run for u in runs for run in u]

    def bigram(self, a: int | None, b: int | None) -> float:
        def share(of: int | None) -> float:
            found = sum(count for (_, last), count in self.pairs.items() if last == of)
            return (found + 1) / (self.pairs.total() + len(self.states))

        def smooth(of: int | None) -> float:
            if of == a:
                return 0
            followers = [last for (first, last) in self.pairs if first == a]
            return self.pairs[a, of] + max(len(followers), 1) * share(of)

        return log(smooth(b) / sum(map(smooth, self.states))) if a != b else -inf

    def duration(self, label: int, length: int) -> float:
        longest = self.weights.max_duration
        own = [min(n, longest + 1) for of, n in self.runs if of == label]
        every = Counter(min(n, longest + 1) for _, n in self.runs)
        bounded = min(length, longest + 1)
        share = (every[bounded] + 1) / (len(self.runs) + longest + 1)
        kinds = max(len(set(own)), 1)
        p = (own.count(bounded) + kinds * share) / (len(own) + kinds)
        if length <= longest:
            return log(p)
        excess = [(of, n - longest - 1) for of, n in self.runs if n > longest]
        typical = max(sum(n for _, n in excess) / max(len(excess), 1), 1)
        of_label = [n for of, n in excess if of == label]
        mean = (sum(of_label) + typical) / (len(of_label) + 1)
        return log(p) + (length - longest - 1) * log(mean / (1 + mean)) + log(1 / (1 + mean))

    def score(self, path: tuple[int, ...], log_posteriors: np.ndarray) -> float:
        w = self.weights
        total = sum(
            w.acoustic_scale * (float(row[label]) - w.prior_exponent * self.log_prior[label])
            for label, row in zip(path, log_posteriors, strict=True)
        )
        runs = [(label, len(list(run))) for label, run in groupby(path)]
        total += sum(self.bigram(a, b) for a, b in pairwise([None, *(label for label, _ in runs), None]))
        return total + sum(w.duration_weight * self.duration(label, length) for label, length in runs)


def counts_of(utterances: list[list[int]], labels: int) -> SegmentCounts:
    counts = SegmentCounts.empty(labels)
    counts.add(np.array([label for u in utterances for label in u]), np.cumsum([0, *map(len, utterances)]))
    return counts


@settings(deadline=None, max_examples=40)
@given(
    utterances=st.lists(st.lists(st.sampled_from([0, 2, 3]), min_size=1, max_size=9), min_size=1, max_size=4),
    frames=st.integers(1, 6),
    longest=st.integers(1, 4),
    weights=st.tuples(st.floats(0.1, 2), st.floats(0, 1), st.floats(0.1, 2)),
    seed=st.integers(0, 2**32 - 1),
)
def test_no_path_is_better_than_viterbis(
    utterances: list[list[int]], frames: int, longest: int, weights: tuple[float, float, float], seed: int
) -> None:
    """Of three labels at most; label 1 of the inventory never occurs and is never decoded."""
    chosen = ViterbiWeights(*weights, max_duration=longest)
    posteriors = np.random.default_rng(seed).dirichlet(np.full(4, 0.5), frames)
    log_posteriors = np.log(np.maximum(posteriors, 1e-9)).astype(np.float32)
    found = tuple(Viterbi(counts_of(utterances, 4), chosen).decode(log_posteriors).tolist())
    search = Search(utterances, chosen)
    best = max(search.score(path, log_posteriors) for path in product(search.labels, repeat=frames))
    assert set(found) <= set(search.labels)
    assert search.score(found, log_posteriors) == pytest.approx(best, abs=1e-4)


def test_a_long_utterance_is_decoded_by_its_posteriors_where_these_are_clear() -> None:
    """Over many turns of the ring of durations, and with segments longer than the longest duration."""
    lengths = [3, 70, 1, 5, 31, 30, 32, 500, 2, 9]
    labels = np.repeat(np.resize([0, 1, 2], len(lengths)), lengths)
    posteriors = np.full((len(labels), 3), 1e-20, np.float32)
    posteriors[np.arange(len(labels)), labels] = 1
    counts = counts_of([[0, 0, 1, 1, 1, 2, 2], [1, 2, 0, 1]], 3)
    assert np.array_equal(Viterbi(counts).decode(np.log(posteriors)), labels)
    assert Viterbi(counts).decode(np.empty((0, 3), np.float32)).tolist() == []


def test_flicker_is_removed() -> None:
    labels = np.repeat([0, 1, 2, 1], 12)
    rng = np.random.default_rng(0)
    posteriors = np.full((48, 3), 0.2, np.float32)
    posteriors[np.arange(48), np.where(rng.random(48) < 0.15, rng.integers(0, 3, 48), labels)] = 0.6
    counts = counts_of([np.repeat(rng.permutation(3), rng.integers(8, 16, 3)).tolist() for _ in range(20)], 3)
    decoded = Viterbi(counts).decode(np.log(posteriors))
    assert [label for label, _ in groupby(decoded.tolist())] == [0, 1, 2, 1]
    assert len(list(groupby(posteriors.argmax(1).tolist()))) >= 10


def checkpoint_of(symbols: int, segments: SegmentCounts | None) -> Checkpoint:
    inventory = Inventory(tuple(f"s{n}" for n in range(symbols)))
    description = ModelDescription((0, 0), 1, (HiddenLayer(1),), "gelu", False, inventory, Normalization("none"))
    return Checkpoint(description, 1, 7, None, None, 0, {}, segments=segments)


def test_decoders_give_labels_of_their_kind() -> None:
    checkpoint = checkpoint_of(3, counts_of([[0, 0, 0, 1, 1, 1, 2, 2]], 3))
    labels = np.array([0, 0, 1, 0, 1, 1])
    posteriors = np.log(np.eye(3, dtype=np.float32)[labels] * 0.5 + 0.2)
    scores = FrameScores(labels, np.full(6, 0.7, np.float32), posteriors)
    assert build_decoder("none", checkpoint)(scores) is labels
    assert build_decoder("median:3", checkpoint)(scores).tolist() == [0, 0, 0, 1, 1, 1]
    assert build_decoder("viterbi", checkpoint)(scores).tolist() == [0, 0, 0, 1, 1, 1]
    other = np.array([2, 0, 1, 0, 1, 1])
    assert scores.confidences_of(other).tolist() == pytest.approx([exp(posteriors[0, 2]), *[0.7] * 5])


@pytest.mark.parametrize("decode", ["mean", "median", "median:4", "median:-1", "median:5 ", "viterbi:2", ""])
def test_unknown_decodings_are_refused(decode: str) -> None:
    with pytest.raises(UsageError, match="expected none, viterbi, or median:K with an odd number of frames K"):
        build_decoder(decode, checkpoint_of(2, None))


def test_what_viterbi_lacks_is_said() -> None:
    with pytest.raises(CheckpointError, match=r"step-00000007: saved by an earlier version.*decode='median:5'"):
        build_decoder("viterbi", checkpoint_of(2, None))
    with pytest.raises(UsageError, match=r"the inventory has 1,001 symbols, viterbi takes up to 1,000; choose"):
        build_decoder("viterbi", checkpoint_of(1001, None))
