"""What each part of a recipe brings: dev frame accuracy of small models, several seeds each.

    python benchmarks/ablation.py ROOT --json benchmarks/results/ablation_so762_DATE.json

ROOT holds {train,dev}-clean/{mfcc,transcript}/*.npy. The reference is a 3 x 512 multilayer perceptron with 12 frames
on either side, trained plainly: no masks, no dropout, no normalization, a constant learning rate. Each option is added
to the reference alone; then all together, and those that pay. All train four epochs, and the accuracy is that of the
last one: no epoch is chosen by its dev accuracy.

    python benchmarks/ablation.py ROOT --recipe course-best --device cuda --json FILE

takes a recipe instead, and each option out of it. It trains as long as the recipe does.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

from dali_asr.config import Config
from dali_asr.environment import environment
from dali_asr.model import parameter_count
from dali_asr.runs.checkpoint import load_checkpoint
from dali_asr.training import train

EPOCHS = 4
MOST_PARAMETERS = 1_500_000
REFERENCE = ("loader.context=12", "loader.batch_size=512", "model.hidden=[512,512,512]")
OPTIONS: dict[str, tuple[str, ...]] = {
    "30 frames on either side": ("loader.context=30",),
    "masks": ("loader.masking={}",),
    "batch norm, dropout 0.25": ("model.norm=batch", "model.dropout=0.25"),
    "cosine after 200 steps of warm-up": ("training.schedule.kind=cosine", "training.schedule.warmup_steps=200"),
    "label smoothing 0.1": ("training.label_smoothing=0.1",),
    "average of the weights, 0.998": ("training.ema=0.998",),
}
PAYING = tuple(name for name in OPTIONS if name != "30 frames on either side")  # on so little speech, wider is worse


# How a recipe is robbed of each.
WITHOUT: dict[str, tuple[str, ...]] = {
    "masks": ("loader.masking=null",),
    "batch norm and dropout": ("model.norm=none", "model.dropout=0"),
    "cosine and warm-up": ("training.schedule.kind=constant", "training.schedule.warmup_steps=0"),
    "label smoothing": ("training.label_smoothing=0",),
    "average of the weights": ("training.ema=null",),
}


def variants(recipe: str | None = None) -> dict[str, tuple[str, ...]]:
    """Return the overrides of every variant, by name; the first is what the others are compared with."""
    if recipe:
        return {recipe: (), **{f"without {name}": overrides for name, overrides in WITHOUT.items()}}
    alone = {name: REFERENCE + overrides for name, overrides in OPTIONS.items()}
    return {"reference": REFERENCE, **alone, "all six": _together(*OPTIONS), "the five that pay": _together(*PAYING)}


def _together(*names: str) -> tuple[str, ...]:
    return REFERENCE + tuple(override for name in names for override in OPTIONS[name])


def run(
    root: str, recipe: str | None, overrides: tuple[str, ...], seed: int, threads: int, device: str
) -> dict[str, Any]:
    """Train one model; return its parameters and the dev accuracy of each epoch."""
    torch.set_num_threads(threads)
    fixed = [f"data.root={root}", "data.test=null", f"training.seed={seed}", f"loader.device={device}"]
    if not recipe:
        fixed += ["data.train=[train-clean]", "data.dev=dev-clean", "model.preset=null"]
        fixed += [f"training.epochs={EPOCHS}", f"model.max_parameters={MOST_PARAMETERS}"]
    with tempfile.TemporaryDirectory() as folder:
        result = train(Config.load(recipe or "demo", [*fixed, *overrides]), run=Path(folder) / "run")
        model = load_checkpoint(result.run, "last").description.build()
    return {"parameters": parameter_count(model), "accuracy": [epoch["dev"]["accuracy"] for epoch in result.epochs]}


def summarize(name: str, overrides: tuple[str, ...], runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Return a variant's results: the mean of the last epoch over the seeds, and its standard deviation."""
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
    """Return the results as a table; gains are over the first."""
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
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", help="the corpus")
    parser.add_argument("--json", type=Path, help="write machine, versions and all results here")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--recipe", help="take this one, and each option out of it")
    parser.add_argument("--only", action="append", help="a variant; repeat for more")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time")
    parser.add_argument("--threads", type=int, default=1, help="of each run")
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    known = variants(arguments.recipe)
    chosen = {name: known[name] for name in arguments.only or known}
    with ProcessPoolExecutor(arguments.jobs, mp_context=get_context("spawn")) as pool:
        waiting = {
            name: [
                pool.submit(run, arguments.root, arguments.recipe, overrides, seed, arguments.threads, arguments.device)
                for seed in range(arguments.seeds)
            ]
            for name, overrides in chosen.items()
        }
        results = []
        for name, runs in waiting.items():
            results.append(summarize(name, chosen[name], [future.result() for future in runs]))
            print(name, f"{results[-1]['mean']:.4f} ± {results[-1]['deviation']:.4f}", flush=True)
    print(to_markdown(results))
    if arguments.json:
        values = {
            "benchmark": "ablation",
            **environment(torch.device(arguments.device)),
            "recipe": arguments.recipe,
            "results": results,
        }
        arguments.json.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
