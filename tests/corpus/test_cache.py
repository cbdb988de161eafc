"""The cache of packed course folders: found again, packed once, repaired."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from dali_asr import Corpus
from dali_asr.corpus import PackSettings, cache, pack_course, verify
from dali_asr.errors import DataError
from tests.makers import make_course, make_features, make_transcript


def flip(path: Path) -> None:
    """Flip a bit in the middle of a file, and keep its size and time of change."""
    stamp = path.stat()
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)
    os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))


def test_a_course_folder_is_packed_once_and_found_again(course: Path) -> None:
    first = Corpus.open(course).path
    assert first is not None
    stamp = (first / "corpus.json").stat().st_mtime_ns
    assert Corpus.open(course).path == first
    assert (first / "corpus.json").stat().st_mtime_ns == stamp
    assert Corpus.open(course, PackSettings(dtype="float16")).path != first
    assert Corpus.open(course, PackSettings(partitions=("dev",))).path != first
    np.save(course / "train/mfcc/u00.npy", make_features(7, seed=99))
    assert Corpus.open(course).path != first
    (course / "test/transcript").mkdir()
    for name, frames in (("u00", 5), ("u01", 6)):
        np.save(course / "test/transcript" / f"{name}.npy", make_transcript(frames))
    assert Corpus.open(course).partition("test").labels() is not None


def test_an_utterance_that_moves_to_the_next_partition_is_packed_anew(tmp_path: Path) -> None:
    make_course(tmp_path / "c", {"a": [7, 8], "b": [9, 5]})
    for folder in ("mfcc", "transcript"):
        (tmp_path / f"c/b/{folder}/u00.npy").unlink()
        (tmp_path / f"c/b/{folder}/u01.npy").rename(tmp_path / f"c/b/{folder}/u02.npy")
    assert [len(p.utterances) for p in Corpus.open(tmp_path / "c").partitions.values()] == [2, 1]
    for folder in ("mfcc", "transcript"):
        (tmp_path / f"c/a/{folder}/u01.npy").rename(tmp_path / f"c/b/{folder}/u01.npy")
    assert [len(p.utterances) for p in Corpus.open(tmp_path / "c").partitions.values()] == [1, 2]


def test_a_damaged_cache_is_repaired(course: Path) -> None:
    packed = Corpus.open(course).path
    assert packed is not None
    for damage in (
        lambda: (packed / "labels.npy").write_bytes(b""),
        lambda: (packed / "corpus.json").write_text("{"),
        lambda: (packed / "corpus.json").unlink(),
        lambda: flip(packed / "offsets.npy"),
        lambda: flip(packed / "checksums.npy"),
        lambda: flip(packed / "corpus.json"),
    ):
        damage()
        assert Corpus.open(course).path == packed
        verify(packed)


def test_a_cache_that_cannot_be_written_is_one_line(
    course: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(DataError, match=r"Not a directory while writing; set DALI_ASR_CACHE to another folder"):
        Corpus.open(course)


def test_processes_that_find_the_cache_damaged_repair_it_once(course: Path) -> None:
    packed = Corpus.open(course).path
    assert packed is not None
    flip(packed / "offsets.npy")
    code = (
        "import sys\n"
        "from dali_asr.corpus import Corpus, cache\n"
        "pack = cache.pack_course\n"
        "def counted(*a, **k): print('packed', flush=True); pack(*a, **k)\n"
        "cache.pack_course = counted\n"
        "sys.stdin.read(1)\n"
        "assert Corpus.open(sys.argv[1]).partition('train').labels() is not None\n"
    )
    command = [sys.executable, "-c", code, str(course)]
    ranks = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    for rank in ranks:
        assert rank.stdin
        rank.stdin.write("x")
        rank.stdin.flush()
    printed = [rank.communicate(timeout=60)[0] for rank in ranks]
    assert [rank.returncode for rank in ranks] == [0, 0, 0]
    assert "".join(printed) == "packed\n"
    verify(packed)


def test_damage_that_another_process_repaired_is_not_packed_again(
    course: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other process repairs the cache while this one waits for the lock."""
    packed = Corpus.open(course).path
    assert packed is not None
    content = (packed / "offsets.npy").read_bytes()
    flip(packed / "offsets.npy")

    def other_process(folder: Path) -> None:
        (packed / "offsets.npy").write_bytes(content)

    monkeypatch.setattr("dali_asr.corpus.cache.sweep", other_process)
    monkeypatch.setattr(cache, "pack_course", lambda *_, **__: pytest.fail("packed again"))
    assert Corpus.open(course).path == packed


def test_drafts_of_killed_processes_are_swept(course: Path) -> None:
    packed = Corpus.open(course).path
    assert packed is not None
    draft = packed.parent / ".abc.01234567.partial"
    draft.mkdir()
    (draft / "frames.npy").write_bytes(b"x" * 1000)
    (packed.parent / ".download.partial").write_bytes(b"of another program")
    Corpus.open(course, PackSettings(dtype="float16"))
    assert not draft.exists()
    assert (packed.parent / ".download.partial").exists()


def test_a_cached_corpus_is_told_from_one_that_would_be_packed(course: Path) -> None:
    settings = PackSettings(("train", "dev"), "global", ("train",))
    assert not cache.is_cached(course, settings)
    Corpus.open(course, settings)
    assert cache.is_cached(course, settings)
    assert not cache.is_cached(course, PackSettings(("train",), "global", ("train",)))
    os.utime(course / "dev/mfcc/u00.npy")
    assert not cache.is_cached(course, settings)


def test_a_version_1_corpus_is_refused(course: Path, tmp_path: Path) -> None:
    pack_course(course, tmp_path / "p")
    manifest = tmp_path / "p/corpus.json"
    manifest.write_bytes(manifest.read_bytes().replace(b'"version": 2', b'"version": 1'))
    with pytest.raises(
        DataError, match=r"corpus\.json: packed format 1, this .* reads format 2; pack the corpus again"
    ):
        Corpus.open(tmp_path / "p")
