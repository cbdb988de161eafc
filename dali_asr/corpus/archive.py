"""Reading archives member by member, in the order in which they lie there; nothing is written under their names.

`.tar`, also compressed by gzip, bzip2, xz or Zstandard, and `.zip`; told by their first bytes. Checksums of the
container are verified to its end, so that a damaged or truncated archive is an error even where its arrays look whole.
"""

from __future__ import annotations

import bz2
import lzma
import tarfile
import zipfile
import zlib
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import IO, TYPE_CHECKING, Any, Literal

from isal import igzip
from isal.igzip_lib import IsalError

from dali_asr.corpus.regular import open_regular
from dali_asr.errors import DataError, printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

_BUFFER = 1 << 20  # bytes read at once
_BLOCK = 512  # bytes; of a tar file
_LARGE = 64 << 20  # bytes that are read at once at most
_MAX_HEADER = 1 << 20  # bytes of an extended header
_FAULTS: Any = (
    *(EOFError, OSError, RuntimeError, IsalError),
    *(lzma.LZMAError, zlib.error, tarfile.TarError, zipfile.BadZipFile),
)
_WITHOUT_CONTENT = (
    tarfile.LNKTYPE,
    tarfile.SYMTYPE,
    tarfile.CHRTYPE,
    tarfile.BLKTYPE,
    tarfile.DIRTYPE,
    tarfile.FIFOTYPE,
)
_UNIX, _TYPE, _REGULAR = 3, 0o170000, 0o100000  # of a zip member's system and mode


Kind = Literal["file", "folder", "other"]


@dataclass(frozen=True)
class Member:
    """A member of an archive.

    Attributes:
        name: its path in the archive.
        kind: whether it is a regular file, a folder, or another thing: a link, a device, a sparse file.
        size: of its content in bytes.
        position: bytes of the archive that were read so far.
        read: returns its content; only until the next member is asked for.
    """

    name: str
    kind: Kind
    size: int
    position: int
    read: Callable[[], bytes]


def is_archive(path: Path) -> bool:
    """Return whether a path is a file that opens like an archive.

    Raises:
        DataError: the file cannot be read.
    """
    if not path.is_file():
        return False
    with open_regular(path) as file, open(file, "rb", closefd=False) as stream:
        return _kind(stream.read(_BLOCK)) is not None


def read_members(path: Path) -> Iterator[Member]:
    """Yield the members of an archive.

    Raises:
        DataError: the file is no archive, cannot be read, is damaged or truncated, or needs a library that is missing.
    """
    with open_regular(path) as file, open(file, "rb", closefd=False) as stream:
        kind = _kind(stream.read(_BLOCK))
        stream.seek(0)
        last = ""
        members = _zip_members(stream) if kind == "zip" else _tar_members(path, kind, stream)
        while True:
            with _damage(path, last):
                member = next(members, None)
            if member is None:
                return
            last = member.name
            yield replace(member, position=stream.tell(), read=partial(_read, path, member))


def _read(path: Path, member: Member) -> bytes:
    with _damage(path, member.name):
        return member.read()


@contextmanager
def _damage(path: Path, member: str) -> Iterator[None]:
    """Turn what the libraries raise into one line that names the archive and the member."""
    try:
        yield
    except DataError:
        raise
    except Exception as error:
        if not (isinstance(error, _FAULTS) or _is_zstd(error)):
            raise
        place = f" at {printable(member)}" if member else ""
        reason = " ".join(str(error).split()) or "it is truncated"
        raise DataError(f"{path}: damaged{place} ({printable(reason)}); fetch the archive again") from error


def _kind(head: bytes) -> str | None:
    """Return `zip`, or how a tar is compressed: `tar` for not at all; None if it is no archive."""
    for magic, kind in (
        (b"PK\x03\x04", "zip"),
        (b"\x1f\x8b", "gzip"),
        (b"BZh", "bzip2"),
        (b"\xfd7zXZ\0", "xz"),
        (b"\x28\xb5\x2f\xfd", "zstd"),
    ):
        if head.startswith(magic):
            return kind
    return "tar" if head[257:262] == b"ustar" else None


def _zip_members(stream: IO[bytes]) -> Iterator[Member]:
    with zipfile.ZipFile(stream) as archive:
        for info in sorted(archive.infolist(), key=lambda info: info.header_offset):
            mode = info.external_attr >> 16 if info.create_system == _UNIX else 0
            kind: Kind = "folder" if info.is_dir() else "file" if mode & _TYPE in (0, _REGULAR) else "other"
            yield Member(info.filename, kind, info.file_size, 0, partial(archive.read, info))


