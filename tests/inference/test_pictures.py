"""The picture of a confusion matrix, read back from the drawn axes."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure

from dali_asr.inference.pictures import PHONETIC_CLASSES, draw_confusion, phonetic_order
from dali_asr.inference.scores import Confusion
from dali_asr.inventory import ARPABET_SYMBOLS, Inventory


def evaluated(symbols: tuple[str, ...], true: list[int], predicted: list[int]) -> Any:
    confusion = Confusion.count(np.array(predicted), np.array(true), len(symbols))
    accuracy = float(np.mean(np.equal(true, predicted)))
    scores = SimpleNamespace(confusion=confusion, accuracy=accuracy)
    return SimpleNamespace(partition="dev", inventory=Inventory(symbols), scores=scores)


def names(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.axes[0].get_yticklabels()]


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.axes[0].texts]


def test_every_symbol_of_arpabet_has_one_class() -> None:
    assert sorted(symbol for members in PHONETIC_CLASSES.values() for symbol in members) == sorted(ARPABET_SYMBOLS)


def test_arpabet_is_drawn_by_phonetic_class(drawn: list[Figure]) -> None:
    rng = np.random.default_rng(0)
    true, predicted = rng.integers(0, 39, 999).tolist(), rng.integers(0, 42, 999).tolist()
    assert draw_confusion(evaluated(ARPABET_SYMBOLS, true, predicted))[:4] == b"\x89PNG"
    axes, scale = drawn[0].axes
    shown = names(drawn[0])
    assert shown[:5] == ["[SIL]", "P", "B", "T", "D"]
    assert set(shown[-17:-2]) == {s for s in ARPABET_SYMBOLS if s[0] in "AEIOU"}
    assert shown[-2:] == ["[SOS]", "[EOS]"]
    assert [text.get_text() for text in axes.get_xticklabels()] == shown
    assert set(PHONETIC_CLASSES) <= set(texts(drawn[0]))
    values: np.ndarray[Any, Any] = np.ma.filled(np.ma.asarray(axes.images[0].get_array()), np.nan)
    for row, first in enumerate(shown):
        of_true = [p for t, p in zip(true, predicted, strict=True) if ARPABET_SYMBOLS[t] == first]
        for column, second in enumerate(shown):
            share = of_true.count(ARPABET_SYMBOLS.index(second)) / len(of_true) if of_true else np.nan
            assert values[row, column] == pytest.approx(share, nan_ok=True)
    boundaries = [line.get_ydata()[0] for line in axes.lines if line.get_ydata()[0] == line.get_ydata()[1]]  # type: ignore[index]
    assert boundaries == [0.5, 6.5, 8.5, 17.5, 20.5, 24.5, 39.5]
    matrix, bar = axes.get_window_extent(), scale.get_window_extent()
    assert (bar.y0, bar.y1) == pytest.approx((matrix.y0, matrix.y1)), "as tall as the matrix"
    assert axes.get_xlabel() == "predicted"


def test_other_inventories_keep_their_order_and_hatch_absent_symbols(drawn: list[Figure]) -> None:
    draw_confusion(evaluated(("speech", "a$b$", "AA"), [0] * 1200 + [2], [1] * 1200 + [2]))
    assert names(drawn[0]) == ["speech", r"a\$b\$", "AA"]
    (hatched,) = drawn[0].axes[0].patches
    assert hatched.get_hatch()
    assert hatched.get_window_extent().y0 == pytest.approx(drawn[0].axes[0].transData.transform((0, 1.5))[1])
    assert texts(drawn[0]) == ["1,200", "0", "1", "frames", "hatched: no frames"]


def test_large_inventories_are_drawn_without_names(drawn: list[Figure]) -> None:
    symbols = tuple(f"s{number}" for number in range(500))
    draw_confusion(evaluated(symbols, list(range(300)) * 2, list(range(300)) * 2))
    assert drawn[0].axes[0].images[0].get_array().shape == (200, 200)  # type: ignore[union-attr]
    assert not names(drawn[0])
    assert drawn[0].axes[0].get_title().endswith("the 200 most frequent of 300 symbols")


def test_spellings_of_other_years_have_their_class() -> None:
    assert phonetic_order(["AA", "B", "SIL"]) == [2, 1, 0]
    assert phonetic_order(["AA", "B", "sil"]) == [0, 1, 2]
