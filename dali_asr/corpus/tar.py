"""Reading tar files as streams, in the formats of POSIX.1-2001 and GNU.

Of the library's own reader, only the parsing of a header is used: it takes a damaged or missing header for the end of
an archive, and costs half as much time as decompressing.
"""

from __future__ import annotations

import tarfile
from typing import IO, TYPE_CHECKING

from dali_asr.corpus.members import Kind, Member

if TYPE_CHECKING:
    from collections.abc import Iterator

_BLOCK = 512  # bytes
_BUFFER = 1 << 20  # bytes that are skipped at once
_LARGE = 64 << 20  # bytes that are read at once at most
_MAX_HEADER = 1 << 20  # bytes of an extended header
_EXTENDED = (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK)
_EMPTY = (tarfile.LNKTYPE, tarfile.SYMTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE)


def tar_members(plain: IO[bytes]) -> Iterator[Member]:
    """Yield the members of a tar file, and read it to its end.

    Args:
        plain: the file, decompressed.

    Raises:
        EOFError: it is truncated.
        tarfile.TarError: a header is damaged.
    """
    named: dict[str, str] = {}  # by the headers before a member that are about it
    while (block := _exactly(plain, _BLOCK)) != bytes(_BLOCK):
        info = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        if info.type in _EXTENDED:
            if not 0 <= info.size <= _MAX_HEADER:
                raise tarfile.ReadError(f"a header of {info.size} bytes")
            named |= _extended(info.type, _exactly(plain, _padded(info.size))[: info.size])
            continue
        size = int(named.get("size", info.size))
        if size < 0:
            raise tarfile.ReadError(f"a member of {size} bytes")
        content = _Content(plain, size, 0 if info.type in _EMPTY else _padded(size))
        kind: Kind = "folder" if info.isdir() else "file" if info.isreg() and not info.issparse() else "other"
        yield Member(named.get("path", info.name), kind, size, 0, content.read)
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
