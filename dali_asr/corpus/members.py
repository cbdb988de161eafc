"""What an archive consists of."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

Kind = Literal["file", "folder", "other"]


class Member(NamedTuple):
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
