"""Checksums of packed data: XXH3, 64 bits, fast enough to verify everything that is read.

They detect accidental damage, such as a flipped bit or a file from another corpus. They do not protect against forgery.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from xxhash import xxh3_64, xxh3_64_intdigest

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

Digest = xxh3_64


def checksum(data: NDArray[Any] | bytes | memoryview) -> int:
    """Return the checksum of contiguous data; xxhash 4 releases the GIL for more than 64 KiB."""
    return xxh3_64_intdigest(data)  # type: ignore[arg-type]


def checksums(arrays: Iterable[NDArray[Any]]) -> list[int]:
    """Return the checksum of each contiguous array."""
    return list(map(xxh3_64_intdigest, arrays))  # type: ignore[arg-type]


def checksum_digits(data: bytes) -> str:
    """Return the checksum as 16 hexadecimal digits."""
    return f"{checksum(data):016x}"
