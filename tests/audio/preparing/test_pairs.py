"""Recordings find their alignments, and what stands alone is named. The files are empty: nothing of them is read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from dali_asr.audio.preparing.files import search
from dali_asr.audio.preparing.pairs import pair
from dali_asr.errors import DataError


def touch(root: Path, *names: str) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return root


def paired(root: Path) -> tuple[dict[str, str], list[str]]:
    """Return recordings and their alignments, and the problems, by paths below `root`."""
    found = search(root)
    paired = pair(found)
    by_name = {str(p.recording.path.relative_to(root)): str(p.alignment.path.relative_to(root)) for p in paired.pairs}
    return by_name, [line.replace(f"{root}/", "") for line in (*found.problems, *paired.problems)]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["ä b.wav", "ä b.TextGrid"], {"ä b.wav": "ä b.TextGrid"}),
        (["wavs/a\u0308/u\u0308.wav", "grids/ä/ü.TextGrid"], {"wavs/a\u0308/u\u0308.wav": "grids/ä/ü.TextGrid"}),
        (["x.FLAC", "x.phn", "x.txt", "x.lab"], {"x.FLAC": "x.phn"}),
        (["x.WAV.wav", "x.PHN"], {"x.WAV.wav": "x.PHN"}),
        (["wavs/a/1.wav", "grids/a/1.TextGrid"], {"wavs/a/1.wav": "grids/a/1.TextGrid"}),
        (
            ["wavs/a/1.wav", "wavs/b/1.wav", "grids/a/1.TextGrid", "grids/b/1.TextGrid"],
            {"wavs/a/1.wav": "grids/a/1.TextGrid", "wavs/b/1.wav": "grids/b/1.TextGrid"},
        ),
        (
            ["train/wav/1.wav", "dev/wav/1.wav", "train/tg/1.TextGrid", "dev/tg/1.TextGrid"],
            {"train/wav/1.wav": "train/tg/1.TextGrid", "dev/wav/1.wav": "dev/tg/1.TextGrid"},
        ),
        (
            ["L/dev/84/121/84-1.flac", "L/dev/85/1/85-1.flac", "tg/84/121/84-1.TextGrid", "tg/85/1/85-1.TextGrid"],
            {
                "L/dev/84/121/84-1.flac": "tg/84/121/84-1.TextGrid",
                "L/dev/85/1/85-1.flac": "tg/85/1/85-1.TextGrid",
            },
        ),
        (["a/1.wav", "b/2.wav", "1.TextGrid", "2.TextGrid"], {"a/1.wav": "1.TextGrid", "b/2.wav": "2.TextGrid"}),
        ([".hidden/x.wav", "._x.wav", "x.wav", "x.phn"], {"x.wav": "x.phn"}),
    ],
)
def test_pairs(tmp_path: Path, names: list[str], expected: dict[str, str]) -> None:
    assert paired(touch(tmp_path, *names)) == (expected, [])


@pytest.mark.parametrize(
    ("names", "problem"),
    [
        (["x.wav", "y.wav", "y.phn"], "x.wav: has no alignment; align it, or remove it"),
        (["x.phn", "y.wav", "y.phn"], "x.phn: has no recording; add it, or remove the alignment"),
        (
            ["y.wav", "y.phn", "x.wav", "x.flac", "x.phn"],
            "x.flac and x.wav: two recordings of one name; keep one of them",
        ),
        (
            ["wav/x.wav", "flac/x.flac", "x.phn", "y.wav", "y.phn"],
            "flac/x.flac and wav/x.wav: two recordings of one name",
        ),
        (["x.wav", "a/x.phn", "b/x.phn", "y.wav", "y.phn"], "x.wav: a/x.phn and b/x.phn may both be its alignment"),
        (["w/a/1.wav", "w/b/2.wav", "t/c/1.phn", "t/b/2.phn"], "w/a/1.wav: has no alignment"),
    ],
)
def test_what_is_alone_or_ambiguous_is_named(tmp_path: Path, names: list[str], problem: str) -> None:
    touch(tmp_path, *names)
    for path in tmp_path.rglob("*.wav"):  # of a file that is no recording, this is said
        soundfile.write(path, np.zeros(8), 16_000)
    pairs, problems = paired(tmp_path)
    assert len(pairs) == 1
    assert problems[0].startswith(problem)


def test_further_alignments_that_are_not_used_are_told(tmp_path: Path) -> None:
    """A transcript beside a recording is none."""
    names = ["a/x", "a/y", "b/z"]
    touch(tmp_path, *(f"{name}{suffix}" for name in names for suffix in (".wav", ".TextGrid", ".lab")), "a/x.phn")
    for name in names:
        (tmp_path / f"{name}.lab").write_text("the words")
    (tmp_path / "b" / "all.ctm").write_text("y 1 0 0.5 AH\nz 1 0 0.5 AH\n")
    assert [line.replace(f"{tmp_path}/", "") for line in pair(search(tmp_path)).remarks] == [
        "a/x.phn: is not used, since a/x.TextGrid aligns the recording too; to use it, move the other away",
        "b/all.ctm: is not used, since a/y.TextGrid aligns the recording too; to use it, move the other away",
    ]
    for name in names:
        (tmp_path / f"{name}.lab").write_text("0 5000000 AH")
    (tmp_path / "a" / "x.phn").unlink()
    (tmp_path / "b" / "all.ctm").unlink()
    (line,) = pair(search(tmp_path)).remarks
    assert "a/x.lab: is not used, nor are 2 more .lab files, since" in line


def test_compressed_sphere_is_refused_and_converted_copies_are_taken(tmp_path: Path) -> None:
    touch(tmp_path, "SA1.PHN", "SA2.PHN", "SA2.WAV.wav", "SA3.PHN")
    for name, coding in (("SA1", b"pcm,embedded-shorten-v2.00"), ("SA2", b"pcm"), ("SA3", b"pcm")):
        (tmp_path / f"{name}.WAV").write_bytes(b"NIST_1A\n   1024\nsample_coding -s26 " + coding)
    pairs, problems = paired(tmp_path)
    assert pairs == {"SA2.WAV.wav": "SA2.PHN", "SA3.WAV": "SA3.PHN"}
    assert problems[0] == "SA1.WAV: is compressed NIST SPHERE; convert it: sph2pipe -f wav IN OUT"


def test_texts_beside_label_tracks_need_no_recording(tmp_path: Path) -> None:
    touch(tmp_path, "x.wav")
    (tmp_path / "x.txt").write_text("0\t1\tAH\n")
    (tmp_path / "README.txt").write_text("Recorded in a kitchen.\n")
    (tmp_path / "y.txt").write_text("0\t1\tAH\n")
    assert paired(tmp_path) == ({"x.wav": "x.txt"}, ["y.txt: has no recording; add it, or remove the alignment"])


def test_ctm_files_list_recordings(tmp_path: Path) -> None:
    touch(tmp_path, "a/x.wav", "b/u\u0308.wav")
    (tmp_path / "all.ctm").write_text("x 1 0 1 AH\nz 1 0 1 AH\nü 1 0 1 B\n", encoding="utf-8")
    pairs, problems = paired(tmp_path)
    assert pairs == {"a/x.wav": "all.ctm", "b/u\u0308.wav": "all.ctm"}
    assert problems == ["all.ctm: z: has no recording; add it, or remove its lines"]


def test_links_that_lead_in_circles_end(tmp_path: Path) -> None:
    touch(tmp_path, "a/x.wav", "a/x.phn")
    (tmp_path / "a" / "again").symlink_to(tmp_path)
    assert paired(tmp_path) == ({"a/x.wav": "a/x.phn"}, [])


@pytest.mark.parametrize("name", ["nothing", "file"])
def test_folders_that_are_none(tmp_path: Path, name: str) -> None:
    touch(tmp_path, "file")
    with pytest.raises(DataError, match="give a folder of recordings and alignments"):
        search(tmp_path / name)
