"""Scores of predicted labels against the true ones.

Shape letters: `F` frames, `U` utterances, `C` labels, `N` cells of a confusion matrix that are not zero.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from rapidfuzz.distance import Levenshtein

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from dali_asr.inventory import Inventory

TOP = 3
CALIBRATION_BINS = 15
_NOT_COUNTED = ("top3_accuracy", "calibration_error", "phoneme_error_rate_without_silence")
MAX_DENSE = 300  # symbols; 10,000 would make 10^8 cells, nearly all of them zero


@dataclass(frozen=True, eq=False)
class Confusion:
    """Number of frames per pair of true and predicted label; only pairs that occur are stored.

    Attributes:
        size: number of labels, C.
        true: true labels, `[N]` int64, ascending.
        predicted: predicted labels, `[N]` int64, ascending within a true label.
        counts: number of frames, `[N]` int64.
    """

    size: int
    true: NDArray[np.int64]
    predicted: NDArray[np.int64]
    counts: NDArray[np.int64]

    @classmethod
    def count(cls, predicted: NDArray[np.int64], true: NDArray[np.int64], size: int) -> Confusion:
        """Count the pairs of labels `[F]`; frames with a negative true label are left out."""
        labelled = true >= 0
        cells, counts = np.unique(true[labelled] * size + predicted[labelled], return_counts=True)
        return cls(size, *np.divmod(cells, size), counts.astype(np.int64))

    @property
    def frames(self) -> int:
        """Number of labelled frames."""
        return int(self.counts.sum())

    @property
    def right(self) -> NDArray[np.int64]:
        """Number of frames per label that were predicted right, `[C]`."""
        return self._sum(self.true, self.true == self.predicted)

    @property
    def true_counts(self) -> NDArray[np.int64]:
        """Number of frames per true label, `[C]`."""
        return self._sum(self.true)

    @property
    def predicted_counts(self) -> NDArray[np.int64]:
        """Number of frames per predicted label, `[C]`."""
        return self._sum(self.predicted)

    @property
    def most_confused(self) -> NDArray[np.int64]:
        """The wrong label predicted most often per true label, `[C]`; −1 if there is none."""
        wrong = np.flatnonzero(self.true != self.predicted)
        order = wrong[np.lexsort((self.predicted[wrong], -self.counts[wrong], self.true[wrong]))]
        labels, first = np.unique(self.true[order], return_index=True)
        found = np.full(self.size, -1)
        found[labels] = self.predicted[order[first]]
        return found

    def dense(self, labels: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the matrix of some labels, given in ascending order: true label per row, predicted per column."""
        position = np.full(self.size, -1)
        position[labels] = np.arange(len(labels))
        rows, columns = position[self.true], position[self.predicted]
        kept = (rows >= 0) & (columns >= 0)
        matrix = np.zeros((len(labels), len(labels)), np.int64)
        matrix[rows[kept], columns[kept]] = self.counts[kept]
        return matrix

    def to_json(self) -> dict[str, Any]:
        """Return the matrix as JSON values.

        Up to 300 labels: `confusion`, C rows of C counts. More: `confusion_cells`, a triple `[true label, predicted
        label, count]` per cell that is not zero. Labels are positions in `symbols`.
        """
        if self.size <= MAX_DENSE:
            return {"confusion": self.dense(np.arange(self.size)).tolist()}
        return {"confusion_cells": np.stack([self.true, self.predicted, self.counts], axis=1).tolist()}

    @classmethod
    def from_json(cls, values: dict[str, Any], size: int) -> Confusion:
        """Return the matrix of C labels that `to_json` wrote.

        Raises:
            KeyError, ValueError: it is damaged.
        """
        if size > MAX_DENSE:
            true, predicted, counts = np.array(values["confusion_cells"], np.int64).T
        else:
            matrix = np.array(values["confusion"], np.int64).reshape(size, size)
            true, predicted = np.nonzero(matrix)
            counts = matrix[true, predicted]
        return cls(size, true, predicted, counts)

    def _sum(self, labels: NDArray[np.int64], chosen: NDArray[np.bool_] | slice = slice(None)) -> NDArray[np.int64]:
        sums = np.zeros(self.size, np.int64)
        np.add.at(sums, labels[chosen], self.counts[chosen])
        return sums


