"""Reading archives member by member, in the order in which they lie there: tar, plain or compressed, and zip.

Checksums are verified to the end of the file, so that an archive that is damaged or was cut off is an error even where
its members look whole. Names are as the archive has them: `check_member` is for those that are to be written.
"""

from __future__ import annotations

import bz2
import io
import lzma
import re
import stat
import tarfile
import zipfile
import zlib
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from isal import igzip
from isal.igzip_lib import IsalError

from dali_asr.errors import ArchiveError, UsageError, printable
from dali_asr.fetching.tar import FILE, FOLDER, Entry, tar_entries

if TYPE_CHECKING:
    from collections.abc import Iterator

_MAGIC = {b"\x1f\x8b": "gz", b"BZh": "bz2", b"\xfd7zXZ\0": "xz", b"\x28\xb5\x2f\xfd": "zst", b"PK": "zip"}
_TAR_MAGIC, _TAR_MAGIC_AT = b"ustar", 257
_PAGE = re.compile(rb"\s*<(!doctype html|html)", re.IGNORECASE)
_HEAD = 1024  # bytes that tell what a file is
_MAX_NAME, _MAX_PATH = 255, 1024  # bytes; names of files have at most 255 in ext4 and XFS
_ZST_PIECE = 4096  # compressed bytes at a time; each may become 32 times 128 KiB
_BUFFER = 1 << 18
_DAMAGES: Any = (
    *(EOFError, OSError, ValueError, OverflowError, RecursionError, IsalError),
    *(lzma.LZMAError, zlib.error, tarfile.TarError, zipfile.BadZipFile),
)
_ZIP_KINDS = {0: FILE, stat.S_IFREG: FILE, stat.S_IFDIR: FOLDER, stat.S_IFLNK: "a symbolic link"}
_ZIP_KINDS |= {stat.S_IFIFO: "a pipe"}
_MAKE_ANEW = "unpack it by other means if you trust it, and give the folder"


@dataclass(frozen=True)
class Member:
    """A member of an archive.

    Attributes:
        name: its path in the archive.
        kind: `file`, `folder`, or what else it is, such as `a symbolic link`.
        size: of its content in bytes, as the archive says.
        position: bytes of the archive that were read so far.
    """

    name: str
    kind: str
    size: int
    position: int
    _entry: Entry
    _archive: str

    def read(self, size: int = -1) -> bytes:
        """Return up to `size` bytes of the content, or all that is left; until the next member is asked for.

        Raises:
            ArchiveError: the archive is damaged or was cut off.
        """
        with _reading(self._archive, self.name):
            return self._entry.content.read(size)


def archive_kind(head: bytes) -> str | None:
    """Return `gz`, `bz2`, `xz`, `zst`, `zip` or `tar`, by the first 512 bytes of a file; None for other files."""
    if head[_TAR_MAGIC_AT:].startswith(_TAR_MAGIC):
        return "tar"
    return next((kind for magic, kind in _MAGIC.items() if head.startswith(magic)), None)


def archive_members(file: BinaryIO, shown: str) -> Iterator[Member]:
    """Yield the members of an archive; some archives leave out folders.

    Args:
        file: the archive.
        shown: its name in messages.

    Raises:
        ArchiveError: the file is no archive, is damaged, cut off or encrypted.
        UsageError: a package that its compression needs is not installed.
    """
    head = file.read(_HEAD)
    kind = archive_kind(head)
    if kind is None:
        raise _no_archive(head, shown)
    file.seek(0)
    last = ""
    entries = _zip_entries(file, shown) if kind == "zip" else tar_entries(_decompressed(file, kind, shown))
    while True:
        with _reading(shown, last):
            entry = next(entries, None)
        if entry is None:
            return
        last = entry.name
        yield Member(last, entry.kind, entry.size, file.tell(), entry, shown)


def check_member(member: Member, shown: str) -> PurePosixPath:
    """Return the path that a member is to be written to.

    Raises:
        ArchiveError: it is no regular file or folder, or its name is not harmless.
    """
    if member.kind not in (FILE, FOLDER):
        raise ArchiveError(
            f"{shown}: the member {member.name[:80]!r} is {member.kind}, and only files and folders are unpacked; "
            f"nothing was unpacked: {_MAKE_ANEW}"
        )
    return check_name(member.name, shown)


