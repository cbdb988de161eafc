"""The page of a predicted recording: its pictures and its sound, read back, and the page in a browser."""

from __future__ import annotations

import base64
import io
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib.image
import numpy as np
import pytest
import soundfile
from praatio import textgrid

from dali_asr.audio.extract import Extracted, extract
from dali_asr.audio.settings import FeatureSettings
from dali_asr.corpus import PackedWriter
from dali_asr.demo import DEMO_RECORDING
from dali_asr.inference.predict import label, predict, prepare
from dali_asr.inference.writers import write_prediction
from dali_asr.inventory import ARPABET
from dali_asr.reports.listening import UtterancePages
from dali_asr.reports.png import grey_png
from dali_asr.segments import FrameTiming
from tests.reports.browser import dump


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the page of the recording in the package; no test changes it."""
    path = tmp_path_factory.mktemp("listening") / "demo.html"
    trained, opened = prepare("english-small", DEMO_RECORDING, device="cpu")
    labelling = label(trained, opened, decode="viterbi", posteriors=True, device="cpu")
    write_prediction(labelling, path, "html", encoder=UtterancePages())
    return path


def test_a_picture_is_read_as_it_was_written() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (7, 11), np.uint8)
    read = matplotlib.image.imread(io.BytesIO(grey_png(picture)), format="png")
    assert np.array_equal(np.round(read * 255), picture)


def test_the_page_holds_all_that_it_shows(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert set(re.findall(r'(?:src|href)="(.{5})', text)) == {"data:"}
    (sound,) = re.findall(r'src="data:audio/flac;base64,([^"]+)"', text)
    samples, rate = soundfile.read(io.BytesIO(base64.b64decode(sound)), dtype="int16")
    expected, expected_rate = soundfile.read(DEMO_RECORDING, dtype="int16")
    assert rate == expected_rate
    assert np.array_equal(samples, expected)
    spectrogram, posteriors = (
        matplotlib.image.imread(io.BytesIO(base64.b64decode(picture)), format="png")
        for picture in re.findall(r'src="data:image/png;base64,([^"]+)"', text)
    )
    assert spectrogram.shape == (128, 350)
    assert posteriors.shape[1] == 350
    frames = np.lib.stride_tricks.sliding_window_view(expected / 32768, 400)[::160]
    loudness = np.log(np.abs(np.fft.rfft(frames * np.hanning(400), 512)) + 1e-6).mean(axis=1)
    darkness = 1 - spectrogram.mean(axis=0)
    likeness = [np.corrcoef(loudness, np.roll(darkness, shift))[0, 1] for shift in range(-5, 6)]
    assert likeness[5] == max(likeness) > 0.9, "dark where it is loud, at the same frames"


def test_pages_of_a_corpus_hold_its_recordings_while_they_are_as_they_were(
    page: Path, tmp_path: Path, run_cli: Callable[..., Any]
) -> None:
    """The page is that of the recording; the second recording is missing, and later both are other ones."""
    (found,) = extract([DEMO_RECORDING], FeatureSettings())
    assert isinstance(found, Extracted)
    with PackedWriter(
        tmp_path / "corpus", inventory=ARPABET, normalization="utterance", recordings_folder=tmp_path
    ) as writer:
        for name in ("demo", "gone"):
            writer.add("all", name, found.frames, recording=f"{name}.wav")
        writer.add("other", "array", found.frames)
    shutil.copy(DEMO_RECORDING, tmp_path)
    out = tmp_path / "out"
    command = ("predict", "english-small", tmp_path / "corpus", "--format", "html", "--device", "cpu", "-o", out)
    done = run_cli(*command, "--partition", "all")
    remedy = "1 page lacks spectrogram and sound: name the recordings instead"
    assert (done.exit_code, done.stderr) == (0, f"warning: {tmp_path}/gone.wav: no such file; {remedy}\n")
    assert (out / "demo.html").read_text(encoding="utf-8") == page.read_text(encoding="utf-8")
    assert "audio/flac" not in (out / "gone.html").read_text(encoding="utf-8")
    assert run_cli(*command[:3], *command[5:], "--partition", "all", "--format", "textgrid").exit_code == 0
    last = {
        name: textgrid.openTextgrid(str(out / f"{name}.TextGrid"), includeEmptyIntervals=True).maxTimestamp
        for name in ("demo", "gone")
    }
    duration = soundfile.info(str(DEMO_RECORDING)).duration
    ends = {"demo": duration, "gone": FrameTiming().edges(len(found.frames))[-1]}
    assert last == pytest.approx(ends)
    assert ends["gone"] < duration
    ends_of = predict("english-small", tmp_path / "corpus", partition="all", device="cpu").segments
    assert [ends_of(number)[-1].end for number in range(2)] == pytest.approx([ends["demo"], ends["gone"]])
    soundfile.write(tmp_path / "demo.wav", np.zeros(16_000), 16_000)
    changed = run_cli(*command, "--partition", "all", "--force").stderr
    remedy = remedy.replace("1 page lacks", "2 pages lack")
    assert changed == f"warning: {tmp_path}/demo.wav: has 98 frames, in the corpus 350; {remedy}\n"
    assert "audio/flac" not in (out / "demo.html").read_text(encoding="utf-8")
    assert "warning: array: its recording is not known; 1 page" in run_cli(*command, "--partition", "other").stderr


def test_the_page_works_in_a_browser(page: Path, tmp_path: Path) -> None:
    script = """
        const buttons = document.querySelectorAll("#segments button"), readout = document.getElementById("readout");
        const press = key => document.body.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true }));
        const strip = document.getElementById("strip"), before = strip.scrollWidth;
        press("ArrowRight");
        const second = readout.textContent === buttons[1].getAttribute("aria-label");
        press("End");
        const last = document.activeElement === buttons[buttons.length - 1];
        press("+");
        const wider = strip.scrollWidth > before;
        const fits = document.documentElement.scrollWidth <= window.innerWidth;
        const end = Number(buttons[buttons.length - 1].dataset.end);
        return [buttons.length > 10, second, last, wider, fits, end].join(" ");
    """
    end = soundfile.info(str(DEMO_RECORDING)).duration
    assert dump(page, script, tmp_path, "--window-size=500,800") == f"true true true true true {end:g}"


def test_a_short_recording_fits_a_wide_window(page: Path, tmp_path: Path) -> None:
    script = """
        const strip = document.getElementById("strip"), marks = document.querySelectorAll(".time .axis span");
        const last = marks[marks.length - 1], room = strip.getBoundingClientRect().right;
        const fits = [strip.scrollWidth <= strip.clientWidth, last.getBoundingClientRect().right <= room];
        return [last.textContent, ...fits].join();
    """
    assert dump(page, script, tmp_path, "--window-size=1400,800") == "3.5,true,true"
