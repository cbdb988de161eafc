"""Measure a sweep of several seeds of a small model: one after another, and together on the same batches.

    python benchmarks/sweep.py --json benchmarks/results/sweep_MACHINE_DATE.json

Both sides are `dali-asr sweep` on the demo corpus with its recipe, the model `tiny`, and one order of the frames for
all seeds, in turn. `seconds` is the time of the whole sweep: loaders, steps, evaluations, checkpoints and plots of all
runs; `training` is that of the steps alone, as the runs' own `timings.jsonl` tell it.
"""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any, Literal

import torch
from harness import in_turn, parser, write

from dali_asr.device import resolve_device
from dali_asr.sweeps.combinations import SweepPlan, plan_sweep
from dali_asr.sweeps.sweep import sweep


def main() -> None:
    """Measure and print."""
    arguments = parser(__doc__, repeats=5)
    arguments.add_argument("--seeds", type=int, default=8)
    arguments.add_argument("--steps", type=int, default=50, help="steps of each run")
    arguments.add_argument("--device", default="auto")
    given = arguments.parse_args()
    device = resolve_device(given.device)
    settings = ["model.preset=tiny", "loader.seed=0", "training.epochs=99", f"training.max_steps={given.steps}"]
    plan = plan_sweep("demo", (), overrides=[*settings, f"loader.device={device}"], seeds=given.seeds)
    apart, together = in_turn(given.repeats, lambda: timed(plan, "off"), lambda: timed(plan, "on"))
    for name in ("seconds", "training"):
        ratio = statistics.median(a[name] / b[name] for a, b in zip(apart, together, strict=True))
        print(f"{name:>8}: apart {_median(apart, name):.2f} s, together {_median(together, name):.2f} s, {ratio:.2f} x")
    write(
        given.json,
        "sweep",
        device,
        threads=torch.get_num_threads(),
        seeds=given.seeds,
        steps=given.steps,
        batch_size=plan.base.loader.batch_size,
        apart=apart,
        together=together,
    )


def timed(plan: SweepPlan, together: Literal["on", "off"]) -> dict[str, Any]:
    """Return the seconds of a whole sweep, and of its training steps alone."""
    with tempfile.TemporaryDirectory() as folder:
        begun = time.perf_counter()
        sweep(plan, Path(folder) / "sweep", together=together)
        seconds = time.perf_counter() - begun
        timings = sorted(Path(folder).glob("sweep/runs/*/timings.jsonl"))
        each = [sum(json.loads(line)["train_seconds"] for line in path.read_text().splitlines()) for path in timings]
    return {"seconds": seconds, "training": sum(each) if together == "off" else max(each)}


def _median(side: list[dict[str, Any]], name: str) -> float:
    return float(statistics.median(repeat[name] for repeat in side))


if __name__ == "__main__":
    main()
