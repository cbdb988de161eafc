"""Compare the time and memory of `dali-asr features` with librosa in a pool of processes.

    python benchmarks/features.py FOLDER --json benchmarks/results/features_MACHINE_DATE.json

FOLDER holds recordings, such as an hour of FLAC files. Each side runs in its own processes, in turn, from files that
were read before. `dali-asr features` is measured from the start of its process to the packed corpus, by wall clock and
by the time of all cores, which other work on the machine changes less. The pool reads with `soundfile`, calls
`librosa.feature.mfcc` with the window, hop, bands and coefficients of the preset `course`, and keeps the arrays. It is
not charged for starting and importing, nor for writing. It needs `pip install librosa`.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import soundfile
import torch
from harness import in_turn, parser, timed, write

from dali_asr import Corpus
from dali_asr.audio.recordings import find_recordings, read_header

if TYPE_CHECKING:
    from numpy.typing import NDArray

_COMMAND = [sys.executable, "-m", "dali_asr", "features", "--device", "cpu"]


def run_dali(folder: Path, preset: str, recordings: int) -> tuple[float, float, float]:
    """Return the seconds of `dali-asr features`, its peak memory in MiB and seconds of all cores; check the corpus."""
    with tempfile.TemporaryDirectory() as scratch:
        dest = Path(scratch) / "corpus"
        seconds, peak, used = timed([*_COMMAND, str(folder), str(dest), "--preset", preset])
        corpus = Corpus.open(dest)
        assert sum(len(p.utterances) for p in corpus.partitions.values()) == recordings
    return seconds, peak / 2**20, used


def run_librosa(paths: list[Path], processes: int) -> tuple[float, float]:
    """Return the seconds of librosa in a pool whose processes have computed before, and the processes' own seconds."""
    with ProcessPoolExecutor(processes, get_context("spawn")) as pool:
        list(pool.map(librosa_mfcc, paths[: 8 * processes]))
        start = time.perf_counter()
        found = list(pool.map(librosa_mfcc, paths, chunksize=8))
        seconds = time.perf_counter() - start
    assert all(frames.shape[1] == 28 for frames, _ in found)
    return seconds, sum(used for _, used in found)


def librosa_mfcc(path: Path) -> tuple[NDArray[np.float32], float]:
    """Return 28 MFCC `[T, 28]` of a file, of windows of 25 ms every 10 ms, and the seconds of a core that they took."""
    import librosa

    start = time.process_time()
    samples, rate = soundfile.read(path, dtype="float32")
    hop, window = rate // 100, rate // 40
    found = librosa.feature.mfcc(y=samples, sr=rate, n_mfcc=28, n_mels=40, n_fft=512, hop_length=hop, win_length=window)
    return np.asarray(found.T, np.float32), time.process_time() - start


def measure(folder: Path, repeats: int, processes: int) -> dict[str, Any]:
    """Measure all sides in turn."""
    recordings, _ = find_recordings(folder)
    paths = [recording.path for recording in recordings]
    headers = [read_header(path) for path in paths]
    duration = sum(header.samples / header.sample_rate for header in headers)
    for path in paths:  # into the page cache
        path.read_bytes()
    presets = ("course", "kaldi")
    sides = [partial(run_dali, folder, preset, len(paths)) for preset in presets]
    *found, pool = in_turn(repeats, *sides, partial(run_librosa, paths, processes))
    values: dict[str, Any] = {
        "recordings": len(paths),
        "seconds_of_audio": duration,
        "cores": len(os.sched_getaffinity(0)),
        "librosa": version("librosa"),
        "soundfile": version("soundfile"),
        "librosa_processes": processes,
        "librosa_seconds": [seconds for seconds, _ in pool],
        "librosa_core_seconds": [used for _, used in pool],
        "librosa_times_real_time": duration / float(np.median([seconds for seconds, _ in pool])),
    }
    for preset, results in zip(presets, found, strict=True):
        seconds = [result[0] for result in results]
        values[f"{preset}_seconds"] = seconds
        values[f"{preset}_core_seconds"] = [result[2] for result in results]
        values[f"{preset}_times_real_time"] = duration / float(np.median(seconds))
        values[f"{preset}_peak_anonymous_MiB"] = max(result[1] for result in results)
    return values


def main() -> None:
    """Run from the command line."""
    made = parser(__doc__, repeats=5)
    made.add_argument("folder", type=Path, help="a folder of recordings")
    made.add_argument("--processes", type=int, default=2, help="of the pool")
    args = made.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"  # of each process of the pool
    values = measure(args.folder, args.repeats, args.processes)
    for name, value in values.items():
        print(f"{name}: {value}")
    write(args.json, "features", torch.device("cpu"), **values)


if __name__ == "__main__":
    main()
