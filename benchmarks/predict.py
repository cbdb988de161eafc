"""Measure `dali-asr predict` from recordings to TextGrids.

    python benchmarks/predict.py RUN FOLDER --json benchmarks/results/predict_MACHINE_DATE.json

FOLDER holds recordings, such as an hour of FLAC files; RUN knows how their features are computed. A repeat is in this
process, from the first recording to the last file on the disk, decoding by `viterbi`; loading libraries and the model
is left out. It is measured by wall clock, and by the time of all cores, which other work on the machine changes less.
Files were read before.
"""

from __future__ import annotations

import os
import resource
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from harness import in_turn, parser, write

from dali_asr.audio.recordings import find_recordings, read_header
from dali_asr.inference.predict import label, prepare
from dali_asr.inference.writers import write_prediction
from dali_asr.model import parameter_count


def label_recordings(run: str, folder: Path) -> dict[str, float]:
    """Label the recordings of a folder once; return what it took."""
    with tempfile.TemporaryDirectory() as dest:
        trained, opened = prepare(run, folder, device="cpu")
        labelling = label(trained, opened, decode="viterbi", device="cpu")
        before, start = time.process_time(), time.perf_counter()
        write_prediction(labelling, Path(dest) / "grids", "textgrid")
        return {"seconds": time.perf_counter() - start, "core_seconds": time.process_time() - before}


def main() -> None:
    """Run from the command line."""
    made = parser(__doc__, repeats=3)
    made.add_argument("run", help="a run, or the name of a pretrained model")
    made.add_argument("folder", type=Path, help="a folder of recordings")
    given = made.parse_args()
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    headers = [read_header(recording.path) for recording in find_recordings(given.folder)[0]]
    duration = sum(header.samples / header.sample_rate for header in headers)
    (results,) = in_turn(given.repeats, lambda: label_recordings(given.run, given.folder))
    best = min(results, key=lambda result: result["seconds"])
    values: dict[str, Any] = {
        "recordings": len(headers),
        "seconds_of_audio": duration,
        "parameters": parameter_count(prepare(given.run, given.folder)[0].description.build()),
        "repeats": results,
        "times_real_time": duration / best["seconds"],
        "times_real_time_per_core": duration / min(result["core_seconds"] for result in results),
        "peak_MiB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }
    for name, value in values.items():
        print(f"{name}: {value}")
    write(given.json, "predict", torch.device("cpu"), **values)


if __name__ == "__main__":
    main()
