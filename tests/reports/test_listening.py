"""The page of a predicted recording: its pictures and its sound, read back, and the page in a browser."""

from __future__ import annotations

import base64
import io
import re
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
import soundfile

from dali_asr.demo import DEMO_RECORDING
from dali_asr.inference.predict import label, prepare
from dali_asr.inference.writers import write_prediction
from dali_asr.reports.listening import utterance_page
from dali_asr.reports.png import grey_png
from tests.reports.browser import dump


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the page of the recording in the package; no test changes it."""
    path = tmp_path_factory.mktemp("listening") / "demo.html"
    trained, opened = prepare("english-small", DEMO_RECORDING, device="cpu")
    labelling = label(trained, opened, decode="viterbi", posteriors=True, device="cpu")
    write_prediction(labelling, path, "html", encoder=utterance_page)
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
