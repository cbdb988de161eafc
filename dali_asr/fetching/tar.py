"""Reading tar files as streams, in the formats of POSIX.1-2001 and GNU.

The library's own reader takes a damaged or missing header for the end of an archive, and costs half as much time as
decompressing. A header is described in pax(1): https://pubs.opengroup.org/onlinepubs/9799919799/utilities/pax.html
"""

from __future__ import annotations

import tarfile
from typing import TYPE_CHECKING, BinaryIO, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator

_BLOCK = 512  # bytes
_BUFFER = 1 << 20  # bytes that are skipped at once
_LARGE = 64 << 20  # bytes that are read at once at most
_SPARSE = "a sparse file"
_MAX_HEADER = 1 << 20  # bytes of an extended header
_EXTENDED = (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK)
FILE, FOLDER = "file", "folder"
_KINDS = dict.fromkeys((tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE), FILE) | {
    tarfile.DIRTYPE: FOLDER,
    tarfile.SYMTYPE: "a symbolic link",
    tarfile.LNKTYPE: "a hard link",
    tarfile.FIFOTYPE: "a pipe",
    tarfile.CHRTYPE: "a device",
    tarfile.BLKTYPE: "a device",
    tarfile.GNUTYPE_SPARSE: _SPARSE,
}
_EMPTY = (tarfile.LNKTYPE, tarfile.SYMTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE)


class Content(Protocol):
    """The content of a member."""

    def read(self, size: int = -1, /) -> bytes:
        """Return up to `size` bytes, or all that is left."""


class Entry(NamedTuple):
    """A member as it stands in an archive.

    Attributes:
        name: its path.
        kind: `file`, `folder`, or what else it is, such as `a symbolic link`.
        size: of its content in bytes, as the archive says.
        content: to be read before the next member.
    """

    name: str
    kind: str
    size: int
    content: Content


def tar_entries(plain: BinaryIO) -> Iterator[Entry]:
    """Yield the members of a tar file, and read it to its end.

    Args:
        plain: the file, decompressed.

    Raises:
        EOFError: it is truncated.
        tarfile.TarError: a header is damaged.
    """
    named: dict[str, str] = {}  # by the headers before a member that are about it
    while (block := _exactly(plain, _BLOCK)) != bytes(_BLOCK):
        name, size, what = _header(block)
        if what in _EXTENDED:
            if size > _MAX_HEADER:
                raise tarfile.ReadError(f"an extended header of {size:,} bytes")
            named |= _extended(what, _exactly(plain, _padded(size))[:size])
            continue
        name, size = named.get("path", name), int(named.get("size", size))
        content = _Content(plain, 0 if what in _EMPTY else size)
        kind = _KINDS.get(what, "no regular file")
        if what == tarfile.AREGTYPE and name.endswith("/"):  # before POSIX
            kind = FOLDER
        yield Entry(name, _SPARSE if "sparse" in named else kind, size, content)
        content.skip()
        named = {}
    if named:
        raise tarfile.ReadError("a header is of no member")
    while plain.read(_BUFFER):  # to the checksum at the end
        pass


def _header(block: bytes) -> tuple[str, int, bytes]:
    """Return name, size and type of a member.

    Raises:
        tarfile.ReadError: the header is damaged.
    """
    if _number(block[148:156]) != sum(block) - sum(block[148:156]) + 8 * ord(" "):
        raise tarfile.ReadError("the checksum of a header is wrong")
    name = _text(block[:100])
    if block[257:263] == b"ustar\0" and block[345]:
        name = f"{_text(block[345:500])}/{name}"
    return name, _number(block[124:136]), block[156:157]


def _number(digits: bytes) -> int:
    """Return a number in octal digits, or in bytes after a first bit that is set."""
    if digits[0] == 0x80:
        return int.from_bytes(digits[1:], "big")
    try:
        return int(digits.strip(b" \0") or b"0", 8)
    except ValueError as error:
        raise tarfile.ReadError("a header is damaged") from error


def _text(content: bytes) -> str:
    return content.partition(b"\0")[0].decode("utf-8", "surrogateescape")


class _Content:
    """The content of a member that a tar stream has come to."""

    def __init__(self, stream: BinaryIO, size: int) -> None:
        self._stream, self._left, self._padding = stream, size, _padded(size) - size

    def read(self, size: int = -1) -> bytes:
        content = _exactly(self._stream, self._left if size < 0 else min(size, self._left))
        self._left -= len(content)
        return content

    def skip(self) -> None:
        while self.read(_BUFFER):
            pass
        _exactly(self._stream, self._padding)


def _extended(kind: bytes, content: bytes) -> dict[str, str]:
    """Return the name and the size that an extended header gives to the next member, and whether that is sparse.

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
    found = {key: values[key] for key in ("path", "size") if key in values}
    return found | ({"sparse": ""} if any(key.startswith("GNU.sparse.") for key in values) else {})


def _exactly(stream: BinaryIO, size: int) -> bytes:
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
