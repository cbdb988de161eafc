"""Archives are unpacked whole or not at all, and what is hostile is refused with nothing left behind."""

from __future__ import annotations

import gzip
import io
import os
import stat
import struct
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dali_asr.errors import ArchiveError, DataError, UsageError
from dali_asr.fetching.archives import check_name
from dali_asr.fetching.unpacking import Limits, unpack
from tests.fetching.archives import COMPRESSIONS, FORMATS, archive, header, tar_of, tree, zip_of

FILES = {"a/b.npy": b"\x93NUMPY" + bytes(range(256)) * 900, "a/empty": b"", "c": b"text"}


def unpacked(content: bytes, tmp_path: Path, limits: Limits | None = None) -> Path:
    (tmp_path / "archive").write_bytes(content)
    unpack(tmp_path / "archive", tmp_path / "out", limits or Limits())
    return tmp_path / "out"


def refused(content: bytes, tmp_path: Path, limits: Limits | None = None) -> str:
    """Return the message of an archive that is refused; nothing may be left of it."""
    with pytest.raises(ArchiveError) as error:
        unpacked(content, tmp_path, limits)
    assert {p.name for p in tmp_path.iterdir()} == {"archive"}
    assert "\n" not in str(error.value)
    assert str(error.value).startswith(f"{tmp_path / 'archive'}: ")
    return str(error.value)


@pytest.mark.parametrize("form", FORMATS)
def test_every_format_gives_the_files(form: str, tmp_path: Path) -> None:
    out = unpacked(archive(FILES, form), tmp_path)
    assert tree(out) == FILES
    assert {p.name for p in tmp_path.iterdir()} == {"archive", "out"}


