"""Measure how far the order of a streamed partition is from a full shuffle.

    python benchmarks/shuffle.py CORPUS PARTITION --json benchmarks/results/shuffle_CORPUS_DATE.json

A memory budget is a fraction of the partition. For each budget, prints two means over the batches of an epoch: the
fraction of a batch that comes from its most frequent utterance, and the number of utterances in a batch.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from harness import parser, write

from dali_asr import Corpus
from dali_asr.plan import Layout, LoaderSpec, Planner

if TYPE_CHECKING:
    from dali_asr import Partition

GAP = 30  # rows between utterances at context 30


def main() -> None:
    """Measure and print."""
    arguments = parser(__doc__)
    arguments.add_argument("corpus", type=Path)
    arguments.add_argument("partition")
    arguments.add_argument("--batch-size", type=int, default=4096)
    arguments.add_argument("--budgets", type=float, nargs="+", default=[0.5, 0.25, 0.1, 0.05, 0.02])
    given = arguments.parse_args()
    partition = Corpus.open(given.corpus).partition(given.partition)
    lines = [measure(partition, given.batch_size, budget) for budget in (1.0, *given.budgets)]
    print(f"{'budget':>8} {'groups':>7} {'chunks/group':>13} {'largest share':>14} {'utterances':>11}")
    for line in lines:
        print("{:>8.0%} {:>7} {:>13} {:>14.3%} {:>11,.0f}".format(*line.values()))
    sizes = {"frames": partition.frame_count, "utterances": len(partition.lengths)}
    write(given.json, "shuffle", torch.device("cpu"), partition=sizes, batch_size=given.batch_size, results=lines)


def measure(partition: Partition, batch_size: int, budget: float) -> dict[str, Any]:
    """Return both figures of an epoch; the budget is a fraction of the partition's rows, 1 for all."""
    offsets = partition.offsets
    whole = Layout.whole(offsets)
    layout = whole if budget == 1 else Layout.fit(offsets, GAP, int(whole.group_rows(GAP) * budget), 1)
    planner = Planner(LoaderSpec(partition.frame_count, 1, (0, 0), batch_size, drop_last=True), layout)
    largest, utterances = [], []
    for step in range(planner.steps.count):
        frames = planner.plan(0, step).frame_ids
        counts = np.unique(np.searchsorted(offsets, frames, side="right"), return_counts=True)[1]
        largest.append(counts.max() / batch_size)
        utterances.append(len(counts))
    return {
        "budget": budget,
        "groups": layout.group_count,
        "chunks_a_group": layout.chunks_per_group,
        "largest_share": float(np.mean(largest)),
        "utterances": float(np.mean(utterances)),
    }


if __name__ == "__main__":
    main()
