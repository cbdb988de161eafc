"""Plant errors in the labels of corpora, and measure how many of them `dali-asr audit` lists.

    python benchmarks/audit.py demo ROOT --json benchmarks/results/audit_MACHINE_DATE.json

In every corpus, 2 % of the segments get the label of another one, 2 % of the boundaries are moved by 30 to 80 ms, and
2 % of the utterances get the transcript of another one, stretched to their length. All are planted together, each
where the others are not. Recall is the fraction of the planted errors among the first findings of their kind, at review
budgets that are fractions of all segments, boundaries or utterances. The labels have errors of their own, which are not
counted as found.
"""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from harness import parser, write

from dali_asr.build import corpus_path
from dali_asr.corpus import Corpus, Partition
from dali_asr.reports.audit import audit
from dali_asr.reports.audit.segments import Segments

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from dali_asr.reports.audit import Audit, Kind

RATE = 0.02
BUDGETS = (0.01, 0.02, 0.05)
SHIFTS = (3, 8)  # frames: 30 to 80 ms
PLANTED: dict[str, Kind] = {
    "swapped segments": "segment",
    "moved boundaries": "boundary",
    "exchanged transcripts": "transcript",
}


@dataclass
class Planted:
    """Labels with errors.

    Attributes:
        labels: `[F]`.
        swapped: first and last frame + 1 of each segment with another's label.
        moved: place of each moved boundary.
        exchanged: numbers of the utterances with another's transcript.
    """

    labels: NDArray[np.int64]
    swapped: list[tuple[int, int]]
    moved: list[int]
    exchanged: list[int]


def plant(partition: Partition, seed: int) -> Planted:
    """Return the labels of a partition with 2 % of errors of each kind."""
    labels = partition.labels()
    assert labels is not None
    rng = np.random.default_rng(seed)
    made = Planted(labels.copy(), [], [], [])
    segments = Segments.of(labels, partition.offsets)
    _exchange(made, labels, partition.offsets, rng)
    free = ~np.isin(segments.utterances, made.exchanged) & (segments.labels >= 0)
    _swap(made, segments, free, rng)
    _move(made, segments, free, rng)
    return made


