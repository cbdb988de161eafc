"""Order and masks: exactly reproducible, uniform, and what the settings say."""

from __future__ import annotations

from itertools import permutations
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from dali_asr.errors import UsageError
from dali_asr.loading.stock import covered
from dali_asr.plan import Bands, LoaderSpec, Masking, Planner
from dali_asr.plan.masking import draw_masks
from dali_asr.plan.order import permute, philox, round_keys

MIN_P_VALUE = 1e-4
SIZES = [2, 3, 5, 50, 10**6]


def make_planner(frames: int, batch_size: int, window: int, feature_dim: int, **arguments: Any) -> Planner:
    """Return the planner of a partition that is read as one chunk."""
    return Planner.whole(LoaderSpec(frames, feature_dim, (window - 1, 0), batch_size, **arguments))


def order_of(positions: NDArray[np.int64], count: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """Return the places of positions in a whole epoch."""
    return permute(positions, count, round_keys(seed, epoch))


def test_philox_gives_the_known_answers_of_random123() -> None:
    """The kat_vectors file of Salmon et al.'s Random123, philox4x32-10."""
    ones = 0xFFFFFFFF
    known = [
        ((0, 0, 0, 0), 0, (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        ((ones, ones, ones, ones), ones << 32 | ones, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            0x299F31D0 << 32 | 0xA4093822,
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ]
    for counter, key, expected in known:
        position = np.array([counter[1] << 32 | counter[0]], np.uint64).view(np.int64)
        words = philox(position, counter[2], key, counter[3])
        assert tuple(int(word[0]) for word in words) == expected


@pytest.mark.parametrize("count", [1, *SIZES])
def test_order_is_a_permutation(count: int) -> None:
    order = order_of(np.arange(count), count, seed=3, epoch=1)
    assert np.array_equal(np.sort(order), np.arange(count))


@given(st.integers(1, 3000), st.integers(0, 2**64 - 1), st.integers(0, 2**32 - 1))
def test_order_is_a_permutation_for_any_key(count: int, seed: int, epoch: int) -> None:
    order = order_of(np.arange(count), count, seed, epoch)
    assert np.array_equal(np.sort(order), np.arange(count))


def test_order_of_the_largest_corpora() -> None:
    """A sample of 2^31 - 1 positions: in range, none twice, and equal to what one position alone gives."""
    count = 2**31 - 1
    positions = np.arange(0, count, 40_009)
    order = order_of(positions, count, seed=1, epoch=0)
    assert order.min() >= 0
    assert order.max() < count
    assert len(np.unique(order)) == len(order)
    assert order_of(positions[7:8], count, seed=1, epoch=0)[0] == order[7]


def uniformity(order: object, count: int, keys: int) -> float:
    """Return the least p-value of three tests of a family of permutations, keyed by seed.

    Positions: chi-square of where each of (up to 8) first elements goes. Serial: chi-square of the step from one
    element to the next, modulo the count, in as many bins. Epochs: rank correlation of two epochs.
    """
    head = np.arange(min(count, 8))
    bins = min(count, 50)
    places = np.zeros((len(head), bins), np.int64)
    steps = np.zeros(bins, np.int64)
    firsts, seconds = [], []
    for seed in range(keys):
        this = order(head, count, seed, 0)  # type: ignore[operator]
        other = order(head, count, seed, 1)  # type: ignore[operator]
        np.add.at(places, (np.arange(len(head)), this * bins // count), 1)
        np.add.at(steps, ((this[1:2] - this[0]) % count) * bins // count, 1)
        firsts.append(this)
        seconds.append(other)
    p_values = [stats.chisquare(row).pvalue for row in places]
    if count > 2:
        expected = keys * np.diff(np.r_[np.ceil(np.arange(bins) * count / bins), count])
        expected[0] -= keys  # an element is never followed by itself
        seen = expected > 0
        p_values.append(stats.chisquare(steps[seen], expected[seen] / (count - 1)).pvalue)
    pair = np.concatenate(firsts), np.concatenate(seconds)
    p_values.append(stats.spearmanr(*pair).pvalue)
    if count > 50:
        p_values.append(stats.spearmanr(pair[0][:-1], pair[0][1:]).pvalue)
    return float(min(p_values))


@pytest.mark.parametrize("count", SIZES)
def test_order_is_uniform(count: int) -> None:
    assert uniformity(order_of, count, keys=400) > MIN_P_VALUE


@pytest.mark.parametrize("count", [3, 5, 50, 10**6])
def test_uniformity_refuses_a_broken_bijection(count: int) -> None:
    """A rotation by the seed: a bijection whose neighbours stay neighbours."""

    def rotate(positions: np.ndarray, count: int, seed: int, epoch: int) -> np.ndarray:
        return (positions + 7919 * seed + epoch) % count

    assert uniformity(rotate, count, keys=400) < MIN_P_VALUE


@pytest.mark.parametrize("count", [3, 4, 5])
def test_every_permutation_is_equally_likely(count: int) -> None:
    seen = dict.fromkeys(permutations(range(count)), 0)
    for seed in range(20 * len(seen)):
        seen[tuple(order_of(np.arange(count), count, seed, 0).tolist())] += 1
    assert stats.chisquare(list(seen.values())).pvalue > MIN_P_VALUE


def test_a_whole_epoch_has_no_serial_correlation() -> None:
    count = 10**6
    order = order_of(np.arange(count), count, seed=11, epoch=0)
    later = order_of(np.arange(count), count, seed=11, epoch=1)
    for a, b in ((order[:-1], order[1:]), (order, later), (np.arange(count), order)):
        assert stats.pearsonr(a, b).pvalue > MIN_P_VALUE
    parts = np.histogram2d(np.arange(count), order, bins=20)[0].ravel()
    assert stats.chisquare(parts).pvalue > MIN_P_VALUE


def test_masks_are_uniform_and_independent() -> None:
    masking = Masking(frequency=Bands((0, 2), (3, 3)), time=Bands((0, 3), (2, 5)))
    time, frequency = draw_masks(masking, np.arange(60_000), epoch=2, seed=5, window=11, feature_dim=9)
    assert frequency.shape == (60_000, 2, 2)
    assert time.shape == (60_000, 3, 2)
    widths = time[:, :, 1] - time[:, :, 0]
    counts = (widths > 0).sum(axis=1)
    assert stats.chisquare(np.bincount(counts, minlength=4)).pvalue > MIN_P_VALUE
    drawn = widths > 0
    assert stats.chisquare(np.bincount(widths[drawn])[2:6]).pvalue > MIN_P_VALUE
    for band in range(3):
        of_three = (widths[:, band] == 3) & drawn[:, band]
        assert stats.chisquare(np.bincount(time[of_three, band, 0], minlength=9)).pvalue > MIN_P_VALUE
    bands = (frequency[:, :, 1] > 0).sum(axis=1)
    together = np.histogram2d(bands, counts, bins=(3, 4))[0]
    assert stats.chi2_contingency(together).pvalue > MIN_P_VALUE


@given(
    st.tuples(st.integers(0, 5), st.integers(0, 5)).map(sorted),
    st.tuples(st.integers(1, 9), st.integers(1, 9)).map(sorted),
    st.integers(0, 2**40),
)
def test_masks_lie_within_their_ranges(count: list[int], width: list[int], first: int) -> None:
    bands = Bands((count[0], count[1]), (width[0], width[1]))
    drawn = draw_masks(Masking(bands, bands), np.arange(first, first + 50), 0, 1, window=9, feature_dim=13)
    for edges, size in zip(drawn, (9, 13), strict=True):
        widths = edges[:, :, 1] - edges[:, :, 0]
        used = (widths > 0).sum(axis=1)
        assert ((used >= count[0]) & (used <= count[1])).all()
        real = widths[widths > 0]
        assert ((real >= width[0]) & (real <= width[1])).all()
        assert (edges >= 0).all()
        assert (edges <= size).all()


def test_masks_depend_on_the_position_alone() -> None:
    small, large = (make_planner(1000, size, 7, 9, seed=4, masking=Masking()) for size in (10, 100))
    parts = [small.plan(3, step) for step in range(10)]
    whole = large.plan(3, 0)
    for name in ("frame_ids", "time", "frequency"):
        assert np.array_equal(np.concatenate([getattr(p, name) for p in parts]), getattr(whole, name))


def test_all_windows_of_a_batch_share_a_mask_in_scope_batch() -> None:
    planner = make_planner(400, 50, 9, 9, masking=Masking(scope="batch"), seed=2)
    plans = [planner.plan(epoch, step) for epoch in range(3) for step in range(8)]
    for plan in plans:
        assert (plan.time == plan.time[0]).all()
        assert (plan.frequency == plan.frequency[0]).all()
    assert len({plan.time[0].tobytes() + plan.frequency[0].tobytes() for plan in plans}) > 10


@given(st.integers(1, 200), st.integers(1, 50), st.integers(1, 7), st.booleans(), st.booleans())
def test_steps_cover_the_epoch(frames: int, batch: int, subset: int, drop_last: bool, shuffle: bool) -> None:
    planner = make_planner(frames, batch, 3, 4, subset=subset, drop_last=drop_last, shuffle=shuffle)
    plans = [planner.plan(0, step).frame_ids for step in range(planner.steps.count)]
    read = np.concatenate([np.zeros(0, np.int64), *plans])
    every = np.arange(0, frames, subset)
    assert len(np.unique(read)) == len(read)
    assert np.isin(read, every).all()
    if drop_last:
        assert all(len(p) == batch for p in plans)
        assert len(plans) == len(every) // batch
    else:
        assert len(read) == len(every)
        assert len(plans[-1]) > 1 or len(every) == 1 or batch <= 2
    if not shuffle:
        assert np.array_equal(read, every[: len(read)])


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"frame_count": 0}, "frame_count 0"),
        ({"batch_size": 0}, "batch_size 0"),
        ({"subset": 0}, "subset 0"),
        ({"seed": -1}, "seed -1"),
        ({"masking": Masking(time=Bands((0, 1), (1, 8)))}, "time masks up to 8 wide, but a window has 7 frames"),
    ],
)
def test_invalid_arguments_are_refused(changed: dict[str, object], message: str) -> None:
    right = {"frame_count": 10, "batch_size": 2, "context": (3, 3), "feature_dim": 9}
    with pytest.raises(UsageError, match=message):
        LoaderSpec(**(right | changed))  # type: ignore[arg-type]


def test_a_reversed_range_is_refused() -> None:
    with pytest.raises(UsageError, match="width"):
        Bands((0, 1), (4, 3))


@given(st.integers(1, 20_000), st.integers(2, 9_000), st.booleans(), st.integers(0, 2**64 - 1))
@settings(max_examples=30, deadline=None)
def test_steps_are_slices_of_the_epoch(count: int, batch_size: int, drop_last: bool, seed: int) -> None:
    """However positions are planned together."""
    masking = Masking()
    planner = make_planner(count, batch_size, 11, 7, seed=seed, drop_last=drop_last, masking=masking)
    positions = np.arange(count)
    order = order_of(positions, count, seed, 3)
    time, frequency = draw_masks(masking, positions, 3, seed, 11, 7)
    for step in range(planner.steps.count):
        plan, places = planner.plan(3, step), slice(*planner.steps.span(step))
        assert np.array_equal(plan.frame_ids, order[places])
        assert np.array_equal(plan.frequency, frequency[places])
        assert np.array_equal(plan.time, time[places])


@given(st.integers(1, 600), st.lists(st.tuples(st.integers(0, 600), st.integers(0, 600)), min_size=1, max_size=3))
def test_covered_places_are_those_of_a_plain_loop(size: int, spans: list[tuple[int, int]]) -> None:
    bands = [sorted((a % (size + 1), b % (size + 1))) for a, b in spans]
    found = covered(np.array([bands], np.int32), size)
    assert found.tolist() == [[any(first <= place < end for first, end in bands) for place in range(size)]]
