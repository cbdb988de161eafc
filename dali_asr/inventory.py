"""The ordered label set of a corpus, and the spellings that fold into it.

Shape letters: `T` frames of an utterance, `S` symbols in a file.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dali_asr.errors import DataError, UsageError, brief, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

# The 42 labels of CMU 11-785 HW1P2, in the order that its integer transcripts index.
ARPABET_SYMBOLS = (
    *("[SIL]", "AA", "AE", "AH", "AO", "AW", "AY", "B", "CH", "D", "DH", "EH", "ER", "EY"),
    *("F", "G", "HH", "IH", "IY", "JH", "K", "L", "M", "N", "NG", "OW", "OY", "P"),
    *("R", "S", "SH", "T", "TH", "UH", "UW", "V", "W", "Y", "Z", "ZH", "[SOS]", "[EOS]"),
)
START_SYMBOL = "[SOS]"
END_SYMBOL = "[EOS]"

# Spellings in the course data of other years.
ALIASES = {"SIL": "[SIL]", "<sos>": START_SYMBOL, "<eos>": END_SYMBOL}

SILENCES = ("[SIL]", "SIL", "sil", "silence", "sp")  # names of silence, in this order
UNKNOWN = -1  # the result of encoding a symbol that is not in the inventory


@dataclass(frozen=True)
class Inventory:
    """An ordered label set; a label is an index into it.

    Attributes:
        symbols: the symbols in label order, each of them once.

    Raises:
        DataError: there is no symbol, a symbol is repeated, or a symbol is not Unicode text.
    """

    symbols: tuple[str, ...]

    def __post_init__(self) -> None:
        if not self.symbols:
            raise DataError("inventory: it has no symbols; give at least one")
        if len(set(self.symbols)) < len(self.symbols):
            twice = next(s for i, s in enumerate(self.symbols) if s in self.symbols[:i])
            raise DataError(f"inventory: {twice!r} occurs twice; every symbol must be unique")
        for symbol in self.symbols:
            if not is_text(symbol):
                raise DataError(f"inventory: {symbol!r} is not Unicode text; write the symbol in UTF-8")

    def __len__(self) -> int:
        return len(self.symbols)

    @classmethod
    def read(cls, path: Path) -> Inventory:
        """Read an inventory from a UTF-8 text file with one symbol per line, in label order.

        Raises:
            DataError: the file cannot be read, is empty or repeats a symbol.
        """
        try:
            if path.exists() and not path.is_file():
                raise OSError("not a regular file")
            lines = path.read_text(encoding="utf-8-sig").split("\n")  # without a byte order mark
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) and error.strerror else error
            raise DataError(f"inventory {path}: {reason}; give a text file with one symbol per line") from error
        return cls(tuple(line.strip() for line in lines if line.strip()))

    @cached_property
    def label_dtype(self) -> np.dtype[Any]:
        """Smallest of uint8, uint16 and int32 that holds every label and `unlabelled`."""
        for dtype in (np.uint8, np.uint16):
            if len(self) <= np.iinfo(dtype).max:
                return np.dtype(dtype)
        return np.dtype(np.int32)

    @property
    def signed_dtype(self) -> np.dtype[Any]:
        """Smallest signed integer that holds every label and −100."""
        return next(np.dtype(d) for d in (np.int8, np.int16, np.int32) if len(self) <= np.iinfo(d).max)

    @property
    def unlabelled(self) -> int:
        """Stored value of a frame without a label: the largest value of `label_dtype`."""
        return int(np.iinfo(self.label_dtype).max)

    def silence(self, symbol: str | None = None) -> int | None:
        """Return the label of silence; None if there is none.

        Args:
            symbol: its symbol; None for the first of `[SIL]`, `SIL`, `sil`, `silence` and `sp` that there is.

        Raises:
            UsageError: there is no such symbol.
        """
        if symbol is not None and symbol not in self.symbols:
            raise UsageError(f"silence {brief(symbol)}: not in the inventory{self.nearest(symbol)}")
        found = (name for name in ([symbol] if symbol else SILENCES) if name in self.symbols)
        return next((self.symbols.index(name) for name in found), None)

    def encode(self, symbols: NDArray[np.str_], fold: Mapping[str, str] | None = None) -> NDArray[np.int64]:
        """Return the labels `[S]` of symbols `[S]`, `UNKNOWN` where a symbol is not in the inventory.

        Transcripts hold a symbol for many frames in a row, so each run of equal symbols is looked up once.

        Args:
            symbols: the symbols.
            fold: the symbols that others stand for.
        """
        if not len(symbols):
            return np.zeros(0, np.int64)
        starts = np.concatenate([[0], np.flatnonzero(symbols[1:] != symbols[:-1]) + 1])
        fold = fold or {}
        labels = [self._label_of.get(fold.get(symbol, symbol), UNKNOWN) for symbol in symbols[starts].tolist()]
        return np.repeat(np.array(labels, np.int64), np.diff(np.append(starts, len(symbols))))

    def nearest(self, symbol: str) -> str:
        """Return `; did you mean X?` for the nearest symbol or alias, or an empty string if none is near."""
        return did_you_mean(symbol, self._label_of)

    @cached_property
    def _label_of(self) -> dict[str, int]:
        labels = {symbol: label for label, symbol in enumerate(self.symbols)}
        aliases = {a: labels[s] for a, s in ALIASES.items() if s in labels and a not in labels}
        return labels | aliases


def is_text(value: str) -> bool:
    """Return whether a string can be written as UTF-8: it holds no lone surrogates."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


ARPABET = Inventory(ARPABET_SYMBOLS)


def as_inventory(symbols: object) -> Inventory:
    """Return an inventory, given as such or as a sequence of symbols in label order.

    Raises:
        UsageError: neither.
        DataError: as `Inventory`.
    """
    if isinstance(symbols, Inventory):
        return symbols
    if isinstance(symbols, np.ndarray):
        symbols = symbols.tolist()
    if isinstance(symbols, (list, tuple)) and all(isinstance(symbol, str) for symbol in symbols):
        return Inventory(tuple(symbols))
    raise UsageError(
        f"inventory {brief(symbols)}; expected an Inventory, or a list of symbols in label order; "
        "Inventory.read(PATH) reads a file"
    )


def resolve_inventory(name: str | Sequence[str] | None) -> Inventory:
    """Return the inventory that a configuration names: `arpabet` (also None), symbols, or the path of a text file.

    Raises:
        DataError: as `Inventory.read`.
    """
    if name is None or name == "arpabet":
        return ARPABET
    return Inventory.read(Path(name).expanduser()) if isinstance(name, str) else Inventory(tuple(name))