@pytest.mark.parametrize("form", FORMATS)
def test_a_cut_archive_is_refused_wherever_it_is_cut(form: str, tmp_path: Path) -> None:
    content = archive(FILES | {f"n{i}": os.urandom(700) for i in range(3)}, form)
    end = len(content.rstrip(b"\0")) if form == "tar" else len(content) - 1
    for at in sorted({9, *range(512, end, max(512, end // 7 // 512 * 512)), end}):
        message = refused(content[:at], tmp_path)
        assert "damaged or cut off" in message or "is not an archive" in message


def test_a_tar_that_ends_between_members_is_refused(tmp_path: Path) -> None:
    """Which tarfile takes for its end."""
    assert "it is truncated" in refused(tar_of({"a": b"x", "b": b"y"})[: 4 * 512], tmp_path)
    damaged = bytearray(tar_of({"a": b"x", "b": b"y"}))
    damaged[1024] ^= 1
    assert "the checksum of a header is wrong" in refused(bytes(damaged), tmp_path)


def test_wrong_checksums_are_found(tmp_path: Path) -> None:
    content = bytearray(zip_of({"a": b"one"}))
    with zipfile.ZipFile(io.BytesIO(content)) as archived:
        crc = struct.pack("<I", archived.getinfo("a").CRC)
    assert "Bad CRC-32" in refused(bytes(content).replace(crc, b"abcd"), tmp_path)
    packed = gzip.compress(tar_of(FILES))
    assert "CRC check failed" in refused(packed[:-8] + b"abcd" + packed[-4:], tmp_path)


OUTSIDE = [
    "../a",
    "a/../../b",
    "/etc/passwd",
    "a/..",
    "..",
    "C:\\a",
    "c:/a",
    "a\\b",
    "\\\\host\\share",
    "a\x1b[31m",
    "a\nb",
]


@pytest.mark.parametrize("form", ["tar", "zip"])
@pytest.mark.parametrize("name", OUTSIDE)
def test_no_name_leads_out_of_the_folder(name: str, form: str, tmp_path: Path) -> None:
    message = refused(archive({"first": b"1", name: b"2"}, form), tmp_path)
    assert "the member" in message
    assert "give the folder" in message
    assert "\x1b" not in message


@given(st.text(min_size=1, max_size=20), st.text(alphabet="./\\:aC", max_size=9))
def test_a_name_that_is_allowed_stays_inside(first: str, second: str) -> None:
    for name in (first, second, f"{first}/{second}"):
        try:
            path = check_name(name, "archive")
        except ArchiveError:
            continue
        joined = os.path.normpath(os.path.join("/inside", path))  # noqa: PTH118 - another reference
        assert joined == "/inside" or joined.startswith("/inside/")
        assert name.isprintable()


SPECIAL = {
    "a symbolic link": header("link", tarfile.SYMTYPE, "/etc"),
    "a hard link": header("link", tarfile.LNKTYPE, "/etc/passwd"),
    "a pipe": header("pipe", tarfile.FIFOTYPE),
    "a device": header("device", tarfile.CHRTYPE),
    "a sparse file": header("sparse", tarfile.REGTYPE),
    "no regular file": header("volume", b"V"),
}
SPECIAL["a sparse file"].pax_headers = {"GNU.sparse.major": "1"}


@pytest.mark.parametrize("what", SPECIAL)
def test_only_files_and_folders_come_out(what: str, tmp_path: Path) -> None:
    assert f"is {what}, and only files" in refused(tar_of({"a": b"1"}, SPECIAL[what]), tmp_path)


@pytest.mark.parametrize(
    ("mode", "what"), [(stat.S_IFLNK, "a symbolic link"), (stat.S_IFIFO, "a pipe"), (stat.S_IFBLK, "a device")]
)
def test_only_files_and_folders_come_out_of_a_zip(mode: int, what: str, tmp_path: Path) -> None:
    assert f"'x' is {what}" in refused(zip_of({"a": b"1", "x": b"/etc"}, {"x": mode | 0o777}), tmp_path)


def test_a_link_is_not_followed_by_a_later_member(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as tar:
        tar.addfile(header("x", tarfile.SYMTYPE, str(outside)))
        info = tarfile.TarInfo("x/planted")
        info.size = 1
        tar.addfile(info, io.BytesIO(b"!"))
    with pytest.raises(ArchiveError):
        unpacked(content.getvalue(), tmp_path)
    assert not list(outside.iterdir())


def test_permissions_are_plain(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        for number, content in enumerate(
            (
                tar_of({}, header("s", tarfile.REGTYPE, mode=0o6777), header("d", tarfile.DIRTYPE, mode=0o7777)),
                zip_of({"s": b"", "d/": b""}, {"s": stat.S_IFREG | 0o6777, "d/": stat.S_IFDIR | 0o7777}),
            )
        ):
            (tmp_path / str(number)).mkdir()
            out = unpacked(content, tmp_path / str(number))
            assert stat.S_IMODE((out / "s").stat().st_mode) == 0o644
            assert stat.S_IMODE((out / "d").stat().st_mode) == 0o755
    finally:
        os.umask(before)


@pytest.mark.parametrize("form", ["tar", "zip"])
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_no_name_comes_twice(form: str, tmp_path: Path) -> None:
    for other in ("a", "./a", "x/./b", "a/b", "x"):
        files = [("a", b"1"), ("x/b", b"2"), (other, b"3")]
        buffer = io.BytesIO()
        if form == "zip":
            with zipfile.ZipFile(buffer, "w") as archived:
                for name, data in files:
                    archived.writestr(name, data)
        else:
            with tarfile.open(fileobj=buffer, mode="w") as tar:
                for name, data in files:
                    info = tarfile.TarInfo(name)
                    info.size = len(data)
                    tar.addfile(info, io.BytesIO(data))
        assert "is there twice" in refused(buffer.getvalue(), tmp_path)


def test_names_that_differ_in_case_are_different_files(tmp_path: Path) -> None:
    """Where the file system has both."""
    assert tree(unpacked(tar_of({"a": b"1", "A": b"2"}), tmp_path)) == {"a": b"1", "A": b"2"}


def test_limits_hold_and_can_be_raised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    many = tar_of({f"{i}/{i}": b"" for i in range(10)})
    assert "more than 19 files and folders" in refused(many, tmp_path, Limits(files=19))
    large = tar_of({"a": b"x" * 600, "b": b"x" * 600})
    assert "more than 1,199 bytes" in refused(large, tmp_path, Limits(size=1199))
    monkeypatch.setattr("dali_asr.fetching.unpacking._HARMLESS", 1 << 20)
    bomb = gzip.compress(tar_of({"zeros": bytes(2 << 20)}), 9)
    message = refused(bomb, tmp_path, Limits(ratio=100))
    assert "more than 100 times its own size; nothing was unpacked: raise the limit if you trust it" in message
    unpack(tmp_path / "archive", tmp_path / "allowed", Limits(ratio=2000))
    assert (tmp_path / "allowed/zeros").stat().st_size == 2 << 20
    (tmp_path / "some").mkdir()
    unpacked(many, tmp_path / "some", Limits(files=20))


def test_headers_of_endless_size_are_not_read(tmp_path: Path) -> None:
    """They would be held in memory as a whole."""
    info = header("pax", tarfile.XHDTYPE)
    info.size = 1 << 32
    assert "an extended header of 4,294,967,296 bytes" in refused(info.tobuf() + bytes(4096), tmp_path)
    extended = header("pax", tarfile.XHDTYPE)
    extended.size = 11
    nested = (extended.tobuf() + b"11 path=aa\n".ljust(512, b"\0")) * 3000
    assert "damaged or cut off" in refused(nested + bytes(1024), tmp_path)


def test_encrypted_members_are_refused(tmp_path: Path) -> None:
    content = bytearray(zip_of({"a": b"secret"}))
    content[content.index(b"PK\x01\x02") + 8] |= 1
    assert "'a' is encrypted; unpack it with its password, and give the folder" in refused(bytes(content), tmp_path)


def test_names_in_other_encodings(tmp_path: Path) -> None:
    """A zip archive without the flag for UTF-8 is in cp437, as its specification says; a tar archive must be UTF-8."""
    content = zip_of({"Zoe": b"1"}).replace(b"Zoe", b"Zo\x89")
    assert tree(unpacked(content, tmp_path)) == {"Zoë": b"1"}
    latin = tar_of({"Zo\udceb": b"1"})
    (tmp_path / "latin").mkdir()
    assert "is not UTF-8" in refused(latin, tmp_path / "latin")


def test_what_macos_adds_is_left_out(tmp_path: Path) -> None:
    junk = {"__MACOSX/a/._b.npy": b"1", "a/._b.npy": b"2", ".DS_Store": b"3"}
    assert tree(unpacked(archive(junk | FILES, "zip"), tmp_path)) == FILES


NOT_ARCHIVES = [b"", b"text", b"<!doctype HTML><html>", gzip.compress(b"no tar", mtime=0), b"PK\x03\x04"]


@pytest.mark.parametrize("content", NOT_ARCHIVES)
def test_other_files_are_named_as_what_they_are(content: bytes, tmp_path: Path) -> None:
    message = refused(content, tmp_path)
    what = "a web page" if b"html" in content else "damaged" if content[:1] in (b"\x1f", b"P") else "is not an archive"
    assert what in message


def test_a_folder_that_exists_is_kept(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(UsageError, match="out: exists"):
        unpacked(tar_of({}), tmp_path)


def test_zstandard_is_an_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "zstandard", None)
    with pytest.raises(UsageError, match=r"pip install 'dali-asr\[zstd\]'"):
        unpacked(COMPRESSIONS["tar.zst"](tar_of({})), tmp_path)  # type: ignore[operator]


def test_a_full_disk_is_one_line_and_nothing_is_left(tmp_path: Path) -> None:
    if os.geteuid() or os.system(f"mount -t tmpfs -o size=300k none {tmp_path} 2>/dev/null"):
        pytest.skip("a small file system cannot be mounted here")
    try:
        with pytest.raises(DataError, match=r"No space left on device while writing; free some space, or"):
            unpacked(gzip.compress(tar_of({"a": bytes(200_000), "b": bytes(200_000)})), tmp_path)
        assert {p.name for p in tmp_path.iterdir()} == {"archive"}
    finally:
        os.system(f"umount {tmp_path}")
