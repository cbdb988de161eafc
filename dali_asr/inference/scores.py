"""The scores of labels against the true ones.

Shape letters: `F` frames, `U` utterances, `C` labels.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from rapidfuzz.distance import Levenshtein

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from dali_asr.inventory import Inventory

SILENCE = "[SIL]"


@dataclass(frozen=True)
class SymbolScores:
    """How one symbol was recognised; a share of nothing is None.

    Attributes:
        symbol: which.
        frames: that are labelled so.
        precision: share of the frames it was given to that are labelled so.
        recall: share of the frames labelled so that it was given to.
        f1: harmonic mean of the two.
        confused_with: the symbol that its frames were given most often instead; None where there is none.
    """

    symbol: str
    frames: int
    precision: float | None
    recall: float | None
    f1: float | None
    confused_with: str | None


@dataclass(frozen=True)
class Scores:
    """The scores of a partition; frames without a label do not count.

    Attributes:
        frames: labelled ones.
        accuracy: share of them that are right.
        accuracy_without_silence: the same of those not labelled `[SIL]`; None where the inventory has no such symbol.
        top3_accuracy: share whose label is among the three of the highest posterior.
        macro_f1: mean F1 over the symbols that occur.
        calibration_error: expected calibration error, 15 bins of equal width (Naeini et al. 2015; Guo et al. 2017).
        phoneme_error_rate: edits that turn the collapsed label sequences into the true ones, a true symbol; in a
            collapsed sequence, equal labels in a row are one.
        phoneme_error_rate_without_silence: the same after `[SIL]` is taken out of both.
        symbols: of the inventory, in its order.
        confusion: frames by true label (row) and given label (column), `[C, C]`.
    """

    frames: int
    accuracy: float
    accuracy_without_silence: float | None
    top3_accuracy: float
    macro_f1: float
    calibration_error: float
    phoneme_error_rate: float
    phoneme_error_rate_without_silence: float | None
    symbols: tuple[SymbolScores, ...]
    confusion: NDArray[np.int64]

    def to_json(self) -> dict[str, Any]:
        """Return the scores as JSON values."""
        return {**asdict(self), "confusion": self.confusion.tolist()}


def symbol_scores(confusion: NDArray[np.int64], inventory: Inventory) -> tuple[SymbolScores, ...]:
    """Return the scores of each symbol from a confusion matrix `[C, C]`."""
    found = []
    for at, symbol in enumerate(inventory.symbols):
        right, labelled, given = (int(n) for n in (confusion[at, at], confusion[at].sum(), confusion[:, at].sum()))
        wrong = np.where(np.arange(len(confusion)) == at, 0, confusion[at])
        other = inventory.symbols[int(wrong.argmax())] if wrong.any() else None
        f1 = _share(2 * right, labelled + given)
        found.append(SymbolScores(symbol, labelled, _share(right, given), _share(right, labelled), f1, other))
    return tuple(found)


def accuracy_without(confusion: NDArray[np.int64], inventory: Inventory, symbol: str) -> float | None:
    """Return the accuracy over the frames that another symbol labels; None where there are none, or no such symbol."""
    if symbol not in inventory.symbols:
        return None
    others = np.arange(len(confusion)) != inventory.symbols.index(symbol)
    return _share(int(confusion.diagonal()[others].sum()), int(confusion[others].sum()))


def error_rate(
    given: NDArray[np.int64], true: NDArray[np.int64], offsets: NDArray[np.int64], leave_out: int | None = None
) -> float:
    """Return the edits a true symbol between collapsed sequences (Levenshtein 1966).

    Args:
        given: labels `[F]`.
        true: labels `[F]`, negative where a frame has none; these frames are taken out of both.
        offsets: where utterances begin and end, `[U + 1]`.
        leave_out: a label that is taken out of the collapsed sequences.
    """
    edits = symbols = 0
    for first, end in zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True):
        labelled = true[first:end] >= 0
        a, b = (collapse(labels[first:end][labelled], leave_out) for labels in (given, true))
        edits += Levenshtein.distance(a, b)
        symbols += len(b)
    return edits / max(symbols, 1)


def collapse(labels: NDArray[np.int64], leave_out: int | None = None) -> list[int]:
    """Return labels with equal ones in a row as one, and without one of them."""
    starts = np.ones(len(labels), np.bool_)
    starts[1:] = labels[1:] != labels[:-1]
    return [label for label in labels[starts].tolist() if label != leave_out]


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None
