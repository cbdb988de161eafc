"""Make the demo corpus and the demo recording: speech synthesized by flite, MFCC by DALI's audio operators.

    apt-get install flite
    python -m dali_asr.demo.make

Voices `slt`, `awb` and `kal16` speak the sentences of train and dev. Voice `rms`, which is in neither, speaks those of
test, and one of them is the recording. flite prints the end of each phone; a frame's label is the phone at its center.
Frames are normalized by utterance and stored as float16; `dali_asr.audio.features` describes them.

Shape letters: `T` frames of an utterance, `S` samples of a recording, `D` features of a frame.
"""

from __future__ import annotations

import subprocess
import tempfile
import wave
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from dali_asr.audio.features import demo_settings, mfcc
from dali_asr.corpus import PackedWriter
from dali_asr.demo import DEMO_CORPUS, DEMO_RECORDING
from dali_asr.demo.sentences import DEV, TEST, TRAIN
from dali_asr.inventory import ARPABET

if TYPE_CHECKING:
    from numpy.typing import NDArray

SAMPLE_RATE = 16_000

PARTITIONS = {
    "train": (TRAIN, ("slt", "awb", "kal16")),
    "dev": (DEV, ("slt", "awb", "kal16")),
    "test": (TEST, ("rms",)),
}
# flite's names of phones are ARPAbet in lower case, except these.
RECORDED = TEST[1]
SYMBOLS = {"pau": "[SIL]", "ax": "AH"}


def speak(text: str, voice: str, path: Path | None = None) -> tuple[NDArray[np.float32], list[tuple[float, str]]]:
    """Return samples `[S]` in [-1, 1], and the end in seconds and the symbol of each phone; keep the WAV at a path."""
    with tempfile.TemporaryDirectory() as folder:
        path = path or Path(folder) / "speech.wav"
        command = ["flite", "-psdur", "-voice", voice, "-t", text, "-o", str(path)]
        printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        with wave.open(str(path)) as audio:
            if audio.getframerate() != SAMPLE_RATE or audio.getnchannels() != 1:
                raise ValueError(f"voice {voice}: not {SAMPLE_RATE} Hz mono")
            samples = np.frombuffer(audio.readframes(audio.getnframes()), "<i2")
    phones = []
    for item in printed.split():
        phone, end = item.split(":")
        phones.append((float(end), SYMBOLS.get(phone, phone.upper())))
    return samples.astype(np.float32) / np.float32(32768), phones


def frame_labels(phones: list[tuple[float, str]], frames: int) -> NDArray[np.int64]:
    """Return the label at the center of each frame, `[T]`."""
    centers = demo_settings(SAMPLE_RATE).timing.centers(frames)
    ends = np.array([end for end, _ in phones])
    at = np.minimum(np.searchsorted(ends, centers, side="right"), len(phones) - 1)
    labels = ARPABET.encode(np.array([symbol for _, symbol in phones]))
    return labels[at]


def main() -> None:
    """Write the corpus and the recording into the package."""
    speak(RECORDED, "rms", DEMO_RECORDING)
    with PackedWriter(
        DEMO_CORPUS, inventory=ARPABET, normalization="utterance", dtype="float16", overwrite=True
    ) as writer:
        for partition, (sentences, voices) in PARTITIONS.items():
            for voice in voices:
                for number, text in enumerate(sentences):
                    samples, phones = speak(text, voice)
                    features = mfcc(samples, SAMPLE_RATE)
                    writer.add(partition, f"{voice}-{number:02d}", features, frame_labels(phones, len(features)))


if __name__ == "__main__":
    main()
