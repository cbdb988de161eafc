"""Compare the decodings of a model's posteriors on real speech, and measure their speed.

    python benchmarks/decoding.py ROOT --json benchmarks/results/decoding_MACHINE_DATE.json

ROOT contains {train,dev,test}-clean/{mfcc,transcript}/*.npy. The recipe `so762-mini` is trained on it with several
seeds, and its best checkpoint is evaluated on dev-clean. The speed is that of one core from posteriors to labels, on
the posteriors of dev-clean, repeated to one utterance of ten minutes. The memory is what decoding allocates beside
them.
"""

from __future__ import annotations

import itertools
import statistics
import tempfile
import time
import tracemalloc
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from harness import in_turn, parser, write

from dali_asr import evaluate, predict
from dali_asr.config import Config
from dali_asr.inference.decoding import FrameScores, build_decoder
from dali_asr.runs.checkpoint import load_checkpoint
from dali_asr.segments import FrameTiming
from dali_asr.training import train

if TYPE_CHECKING:
    from collections.abc import Callable

RECIPE = "so762-mini"
DECODINGS = ("median:5", "viterbi")


def scored(root: str, seed: int, folder: Path) -> list[dict[str, Any]]:
    """Train the recipe with a seed in a folder; return the scores of each decoding."""
    overrides = [f"data.root={root}", "data.test=null", f"training.seed={seed}", "loader.device=cpu"]
    train(Config.load(RECIPE, overrides), run=folder)
    return [asdict(one) for one in evaluate(folder, device="cpu").decodings]


def measured(run: Path, root: str, seconds: float, repeats: int) -> list[dict[str, Any]]:
    """Return seconds and memory per decoding of one utterance of a length in seconds."""
    posteriors = predict(run, root, partition="dev-clean", posteriors=True, device="cpu").posteriors
    assert posteriors is not None
    frames = round(seconds / FrameTiming().period)
    with np.errstate(divide="ignore"):
        log_posteriors = np.log(np.resize(posteriors, (frames, posteriors.shape[1])))
    scores = FrameScores(log_posteriors.argmax(axis=1), np.exp(log_posteriors.max(axis=1)), log_posteriors)
    checkpoint = load_checkpoint(run)
    decoders = [build_decoder(decode, checkpoint) for decode in DECODINGS]
    times = in_turn(repeats, *(lambda decoder=decoder: _time(lambda: decoder(scores)) for decoder in decoders))
    peaks = [_peak(lambda decoder=decoder: decoder(scores)) for decoder in decoders]  # type: ignore[misc]
    return [
        {"decode": decode, "speech": seconds, "seconds": taken, "peak_MiB": peak}
        for decode, taken, peak in zip(DECODINGS, times, peaks, strict=True)
    ]


def _time(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def _peak(work: Callable[[], object]) -> float:
    tracemalloc.start()
    work()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak / 2**20


def to_markdown(results: list[list[dict[str, Any]]]) -> str:
    """Return the scores as a table: mean ± standard deviation over the seeds."""
    lines = [
        "| decoding | frame accuracy | phoneme error rate | without silence | boundaries matched | within 20 ms |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for runs in zip(*results, strict=True):
        rows = [
            (
                one["accuracy"],
                one["phoneme_error_rate"],
                one["phoneme_error_rate_without_silence"],
                one["boundaries"]["matched"],
                one["boundaries"]["within_20_ms"],
            )
            for one in runs
        ]
        cells = [_mean([value for value in column if value is not None]) for column in zip(*rows, strict=True)]
        lines.append(f"| `{runs[0]['decode']}` | {' | '.join(cells)} |")
    return "\n".join(lines)


def _mean(values: list[float]) -> str:
    if not values:
        return "–"
    deviation = statistics.stdev(values) if len(values) > 1 else 0
    return f"{100 * statistics.mean(values):.1f} ± {100 * deviation:.1f} %"


def main() -> None:
    """Train, evaluate, measure, and print the tables."""
    arguments = parser(__doc__, repeats=5)
    arguments.add_argument("root", help="the corpus")
    arguments.add_argument("--seeds", type=int, default=3, help="number of models")
    arguments.add_argument("--run", type=Path, action="append", help="evaluate this run of the recipe; repeat for more")
    arguments.add_argument("--seconds", type=float, default=600, help="length of the utterance that is timed")
    given = arguments.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        runs = given.run or [Path(folder) / f"run-{seed}" for seed in range(given.seeds)]
        if given.run:
            results = [[asdict(one) for one in evaluate(run, device="cpu").decodings] for run in runs]
        else:
            results = [scored(given.root, seed, run) for seed, run in zip(itertools.count(), runs, strict=False)]
        speed = measured(runs[0], given.root, given.seconds, given.repeats)
    print(to_markdown(results))
    for one in speed:
        rate = one["speech"] / statistics.median(one["seconds"])
        print(f"{one['decode']}: {rate:,.0f} seconds of speech per second, {one['peak_MiB']:.0f} MiB")
    write(given.json, "decoding", torch.device("cpu"), recipe=RECIPE, results=results, speed=speed)


if __name__ == "__main__":
    main()
