"""Measure packing beside the course's own loading loop, in one run.

Both read from a warm page cache, and have a process of their own.

    python benchmarks/make_course_tree.py /tmp/tree
    python benchmarks/pack.py /tmp/tree --json benchmarks/results/pack_MACHINE_DATE.json

The course's loop is what its starter notebook does: `numpy.load`, normalise, `list.index` for each label, concatenate.
It needs memory for all frames several times over; `--share N` gives it only every N-th utterance and multiplies its
time, which is then said in the output.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dali_asr import Corpus
from dali_asr.environment import environment
from dali_asr.inventory import ARPABET_SYMBOLS

PACK = """
import sys
from pathlib import Path
from dali_asr.corpus import pack_course
pack_course(*map(Path, sys.argv[1:]))
"""


def warm(root: Path) -> None:
    """Read every file once."""
    for path in root.rglob("*.npy"):
        path.read_bytes()


def anonymous_memory(session: int) -> int:
    """Return RssAnon + RssShmem of all processes of a session, in bytes."""
    total = 0
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if os.getsid(int(folder.name)) != session:
                continue
            lines = (folder / "status").read_text().splitlines()
        except (OSError, ProcessLookupError):
            continue
        total += sum(1024 * int(line.split()[1]) for line in lines if line.startswith(("RssAnon", "RssShmem")))
    return total


def time_packing(root: Path, dest: Path) -> tuple[float, int]:
    """Return seconds, start of the process included, and the peak of anonymous memory in bytes."""
    begun, peak = time.perf_counter(), 0
    with subprocess.Popen([sys.executable, "-c", PACK, str(root), str(dest)], start_new_session=True) as child:
        while child.poll() is None:
            peak = max(peak, anonymous_memory(child.pid))
            time.sleep(0.1)
    if child.returncode:
        raise SystemExit("packing failed")
    return time.perf_counter() - begun, peak


def time_course_loop(root: Path, share: int) -> float:
    """Return the seconds of the course's own loop over every `share`-th utterance, times `share`."""
    (partition,) = (p for p in root.iterdir() if p.is_dir())
    names = sorted(os.listdir(partition / "mfcc"))[::share]  # noqa: PTH208 - as the course does it
    phonemes = list(ARPABET_SYMBOLS)
    begun = time.perf_counter()
    np.seterr(all="ignore")  # a constant coefficient is divided by zero
    features, transcripts = [], []
    for name in names:
        mfcc = np.load(partition / "mfcc" / name)
        mfcc = (mfcc - mfcc.mean(axis=0)) / mfcc.std(axis=0)
        transcript = np.load(partition / "transcript" / name)[1:-1]
        features.append(mfcc)
        transcripts.append([phonemes.index(p) for p in transcript])
    np.concatenate(features)
    np.concatenate(transcripts)
    return (time.perf_counter() - begun) * share


def time_opening(packed: Path, repeats: int = 20) -> float:
    """Return the median seconds of opening a packed corpus."""
    times = []
    for _ in range(repeats):
        begun = time.perf_counter()
        Corpus.open(packed)
        times.append(time.perf_counter() - begun)
    return float(np.median(times))


def measure(root: Path, repeats: int, share: int) -> dict[str, Any]:
    """Measure both, in turn."""
    packing, memory, loop, opening = [], [], [], 0.0
    for _ in range(repeats):
        with tempfile.TemporaryDirectory(dir=root.parent) as scratch:
            warm(root)
            seconds, peak = time_packing(root, Path(scratch) / "packed")
            packing.append(seconds)
            memory.append(peak)
            opening = time_opening(Path(scratch) / "packed")
        warm(root)
        with ProcessPoolExecutor(1, get_context("spawn")) as process:  # of its own, as packing has
            loop.append(process.submit(time_course_loop, root, share).result())
    files = len(list(root.glob("*/mfcc/*.npy")))
    return {
        "benchmark": "pack",
        **environment(torch.device("cpu")),
        "utterances": files,
        "packing_seconds": packing,
        "course_loop_seconds": loop,
        "course_loop_share": share,
        "ratio": float(np.median(loop) / np.median(packing)),
        "peak_anonymous_MiB": max(memory) / 2**20,
        "opening_seconds": opening,
    }


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--share", type=int, default=1)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    values = measure(args.root, args.repeats, args.share)
    print(json.dumps(values, indent=1))
    if args.json:
        args.json.write_text(json.dumps(values, indent=1) + "\n")


if __name__ == "__main__":
    main()
