"""Label sets: the course's 42, spellings of all years, and inventories of thousands."""

from __future__ import annotations

import os
from collections.abc import Callable
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


def test_arpabet_is_the_42_course_symbols_in_order() -> None:
    assert " ".join(ARPABET_SYMBOLS) == COURSE
    assert len(ARPABET) == 42


@pytest.mark.parametrize("width", [5, 6, 9, 20])
def test_spellings_of_every_year_are_encoded(width: int) -> None:
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
def test_similar_symbols_are_unknown(symbols: list[str]) -> None:
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


def test_the_nearest_symbol_is_suggested() -> None:
    assert ARPABET.nearest("[SLI]") == "; did you mean [SIL]?"
    assert ARPABET.nearest("qqqqqq") == ""


def test_an_inventory_is_resolved_from_a_name_a_list_or_a_file(tmp_path: Path) -> None:
    file = tmp_path / "symbols.txt"
    file.write_text("a\nb\n\nc\n")
    assert resolve_inventory("arpabet") is ARPABET
    assert resolve_inventory(["x", "y"]).symbols == ("x", "y")
    assert resolve_inventory(str(file)).symbols == ("a", "b", "c")
    file.write_text("a\na\n")
    for bad, message in (
        (str(file), "'a' occurs twice"),
        (str(tmp_path / "none"), "No such file or directory; give a text file with one symbol per line"),
        ([], "no symbols"),
    ):
        with pytest.raises(DataError, match=message):
            resolve_inventory(bad)


def test_a_byte_order_mark_is_not_part_of_a_symbol(tmp_path: Path) -> None:
    (tmp_path / "symbols.txt").write_text("a\nb\n", encoding="utf-8-sig")
    assert resolve_inventory(str(tmp_path / "symbols.txt")).symbols == ("a", "b")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: path.write_bytes(b"\xff\n"), "can't decode byte 0xff"),
        (lambda path: path.mkdir(), "not a regular file"),
        (lambda path: os.mkfifo(path), "not a regular file"),
        (lambda path: path.symlink_to(path), "Too many levels of symbolic links"),
    ],
)
def test_an_inventory_must_be_a_text_file(tmp_path: Path, make: Callable[[Path], object], message: str) -> None:
    path = tmp_path / "symbols"
    make(path)
    with pytest.raises(DataError, match=rf"inventory .*symbols: .*{message}"):
        resolve_inventory(str(path))


def test_a_symbol_must_be_unicode_text() -> None:
    with pytest.raises(DataError, match=r"'\\udcff' is not Unicode text"):
        Inventory(("a", "\udcff"))


def test_encoding_no_symbols_gives_no_labels() -> None:
    assert ARPABET.encode(np.zeros(0, "<U5")).shape == (0,)