def _tar_members(path: Path, kind: str | None, stream: IO[bytes]) -> Iterator[Member]:
    """Yield the members of a tar file (POSIX.1-2001 and GNU formats).

    `tarfile` takes a damaged or missing header for the end of the archive, and costs as much time as decompressing.
    """
    plain = _decompressed(path, kind, stream)
    named: dict[str, str] = {}  # by the headers before a member that are about it
    while (block := _exactly(plain, _BLOCK)) != bytes(_BLOCK):
        info = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        if info.type in (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK):
            if info.size > _MAX_HEADER:
                raise tarfile.ReadError(f"a header of {info.size} bytes")
            named |= _extended(info.type, _exactly(plain, _padded(info.size))[: info.size])
            continue
        size = int(named.get("size", info.size))
        content = _Content(plain, size, 0 if info.type in _WITHOUT_CONTENT else _padded(size))
        what: Kind = "folder" if info.isdir() else "file" if info.isreg() and not info.issparse() else "other"
        yield Member(named.get("path", info.name), what, size, 0, content.read)
        content.skip()
        named = {}
    while plain.read(_BUFFER):  # to the checksum at the end
        pass


class _Content:
    """The content of a member that a tar stream has come to."""

    def __init__(self, stream: IO[bytes], size: int, left: int) -> None:
        self._stream, self._size, self._left = stream, size, left

    def read(self) -> bytes:
        content = _exactly(self._stream, self._size)
        self._left -= self._size
        return content

    def skip(self) -> None:
        while self._left:
            part = min(self._left, _BUFFER)
            _exactly(self._stream, part)
            self._left -= part


def _extended(kind: bytes, content: bytes) -> dict[str, str]:
    """Return the name and the size that an extended header gives to the next member.

    A record of a POSIX header is `LENGTH KEY=VALUE` and a line feed; LENGTH counts all of its bytes.
    """
    if kind == tarfile.GNUTYPE_LONGNAME:
        return {"path": content.rstrip(b"\0").decode("utf-8", "surrogateescape")}
    values = {}
    while kind == tarfile.XHDTYPE and content:
        length = content.partition(b" ")[0]
        if not length.isdigit() or not len(length) < int(length) <= len(content):
            raise tarfile.ReadError("a header is damaged")
        key, equals, value = (
            content[len(length) + 1 : int(length) - 1].decode("utf-8", "surrogateescape").partition("=")
        )
        if not equals or (key == "size" and not value.isdecimal()):
            raise tarfile.ReadError("a header is damaged")
        values[key] = value
        content = content[int(length) :]
    return {key: values[key] for key in ("path", "size") if key in values}


def _exactly(stream: IO[bytes], size: int) -> bytes:
    """Read a number of bytes; memory is taken as they arrive, whatever a damaged header says.

    Raises:
        EOFError: the stream ends before.
    """
    content = stream.read(min(size, _LARGE))
    if len(content) < size:
        parts, left = [content], size - len(content)
        while left and parts[-1]:
            parts.append(stream.read(min(left, _LARGE)))
            left -= len(parts[-1])
        if left:
            raise EOFError("it is truncated")
        content = b"".join(parts)
    return content


def _padded(size: int) -> int:
    return -(-size // _BLOCK) * _BLOCK


def _decompressed(path: Path, kind: str | None, stream: IO[bytes]) -> IO[bytes]:
    if kind == "gzip":  # by a library that takes two thirds of the time of the standard one
        plain: IO[bytes] = igzip.IGzipFile(fileobj=stream)
        return plain
    if kind == "bzip2":
        return bz2.BZ2File(stream)
    if kind == "xz":
        return lzma.LZMAFile(stream)
    if kind == "zstd":
        return _zstd(path, stream)
    return stream


def _zstd(path: Path, stream: IO[bytes]) -> IO[bytes]:
    try:
        from zstandard import ZstdDecompressor
    except ImportError as error:
        raise DataError(f"{path}: needs a library that is missing: pip install 'dali-asr[zstd]'") from error
    return ZstdDecompressor().stream_reader(stream, read_across_frames=True)


def _is_zstd(error: Exception) -> bool:
    return type(error).__module__.partition(".")[0] == "zstandard" or type(error).__name__ == "ZstdError"
