"""Transcripts to words, dictionaries, and guesses."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dali_asr.alignment.dictionary import Dictionary, load_dictionary
from dali_asr.alignment.guessing import guess
from dali_asr.alignment.transcripts import read_transcripts, without_headers
from dali_asr.alignment.words import number_words, split_words
from dali_asr.errors import DataError, UsageError
from dali_asr.inventory import ARPABET, Inventory

ONES = "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen"
VALUES = {word: value for value, word in enumerate([*ONES.split(), "eighteen", "nineteen"])}
TENS = "twenty thirty forty fifty sixty seventy eighty ninety"
VALUES |= {word: 10 * n for n, word in enumerate(TENS.split(), 2)}


def value_of(words: list[str]) -> int:
    """Return the number that words name, read from left to right."""
    total = current = 0
    for word in words:
        if word == "hundred":
            current *= 100
        elif word in ("thousand", "million"):
            total, current = total + current * {"thousand": 1000, "million": 1_000_000}[word], 0
        else:
            current += VALUES[word]
    return total + current


@given(st.integers(0, 999_999_999))
def test_numbers_are_read_as_their_value(number: int) -> None:
    for text in (str(number), f"{number:,}"):
        assert value_of(number_words(text) or []) == number


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("1st", "first"),
        ("2nd", "second"),
        ("3rd", "third"),
        ("8th", "eighth"),
        ("11th", "eleventh"),
        ("12th", "twelfth"),
        ("20th", "twentieth"),
        ("21st", "twenty first"),
        ("1,000th", "one thousandth"),
        ("342nd", "three hundred forty second"),
    ],
)
def test_ordinals_are_read(text: str, words: str) -> None:
    assert number_words(text) == words.split()


def test_a_minus_before_a_number_is_read() -> None:
    for text in ("-3 degrees", "\u22123 degrees", "(-3) degrees"):
        assert split_words(text) == ["minus", "3", "degrees"]
    words = " ".join(split_words("it fell from 5 to -3.5 - 10-3, B-52 and x -- 4"))
    assert words == "it fell from 5 to minus 3.5 10-3 b-52 and x 4"


def test_numbers_that_are_not_read() -> None:
    assert number_words("3.14") == ["three", "point", "one", "four"]
    for text in ("1000000000", "21th", "11st", "3.5th", "1000000000th", "st", "1,00", "", ".", "٣", "1.2.3"):
        assert number_words(text) is None


def test_words_are_freed_of_case_and_punctuation() -> None:
    text = "“Well-known,” she said -- it's O’Neill’s: 5% [noise] R&B—'tis... the cats' (CO-OP)! <unk> – ?"  # noqa: RUF001
    words = "well-known she said it's o'neill's 5 percent r and b 'tis the cats co-op"
    assert split_words(text) == words.split()
    assert split_words(" -- ?! … ") == []
    assert split_words("naïve ÉCOLE Кот 東京") == ["naïve", "école", "кот", "東京"]


def test_guesses() -> None:
    assert guess("xml") == ["EH", "K", "S", "EH", "M", "EH", "L"]
    assert guess("blotch") == ["B", "L", "AA", "CH"]
    assert guess("stroke") == ["S", "T", "R", "OW", "K"]
    assert guess("free") == ["F", "R", "IY"]
    assert guess("yupp") == ["Y", "AH", "P"]
    assert guess("кот") is None
    assert guess("") is None


@given(st.text(alphabet="abcdefghijklmnopqrstuvwxyz", min_size=1, max_size=12))
def test_every_guess_is_of_known_phones(word: str) -> None:
    assert set(guess(word) or ["none"]) <= set(ARPABET.symbols)


@pytest.fixture
def listed() -> Dictionary:
    entries = {
        "the": ["DH AH0", "DH IY0"],
        "cat": ["K AE1 T"],
        "one": ["W AH1 N"],
        "five": ["F AY1 V"],
        "boss": ["B AO S"],
        "münchen": ["M IH1 N CH AH0 N"],
        "jose": ["HH OW0 Z EY1"],
        "jose's": ["HH OW0 Z EY1 Z"],
        "josé": ["HH OW0 S EY1"],
        "s": ["EH S"],
    }
    return Dictionary(ARPABET, entries)


@pytest.mark.parametrize(
    ("word", "origin", "phones"),
    [
        ("the", "dictionary", ["DH AH", "DH IY"]),
        ("thé", "dictionary", ["DH AH", "DH IY"]),
        ("the-cat", "parts", ["DH AH K AE T", "DH IY K AE T"]),
        ("cat's", "possessive", ["K AE T S"]),
        ("boss's", "possessive", ["B AO S IH Z"]),
        ("five's", "possessive", ["F AY V Z"]),
        ("5", "number", ["F AY V"]),
        ("xml", "spelled", ["EH K S EH M EH L"]),
        ("blotch", "letters", ["B L AA CH"]),
        ("jose's", "dictionary", ["HH OW Z EY Z"]),
        ("josé's", "possessive", ["HH OW S EY Z"]),
        ("josé-thé", "parts", ["HH OW S EY DH AH", "HH OW S EY DH IY"]),
        ("münchen-cat", "parts", ["M IH N CH AH N K AE T"]),
        ("münchen-cat's", "possessive", ["M IH N CH AH N K AE T S"]),
        ("münchen's-cat", "parts", ["M IH N CH AH N Z K AE T"]),
        ("xml-cat", "spelled", ["EH K S EH M EH L K AE T"]),
        ("münchen-blötch", "letters", ["M IH N CH AH N B L AA CH"]),
        ("blotch-xml", "letters", ["B L AA CH EH K S EH M EH L"]),
        ("blotch's", "letters", ["B L AA CH IH Z"]),
        ("the'blotch", "letters", ["TH EH B L AA CH"]),
    ],
)
def test_ways_to_find_a_word(listed: Dictionary, word: str, origin: str, phones: list[str]) -> None:
    entry = listed.find(word)
    assert entry
    assert (entry.origin, [listed.symbols(said) for said in entry.pronunciations]) == (origin, phones)


def test_words_without_any_pronunciation(listed: Dictionary) -> None:
    for word in ("кот", "7", "21st", "5rd"):
        assert listed.find(word) is None


def test_both_formats_of_dictionaries(tmp_path: Path) -> None:
    file = tmp_path / "names.dict"
    file.write_text(
        ";;; CMUdict\nZORBLAX  Z AO1 R B L AE2 K S # a name\nZORBLAX(2)  Z ER0 B L AE2 K S\n\n"
        "the 0.99 0.17 1.0 1.0 DH AH\nжж\tD AA\nFU\u0308R F ER\n",
        encoding="utf-8",
    )
    found = load_dictionary(ARPABET, file)
    entries = {word: found.find(word) for word in ("zorblax", "the", "жж", "für")}
    phones = {word: [found.symbols(said) for said in entry.pronunciations] for word, entry in entries.items() if entry}
    zorblax = ["Z AO R B L AE K S", "Z ER B L AE K S"]
    assert phones == {"zorblax": zorblax, "the": ["DH AH"], "жж": ["D AA"], "für": ["F ER"]}


def test_dictionaries_that_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "bad.dict"
    file.write_text("cat K AE T\nzorblax Z QQ\n")
    with pytest.raises(DataError, match=r"bad.dict, line 2: 'zorblax' has the unknown phone 'QQ'; write `WORD PHONE"):
        load_dictionary(ARPABET, file)
    file.write_text("cat\n" + "\n".join(f"dog{number} QQ" for number in range(2, 9)))
    with pytest.raises(DataError) as error:
        load_dictionary(ARPABET, file)
    numbered = "; ".join(f"line {number}: 'dog{number}' has the unknown phone 'QQ'" for number in range(2, 6))
    assert f"bad.dict, line 1: 'cat' has no phones; {numbered}; and 3 more lines; write" in str(error.value)
    assert "\n" not in str(error.value)
    with pytest.raises(DataError, match=r"none.dict: No such file or directory; give a text file"):
        load_dictionary(ARPABET, tmp_path / "none.dict")
    with pytest.raises(UsageError, match=r"not ARPAbet; give a dictionary with its symbols \(dictionary=FILE\)"):
        load_dictionary(Inventory(("a", "ʃ")))


def test_the_english_dictionary() -> None:
    pytest.importorskip("pocketsphinx", reason="the dictionary is in the extra `align`")
    found = load_dictionary(ARPABET)
    entry = found.find("read")
    assert entry
    assert {found.symbols(said) for said in entry.pronunciations} == {"R EH D", "R IY D"}
    assert all(
        found.find(word) for word in ("minus", *(f"{number}th" for number in (*range(4, 21), 30, 100, 1000, 10**6)))
    )


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("transcripts.tsv", "a b\tspeaker\tThe  cat.\né\tone\n\n"),
        ("transcripts.tsv", "a b.wav\tThe  cat.\né.flac\tone\n"),
        ("transcripts.tsv", "\nUtterance\ttext\na b\tThe  cat.\né\tone\n"),
        ("metadata.csv", "id|text\na b|The  cat.\né|one\n"),
        ("metadata.csv", "a b|The 1st cat|The  cat.\né|one|one\n"),
    ],
)
def test_tables_of_transcripts(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / name).write_text(content, encoding="utf-8")
    for source in (tmp_path, tmp_path / "deep" / name):
        found = without_headers(read_transcripts(source), {"a b", "é"})
        assert {t.name: t.text for t in found.values()} == {"a b": "The  cat.", "é": "one"}


def test_transcripts_in_files_of_their_own_and_as_in_librispeech(tmp_path: Path) -> None:
    (tmp_path / "a b.lab").write_text("The\ncat.\n")
    (tmp_path / "é.txt").write_text("one")
    assert {t.name: t.text for t in read_transcripts(tmp_path).values()} == {"a b": "The cat.", "é": "one"}
    (tmp_path / "84-121123.trans.txt").write_text("84-121123-0000 GO DO YOU HEAR\n84-121123-0001\n")
    found = {t.name: t.text for t in read_transcripts(tmp_path).values()}
    assert found == {"84-121123-0000": "GO DO YOU HEAR", "84-121123-0001": ""}


def test_transcripts_that_are_refused(tmp_path: Path) -> None:
    table = tmp_path / "transcripts.tsv"
    with pytest.raises(DataError, match="holds no transcripts; give"):
        read_transcripts(tmp_path)
    table.write_text("a\tone\nb one\n")
    with pytest.raises(DataError, match=r"transcripts.tsv, line 2: 'b one' is one field; separate .* by a tab$"):
        read_transcripts(tmp_path)
    table.write_text("a,one two\n")
    with pytest.raises(DataError, match=r"line 1: 'a,one two' is one field; .* by a tab, not by a comma$"):
        read_transcripts(tmp_path)
    table.write_text("a\tone\na\ttwo\n")
    with pytest.raises(DataError, match=r"line 2: 'a' has a transcript at .*line 1 already; remove one"):
        read_transcripts(tmp_path)
    table.write_bytes(b"a\t\xff\n")
    with pytest.raises(DataError, match=r"give transcripts as UTF-8 text"):
        read_transcripts(tmp_path)
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "a.TextGrid").touch()
    for source in (tmp_path / "deep", tmp_path / "deep" / "a.TextGrid"):
        with pytest.raises(DataError, match=r"TextGrids are not read as transcripts, but transcripts\.tsv, "):
            read_transcripts(source)
    with pytest.raises(DataError, match=r"line 1: is a header; write a line for each recording below it$"):
        table.write_text("name\ttext\n")
        without_headers(read_transcripts(tmp_path), {"a"})
    with pytest.raises(DataError, match=r"no known layout of transcripts; name it"):
        (tmp_path / "words.doc").write_text("one")
        read_transcripts(tmp_path / "words.doc")
