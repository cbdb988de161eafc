"""Compare the time and memory of `dali-asr features` with librosa in a pool of processes.

    python benchmarks/features.py FOLDER --json benchmarks/results/features_MACHINE_DATE.json

FOLDER holds recordings, such as an hour of FLAC files. Both are measured from the start of a process to files on the
disk, in turn, from files that were read before: by wall clock, and by the time of all cores, which other work on the
machine changes less. A process of the pool reads with `soundfile`, calls `librosa.feature.mfcc` with the window, hop,
bands and coefficients of the preset `course`, and writes an array per recording. It needs `pip install librosa`;
`--alone` leaves it out.
"""

from __future__ import annotations

import os
import sys
import tempfile
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from harness import in_turn, parser, timed, write

from dali_asr import Corpus
from dali_asr.audio.recordings import find_recordings, read_header

_COMMAND = [sys.executable, "-m", "dali_asr", "features", "--device", "cpu"]
LIBROSA = """
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

def save_mfcc(path):
    import librosa, numpy, soundfile
    samples, rate = soundfile.read(path, dtype="float32")
    sizes = {"n_mfcc": 28, "n_mels": 40, "n_fft": 512, "hop_length": rate // 100, "win_length": rate // 40}
    numpy.save(Path(sys.argv[1]) / path.stem, librosa.feature.mfcc(y=samples, sr=rate, **sizes).T)

paths = [Path(line) for line in Path(sys.argv[2]).read_text().splitlines()]
with ProcessPoolExecutor(int(sys.argv[3]), get_context("fork")) as pool:
    list(pool.map(save_mfcc, paths, chunksize=8))
"""


class Measured(NamedTuple):
    """What a side took: seconds, peak memory in MiB, and seconds of all cores."""

    seconds: float
    peak: float
    core_seconds: float


def run_dali(folder: Path, preset: str, recordings: int) -> Measured:
    """Measure `dali-asr features`, and check what it wrote."""
    with tempfile.TemporaryDirectory() as scratch:
        dest = Path(scratch) / "corpus"
        seconds, peak, used = timed([*_COMMAND, str(folder), str(dest), "--preset", preset])
        corpus = Corpus.open(dest)
        assert sum(len(p.utterances) for p in corpus.partitions.values()) == recordings
    return Measured(seconds, peak / 2**20, used)


def run_librosa(paths: list[Path], processes: int) -> Measured:
    """Measure librosa in a pool, and check what it wrote."""
    with tempfile.TemporaryDirectory() as scratch:
        listed, dest = Path(scratch) / "paths", Path(scratch) / "arrays"
        listed.write_text("\n".join(map(str, paths)))
        dest.mkdir()
        seconds, peak, used = timed([sys.executable, "-c", LIBROSA, str(dest), str(listed), str(processes)])
        assert np.load(dest / f"{paths[-1].stem}.npy").shape[1] == 28
    return Measured(seconds, peak / 2**20, used)


def measure(folder: Path, repeats: int, processes: int) -> dict[str, Any]:
    """Measure all sides in turn; without processes, `dali-asr` alone."""
    recordings, _ = find_recordings(folder)
    paths = [recording.path for recording in recordings]
    headers = [read_header(path) for path in paths]
    duration = sum(header.samples / header.sample_rate for header in headers)
    for path in paths:  # into the page cache
        path.read_bytes()
    sides = {name: partial(run_dali, folder, name, len(paths)) for name in ("course", "kaldi")}
    if processes:
        sides["librosa"] = partial(run_librosa, paths, processes)
    values: dict[str, Any] = {
        "recordings": len(paths),
        "seconds_of_audio": duration,
        "cores": len(os.sched_getaffinity(0)),
        "librosa_version": version("librosa") if processes else None,
        "librosa_processes": processes,
        "soundfile": version("soundfile"),
    }
    for name, results in zip(sides, in_turn(repeats, *sides.values()), strict=True):
        values[name] = {
            "seconds": [result.seconds for result in results],
            "core_seconds": [result.core_seconds for result in results],
            "peak_MiB": max(result.peak for result in results),
            "times_real_time": duration / float(np.median([result.seconds for result in results])),
        }
    return values


def main() -> None:
    """Run from the command line."""
    made = parser(__doc__, repeats=5)
    made.add_argument("folder", type=Path, help="a folder of recordings")
    made.add_argument("--processes", type=int, default=2, help="of the pool")
    made.add_argument("--alone", action="store_true", help="measure dali-asr alone")
    args = made.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"  # of each process of the pool
    values = measure(args.folder, args.repeats, 0 if args.alone else args.processes)
    for name, value in values.items():
        print(f"{name}: {value}")
    write(args.json, "features", torch.device("cpu"), **values)


if __name__ == "__main__":
    main()
