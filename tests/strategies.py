"""Hypothesis strategies: partitions, and arguments of a loader that reads them."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from dali_asr import Bands, Masking, Partition
from tests.makers import make_partition

ROW_BYTES = 5 * 4 + 1  # five features and a label


def budget_of(utterances: int, length: int, gap: int) -> int:
    """Bytes that hold two groups of so many utterances."""
    return 2 * (gap + utterances * (length + gap)) * ROW_BYTES


@st.composite
def loaders(draw: st.DrawFn) -> tuple[Any, dict[str, Any]]:
    """A partition and a loader's arguments."""
    dim = draw(st.integers(1, 6))
    left, right = draw(st.integers(0, 5)), draw(st.integers(0, 5))
    lengths = draw(st.lists(st.integers(1, 12), min_size=1, max_size=6))

    def bands(size: int) -> Bands:
        counts = sorted(draw(st.tuples(st.integers(0, 3), st.integers(0, 3))))
        widths = sorted(draw(st.tuples(st.integers(1, size), st.integers(1, size))))
        return Bands((counts[0], counts[1]), (widths[0], widths[1]))

    masking = None
    if draw(st.booleans()):
        masking = Masking(bands(dim), bands(left + 1 + right), draw(st.sampled_from(["window", "batch"])))
    subset = draw(st.integers(1, 3))
    windows = -(-sum(lengths) // subset)
    batch_size = draw(st.integers(1, 20))
    partition = make_partition(lengths, dim, draw(st.integers(0, 99)), draw(st.sampled_from(["float32", "float16"])))
    return partition, {
        "context": (left, right),
        "batch_size": batch_size,
        "masking": masking,
        "shuffle": draw(st.booleans()),
        "seed": draw(st.integers(0, 2**64 - 1)),
        "subset": subset,
        "drop_last": draw(st.booleans()) and batch_size <= windows,
        "dtype": draw(st.sampled_from(["float32", "float16"])),
        "device": "cpu",
        "prefetch": draw(st.integers(1, 3)),
        "batches_per_iteration": draw(st.none() | st.integers(1, 4)),
    }


@st.composite
def streamed(draw: st.DrawFn) -> tuple[Partition, dict[str, Any]]:
    """A partition several times the budget, and a loader's arguments."""
    length, group = draw(st.integers(4, 9)), draw(st.integers(2, 4))
    lengths = [length + draw(st.integers(-2, 0)) for _ in range(group * draw(st.integers(4, 7)))]
    left, right = draw(st.integers(0, 4)), draw(st.integers(0, 4))
    gap = max(left, right, 1)
    subset = draw(st.integers(1, 2))
    masking = Masking(scope=draw(st.sampled_from(["window", "batch"]))) if left + right >= 6 else None
    return make_partition(lengths, seed=draw(st.integers(0, 9))), {
        "context": (left, right),
        "batch_size": draw(st.integers(1, (length - 2) * (group - 1) // subset)),
        "masking": masking,
        "shuffle": draw(st.booleans()),
        "seed": draw(st.integers(0, 2**64 - 1)),
        "subset": subset,
        "drop_last": draw(st.booleans()),
        "dtype": "float32",
        "device": "cpu",
        "prefetch": draw(st.integers(1, 4)),
        "batches_per_iteration": draw(st.none() | st.just(1)),
        "memory_budget": budget_of(group, length, gap),
    }
