"""Reading archives member by member, judged by the libraries that wrote them."""

from __future__ import annotations

import gzip
import io
import os
import tarfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dali_asr.corpus.archive import is_archive, read_members
from dali_asr.errors import DataError, UsageError
from tests.corpus.archives import KINDS, write_archive

ENTRIES = [("a/b.npy", b"x" * 700), ("a/ü.npy", b""), ("c" * 120 + "/" + "d" * 150, b"y" * 512), ("e", b"z")]


def read(path: Path) -> list[tuple[str, str, bytes]]:
    return [(m.name, m.kind, m.read() if m.kind == "file" else b"") for m in read_members(path)]


@pytest.mark.parametrize("kind", KINDS)
def test_members_of_every_kind_are_read(tmp_path: Path, kind: str) -> None:
    path = write_archive(tmp_path / f"a.{kind}", ENTRIES)
    assert is_archive(path)
    assert read(path) == [(name, "file", content) for name, content in ENTRIES]
    assert [m.name for m in read_members(path)] == [name for name, _ in ENTRIES], "also where nothing is read"


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.text("abü/.", min_size=1, max_size=300), st.binary(max_size=1100)), max_size=6),
    st.sampled_from([tarfile.PAX_FORMAT, tarfile.GNU_FORMAT]),
)
def test_a_tar_file_holds_what_the_library_wrote(
    tmp_path_factory: Any, entries: list[tuple[str, bytes]], form: int
) -> None:
    path = tmp_path_factory.mktemp("tar") / "a.tar.gz"
    with tarfile.open(path, "w:gz", format=form, compresslevel=1) as tar:
        for name, content in entries:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    with tarfile.open(path) as tar:
        expected = [(m.name, "file", tar.extractfile(m).read()) for m in tar]  # type: ignore[union-attr]
    found = [(name.rstrip("/"), kind, content) for name, kind, content in read(path)]
    assert found == [(name.rstrip("/"), kind, content) for name, kind, content in expected]


def test_what_is_no_file_is_told_apart(tmp_path: Path) -> None:
    kinds = (tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.REGTYPE)
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for at, kind in enumerate(kinds):
            info = tarfile.TarInfo(f"m{at}")
            info.type, info.linkname = kind, "m9"
            tar.addfile(info)
    expected = ["folder", "a symbolic link", "a hard link", "a pipe", "a device", "file"]
    assert [m.kind for m in read_members(tmp_path / "a.tar")] == expected


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_an_archive_that_was_cut_short_is_an_error(tmp_path_factory: Any, data: st.DataObject) -> None:
    kind = data.draw(st.sampled_from(KINDS))
    path = write_archive(tmp_path_factory.mktemp("cut") / f"a.{kind}", ENTRIES)
    content = path.read_bytes()
    # The zeros after the mark of the end do not belong to the content of a plain tar file.
    end = len(content.rstrip(b"\0")) + 512 if kind == "tar" else len(content)
    path.write_bytes(content[: data.draw(st.integers(600, end - 1) if kind == "tar" else st.integers(30, end - 1))])
    with pytest.raises(DataError, match=r"a\..*: damaged.*; fetch it again") as error:
        read(path)
    assert "\n" not in str(error.value)


def test_a_wrong_checksum_is_an_error_that_names_the_member(tmp_path: Path) -> None:
    path = write_archive(tmp_path / "a.tar.gz", ENTRIES)
    content = bytearray(path.read_bytes())
    content[-6] ^= 1  # of the checksum
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"a\.tar\.gz: damaged or cut off at e \(.*; fetch it again"):
        read(path)
    path = write_archive(tmp_path / "a.zip", [("x.npy", os.urandom(300)), ("y.npy", os.urandom(300))])
    content = bytearray(path.read_bytes())
    content[200] ^= 1  # of the content
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"a\.zip: damaged or cut off at x\.npy \(Bad CRC-32 for file 'x\.npy'\)"):
        read(path)


def test_sizes_that_a_header_lies_about_take_no_memory(tmp_path: Path) -> None:
    for size in (1 << 40, -5):
        info = tarfile.TarInfo("x.npy")
        info.size = size
        (tmp_path / "a.tar").write_bytes(info.tobuf(tarfile.GNU_FORMAT) + b"x" * 2048)
        with pytest.raises(DataError, match=r"a\.tar: damaged"):
            read(tmp_path / "a.tar")


def test_other_files_are_no_archives(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"hello" * 200)
    assert not is_archive(tmp_path / "a")
    assert not is_archive(tmp_path)
    assert not is_archive(tmp_path / "nothing")
    (tmp_path / "b.gz").write_bytes(gzip.compress(b"hello" * 200))
    with pytest.raises(DataError, match=r"b\.gz: damaged or cut off \(.*\); fetch it again"):
        read(tmp_path / "b.gz")


def test_a_missing_library_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_archive(tmp_path / "a.tar.zst", ENTRIES)
    monkeypatch.setitem(__import__("sys").modules, "zstandard", None)
    with pytest.raises(UsageError, match=r"a\.tar\.zst: \.zst needs zstandard; pip install 'dali-asr\[zstd\]'"):
        read(path)
