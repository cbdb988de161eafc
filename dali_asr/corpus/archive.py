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
from functools import partial
from typing import IO, TYPE_CHECKING, Any

from isal import igzip
from isal.igzip_lib import IsalError

from dali_asr.corpus.members import Kind, Member
from dali_asr.corpus.regular import open_regular, reading
from dali_asr.corpus.tar import tar_members
from dali_asr.errors import DataError, printable

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_HEAD = 512  # bytes that tell what a file is
_FAULTS: Any = (
    *(EOFError, OSError, RuntimeError, IsalError),
    *(lzma.LZMAError, zlib.error, tarfile.TarError, zipfile.BadZipFile),
)
_UNIX, _TYPE, _REGULAR = 3, 0o170000, 0o100000  # of a zip member's system and mode


def is_archive(path: Path) -> bool:
    """Return whether a path is a file that opens like an archive.

    Raises:
        DataError: the file cannot be read.
    """
    with reading(path):
        if not path.is_file():
            return False
    with open_regular(path) as file, open(file, "rb", closefd=False) as stream:
        return _kind(stream.read(_HEAD)) is not None


def read_members(path: Path) -> Iterator[Member]:
    """Yield the members of an archive.

    Raises:
        DataError: the file is no archive, cannot be read, is damaged or truncated, or needs a library that is missing.
    """
    with open_regular(path) as file, open(file, "rb", closefd=False) as stream:
        kind = _kind(stream.read(_HEAD))
        stream.seek(0)
        last = ""
        members = _zip_members(stream) if kind == "zip" else tar_members(_decompressed(path, kind, stream))
        while True:
            with _damage(path, last):
                member = next(members, None)
            if member is None:
                return
            last = member.name
            yield Member(last, member.kind, member.size, stream.tell(), partial(_read, path, member))


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
