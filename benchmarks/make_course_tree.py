"""Make a course folder of synthetic frames, by default as large as train-clean-100.

The lengths of utterances are log-normal, clipped to LibriSpeech's 1.4 to 24.5 seconds and shifted to the given mean.
Features are float32 `[T, 28]`, transcripts `<U5` `[T + 2]`. A label lasts about eight frames, as a phoneme does.

Shape letters: `T` frames of an utterance.

    python benchmarks/make_course_tree.py /tmp/tree                      # 28,539 utterances, 5 GB
    python benchmarks/make_course_tree.py /tmp/tree --utterances 2000
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from dali_asr.inventory import ARPABET_SYMBOLS

FEATURE_DIM = 28


def lengths(count: int, mean: int, rng: np.random.Generator) -> np.ndarray:
    """Return `count` lengths in frames with exactly this mean."""
    drawn = np.clip(rng.lognormal(np.log(mean), 0.4, count), 140, 2450).astype(np.int64)
    drawn += mean - int(drawn.mean())
    drawn = np.maximum(drawn, 1)
    drawn[0] += max(1 - int(drawn[0]), mean * count - int(drawn.sum()))
    return drawn


def transcript(frames: int, rng: np.random.Generator) -> np.ndarray:
    """Return symbols `[T + 2]`, T = `frames`; the first is `[SOS]`, the last `[EOS]`."""
    runs = rng.integers(3, 14, frames // 3 + 1)
    labels = np.repeat(rng.integers(0, 40, len(runs)), runs)[:frames]
    symbols = np.array(ARPABET_SYMBOLS)
    return np.concatenate([["[SOS]"], symbols[labels], ["[EOS]"]]).astype("<U5")


def make_tree(root: Path, partition: str, utterances: int, mean: int, seed: int = 0) -> None:
    """Write a partition of a course folder."""
    rng = np.random.default_rng(seed)
    noise = rng.normal(0, 20, (1 << 16, FEATURE_DIM)).astype(np.float32)
    for folder in ("mfcc", "transcript"):
        (root / partition / folder).mkdir(parents=True, exist_ok=True)
    for i, frames in enumerate(lengths(utterances, mean, rng)):
        name = f"{i // 100:04d}-{i % 100:06d}.npy"
        first = int(rng.integers(0, len(noise) - frames))
        np.save(root / partition / "mfcc" / name, noise[first : first + frames])
        np.save(root / partition / "transcript" / name, transcript(int(frames), rng))


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path)
    parser.add_argument("--partition", default="train-clean-100")
    parser.add_argument("--utterances", type=int, default=28_539)
    parser.add_argument("--mean", type=int, default=1_265, help="mean frames per utterance")
    args = parser.parse_args()
    make_tree(args.root, args.partition, args.utterances, args.mean)


if __name__ == "__main__":
    main()