def check_name(name: str, shown: str) -> PurePosixPath:
    """Return the path that a member's name means.

    Raises:
        ArchiveError: it is not harmless: it could leave the folder, or cannot be printed.
    """
    path = PurePosixPath(name)
    if not name.isprintable():
        problem = "is not UTF-8 or has control characters"
    elif name.startswith("/") or ".." in path.parts:
        problem = "leads out of the folder"
    elif "\\" in name or re.match(r"[A-Za-z]:", name):
        problem = "is one of another system, with a backslash or a drive letter"
    elif len(name.encode()) > _MAX_PATH or any(len(part.encode()) > _MAX_NAME for part in path.parts):
        problem = "is too long"
    else:
        return path
    raise ArchiveError(f"{shown}: the member {name[:80]!r} {problem}; nothing was unpacked: {_MAKE_ANEW}")


def is_junk(path: PurePosixPath) -> bool:
    """Return whether a member holds what macOS adds to archives."""
    return "__MACOSX" in path.parts or path.name.startswith("._") or path.name == ".DS_Store"


@contextmanager
def _reading(shown: str, member: str) -> Iterator[None]:
    """Turn what the libraries raise into one line that names the archive, and the member that was read last."""
    try:
        yield
    except _DAMAGES as error:
        place = f" at {printable(member)[:80]}" if member else ""
        reason = printable(" ".join(str(error).split()))[:120] or type(error).__name__
        raise ArchiveError(f"{shown}: damaged or cut off{place} ({reason}); fetch it again") from error
    except RuntimeError as error:  # of zipfile
        raise ArchiveError(f"{shown}: cannot be read ({error}); {_MAKE_ANEW}") from error


def _no_archive(head: bytes, shown: str) -> ArchiveError:
    if _PAGE.match(head):
        return ArchiveError(
            f"{shown}: is a web page (HTML), perhaps a login, and not an archive; "
            "download the file with a browser and give its path"
        )
    return ArchiveError(
        f"{shown}: is not an archive; give a .zip, .tar, .tar.gz, .tar.bz2, .tar.xz or .tar.zst file, or a folder"
    )


def _zip_entries(file: BinaryIO, shown: str) -> Iterator[Entry]:
    with zipfile.ZipFile(file) as archive:
        for info in sorted(archive.infolist(), key=lambda info: info.header_offset):
            if info.flag_bits & 1:
                raise ArchiveError(
                    f"{shown}: the member {info.filename[:80]!r} is encrypted; unpack it with its password, "
                    "and give the folder"
                )
            form = _ZIP_KINDS.get(stat.S_IFMT(info.external_attr >> 16), "a device")
            kind = FOLDER if info.is_dir() and form == FILE else form
            with archive.open(info) as content:
                yield Entry(info.orig_filename, kind, info.file_size, content)


def _decompressed(file: BinaryIO, kind: str, shown: str) -> BinaryIO:
    if kind == "gz":  # by a library that takes two thirds of the time of the standard one
        return cast("BinaryIO", igzip.IGzipFile(fileobj=file))
    if kind == "bz2":
        return cast("BinaryIO", bz2.BZ2File(file))
    if kind == "xz":
        return cast("BinaryIO", lzma.LZMAFile(file))
    return cast("BinaryIO", io.BufferedReader(_Zstandard(file, shown), _BUFFER)) if kind == "zst" else file


class _Zstandard(io.RawIOBase):
    """A reader of zstandard frames that notices a cut, which `zstandard.stream_reader` does not."""

    def __init__(self, file: BinaryIO, shown: str) -> None:
        try:
            from zstandard import ZstdDecompressor, ZstdError
        except ImportError as error:
            raise UsageError(f"{shown}: .zst needs zstandard; pip install 'dali-asr[zstd]'") from error
        self._file, self._error = file, ZstdError
        self._decompressor = ZstdDecompressor()
        self._frame: Any = None
        self._ready, self._at = b"", 0

    def readable(self) -> bool:
        """Return that it is."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer as far as data is ready; return the number of bytes, 0 at the end."""
        while self._at == len(self._ready):
            piece = self._file.read(_ZST_PIECE)
            if not piece:
                if self._frame is not None:
                    raise EOFError("the last frame is not complete")
                return 0
            self._ready, self._at = self._decompress(piece), 0
        data = self._ready[self._at : self._at + len(buffer)]
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)

    def _decompress(self, piece: bytes) -> bytes:
        parts = []
        try:
            while piece:
                if self._frame is None:
                    self._frame = self._decompressor.decompressobj()
                parts.append(self._frame.decompress(piece))
                piece = self._frame.unused_data if self._frame.eof else b""
                if self._frame.eof:
                    self._frame = None
        except self._error as error:
            raise EOFError(str(error)) from error
        return b"".join(parts)
