"""Measure what each part of a recipe contributes: dev frame accuracy of small models, several seeds each.

    python benchmarks/ablation.py ROOT --json benchmarks/results/ablation_so762_DATE.json

ROOT contains {train,dev}-clean/{mfcc,transcript}/*.npy. The reference is a multilayer perceptron of 3 x 512 units at
context 12, trained plainly: without masks, dropout or normalization, at a constant learning rate. Each option is added
to the reference alone, then all together, then those that help. Every model trains for four epochs. The accuracy is
that of the last epoch; no epoch is chosen by its dev accuracy.

    python benchmarks/ablation.py ROOT --recipe course-best --device cuda --json FILE

starts from a recipe instead and removes one option at a time. It trains for as long as the recipe does.
"""

from __future__ import annotations

import statistics
import tempfile
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from harness import parser, write

from dali_asr.config import Config
from dali_asr.model import parameter_count
from dali_asr.runs.checkpoint import load_checkpoint
from dali_asr.training import train

EPOCHS = 4
MAX_PARAMETERS = 1_500_000
REFERENCE = ("loader.context=12", "loader.batch_size=512", "model.hidden=[512,512,512]")
OPTIONS: dict[str, tuple[str, ...]] = {
    "30 frames on either side": ("loader.context=30",),
    "masks": ("loader.masking={}",),
    "batch norm, dropout 0.25": ("model.norm=batch", "model.dropout=0.25"),
    "cosine after 200 steps of warm-up": ("training.schedule.kind=cosine", "training.schedule.warmup_steps=200"),
    "label smoothing 0.1": ("training.label_smoothing=0.1",),
    "average of the weights, 0.998": ("training.ema=0.998",),
}
HELPFUL = tuple(name for name in OPTIONS if name != "30 frames on either side")  # an hour of speech is too little
WITHOUT: dict[str, tuple[str, ...]] = {  # removed from a recipe
    "masks": ("loader.masking=null",),
    "batch norm and dropout": ("model.norm=none", "model.dropout=0"),
    "cosine and warm-up": ("training.schedule.kind=constant", "training.schedule.warmup_steps=0"),
    "label smoothing": ("training.label_smoothing=0",),
    "average of the weights": ("training.ema=null",),
}


def variants(recipe: str | None = None) -> dict[str, tuple[str, ...]]:
    """Return the overrides per variant. The first variant is the one that the others are compared with."""
    if recipe:
        return {recipe: (), **{f"without {name}": overrides for name, overrides in WITHOUT.items()}}
    alone = {name: REFERENCE + overrides for name, overrides in OPTIONS.items()}
    return {"reference": REFERENCE, **alone, "all six": _together(*OPTIONS), "the five that pay": _together(*HELPFUL)}


def _together(*names: str) -> tuple[str, ...]:
    return REFERENCE + tuple(override for name in names for override in OPTIONS[name])


def run(
    root: str, recipe: str | None, overrides: tuple[str, ...], seed: int, threads: int, device: str
) -> dict[str, Any]:
    """Train one model; return its parameters and the dev accuracy of each epoch."""
    torch.set_num_threads(threads)
    fixed = [f"data.root={root}", "data.test=null", f"training.seed={seed}", f"loader.device={device}"]
    if not recipe:
        fixed += ["data.train=[train-clean]", "data.dev=dev-clean"]
        fixed += [f"training.epochs={EPOCHS}", f"model.max_parameters={MAX_PARAMETERS}"]
    with tempfile.TemporaryDirectory() as folder:
        result = train(Config.load(recipe or "demo", [*fixed, *overrides]), run=Path(folder) / "run")
        model = load_checkpoint(result.run, "last").description.build()
    return {"parameters": parameter_count(model), "accuracy": [epoch["dev"]["accuracy"] for epoch in result.epochs]}


def summarize(name: str, overrides: tuple[str, ...], runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Return a variant's results, with mean and standard deviation of the last epoch over the seeds."""
    last = [run["accuracy"][-1] for run in runs]
    return {
        "variant": name,
        "overrides": list(overrides),
        "parameters": runs[0]["parameters"],
        "accuracy": [run["accuracy"] for run in runs],
        "mean": statistics.mean(last),
        "deviation": statistics.stdev(last) if len(last) > 1 else 0.0,
    }


def to_markdown(results: list[dict[str, Any]]) -> str:
    """Return the results as a table; gains are relative to the first variant."""
    lines = [
        "| variant | parameters | dev accuracy, mean ± s.d. | gain |",
        "| --- | ---: | ---: | ---: |",
    ]
    reference = results[0]["mean"]
    for result in results:
        gain = f"{100 * (result['mean'] - reference):+.2f}" if result is not results[0] else ""
        accuracy = f"{100 * result['mean']:.2f} ± {100 * result['deviation']:.2f} %"
        lines.append(f"| {result['variant']} | {result['parameters']:,} | {accuracy} | {gain} |")
    return "\n".join(lines)


def main() -> None:
    """Train all variants and print the table."""
    arguments = parser(__doc__)
    arguments.add_argument("root", help="the corpus")
    arguments.add_argument("--seeds", type=int, default=3, help="number of models per variant")
    arguments.add_argument("--recipe", help="start from this recipe and remove one option at a time")
    arguments.add_argument("--only", action="append", help="train this variant; repeat for more")
    arguments.add_argument("--jobs", type=int, default=1, help="number of runs at a time")
    arguments.add_argument("--threads", type=int, default=1, help="threads per run")
    arguments.add_argument("--device", default="cpu")
    given = arguments.parse_args()
    known = variants(given.recipe)
    chosen = {name: known[name] for name in given.only or known}
    with ProcessPoolExecutor(given.jobs, mp_context=get_context("spawn")) as pool:
        waiting = {
            name: [
                pool.submit(run, given.root, given.recipe, overrides, seed, given.threads, given.device)
                for seed in range(given.seeds)
            ]
            for name, overrides in chosen.items()
        }
        results = []
        for name, runs in waiting.items():
            results.append(summarize(name, chosen[name], [future.result() for future in runs]))
            print(name, f"{results[-1]['mean']:.4f} ± {results[-1]['deviation']:.4f}", flush=True)
    print(to_markdown(results))
    write(given.json, "ablation", torch.device(given.device), recipe=given.recipe, results=results)


if __name__ == "__main__":
    main()
