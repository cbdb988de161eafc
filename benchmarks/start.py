"""Measure the time from a packed corpus to the first batch on the device, and that of copying its frames alone.

    python benchmarks/start.py CORPUS PARTITION --json benchmarks/results/start_MACHINE_DATE.json

Without CORPUS, a corpus of the size of LibriSpeech train-clean-100 is written to a temporary folder first: 36.1 million
synthetic frames in 28,539 utterances. The copy reads the file of frames and moves it to the device. Both are timed in
turn, after the file was read once. The minimum of the repeats counts, because a virtual machine takes many times as
long whenever its host has to find memory first.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from harness import in_turn, parser, write

from dali_asr import Corpus, PackedWriter, WindowLoader
from dali_asr.bench.loader import FEATURE_DIM, UTTERANCE_FRAMES
from dali_asr.bench.measure import synchronize
from dali_asr.device import resolve_device
from dali_asr.inventory import ARPABET

UTTERANCES = 28_539


def main() -> None:
    """Measure and print."""
    arguments = parser(__doc__, repeats=4)
    arguments.add_argument("corpus", type=Path, nargs="?")
    arguments.add_argument("partition", nargs="?", default="train")
    arguments.add_argument("--device", default="auto")
    arguments.add_argument("--batch-size", type=int, default=4096)
    given = arguments.parse_args()
    device = resolve_device(given.device)
    with tempfile.TemporaryDirectory() as scratch:
        corpus = given.corpus or write_corpus(Path(scratch) / "corpus")
        warm_up(corpus, device)
        copies, starts = in_turn(
            given.repeats,
            lambda: copy(corpus, device),
            lambda: start(corpus, given.partition, device, given.batch_size),
        )
        size = (corpus / "frames.npy").stat().st_size
    copied, started = min(copies), min(starts)
    print(
        f"{size / 1e9:.2f} GB to {device}: copy alone {copied:.2f} s, to the first batch {started:.2f} s, "
        f"{started - copied:.2f} s more than the copy (minimum of {given.repeats})"
    )
    write(given.json, "start", device, bytes=size, copy=copies, start=starts)


def write_corpus(folder: Path) -> Path:
    """Write the synthetic corpus."""
    rng = np.random.default_rng(0)
    frames = rng.standard_normal((UTTERANCE_FRAMES, FEATURE_DIM), dtype=np.float32)
    labels = rng.integers(0, 40, UTTERANCE_FRAMES)
    with PackedWriter(folder, inventory=ARPABET) as writer:
        for at in range(UTTERANCES):
            writer.add("train", f"u{at:05d}", np.roll(frames, at, axis=0), labels)
    return folder


def warm_up(corpus: Path, device: torch.device) -> None:
    """Read the file once, start the device, and import and compile what the loader needs."""
    copy(corpus, device)
    partition = Corpus.from_arrays([np.ones((64, FEATURE_DIM), np.float32)], [np.zeros(64, np.int64)]).partition("all")
    loader = WindowLoader(partition, context=30, batch_size=8, masking=True, device=device)
    list(loader)
    loader.close()


def copy(corpus: Path, device: torch.device) -> float:
    """Return the seconds of copying the file of frames to the device."""
    begun = time.perf_counter()
    content = np.empty((corpus / "frames.npy").stat().st_size, np.uint8)
    with (corpus / "frames.npy").open("rb", buffering=0) as file:
        read = 0
        while count := file.readinto(content[read:].data):
            read += count
    frames = torch.from_numpy(content).to(device)
    synchronize(device)
    seconds = time.perf_counter() - begun
    del frames
    return seconds


def start(corpus: Path, partition: str, device: torch.device, batch_size: int) -> float:
    """Return the seconds from the folder to the first batch."""
    begun = time.perf_counter()
    opened = Corpus.open(corpus).partition(partition)
    loader = WindowLoader(opened, context=30, batch_size=batch_size, masking=True, device=device)
    next(iter(loader))
    synchronize(device)
    seconds = time.perf_counter() - begun
    loader.close()
    return seconds


if __name__ == "__main__":
    main()
