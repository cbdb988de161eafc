"""The ordered label set of a corpus, and the spellings that fold into it.

Shape letters: `T` frames of an utterance, `S` symbols in a file.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dali_asr.errors import DataError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

# The 42 labels of CMU 11-785 HW1P2, in the order that its integer transcripts index.
ARPABET_SYMBOLS = (
    *("[SIL]", "AA", "AE", "AH", "AO", "AW", "AY", "B", "CH", "D", "DH", "EH", "ER", "EY"),
    *("F", "G", "HH", "IH", "IY", "JH", "K", "L", "M", "N", "NG", "OW", "OY", "P"),
    *("R", "S", "SH", "T", "TH", "UH", "UW", "V", "W", "Y", "Z", "ZH", "[SOS]", "[EOS]"),
)
START_SYMBOL = "[SOS]"
END_SYMBOL = "[EOS]"

# Spellings of other years of the course.
ALIASES = {"SIL": "[SIL]", "<sos>": START_SYMBOL, "<eos>": END_SYMBOL}

UNKNOWN = -1
_PACKED_WIDTH = 8  # ASCII symbols up to this long fit one uint64 each


@dataclass(frozen=True)
class Inventory:
    """An ordered label set; a label is an index into it.

    Attributes:
        symbols: the symbols, in label order, none twice.
    """

    symbols: tuple[str, ...]

    def __post_init__(self) -> None:
        if not self.symbols:
            raise DataError("inventory: it has no symbols; give at least one")
        if len(set(self.symbols)) < len(self.symbols):
            twice = next(s for i, s in enumerate(self.symbols) if s in self.symbols[:i])
            raise DataError(f"inventory: {twice!r} stands twice; every symbol must be unique")

    def __len__(self) -> int:
        return len(self.symbols)

    @classmethod
    def read(cls, path: Path) -> Inventory:
        """Read an inventory from a UTF-8 text file, one symbol a line, in label order.

        Raises:
            DataError: the file cannot be read, is empty or repeats a symbol.
        """
        try:
            lines = path.read_text(encoding="utf-8").split("\n")
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"inventory {path}: {error}; give a text file with one symbol a line") from error
        return cls(tuple(line.strip() for line in lines if line.strip()))

    @property
    def label_dtype(self) -> np.dtype[Any]:
        """The smallest of uint8, uint16 and int32 whose largest value is still free for `unlabelled`."""
        for dtype in (np.uint8, np.uint16):
            if len(self) <= np.iinfo(dtype).max:
                return np.dtype(dtype)
        return np.dtype(np.int32)

    @property
    def signed_dtype(self) -> np.dtype[Any]:
        """The smallest signed integer that holds every label, and −100 for none."""
        return next(np.dtype(d) for d in (np.int8, np.int16, np.int32) if len(self) <= np.iinfo(d).max)

    @property
    def unlabelled(self) -> int:
        """The stored value of a frame without a label: the largest one of `label_dtype`."""
        return int(np.iinfo(self.label_dtype).max)

    def encode(self, symbols: NDArray[np.str_]) -> NDArray[np.int64]:
        """Turn symbols `[S]` (any string width) into labels `[S]` int64; `UNKNOWN` where there is none.

        Array operations only: a symbol of up to eight ASCII characters is read as one integer.
        """
        width = symbols.dtype.itemsize // 4
        if self._packs and width > 0:
            keys, packs = _pack_ascii(symbols, width)
            if packs:
                return self._lookup(keys)
        unique, inverse = np.unique(symbols, return_inverse=True)
        return np.array([self._label_of.get(str(s), UNKNOWN) for s in unique], np.int64)[inverse]

    def nearest(self, symbol: str) -> str:
        """Return `; did you mean X?` for the nearest symbol or alias, or nothing."""
        return did_you_mean(symbol, self._label_of)

    @cached_property
    def _label_of(self) -> dict[str, int]:
        labels = {symbol: label for label, symbol in enumerate(self.symbols)}
        aliases = {a: labels[s] for a, s in ALIASES.items() if s in labels and a not in labels}
        return labels | aliases

    @cached_property
    def _packs(self) -> bool:
        return all(s.isascii() and 0 < len(s) <= _PACKED_WIDTH for s in self._label_of)

    @cached_property
    def _table(self) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
        names = np.array(list(self._label_of))
        keys, _ = _pack_ascii(names, names.dtype.itemsize // 4)
        order = np.argsort(keys)
        return keys[order], np.array(list(self._label_of.values()), np.int64)[order]

    def _lookup(self, keys: NDArray[np.uint64]) -> NDArray[np.int64]:
        table, labels = self._table
        at = np.minimum(np.searchsorted(table, keys), len(table) - 1)
        return np.where(table[at] == keys, labels[at], UNKNOWN)


def _pack_ascii(symbols: NDArray[np.str_], width: int) -> tuple[NDArray[np.uint64], bool]:
    """Read each symbol as one little-endian uint64; false when a character does not fit."""
    native = np.ascontiguousarray(symbols, dtype=f"<U{width}")
    points = native.view(np.uint32).reshape(len(symbols), width)
    if points.size and (points.max() > 127 or points[:, _PACKED_WIDTH:].any()):
        return np.zeros(0, np.uint64), False
    octets = np.zeros((len(symbols), _PACKED_WIDTH), np.uint8)
    used = min(width, _PACKED_WIDTH)
    octets[:, :used] = points[:, :used]
    return octets.view("<u8").reshape(-1).astype(np.uint64, copy=False), True


ARPABET = Inventory(ARPABET_SYMBOLS)


def resolve_inventory(name: str | Sequence[str]) -> Inventory:
    """Return the inventory for `arpabet`, a list of symbols, or the path of a text file.

    Raises:
        DataError: no such file, an empty or a repeated symbol.
    """
    if not isinstance(name, str):
        return Inventory(tuple(name))
    return ARPABET if name == "arpabet" else Inventory.read(Path(name).expanduser())
