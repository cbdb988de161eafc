"""How long a loader takes from a packed corpus to its first batch on the device, and how long the copy alone takes.

    python benchmarks/start.py CORPUS PARTITION --json benchmarks/results/start_MACHINE_DATE.json

Without CORPUS, one of 36.1 million synthetic frames in 28,539 utterances, the size of LibriSpeech train-clean-100, is
written to a temporary folder first. The copy alone reads the file of frames and moves it to the device as it is. Both
are timed in turn, after the file was read once. The least of the repeats counts: a virtual machine takes many times as
long where its host has to find memory first.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from dali_asr import Corpus, PackedWriter, WindowLoader
from dali_asr.device import resolve_device
from dali_asr.environment import environment
from dali_asr.inventory import ARPABET

UTTERANCES, FRAMES, FEATURE_DIM = 28_539, 1265, 28


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path, nargs="?")
    parser.add_argument("partition", nargs="?", default="train")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--batch-size", type=int, default=4096)
    parser.add_argument("--repeats", type=int, default=4)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    device = resolve_device(arguments.device)
    with tempfile.TemporaryDirectory() as scratch:
        corpus = arguments.corpus or write_corpus(Path(scratch) / "corpus")
        warm_up(corpus, device)
        starts, copies = [], []
        for at in range(2 * arguments.repeats):
            if at % 4 in (0, 3):  # each comes after the other, and after itself
                copies.append(copy(corpus, device))
            else:
                starts.append(start(corpus, arguments.partition, device, arguments.batch_size))
        size = (corpus / "frames.npy").stat().st_size
    copied, started = min(copies), min(starts)
    print(
        f"{size / 1e9:.2f} GB to {device}: copy alone {copied:.2f} s, to the first batch {started:.2f} s, "
        f"{started - copied:.2f} s beyond the copy (the least of {arguments.repeats})"
    )
    if arguments.json:
        values = {"benchmark": "start", **environment(device), "bytes": size, "copy": copies, "start": starts}
        arguments.json.write_text(json.dumps(values, indent=1) + "\n")


def write_corpus(folder: Path) -> Path:
    """Write the synthetic corpus."""
    rng = np.random.default_rng(0)
    frames = rng.standard_normal((FRAMES, FEATURE_DIM), dtype=np.float32)
    labels = rng.integers(0, 40, FRAMES)
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
    """Return the seconds that the frames' file takes to the device, as it is."""
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


def synchronize(device: torch.device) -> None:
    """Wait for what a device has to do."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


if __name__ == "__main__":
    main()
