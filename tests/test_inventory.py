"""Label sets: the course's 42, spellings of all years, and inventories of thousands."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dali_asr.errors import DataError
from dali_asr.inventory import ARPABET, ARPABET_SYMBOLS, UNKNOWN, Inventory, resolve_inventory

COURSE = (
    "[SIL] AA AE AH AO AW AY B CH D DH EH ER EY F G HH IH IY JH K L M N NG OW OY P R S SH T TH UH UW V W Y Z ZH "
    "[SOS] [EOS]"
)


def test_the_courses_42_symbols_in_order() -> None:
    assert " ".join(ARPABET_SYMBOLS) == COURSE
    assert len(ARPABET) == 42


@pytest.mark.parametrize("width", [5, 6, 9, 20])
def test_every_spelling_of_every_year(width: int) -> None:
    spellings = [*ARPABET_SYMBOLS, "SIL", "<sos>", "<eos>"]
    labels = ARPABET.encode(np.array(spellings, f"<U{width}"))
    assert labels.tolist() == [*range(42), 0, 40, 41]


@given(st.lists(st.text(min_size=1, max_size=12).filter(lambda s: "\0" not in s), min_size=1, max_size=30))
def test_encode_equals_a_dictionary(symbols: list[str]) -> None:
    inventory = Inventory(tuple(dict.fromkeys(symbols[: len(symbols) // 2 + 1])))
    table = {symbol: label for label, symbol in enumerate(inventory.symbols)}
    aliases = {"SIL": "[SIL]", "<sos>": "[SOS]", "<eos>": "[EOS]"}
    expected = [table.get(s, table.get(aliases.get(s, s), UNKNOWN)) for s in symbols]
    assert inventory.encode(np.array(symbols)).tolist() == expected


@given(st.lists(st.sampled_from(["AA", "AAA", "A", "aa", "[SIL]", "[SIL", "ZHH", "é", "AAAAAAAAA", ""]), min_size=1))
def test_near_misses_are_unknown(symbols: list[str]) -> None:
    table = {symbol: label for label, symbol in enumerate(ARPABET_SYMBOLS)}
    assert ARPABET.encode(np.array(symbols)).tolist() == [table.get(s, UNKNOWN) for s in symbols]


@pytest.mark.parametrize(
    ("size", "dtype", "unlabelled"), [(255, "uint8", 255), (256, "uint16", 65535), (65536, "int32", 2**31 - 1)]
)
def test_label_dtype_leaves_a_value_for_unlabelled(size: int, dtype: str, unlabelled: int) -> None:
    inventory = Inventory(tuple(f"state{i}" for i in range(size)))
    assert inventory.label_dtype == np.dtype(dtype)
    assert inventory.unlabelled == unlabelled
    assert inventory.encode(np.array(["state0", f"state{size - 1}"])).tolist() == [0, size - 1]


def test_nearest_symbol() -> None:
    assert ARPABET.nearest("[SLI]") == "; did you mean [SIL]?"
    assert ARPABET.nearest("qqqqqq") == ""


def test_resolving(tmp_path: Path) -> None:
    file = tmp_path / "symbols.txt"
    file.write_text("a\nb\n\nc\n")
    assert resolve_inventory("arpabet") is ARPABET
    assert resolve_inventory(["x", "y"]).symbols == ("x", "y")
    assert resolve_inventory(str(file)).symbols == ("a", "b", "c")
    file.write_text("a\na\n")
    for bad, message in (
        (str(file), "'a' stands twice"),
        (str(tmp_path / "none"), "one symbol a line"),
        ([], "no symbols"),
    ):
        with pytest.raises(DataError, match=message):
            resolve_inventory(bad)
