"""Copy a folder of recordings, with slower and faster copies of those that are trained on.

    python benchmarks/speeds.py RECORDINGS DEST

RECORDINGS has folders `train`, `dev` and `test` of recordings with `NAME.phn` and `transcripts.tsv`. In DEST, each
recording NAME of `train` is there two times more, as NAME-slow and NAME-fast: the same samples at nine and eleven
tenths of their rate, so that tempo, pitch and formants change as between speakers (Ko et al. 2015, "Audio augmentation
for speech recognition"). The times in `.phn` files are in samples and stay as they are.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

import soundfile

SPEEDS = {"slow": 0.9, "fast": 1.1}


def copy_at_speed(recording: Path, dest: Path, speed: str) -> None:
    """Write a copy of a recording, with its phones, as NAME-SPEED."""
    samples, rate = soundfile.read(recording, dtype="int16")
    soundfile.write(dest / f"{recording.stem}-{speed}.flac", samples, round(rate * SPEEDS[speed]))
    shutil.copy(recording.with_suffix(".phn"), dest / f"{recording.stem}-{speed}.phn")


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recordings", type=Path)
    parser.add_argument("dest", type=Path)
    given = parser.parse_args()
    shutil.copytree(given.recordings, given.dest)
    train = given.dest / "train"
    recordings = sorted(train.glob("*.flac"))
    lines = (train / "transcripts.tsv").read_text(encoding="utf-8").splitlines()
    for speed in SPEEDS:
        for recording in recordings:
            copy_at_speed(recording, train, speed)
    copies = [line.replace("\t", f"-{speed}\t", 1) for speed in SPEEDS for line in lines]
    lines += copies
    (train / "transcripts.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