def _exchange(made: Planted, labels: NDArray[np.int64], offsets: NDArray[np.int64], rng: np.random.Generator) -> None:
    count = len(offsets) - 1
    pairs = rng.permutation(count)[: 2 * max(1, round(RATE * count / 2))].reshape(-1, 2)
    for pair in pairs.tolist():
        for to, source in (pair, pair[::-1]):
            transcript = labels[offsets[source] : offsets[source + 1]]
            length = int(offsets[to + 1] - offsets[to])
            made.labels[offsets[to] : offsets[to + 1]] = transcript[np.arange(length) * len(transcript) // length]
            made.exchanged.append(to)


def _swap(made: Planted, segments: Segments, free: NDArray[np.bool_], rng: np.random.Generator) -> None:
    """Exchange the labels of pairs of segments; a segment that would merge with a neighbour is passed over."""
    wanted = round(RATE * len(segments))
    order = rng.permutation(np.flatnonzero(free))
    for pair in order[: len(order) // 2 * 2].reshape(-1, 2).tolist():
        if len(made.swapped) >= wanted:
            return
        others = [int(segments.labels[at]) for at in pair[::-1]]
        spans = [(int(segments.starts[at]), int(segments.ends[at])) for at in pair]
        beside = [set(made.labels[[max(start - 1, 0), min(end, len(made.labels) - 1)]]) for start, end in spans]
        if others[0] == others[1] or any(label in near for label, near in zip(others, beside, strict=True)):
            continue
        for (start, end), label in zip(spans, others, strict=True):
            made.labels[start:end] = label
        made.swapped += spans
        free[pair] = False


def _move(made: Planted, segments: Segments, free: NDArray[np.bool_], rng: np.random.Generator) -> None:
    """Move boundaries between segments that are otherwise right and stay a frame long."""
    inner = np.flatnonzero(free[:-1] & free[1:] & ~segments.ends_utterance[:-1])
    wanted = round(RATE * len(inner))
    for left in rng.permutation(inner).tolist():
        if len(made.moved) >= wanted:
            return
        shift = int(rng.integers(SHIFTS[0], SHIFTS[1] + 1)) * int(rng.choice((-1, 1)))
        room = segments.lengths[left + 1] if shift > 0 else segments.lengths[left]
        if not (free[left] and free[left + 1]) or room <= abs(shift):
            continue
        at = int(segments.ends[left])
        if shift > 0:
            made.labels[at : at + shift] = segments.labels[left]
        else:
            made.labels[at + shift : at] = segments.labels[left + 1]
        made.moved.append(at + shift)
        free[[left, left + 1]] = False


def recall(found: Audit, planted: Planted) -> dict[str, list[float | None]]:
    """Return the recall of each kind of error, at every budget."""
    counts = {
        "segment": len(found.segments),
        "boundary": int((~found.segments.ends_utterance).sum()),
        "transcript": len(found.partition.utterances),
    }
    spans = {kind: [_span(found, f) for f in found.findings[kind]] for kind in PLANTED.values()}
    hits = {
        "swapped segments": [span in set(planted.swapped) for span in spans["segment"]],
        "moved boundaries": [not set(planted.moved).isdisjoint(span) for span in spans["boundary"]],
        "exchanged transcripts": [f.position in planted.exchanged for f in found.findings["transcript"]],
    }
    planted_counts = (len(planted.swapped), len(planted.moved), len(planted.exchanged))
    return {
        name: [sum(hits[name][: max(1, round(b * counts[PLANTED[name]]))]) / n if n else None for b in BUDGETS]
        for name, n in zip(PLANTED, planted_counts, strict=True)
    }


def _span(found: Audit, finding: Any) -> tuple[int, int]:
    first = int(found.partition.offsets[finding.position])
    return first + finding.start, first + finding.end


def run(name: str, utterances: int | None, folds: int, seed: int) -> dict[str, Any]:
    """Plant errors in a corpus, audit it, and return the recall."""
    corpus = Corpus.open(corpus_path(name))
    partition = corpus.partition(*(n for n, p in corpus.partitions.items() if p.labelled))
    if utterances is not None:
        partition = partition.pick(np.arange(min(utterances, len(partition.utterances))))
    planted = plant(partition, seed)
    damaged = Partition.from_memory(
        partition.name,
        partition.inventory,
        partition.utterances,
        partition.lengths,
        np.concatenate(list(partition.frames())),
        planted.labels.astype(partition.inventory.label_dtype),
    )
    made = Corpus({damaged.name: damaged}, corpus.inventory, corpus.normalization)
    started, computed = time.perf_counter(), time.process_time()
    found = audit(made, folds=folds, budget=max(BUDGETS))
    return {
        "seed": seed,
        "utterances": len(partition.utterances),
        "frames": partition.frame_count,
        "segments": len(found.segments),
        "planted": dict(zip(PLANTED, _counts(planted), strict=True)),
        "recall": recall(found, planted),
        "accuracy": found.accuracy,
        "seconds": time.perf_counter() - started,
        "processor_seconds": time.process_time() - computed,
    }


def _counts(planted: Planted) -> tuple[int, int, int]:
    return len(planted.swapped), len(planted.moved), len(planted.exchanged)


def to_markdown(results: Sequence[dict[str, Any]]) -> str:
    """Return the mean recall and its range over the seeds, as a table."""
    lines = ["| planted at 2 % | " + " | ".join(f"{b:.0%}".replace("%", " %") for b in BUDGETS) + " |"]
    lines.append("| --- | " + " | ".join("---:" for _ in BUDGETS) + " |")
    for result in results:
        for name in PLANTED:
            lines.append(_line(f"{result['corpus']}: {name}", [run["recall"][name] for run in result["runs"]]))
    return "\n".join(lines)


def _line(name: str, rows: Sequence[Sequence[float | None]]) -> str:
    return f"| {name} | " + " | ".join(map(cell, zip(*rows, strict=True))) + " |"


def cell(values: Sequence[float | None]) -> str:
    """Return mean and range of the seeds, such as `90 % (88–92)`."""
    known = [100 * value for value in values if value is not None]
    if not known:
        return "–"
    return f"{statistics.mean(known):.0f} % ({min(known):.0f}–{max(known):.0f})"


def main() -> None:
    """Measure all corpora and print the table."""
    arguments = parser(__doc__)
    arguments.add_argument("corpora", nargs="+", help="corpora with right labels; `demo` is the embedded one")
    arguments.add_argument("--seeds", type=int, default=3, help="number of times that errors are planted anew")
    arguments.add_argument("--folds", type=int, default=5)
    arguments.add_argument("--utterances", type=int, help="use the first utterances of each corpus alone")
    given = arguments.parse_args()
    results = []
    for name in given.corpora:
        runs = []
        for seed in range(given.seeds):
            runs.append(run(name, given.utterances, given.folds, seed))
            print(name, runs[-1]["recall"], f"{runs[-1]['seconds']:.0f} s", flush=True)
        results.append({"corpus": corpus_path(name).resolve().name if name != "demo" else name, "runs": runs})
    print(to_markdown(results))
    write(given.json, "audit", torch.device("cpu"), budgets=BUDGETS, threads=torch.get_num_threads(), results=results)


if __name__ == "__main__":
    main()
