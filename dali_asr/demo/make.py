"""Make the demo corpus: synthetic speech by flite, MFCC by DALI's audio operators.

    apt-get install flite
    python -m dali_asr.demo.make

Voices `slt`, `awb` and `kal16` speak the sentences of train and dev, `rms`, which neither knows, those of test.
flite prints where each phone ends; a frame is labelled by the phone at its centre. A frame is 25 ms, every 10 ms:
pre-emphasis of 0.97, Hann window, power spectrum of 512 points, 40 mel bands (HTK's scale) from 20 Hz to 8 kHz,
decibels, 28 cepstral coefficients by DCT-II; normalized by utterance, stored as float16.

Shape letters: `T` frames of an utterance, `S` samples of a recording.
"""

from __future__ import annotations

import subprocess
import tempfile
import wave
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from nvidia.dali import fn, types
from nvidia.dali.pipeline import Pipeline

from dali_asr.corpus import PackedWriter
from dali_asr.demo import DEMO_CORPUS
from dali_asr.demo.sentences import DEV, TEST, TRAIN
from dali_asr.inventory import ARPABET

if TYPE_CHECKING:
    from numpy.typing import NDArray

SAMPLE_RATE = 16_000
WINDOW, STEP = 400, 160  # samples
COEFFICIENTS = 28

PARTITIONS = {
    "train": (TRAIN, ("slt", "awb", "kal16")),
    "dev": (DEV, ("slt", "awb", "kal16")),
    "test": (TEST, ("rms",)),
}
# flite's phones are ARPAbet in lower case, but for these.
SYMBOLS = {"pau": "[SIL]", "ax": "AH"}


def speak(text: str, voice: str) -> tuple[NDArray[np.float32], list[tuple[float, str]]]:
    """Return samples `[S]` in [-1, 1] and, for each phone, its end in seconds and its symbol."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "speech.wav"
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
    """Return the label at the centre of each frame, `[T]`."""
    centres = (np.arange(frames) * STEP + WINDOW / 2) / SAMPLE_RATE
    ends = np.array([end for end, _ in phones])
    at = np.minimum(np.searchsorted(ends, centres, side="right"), len(phones) - 1)
    labels = ARPABET.encode(np.array([symbol for _, symbol in phones]))
    return labels[at]


def mfcc(samples: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the cepstral coefficients of samples `[S]`, `[T, 28]`."""
    pipeline = Pipeline(batch_size=1, num_threads=1, device_id=None)
    with pipeline:
        audio = fn.external_source(lambda _: [samples], device="cpu", batch=True)
        spectrum = fn.spectrogram(
            fn.preemphasis_filter(audio, preemph_coeff=0.97),
            nfft=512,
            window_length=WINDOW,
            window_step=STEP,
            center_windows=False,
        )
        mel = fn.mel_filter_bank(
            spectrum,
            sample_rate=SAMPLE_RATE,
            nfilter=40,
            freq_low=20.0,
            freq_high=8000.0,
            mel_formula="htk",
            normalize=False,
        )
        decibels = fn.to_decibels(mel, multiplier=10.0, reference=1.0, cutoff_db=-100.0)
        cepstra = fn.mfcc(decibels, axis=0, dct_type=2, n_mfcc=COEFFICIENTS, normalize=True)
        pipeline.set_outputs(fn.cast(fn.transpose(cepstra, perm=[1, 0]), dtype=types.FLOAT))
    pipeline.build()
    (output,) = pipeline.run()
    return np.array(output[0])


def main() -> None:
    """Write the corpus into the package."""
    with PackedWriter(
        DEMO_CORPUS, inventory=ARPABET, normalization="utterance", dtype="float16", overwrite=True
    ) as writer:
        for partition, (sentences, voices) in PARTITIONS.items():
            for voice in voices:
                for number, text in enumerate(sentences):
                    samples, phones = speak(text, voice)
                    features = mfcc(samples)
                    writer.add(partition, f"{voice}-{number:02d}", features, frame_labels(phones, len(features)))


if __name__ == "__main__":
    main()
