"""Reading archives member by member: tar, plain or compressed, and zip.

Archives come from strangers, so that nothing in one is believed: a member is a regular file or a folder with a harmless
name, or the archive is refused. An archive that was cut off is refused too, where tarfile would end in silence.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import re
import stat
import tarfile
import zipfile
import zlib
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import IO, TYPE_CHECKING, Any, BinaryIO, cast

from dali_asr.errors import ArchiveError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

_MAGIC = {b"\x1f\x8b": "gz", b"BZh": "bz2", b"\xfd7zXZ\0": "xz", b"\x28\xb5\x2f\xfd": "zst", b"PK": "zip"}
_TAR_MAGIC, _TAR_MAGIC_AT = b"ustar", 257
_PAGE = re.compile(rb"\s*<(!doctype html|html)", re.IGNORECASE)
_MAX_HEADER = 1 << 20  # bytes of a member's extended header
_MAX_NAME, _MAX_PATH = 255, 1024  # bytes; names of files have at most 255 in ext4 and XFS
_BUFFER = 1 << 18
_ZST_PIECE = 4096  # compressed bytes at a time; each may become 32 times 128 KiB
_TAR_TYPES = {tarfile.SYMTYPE: "a symbolic link", tarfile.LNKTYPE: "a hard link", tarfile.FIFOTYPE: "a pipe"}
_TAR_TYPES |= {tarfile.CHRTYPE: "a device", tarfile.BLKTYPE: "a device", tarfile.GNUTYPE_SPARSE: "a sparse file"}
_REGULAR = (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE)
_EXTENDED = (*_REGULAR, tarfile.DIRTYPE, *_TAR_TYPES)  # types whose size is not that of a header
_DAMAGES = (
    *(EOFError, OSError, ValueError, OverflowError, RecursionError),
    *(lzma.LZMAError, zlib.error, tarfile.TarError, zipfile.BadZipFile),
)


@dataclass(frozen=True)
class Member:
    """A file or folder of an archive.

    Attributes:
        name: its path, relative and without `.` and `..`.
        size: in bytes, as the archive says.
        file: its content, to be read before the next member; None for a folder.
    """

    name: PurePosixPath
    size: int
    file: IO[bytes] | None


def archive_kind(path: Path) -> str | None:
    """Return `gz`, `bz2`, `xz`, `zst`, `zip` or `tar`, judged by the first bytes of a file; None for another file."""
    with path.open("rb") as file:
        head = file.read(_TAR_MAGIC_AT + len(_TAR_MAGIC))
    if head[_TAR_MAGIC_AT:] == _TAR_MAGIC:
        return "tar"
    return next((kind for magic, kind in _MAGIC.items() if head.startswith(magic)), None)


@contextmanager
def open_archive(path: Path, shown: str = "") -> Iterator[tuple[Iterator[Member], BinaryIO]]:
    """Open an archive.

    Args:
        path: the file.
        shown: its name in messages; by default the path.

    Yields:
        Its members, in order, and the file, whose position tells how much of it was read. Folders may be left out.

    Raises:
        ArchiveError: the file is no archive, damaged, cut off or encrypted, or has a member that is no regular file or
            folder or whose name is not harmless.
        UsageError: a package that its compression needs is not installed.
    """
    shown = shown or str(path)
    kind = archive_kind(path)
    if kind is None:
        raise _no_archive(path, shown)
    with path.open("rb") as file:
        is_zip = kind == "zip"
        yield _zip_members(file, shown) if is_zip else _tar_members(_decompressed(file, kind, shown), shown), file


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


_MAKE_ANEW = "unpack it by other means if you trust it, and give the folder"


def is_junk(path: PurePosixPath) -> bool:
    """Return whether a member holds what macOS adds to archives."""
    return "__MACOSX" in path.parts or path.name.startswith("._") or path.name == ".DS_Store"


def damaged(shown: str, error: BaseException) -> ArchiveError:
    """Return the error for an archive whose bytes are wrong."""
    reason = " ".join(str(error).split()) or type(error).__name__
    return ArchiveError(
        f"{shown}: damaged or cut off ({reason[:120]}); fetch it again, or ask its owner for a whole one"
    )


@contextmanager
def reading_archive(shown: str) -> Iterator[None]:
    """Turn what the libraries raise for damaged archives into one line."""
    try:
        yield
    except _DAMAGES as error:
        raise damaged(shown, error) from error
    except (NotImplementedError, RuntimeError) as error:  # of zipfile
        raise ArchiveError(f"{shown}: cannot be read ({error}); {_MAKE_ANEW}") from error


def _no_archive(path: Path, shown: str) -> ArchiveError:
    with path.open("rb") as file:
        if _PAGE.match(file.read(1024)):
            return ArchiveError(
                f"{shown}: is a web page (HTML), perhaps a login, and not an archive; "
                "download the file with a browser and give its path"
            )
    return ArchiveError(
        f"{shown}: is not an archive; give a .zip, .tar, .tar.gz, .tar.bz2, .tar.xz or .tar.zst file, or a folder"
    )


def _decompressed(file: BinaryIO, kind: str, shown: str) -> BinaryIO:
    if kind == "zst":
        return cast("BinaryIO", _Zstandard(file, shown))
    opened: dict[str, Callable[[BinaryIO], Any]] = {"gz": gzip.open, "bz2": bz2.open, "xz": lzma.open}
    return cast("BinaryIO", opened[kind](file)) if kind in opened else file


class _Zstandard:
    """A reader of zstandard frames that notices a cut, which `zstandard.stream_reader` does not."""

    def __init__(self, file: BinaryIO, shown: str) -> None:
        try:
            from zstandard import ZstdDecompressor, ZstdError
        except ImportError as error:
            raise UsageError(f"{shown}: .zst needs zstandard; pip install 'dali-asr[zstd]'") from error
        self._file, self._error = file, ZstdError
        self._decompressor = ZstdDecompressor()
        self._frame: Any = None
        self._ready = b""

    def read(self, size: int) -> bytes:
        """Return up to `size` bytes, none at the end."""
        while not self._ready:
            piece = self._file.read(_ZST_PIECE)
            if not piece:
                if self._frame is not None:
                    raise EOFError("the last frame is not complete")
                return b""
            self._ready = self._decompress(piece)
        data, self._ready = self._ready[:size], self._ready[size:]
        return data

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


class _StrictInfo(tarfile.TarInfo):
    """A header that is not skipped in silence when it is damaged or missing, and whose extensions are small."""

    @classmethod
    def fromtarfile(cls, archive: tarfile.TarFile) -> _StrictInfo:
        """Read a header, as the base class does."""
        try:
            return super().fromtarfile(archive)
        except _HEADER_FAULTS as error:
            where = f"the header at {archive.offset:,} is damaged, or the end is missing"
            raise EOFError(where if archive.offset else "it holds no tar archive") from error

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> _StrictInfo:
        """Parse a header, as the base class does."""
        info = super().frombuf(buf, encoding, errors)
        if info.type not in _EXTENDED and info.size > _MAX_HEADER:
            raise EOFError(f"an extended header of {info.size:,} bytes")
        return info


# Those that `TarFile.next` takes for the end of the archive; `EOFHeaderError` is its real end.
_HEADER_FAULTS: tuple[type[Exception], ...] = tuple(
    getattr(tarfile, f"{name}HeaderError") for name in ("Empty", "Truncated", "Invalid", "Subsequent")
)


def _tar_members(file: BinaryIO, shown: str) -> Iterator[Member]:
    with reading_archive(shown), tarfile.open(fileobj=file, mode="r|", tarinfo=_StrictInfo, bufsize=_BUFFER) as archive:
        for info in archive:
            archive.members = []  # type: ignore[attr-defined]  # tarfile would keep them all
            if info.type in _TAR_TYPES or info.type not in (*_REGULAR, tarfile.DIRTYPE):
                raise _special(info.name, _TAR_TYPES.get(info.type, "no regular file"), shown)
            name = check_name(info.name, shown)
            yield Member(name, info.size, None if info.isdir() else archive.extractfile(info))
        while file.read(_BUFFER):  # to the end, where the checksum is
            pass


def _zip_members(file: BinaryIO, shown: str) -> Iterator[Member]:
    with reading_archive(shown), zipfile.ZipFile(file) as archive:
        for info in archive.infolist():
            if info.flag_bits & 1:
                raise ArchiveError(
                    f"{shown}: the member {info.filename[:80]!r} is encrypted; unpack it with its password, "
                    "and give the folder"
                )
            form = stat.S_IFMT(info.external_attr >> 16)
            if form not in (0, stat.S_IFREG, stat.S_IFDIR):
                what = {stat.S_IFLNK: "a symbolic link", stat.S_IFIFO: "a pipe"}.get(form, "a device")
                raise _special(info.filename, what, shown)
            name = check_name(info.orig_filename, shown)
            if info.is_dir():
                yield Member(name, 0, None)
            else:
                with archive.open(info) as content:
                    yield Member(name, info.file_size, content)


def _special(name: str, what: str, shown: str) -> ArchiveError:
    return ArchiveError(
        f"{shown}: the member {name[:80]!r} is {what}, and only files and folders are unpacked; "
        f"nothing was unpacked: {_MAKE_ANEW}"
    )
