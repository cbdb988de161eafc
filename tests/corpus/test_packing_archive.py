"""Packing an archive: the bytes of packing the folder, whatever the order of members and wherever it is killed."""

from __future__ import annotations

import errno
import io
import os
import random
import signal
import subprocess
import sys
import tarfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dali_asr import Corpus
from dali_asr.corpus import PackSettings, pack_corpus, storing
from dali_asr.errors import DataError, UsageError
from tests.corpus.archives import KINDS, files_of, make_archive, write_archive
from tests.makers import make_course, make_features


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def settings_of(kind: Any, **more: Any) -> PackSettings:
    return PackSettings(normalization=kind, train=("train", "dev") if kind == "global" else (), **more)


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a course folder whose files differ in dtype and order; its training utterances are more than a chunk."""
    root = tmp_path_factory.mktemp("mixed") / "c"
    make_course(root, {"train": [1 + i % 13 for i in range(70)], "dev": [9, 4], "test": [5, 6]}, unlabelled=("test",))
    for at, dtype in ((3, np.float64), (4, np.float16), (5, ">f4")):
        np.save(root / f"train/mfcc/u{at:02d}.npy", make_features(1 + at, seed=at).astype(dtype))
    np.save(root / "train/mfcc/u06.npy", np.asfortranarray(make_features(7, seed=6)))
    for extra in ("README.md", "train/notes.npy", "__MACOSX/train/mfcc/._u00.npy", "train/mfcc/._u01.npy"):
        (root / extra).parent.mkdir(parents=True, exist_ok=True)
        (root / extra).write_bytes(b"not an array")
    return root


@pytest.mark.parametrize("kind", KINDS)
def test_archives_of_every_kind_give_the_bytes_of_the_folder(mixed: Path, tmp_path: Path, kind: str) -> None:
    archive = make_archive(tmp_path / f"a.{kind}", mixed, top="course/data/")
    pack_corpus(mixed, tmp_path / "folder")
    pack_corpus(archive, tmp_path / "archive")
    assert contents(tmp_path / "archive") == contents(tmp_path / "folder")
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"a.{kind}", "archive", "folder"]


@settings(max_examples=12, deadline=None)
@given(
    st.randoms(use_true_random=False),
    st.sampled_from(["utterance", "global", "none"]),
    st.sampled_from(["float32", "float16"]),
    st.sampled_from([(), ("dev", "train"), ("train", "test", "dev")]),
    st.booleans(),
)
def test_members_may_come_in_any_order(
    mixed: Path,
    tmp_path_factory: Any,
    shuffler: random.Random,
    kind: Any,
    dtype: str,
    partitions: tuple[str, ...],
    in_blocks: bool,
) -> None:
    root = tmp_path_factory.mktemp("order")
    names = files_of(mixed)
    shuffler.shuffle(names)
    archive = make_archive(root / "a.tar", mixed, names)
    chosen = settings_of(kind, dtype=dtype, partitions=partitions)
    with pytest.MonkeyPatch.context() as patch:
        if in_blocks:
            patch.setattr(storing, "LONG", 4)
        pack_corpus(mixed, root / "folder", chosen)
        pack_corpus(archive, root / "archive", chosen)
    assert contents(root / "archive") == contents(root / "folder")


def test_symbols_are_folded_and_nonfinite_values_zeroed(course: Path, tmp_path: Path) -> None:
    transcript = np.load(course / "train/transcript/u01.npy").astype("<U8")
    transcript[1] = "ah0"
    np.save(course / "train/transcript/u01.npy", transcript)
    features = make_features(30)
    features[2, 1] = np.nan
    np.save(course / "train/mfcc/u02.npy", features)
    archive = make_archive(tmp_path / "a.tar", course)
    for kind in ("utterance", "global"):
        chosen = settings_of(kind, fold="arpabet", zero_nonfinite=True)
        pack_corpus(course, tmp_path / f"{kind}-folder", chosen)
        pack_corpus(archive, tmp_path / f"{kind}-archive", chosen)
        assert contents(tmp_path / f"{kind}-archive") == contents(tmp_path / f"{kind}-folder")


def test_an_archive_opens_through_the_cache(course: Path, tmp_path: Path) -> None:
    archive = make_archive(tmp_path / "a.tar.gz", course)
    first = Corpus.open(archive)
    assert [p.name for p in first.partitions.values()] == ["dev", "test", "train"]
    assert Corpus.open(archive).path == first.path
    os.utime(archive, ns=(1, 1))
    assert Corpus.open(archive).path != first.path


Entries = list[tuple[str, bytes]]


def changed(name: str, content: Any) -> Any:
    return lambda entries: [(n, content(c) if n == name else c) for n, c in entries]


def renamed(old: str, new: str) -> Any:
    return lambda entries: [(n.replace(old, new), c) for n, c in entries]


def without(name: str) -> Any:
    return lambda entries: [(n, c) for n, c in entries if not n.startswith(name)]


def saved(array: Any) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


ARRAY, TRANSCRIPT = "train/mfcc/u02.npy", "train/transcript/u02.npy"


@pytest.mark.parametrize("kind", ["utterance", "global"])
@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (without(TRANSCRIPT), "train: 4 mfcc files and 3 transcripts; u02.npy is in mfcc but not in transcript"),
        (without(ARRAY), "train: 3 mfcc files and 4 transcripts; u02.npy is in transcript but not in mfcc"),
        (renamed(TRANSCRIPT, "train/transcript/zz.npy"), "u02.npy is in mfcc but not in transcript"),
        (without("train/mfcc"), "train: has no features"),
        (lambda entries: [("x/y.npy", b"")], r"holds no PARTITION/mfcc/\*\.npy; give an archive of a course folder"),
        (lambda entries: [*entries, (f"./{ARRAY}", b"")], "u02.npy: is in the archive twice"),
        (lambda entries: [*entries, (f"other/{ARRAY}", b"")], r"other/train/mfcc/u02\.npy: a second course folder"),
        (lambda entries: [*entries, (f"../{ARRAY}", b"")], r"\.\./train/mfcc/u02\.npy: leads out of the archive"),
        (lambda entries: [*entries, ("/etc/passwd", b"")], "/etc/passwd: leads out of the archive"),
        (renamed("train/", "tr\x1bain/"), r"partition 'tr\\x1bain': invalid name"),
        (changed(ARRAY, lambda c: b""), f"{ARRAY}: the file is empty"),
        (changed(ARRAY, lambda c: c[:-7]), f"{ARRAY}: truncated, 7 of 600 bytes"),
        (changed(ARRAY, lambda c: saved(np.ones((30, 4)))), f"{ARRAY}: 4 features per frame, 5 in"),
        (changed(ARRAY, lambda c: saved(np.full((30, 5), np.inf))), f"{ARRAY}: inf at frame 0, feature 0"),
        (changed(ARRAY, lambda c: saved(np.ones((29, 5)))), f"{TRANSCRIPT}: holds 32 symbols for 29 frames"),
        (changed(TRANSCRIPT, lambda c: saved(np.array(["AA"] * 32))), f"{TRANSCRIPT}: opens with 'AA'"),
        (changed(TRANSCRIPT, lambda c: saved(np.array(["QQ"] * 32))), f"{TRANSCRIPT}: unknown symbol 'QQ'"),
        (changed(TRANSCRIPT, lambda c: saved(np.zeros((3, 3)))), f"{TRANSCRIPT}: has shape"),
        (changed(TRANSCRIPT, lambda c: c[:-7]), f"{TRANSCRIPT}: truncated"),
        (changed(TRANSCRIPT, lambda c: saved(np.array(["AA"] * 32, object))), f"{TRANSCRIPT}: holds Python objects"),
    ],
)
def test_a_fault_is_one_line_and_leaves_nothing(
    course: Path, tmp_path: Path, fault: Any, message: str, kind: str
) -> None:
    entries: Entries = [(name, (course / name).read_bytes()) for name in files_of(course)]
    archive = write_archive(tmp_path / "a.tar", fault(entries))
    with pytest.raises(DataError, match=message) as error:
        pack_corpus(archive, tmp_path / "p", settings_of(kind))
    assert "\n" not in str(error.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.tar", "course"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_truncated_archive_leaves_nothing(course: Path, tmp_path: Path, kind: str) -> None:
    archive = make_archive(tmp_path / f"a.{kind}", course)
    os.truncate(archive, archive.stat().st_size // 2)
    with pytest.raises(DataError, match=r"a\..*: damaged.*; fetch it again"):
        pack_corpus(archive, tmp_path / "p")
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"a.{kind}", "course"]


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE])
def test_links_and_devices_are_refused(course: Path, tmp_path: Path, kind: bytes) -> None:
    archive = make_archive(tmp_path / "a.tar", course)
    with tarfile.open(archive, "a") as tar:
        info = tarfile.TarInfo("train/mfcc/zz.npy")
        info.type, info.linkname = kind, "u00.npy"
        tar.addfile(info)
    with pytest.raises(DataError, match=r"train/mfcc/zz\.npy: is not a regular file; make the archive again"):
        pack_corpus(archive, tmp_path / "p")
    assert not (tmp_path / "p").exists()


def test_partitions_that_are_not_there_are_refused(course: Path, tmp_path: Path) -> None:
    archive = make_archive(tmp_path / "a.tar", course)
    for wrong, message in (
        (PackSettings(("trian",)), r"a\.tar: no partition 'trian'; it has 'dev', 'test', 'train'; did you mean train"),
        (PackSettings(normalization="global"), "no training partition is named"),
        (settings_of("global", partitions=("test",)), "training partition 'train' is not packed"),
    ):
        with pytest.raises(UsageError, match=message):
            pack_corpus(archive, tmp_path / "p", wrong)
        assert sorted(path.name for path in tmp_path.iterdir()) == ["a.tar", "course"]


def test_a_member_too_large_for_memory_is_refused(
    course: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dali_asr.corpus.packing_archive._MAX_MEMBER", 500)
    with pytest.raises(DataError, match=r"u02\.npy: 728 bytes are too many to hold in memory; unpack the archive"):
        pack_corpus(make_archive(tmp_path / "a.tar", course), tmp_path / "p")


@pytest.mark.parametrize("call", ["pwrite", "copy_file_range"])
def test_a_full_disk_is_one_line_and_leaves_nothing(
    course: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    archive = make_archive(tmp_path / "a.tar", course, files_of(course)[::-1])

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, call, full)
    with pytest.raises(DataError, match="No space left on device while writing; free some"):
        pack_corpus(archive, tmp_path / "p")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.tar", "course"]


def test_systems_that_cannot_copy_within_give_the_same_bytes(
    course: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unsupported(*_: object) -> int:
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))

    archive = make_archive(tmp_path / "a.tar", course, files_of(course)[::-1])
    monkeypatch.setattr(os, "copy_file_range", unsupported)
    pack_corpus(course, tmp_path / "folder")
    pack_corpus(archive, tmp_path / "archive")
    assert contents(tmp_path / "archive") == contents(tmp_path / "folder")


def test_a_fault_ends_the_threads(course: Path, tmp_path: Path) -> None:
    (course / ARRAY).write_bytes(b"")
    before = threading.active_count()
    with pytest.raises(DataError):
        pack_corpus(make_archive(tmp_path / "a.tar", course), tmp_path / "p")
    assert threading.active_count() == before


SLOW = """
import sys, time
from pathlib import Path
from dali_asr.corpus import PackSettings, copying, draft, pack_corpus
write, copy = draft.PackedDraft.write_at, copying._copy
def slow_write(*a): time.sleep(0.002); write(*a)
def slow_copy(*a): time.sleep(0.002); copy(*a)
draft.PackedDraft.write_at, copying._copy = slow_write, slow_copy
print("ready", flush=True)
pack_corpus(Path(sys.argv[1]), Path(sys.argv[2]), PackSettings(normalization=sys.argv[3], train=("train",)))
"""


@pytest.mark.parametrize("number", range(int(os.environ.get("KILLS", "2"))))
def test_a_killed_packing_starts_again_and_ends_with_the_same_bytes(tmp_path: Path, number: int) -> None:
    kind = ("utterance", "global")[number % 2]
    make_course(tmp_path / "c", {"train": [20 + at % 9 for at in range(90)]})
    names = files_of(tmp_path / "c")
    random.Random(number).shuffle(names)
    archive = make_archive(tmp_path / "a.tar.gz", tmp_path / "c", names)
    command = [sys.executable, "-c", SLOW, str(archive), str(tmp_path / "p"), kind]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as child:
        assert child.stdout
        child.stdout.readline()
        time.sleep(random.Random(f"wait {number}").uniform(0.02, 0.9))
        child.send_signal((signal.SIGKILL, signal.SIGTERM, signal.SIGINT)[number % 3])
        child.wait(timeout=20)
    chosen = PackSettings(normalization=kind, train=("train",))  # type: ignore[arg-type]
    pack_corpus(tmp_path / "c", tmp_path / "folder", chosen)
    if (tmp_path / "p").exists():  # it was complete
        assert contents(tmp_path / "p") == contents(tmp_path / "folder")
    pack_corpus(archive, tmp_path / "p", chosen, overwrite=True)
    assert contents(tmp_path / "p") == contents(tmp_path / "folder")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.tar.gz", "c", "folder", "p"]
