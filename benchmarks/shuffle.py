"""How far the order of a streamed partition is from a full shuffle.

    python benchmarks/shuffle.py CORPUS PARTITION --json benchmarks/results/shuffle_CORPUS_DATE.json

For memory budgets of shares of the partition, two figures of every batch of an epoch, averaged: the share of the
batch that comes from its most frequent utterance, and how many utterances it has frames of.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dali_asr import Corpus
from dali_asr.plan import Layout, LoaderSpec, Planner

if TYPE_CHECKING:
    from dali_asr import Partition

GAP = 30  # rows between utterances, at context 30


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("partition")
    parser.add_argument("--batch-size", type=int, default=4096)
    parser.add_argument("--budgets", type=float, nargs="+", default=[0.5, 0.25, 0.1, 0.05, 0.02])
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    partition = Corpus.open(arguments.corpus).partition(arguments.partition)
    lines = [measure(partition, arguments.batch_size, budget) for budget in (1.0, *arguments.budgets)]
    print(f"{'budget':>8} {'groups':>7} {'chunks a group':>15} {'largest share':>14} {'utterances':>11}")
    for line in lines:
        shown = (line["budget"], line["groups"], line["chunks_a_group"], line["largest_share"], line["utterances"])
        print("{:>8.0%} {:>7} {:>15} {:>14.3%} {:>11,.0f}".format(*shown))
    if arguments.json:
        sizes = {"frames": partition.frame_count, "utterances": len(partition.lengths)}
        values = {"benchmark": "shuffle", "partition": sizes, "batch_size": arguments.batch_size, "results": lines}
        arguments.json.write_text(json.dumps(values, indent=1) + "\n")


def measure(partition: Partition, batch_size: int, budget: float) -> dict[str, Any]:
    """Return both figures of an epoch, for a memory budget that is a share of the partition's rows; 1 for all."""
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