@dataclass(frozen=True)
class SymbolScores:
    """Scores of one symbol; a fraction whose denominator is zero is None.

    Attributes:
        symbol: the symbol.
        frames: number of frames whose true label is this symbol.
        precision: fraction of the frames predicted as this symbol whose true label is this symbol.
        recall: fraction of the frames whose true label is this symbol that were predicted as this symbol.
        f1: harmonic mean of precision and recall.
        confused_with: the wrong symbol predicted most often for its frames; None if there is none.
    """

    symbol: str
    frames: int
    precision: float | None
    recall: float | None
    f1: float | None
    confused_with: str | None


@dataclass(frozen=True, eq=False)
class UtteranceScores:
    """Scores of each utterance, of which those of the partition are sums.

    Attributes:
        frames: number of labelled frames, `[U]` int64.
        right: number of them predicted right, `[U]` int64.
        symbols: number of true symbols after runs of equal labels are collapsed, `[U]` int64.
        edits: edits that turn the predicted symbols into the true ones, `[U]` int64.
    """

    frames: NDArray[np.int64]
    right: NDArray[np.int64]
    symbols: NDArray[np.int64]
    edits: NDArray[np.int64]

    def to_json(self) -> dict[str, list[int]]:
        """Return the scores as JSON values."""
        return {name: values.tolist() for name, values in vars(self).items()}


