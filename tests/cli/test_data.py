"""`dali-asr data`: what it prints and what it refuses."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dali_asr import Inventory, PackedWriter
from dali_asr.audio.settings import FeatureSettings
from tests.corpus.archives import make_archive


def test_invalid_choices_are_refused(run_cli: Callable[..., Any], course: Path, tmp_path: Path) -> None:
    for option, value, choices in (
        ("--dtype", "float64", "'float32', 'float16'"),
        ("--normalization", "speaker", "'utterance', 'global', 'none'"),
    ):
        refused = run_cli("data", "pack", course, tmp_path / "p", option, value)
        assert refused.exit_code == 2
        assert choices in refused.output


def test_names_are_printed_without_escapes_and_markup(run_cli: Callable[..., Any], tmp_path: Path) -> None:
    with PackedWriter(tmp_path / "p", inventory=Inventory(("\x1b[31mred", "[bold]b"))) as writer:
        writer.add("[red]train", "a", np.ones((4, 2)), [0, 1, 1, -100])
        writer.add("dev", "a", np.ones((4, 2)), [-100] * 4)
    shown = run_cli("data", "info", tmp_path / "p", "--labels")
    assert shown.exit_code == 0, shown.output
    assert "\x1b" not in shown.output
    assert "  \\x1b[31mred" in shown.output
    assert "[bold]b" in shown.output
    assert shown.output.count("[red]train") == 2
    assert "dev: 0 of 2 symbols occur" in shown.output


def test_speakers_and_recordings_are_shown(run_cli: Callable[..., Any], tmp_path: Path) -> None:
    """Names of at most ten speakers, none of a partition whose speakers are unknown."""
    features = FeatureSettings.of("course", coefficients=2).to_json()
    folder = tmp_path / "p" / ".." / "in"
    with PackedWriter(tmp_path / "p", inventory=["a"], features=features, recordings_folder=folder) as writer:
        for at in range(24):
            name = "train" if at < 12 else "dev"
            speaker = f"s{at}" if at < 12 else f"d{at % 2}"
            writer.add(name, f"u{at}", np.ones((4, 2)), [0] * 4, speaker=speaker, recording=f"u{at}.wav")
        writer.add("test", "u", np.ones((4, 2)), [0] * 4)
    shown = run_cli("data", "info", tmp_path / "p").stdout
    options = "--preset course --set features.coefficients=2"
    where = f"recordings: {tmp_path / 'in'}"
    assert f"features: mfcc of 25 ms every 10 ms ({options}); {where}, which is not there\n" in shown
    (tmp_path / "in").mkdir()
    assert f"{where}\n" in run_cli("data", "info", tmp_path / "p").stdout
    rows = {words[0]: words for words in map(str.split, shown.splitlines()) if words}
    speakers = rows["partition"].index("speakers")
    assert [rows[name][speakers + 1] for name in ("train", "dev", "test")] == ["12", "2", "–"]  # `80.0 ms` is two words
    assert "speakers of dev: d0, d1\n" in shown
    assert "speakers of train" not in shown


@pytest.mark.parametrize("number", [0, 1])
def test_damage_is_one_line(run_cli: Callable[..., Any], course: Path, tmp_path: Path, number: int) -> None:
    assert run_cli("data", "pack", course, tmp_path / "p").exit_code == 0
    path = tmp_path / "p" / ("frames.npy", "labels.npy")[number]
    stamp = path.stat()
    content = bytearray(path.read_bytes())
    content[-1] ^= 128
    path.write_bytes(content)
    os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    shown = run_cli("data", "verify", tmp_path / "p")
    assert shown.exit_code == 1
    assert f"error: {path}: utterance u03 is damaged (checksum differs); pack the corpus again" in shown.output


def test_the_layout_is_named(run_cli: Callable[..., Any], course: Path, tmp_path: Path) -> None:
    assert run_cli("data", "export", "npz", course, tmp_path / "npz").exit_code == 0
    archive = make_archive(tmp_path / "a.zip", course)
    for source, title in (
        (course, "course folder"),
        (tmp_path / "npz", "arrays with offsets"),
        (archive, "archive of a course folder"),
    ):
        shown = run_cli("data", "info", source)
        assert shown.exit_code == 0, shown.output
        assert f"layout: {title}\n" in shown.output
    packed = run_cli("data", "pack", archive, tmp_path / "p")
    assert packed.exit_code == 0, packed.output
    assert "Packed 74 frames of 3 partitions" in packed.output
    assert "layout:" not in run_cli("data", "info", tmp_path / "p").output


def test_a_source_of_no_layout_is_told_which_there_are(run_cli: Callable[..., Any], tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "file").write_text("no corpus")
    for source in (folder, folder / "file"):
        refused = run_cli("data", "pack", source, tmp_path / "p")
        assert refused.exit_code == 1
        for title in ("course folder", "libriphone folder", "Kaldi data folders", "arrays with offsets"):
            assert title in refused.output
        assert refused.output.count("\n") == 1
