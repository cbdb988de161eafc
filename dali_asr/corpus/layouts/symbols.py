"""Symbols and integers of source files to labels.

Shape letters: `S` symbols in a file or line.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from dali_asr.corpus.folding import fold_that_knows
from dali_asr.errors import DataError, SymbolError
from dali_asr.inventory import UNKNOWN

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from dali_asr.inventory import Inventory

_MAX_SHOWN = 40  # characters of a symbol in an error


def to_labels(
    where: Path | str,
    stored: NDArray[Any],
    inventory: Inventory,
    fold: Mapping[str, str] | None,
    *,
    absent: int | None = None,
) -> NDArray[np.int64]:
    """Return the labels `[S]` of stored symbols or integers `[S]`.

    Args:
        where: named in errors.
        stored: Unicode strings, UTF-8 bytes, or integers, which are indices into the inventory.
        inventory: the label set.
        fold: the symbols of the inventory that others stand for.
        absent: the integer of a frame without a label, which is kept; None if there is none.

    Raises:
        SymbolError: a symbol is unknown, or an integer is outside the inventory.
    """
    if stored.dtype.kind in "iu":
        labels = stored.astype(np.int64)
        wrong = (labels < 0) | (labels >= len(inventory))
        if absent is not None:
            wrong &= labels != absent
        remedy = f"; the inventory has labels 0 to {len(inventory) - 1}"
    else:
        symbols = _decode(where, stored) if stored.dtype.kind == "S" else stored
        labels = inventory.encode(symbols, fold)
        wrong = labels == UNKNOWN
        remedy = "; repair the file, or give the inventory that it was written with"
    if wrong.any():
        at = int(wrong.argmax())
        near = _advice(str(symbols[at])[:_MAX_SHOWN], inventory) if stored.dtype.kind in "US" else ""
        raise SymbolError(f"{where}: unknown symbol {shown(stored[at])} at position {at}{near}{remedy}")
    return labels


def text_labels(
    where: Path | str, tokens: Sequence[str], inventory: Inventory, fold: Mapping[str, str] | None
) -> NDArray[np.int64]:
    """Return the labels `[S]` of the tokens of a text file.

    If each token is a decimal number and the inventory does not have all of them as symbols, they are indices into it.

    Raises:
        DataError: as `to_labels`.
    """
    symbols = np.array(tokens)
    labels = inventory.encode(symbols, fold)
    if (labels == UNKNOWN).any():
        return to_labels(where, _as_integers(tokens) if are_integers(tokens) else symbols, inventory, fold)
    return labels


def are_integers(tokens: Sequence[str]) -> bool:
    """Return whether all tokens are decimal numbers of at most nine digits, such as indices into an inventory."""
    return bool(tokens) and all(token.isascii() and token.isdigit() and len(token) < 10 for token in set(tokens))


def shown(symbol: Any) -> str:
    """Return a stored symbol as it is shown in an error."""
    return repr(symbol.item()[:_MAX_SHOWN] if symbol.dtype.kind in "US" else symbol.item())


def _as_integers(tokens: Sequence[str]) -> NDArray[np.int64]:
    return np.array(tokens).astype(np.int64)


def _advice(symbol: str, inventory: Inventory) -> str:
    """Return which fold knows a symbol, or else which symbol is near."""
    fold = fold_that_knows(symbol, {known: at for at, known in enumerate(inventory.symbols)})
    return f"; fold it (fold={fold!r})" if fold else inventory.nearest(symbol)


def _decode(where: Path | str, stored: NDArray[np.bytes_]) -> NDArray[np.str_]:
    try:
        return np.char.decode(stored, "utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{where}: its symbols are not UTF-8; save them as strings") from error
