"""Measure what an utterance costs in the forms that a model can be run in: speed, and peak memory of a process.

    python benchmarks/export.py --json benchmarks/results/export_MACHINE_DATE.json

`windows` makes windows in batches of 4,096 and multiplies them. `convolution` is `load_model(RUN).classify`: the first
layer is a convolution over frames, in chunks as long. `onnx` is the exported file in onnxruntime.

The models are trained for one step on the demo corpus, with 30 frames of context on both sides. All forms run in turn
on 10 minutes of speech (`--frames`). Memory is the peak of a process of its own, which runs one pass and nothing else:
over one frame, which shows what the libraries take, over 10 minutes, and with `onnx` over an hour (`--hour`).
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import torch
from harness import in_turn, parser, write
from one_pass import CHUNK, CONTEXT, FORMS, make_utterance, open_form

from dali_asr import Config, export_onnx, train

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray

MODELS = ("tiny", "full")


def main() -> None:
    """Measure and print."""
    arguments = parser(__doc__, repeats=3)
    arguments.add_argument("--models", nargs="+", choices=MODELS, default=MODELS)
    arguments.add_argument("--frames", type=int, default=60_000)
    arguments.add_argument("--hour", type=int, default=360_000, help="frames of the longer utterance")
    arguments.add_argument("--no-memory", action="store_true", help="measure speed alone")
    given = arguments.parse_args()
    hour = None if given.no_memory else given.hour
    results = [measure(name, given.repeats, given.frames, hour) for name in given.models]
    write(given.json, "export", torch.device("cpu"), frames=given.frames, hour=given.hour, results=results)


def measure(name: str, repeats: int, frames: int, hour: int | None) -> dict[str, Any]:
    """Return seconds per pass and peak memory of every form of a model; without an hour, no memory."""
    with tempfile.TemporaryDirectory() as scratch:
        run = Path(scratch) / "run"
        fixed = [f"loader.context={CONTEXT}", "training.max_steps=1", "data.dev=null", "data.test=null"]
        train(Config.load("demo", [f"model.preset={name}", *fixed]), run=run)
        export_onnx(run, checkpoint="last")
        utterance = make_utterance(frames)
        forms = [open_form(form, run) for form in FORMS]
        expected = forms[0](utterance[:CHUNK])
        assert all((form(utterance[:CHUNK]) == expected).mean() > 0.999 for form in forms), "labels differ"
        seconds = in_turn(repeats, *(lambda form=form: clock(form, utterance) for form in forms))
        memory: dict[str, dict[str, float]] = {}
        if hour:
            memory = {str(n): {form: peak(form, run, n) for form in FORMS} for n in (1, frames)}
            memory[str(hour)] = {"onnx": peak("onnx", run, hour)}
    for form, times in zip(FORMS, seconds, strict=True):
        peaks = ", ".join(f"{int(n):,} frames {memory[n][form]:,.0f} MiB" for n in memory if form in memory[n])
        print(f"{name:<5} {form:<12} {frames / median(times):>9,.0f} frames/s; peak memory: {peaks or 'not measured'}")
    return {"model": name, "seconds": dict(zip(FORMS, seconds, strict=True)), "peak_MiB": memory}


def clock(form: Callable[[NDArray[np.float32]], Any], frames: NDArray[np.float32]) -> float:
    """Return the seconds of a pass."""
    begun = time.perf_counter()
    form(frames)
    return time.perf_counter() - begun


def peak(form: str, run: Path, frames: int) -> float:
    """Return the peak memory in MiB of a process that runs one pass."""
    command = [sys.executable, str(Path(__file__).with_name("one_pass.py")), form, str(run), str(frames)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(done.stdout)


if __name__ == "__main__":
    main()
