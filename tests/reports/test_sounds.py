"""Sounds of pages, decoded again and compared with the samples that were recorded."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from dali_asr import Corpus, Inventory, PackedWriter
from dali_asr.audio.settings import PRESETS
from dali_asr.corpus.partition import Partition
from dali_asr.errors import UsageError
from dali_asr.reports.sounds import MAX_SECONDS, Sound, Sounds
from dali_asr.segments import FrameTiming

RATE = 8_000  # unlike the rate of the features
SECONDS = 12
RAMP = np.arange(RATE * SECONDS, dtype=np.float32) / (RATE * SECONDS)  # a sample tells its own time


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with recordings of two channels, and a corpus that names one more."""
    where = tmp_path_factory.mktemp("sounds")
    (where / "in" / "deep").mkdir(parents=True)
    for name in ("a.flac", "deep/b.wav"):
        soundfile.write(where / "in" / name, np.stack([RAMP, RAMP], axis=1), RATE, subtype="PCM_16")
    (where / "in" / "broken.ogg").write_bytes(b"OggS and nothing else")
    with PackedWriter(where / "corpus", inventory=Inventory(("x", "y")), recordings_folder=where / "in") as writer:
        for name in ("a.flac", "deep/b.wav", "gone.wav", "broken.ogg"):
            frames = np.ones((100 * SECONDS - 2, 3), np.float32)
            writer.add("train", name, frames, speaker="ann", recording=name)
        writer.add("dev", "alone", frames)
    return where


@pytest.fixture
def corpus(folder: Path) -> Corpus:
    return Corpus.open(folder / "corpus")


@pytest.fixture
def train(corpus: Corpus) -> Partition:
    return corpus.partition("train")


def decoded(sound: Sound | None) -> tuple[np.ndarray, int, str]:
    """Return samples, rate and format of a sound in a page."""
    assert sound is not None
    head, _, content = sound.address.partition(",")
    assert head == "data:audio/flac;base64"
    with soundfile.SoundFile(io.BytesIO(base64.b64decode(content))) as file:
        return file.read(dtype="float32"), file.samplerate, file.format


@pytest.mark.parametrize(("utterance", "first", "end", "beside"), [(0, 0, 10, 0), (1, 50, 60, 0.5), (0, 500, 510, 1)])
@pytest.mark.parametrize("timing", [FrameTiming(), PRESETS["librosa"].timing])
def test_a_sound_is_the_stretch_of_the_frames(
    train: Partition, utterance: int, first: int, end: int, beside: float, timing: FrameTiming
) -> None:
    """Half a hop around the centers of the first and the last frame, from the recording's own beginning on."""
    samples, rate, form = decoded(Sounds(train, timing, 10**6).stretch(utterance, first, end, beside))
    centers = (np.array([first, end - 1]) * timing.hop + (0 if timing.centered else timing.window / 2)) / (
        timing.sample_rate
    )
    start = max(centers[0] - timing.period / 2 - beside, 0) if first else 0
    stop = min(centers[1] + timing.period / 2 + beside, SECONDS)
    assert (rate, form, samples.ndim) == (RATE, "FLAC", 1)
    assert len(samples) / rate == pytest.approx(stop - start, abs=2 / RATE)
    np.testing.assert_allclose(samples[[0, -1]], np.array([start, stop]) / SECONDS, atol=4e-5)


def test_long_sounds_are_cut_and_pages_have_a_limit(train: Partition) -> None:
    long = Sounds(train, FrameTiming(), 10**6).stretch(0, 0, 1198)
    assert long is not None
    assert (long.seconds, long.left_out) == (MAX_SECONDS, "the first 10 seconds")
    short = Sounds(train, FrameTiming(), 10**6).stretch(0, 0, 100)
    assert short is not None
    assert short.left_out == ""
    sounds = Sounds(train, FrameTiming(), len(long.address) + len(short.address) - 1)
    assert sounds.stretch(0, 0, 1198) == long
    assert sounds.stretch(0, 0, 100) == Sound(left_out="the page would be too large")
    assert sounds.remark == ""


def test_what_is_missing_is_said_once(train: Partition, folder: Path) -> None:
    sounds = Sounds(train, FrameTiming(), 10**6)
    for utterance in (2, 3, 2):
        assert sounds.stretch(utterance, 0, 9) == Sound(left_out="its recording is missing or cannot be read")
    assert sounds.remark == (
        f"{folder / 'in' / 'gone.wav'}: no such file; the page lacks the sound of it and 1 more: "
        "say where recordings are now (recordings=FOLDER)"
    )


def test_recordings_may_have_moved(train: Partition, folder: Path, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "gone.wav", RAMP[:RATE], RATE)
    sounds = Sounds(train, FrameTiming(), 10**6, tmp_path)
    assert len(decoded(sounds.stretch(2, 0, 98))[0]) == round(0.9875 * RATE)  # 98 frames and half of the windows beside
    with pytest.raises(UsageError, match=r"nowhere: no such folder; give the one .* prepared from \(recordings=FOLDER"):
        Sounds(train, FrameTiming(), 10**6, folder / "nowhere")


def test_corpora_without_recordings_have_no_sound(corpus: Corpus, tmp_path: Path) -> None:
    sounds = Sounds(corpus.partition("dev"), FrameTiming(), 10**6)
    assert (sounds.known, sounds.stretch(0, 0, 9), sounds.remark) == (False, None, "")
    with pytest.raises(UsageError, match="the corpus names no recordings, as those that `dali-asr prepare` makes do"):
        Sounds(corpus.partition("dev"), FrameTiming(), 10**6, tmp_path)


PARTS: dict[str, Callable[[Corpus], Partition]] = {
    "picked": lambda corpus: corpus.partition("train").pick([0, 3]),
    "withheld": lambda corpus: corpus.partition("train").withhold(np.ones(4 * 1198, np.bool_)),
    "rounded": lambda corpus: corpus.partition("train").astype("float16"),
    "joined": lambda corpus: corpus.partition("dev", "train"),
    "joined and picked": lambda corpus: corpus.partition("dev", "train").pick([0, 2, 4]),
}


@pytest.mark.parametrize("part", PARTS)
def test_parts_of_a_corpus_know_their_recordings(corpus: Corpus, folder: Path, part: str) -> None:
    """The utterances are named as their recordings are."""
    made = PARTS[part](corpus)
    for number, name in enumerate(made.utterances):
        assert made.origins.recording(number) == (None if name == "alone" else folder / "in" / name)
    assert made.origins.speakers == (() if "joined" in part else ("ann",) * len(made.utterances))