@dataclass(frozen=True)
class Scores:
    """Scores of a partition. Frames without a label do not count.

    Attributes:
        frames: number of labelled frames.
        accuracy: fraction of them predicted right.
        accuracy_without_silence: accuracy over the frames not labelled as silence; None without such a label.
        top3_accuracy: fraction of frames whose true label is among the three with the highest posteriors.
        macro_f1: mean F1 of the symbols that occur.
        calibration_error: expected calibration error in 15 bins of equal width (Naeini et al. 2015; Guo et al. 2017).
        phoneme_error_rate: edits that turn the predicted sequences into the true ones, per true symbol. Runs of equal
            labels are collapsed into one symbol first.
        phoneme_error_rate_without_silence: the same after silence is removed from both sequences.
        symbols: scores per symbol, in the order of the inventory.
        confusion: number of frames per pair of true and predicted label.
        utterances: scores of each utterance.
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
    confusion: Confusion
    utterances: UtteranceScores

    @classmethod
    def of_counts(
        cls, confusion: Confusion, utterances: UtteranceScores, inventory: Inventory, silence: int | None, **others: Any
    ) -> Scores:
        """Return the scores that follow from counts, with those that do not.

        Args:
            confusion: number of frames per pair of true and predicted label.
            utterances: scores of each utterance.
            inventory: the label set.
            silence: the label of silence; None if there is none.
            others: `top3_accuracy`, `calibration_error` and `phoneme_error_rate_without_silence`.
        """
        symbols = symbol_scores(confusion, inventory)
        return cls(
            frames=confusion.frames,
            accuracy=float(confusion.right.sum() / confusion.frames),
            accuracy_without_silence=accuracy_without(confusion, silence),
            macro_f1=float(np.mean([symbol.f1 for symbol in symbols if symbol.frames and symbol.f1 is not None])),
            phoneme_error_rate=float(utterances.edits.sum() / max(utterances.symbols.sum(), 1)),
            symbols=symbols,
            confusion=confusion,
            utterances=utterances,
            **others,
        )

    def to_json(self) -> dict[str, Any]:
        """Return the scores as JSON values; see `Confusion.to_json` for the matrix."""
        values = {name: value for name, value in vars(self).items() if name != "confusion"}
        symbols = [asdict(symbol) for symbol in self.symbols]
        return {**values, "symbols": symbols, "utterances": self.utterances.to_json(), **self.confusion.to_json()}

    @classmethod
    def from_json(cls, values: dict[str, Any], inventory: Inventory, silence: int | None) -> Scores:
        """Return the scores that `to_json` wrote; other arguments as in `of_counts`.

        Raises:
            KeyError, TypeError, ValueError: they are damaged.
        """
        return cls.of_counts(
            Confusion.from_json(values, len(inventory)),
            UtteranceScores(**{name: np.array(of_each, np.int64) for name, of_each in values["utterances"].items()}),
            inventory,
            silence,
            **{name: values[name] for name in _NOT_COUNTED},
        )


def score_labels(
    predicted: NDArray[np.int64],
    confidence: NDArray[np.float32],
    in_top: NDArray[np.bool_],
    true: NDArray[np.int64],
    offsets: NDArray[np.int64],
    inventory: Inventory,
    silence: int | None = None,
) -> Scores:
    """Score the labels of a partition.

    Args:
        predicted: predicted labels, `[F]`.
        confidence: posteriors of the predicted labels, `[F]`.
        in_top: whether the true label is among the three with the highest posteriors, `[F]`.
        true: true labels, `[F]`; negative for frames without a label. At least one frame has a label.
        offsets: boundaries of the utterances, `[U + 1]`.
        inventory: the label set.
        silence: the label of silence; None if there is none.
    """
    labelled = true >= 0
    return Scores.of_counts(
        Confusion.count(predicted, true, len(inventory)),
        score_utterances(predicted, true, offsets),
        inventory,
        silence,
        top3_accuracy=float(in_top[labelled].mean()),
        calibration_error=calibration_error(confidence[labelled], (predicted == true)[labelled]),
        phoneme_error_rate_without_silence=None if silence is None else error_rate(predicted, true, offsets, silence),
    )


def score_utterances(
    predicted: NDArray[np.int64], true: NDArray[np.int64], offsets: NDArray[np.int64]
) -> UtteranceScores:
    """Score each utterance; arguments as in `score_labels`."""
    labelled = np.concatenate([[0], np.cumsum(true >= 0)])[offsets]
    right = np.concatenate([[0], np.cumsum((predicted == true) & (true >= 0))])[offsets]
    edits, symbols = edit_counts(predicted, true, offsets)
    return UtteranceScores(np.diff(labelled), np.diff(right), symbols, edits)


def symbol_scores(confusion: Confusion, inventory: Inventory) -> tuple[SymbolScores, ...]:
    """Return the scores of each symbol."""
    counts = (confusion.right, confusion.true_counts, confusion.predicted_counts, confusion.most_confused)
    return tuple(
        SymbolScores(
            symbol,
            true,
            precision=_fraction(right, predicted),
            recall=_fraction(right, true),
            f1=_fraction(2 * right, true + predicted),
            confused_with=inventory.symbols[other] if other >= 0 else None,
        )
        for symbol, right, true, predicted, other in zip(
            inventory.symbols, *(column.tolist() for column in counts), strict=True
        )
    )


def accuracy_without(confusion: Confusion, label: int | None) -> float | None:
    """Return the accuracy over the frames with another true label; None if there are none, or for the label None."""
    if label is None:
        return None
    others = np.arange(confusion.size) != label
    return _fraction(int(confusion.right[others].sum()), int(confusion.true_counts[others].sum()))


def calibration_error(confidence: NDArray[np.float32], right: NDArray[np.bool_]) -> float:
    """Return the expected calibration error: the mean gap between confidence and accuracy, weighted by bin.

    Args:
        confidence: posteriors of the predicted labels, `[F]`.
        right: whether the predicted label is the true one, `[F]`.
    """
    bins = np.clip(np.ceil(confidence * CALIBRATION_BINS).astype(np.int64) - 1, 0, CALIBRATION_BINS - 1)
    gaps = np.bincount(bins, right - confidence.astype(np.float64), CALIBRATION_BINS)
    return float(np.abs(gaps).sum() / len(confidence))


def error_rate(
    predicted: NDArray[np.int64], true: NDArray[np.int64], offsets: NDArray[np.int64], ignored: int | None = None
) -> float:
    """Return the number of edits per true symbol between collapsed sequences (Levenshtein 1966).

    Args:
        predicted: predicted labels, `[F]`.
        true: true labels, `[F]`; frames with a negative one are removed from both sequences.
        offsets: boundaries of the utterances, `[U + 1]`.
        ignored: a label that is removed from the collapsed sequences.
    """
    edits, symbols = edit_counts(predicted, true, offsets, ignored)
    return float(edits.sum() / max(symbols.sum(), 1))


def edit_counts(
    predicted: NDArray[np.int64], true: NDArray[np.int64], offsets: NDArray[np.int64], ignored: int | None = None
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the number of edits and of true symbols of each utterance, `[U]` both; arguments as in `error_rate`."""
    edits, symbols = (np.zeros(len(offsets) - 1, np.int64) for _ in range(2))
    for at, (first, end) in enumerate(pairwise(offsets.tolist())):
        labelled = true[first:end] >= 0
        a, b = (collapse(labels[first:end][labelled], ignored) for labels in (predicted, true))
        edits[at], symbols[at] = Levenshtein.distance(a, b), len(b)
    return edits, symbols


def collapse(labels: NDArray[np.int64], ignored: int | None = None) -> list[int]:
    """Return the labels with each run of equal labels as one, without the ignored label."""
    starts = np.ones(len(labels), np.bool_)
    starts[1:] = labels[1:] != labels[:-1]
    return [label for label in labels[starts].tolist() if label != ignored]


def _fraction(part: int, whole: int) -> float | None:
    return part / whole if whole else None
