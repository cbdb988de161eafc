"""Compare the time of packing with that of the course's own loading loop.

    python benchmarks/make_course_tree.py /tmp/tree
    python benchmarks/pack.py /tmp/tree --json benchmarks/results/pack_MACHINE_DATE.json

Each runs in its own process and reads from a warm page cache. Packing is measured with the start of its process.

The loop is that of the course's starter notebook: `numpy.load`, normalize, `list.index` for each label, concatenate. It
holds all frames in memory several times. With `--share N` it reads every N-th utterance, and its time is multiplied by
N; the results contain N.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from harness import timed

from dali_asr import Corpus
from dali_asr.environment import environment
from dali_asr.inventory import ARPABET_SYMBOLS

PACK = """
import sys
from pathlib import Path
from dali_asr.corpus import pack_corpus
pack_corpus(*map(Path, sys.argv[1:]))
"""


def warm(root: Path) -> None:
    """Read every file once, so that the page cache has it."""
    for path in root.rglob("*.npy"):
        path.read_bytes()


def time_course_loop(root: Path, share: int) -> float:
    """Return the seconds of the course's loop over every `share`-th utterance, times `share`."""
    (partition,) = (p for p in root.iterdir() if p.is_dir())
    names = sorted(os.listdir(partition / "mfcc"))[::share]  # noqa: PTH208 - as the course does it
    phonemes = list(ARPABET_SYMBOLS)
    start = time.perf_counter()
    np.seterr(all="ignore")  # constant features are divided by zero
    features, transcripts = [], []
    for name in names:
        mfcc = np.load(partition / "mfcc" / name)
        mfcc = (mfcc - mfcc.mean(axis=0)) / mfcc.std(axis=0)
        transcript = np.load(partition / "transcript" / name)[1:-1]
        features.append(mfcc)
        transcripts.append([phonemes.index(p) for p in transcript])
    np.concatenate(features)
    np.concatenate(transcripts)
    return (time.perf_counter() - start) * share


def time_opening(packed: Path, repeats: int = 20) -> float:
    """Return the median seconds of opening a packed corpus."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        Corpus.open(packed)
        times.append(time.perf_counter() - start)
    return float(np.median(times))


def check(root: Path, packed: Path) -> None:
    """Compare the first and the last utterance of a packed corpus with their files."""
    (partition,) = Corpus.open(packed).partitions.values()
    labels = partition.labels()
    assert labels is not None
    for at in (0, len(partition.utterances) - 1):
        name = f"{partition.utterances[at]}.npy"
        features = np.load(root / partition.name / "mfcc" / name).astype(np.float64)
        frames = np.empty(features.shape, partition.dtype)
        partition.read_into([frames], at)
        assert np.allclose(frames, (features - features.mean(axis=0)) / features.std(axis=0), rtol=0, atol=1e-5), name
        symbols = np.load(root / partition.name / "transcript" / name)[1:-1].tolist()
        start = int(partition.offsets[at])
        assert [ARPABET_SYMBOLS[i] for i in labels[start : start + len(frames)]] == symbols, name


def measure(root: Path, repeats: int, share: int) -> dict[str, Any]:
    """Measure both, alternating, and check what was packed."""
    packing, memory, loop, opening = [], [], [], 0.0
    for _ in range(repeats):
        with tempfile.TemporaryDirectory(dir=root.parent) as scratch:
            warm(root)
            seconds, peak, _ = timed([sys.executable, "-c", PACK, str(root), str(Path(scratch) / "packed")])
            packing.append(seconds)
            memory.append(peak)
            check(root, Path(scratch) / "packed")
            opening = time_opening(Path(scratch) / "packed")
        warm(root)
        with ProcessPoolExecutor(1, get_context("spawn")) as process:
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
    parser.add_argument("root", type=Path, help="a course folder of one partition")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--share", type=int, default=1, help="the course's loop reads every N-th utterance")
    parser.add_argument("--json", type=Path, help="write the results to this file")
    args = parser.parse_args()
    values = measure(args.root, args.repeats, args.share)
    print(json.dumps(values, indent=1))
    if args.json:
        args.json.write_text(json.dumps(values, indent=1) + "\n")


if __name__ == "__main__":
    main()
