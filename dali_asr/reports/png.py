"""Small PNG files."""

from __future__ import annotations

import struct
import zlib
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

_GREY, _PALETTE = 0, 3  # kinds of color, as the format numbers them


def grey_png(picture: NDArray[np.uint8]) -> bytes:
    """Return a picture `[rows, columns]` as a PNG file in grey."""
    return _png(picture, _GREY)


def palette_png(picture: NDArray[np.uint8], color: tuple[int, int, int], levels: int) -> bytes:
    """Return a picture `[rows, columns]` as a PNG file in one color: level 0 is transparent, the highest opaque."""
    alphas = np.round(np.arange(levels + 1) * (255 / levels)).astype(np.uint8)
    return _png(picture, _PALETTE, _chunk(b"PLTE", bytes(color) * (levels + 1)) + _chunk(b"tRNS", alphas.tobytes()))


def _png(picture: NDArray[np.uint8], kind: int, palette: bytes = b"") -> bytes:
    height, width = picture.shape
    lines = np.zeros((height, width + 1), np.uint8)  # each begins with the number of its filter, none
    lines[:, 1:] = picture
    header = struct.pack(">IIBBBBB", width, height, 8, kind, 0, 0, 0)
    data = zlib.compress(lines.tobytes(), 9)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + palette + _chunk(b"IDAT", data) + _chunk(b"IEND", b"")


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
