"""Transcripts to words, as a dictionary lists them: lower case, without punctuation, numbers spelled out."""

from __future__ import annotations

import re
import unicodedata

_APOSTROPHES = str.maketrans({"’": "'", "‘": "'", "ʼ": "'", "`": "'", "´": "'"})  # noqa: RUF001
_DASHES = re.compile("[‐‑‒–—―−]|--+")  # noqa: RUF001
_MINUS = re.compile(r"(?<![^\s(\"'])[-−](?=\d)")
_ORDINAL = re.compile(r"(\d{1,3}(?:,\d{3})+|\d+)(st|nd|rd|th)")
_NUMBER = re.compile(r"\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?")
_SMALL = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen"
)
_BIG = "twenty thirty forty fifty sixty seventy eighty ninety"
_ONES, _TENS = _SMALL.split(), _BIG.split()
_SCALES = ((1_000_000, "million"), (1_000, "thousand"), (100, "hundred"))
_ORDINALS = {"one": "first", "two": "second", "three": "third", "five": "fifth", "eight": "eighth", "nine": "ninth"}
_ORDINALS["twelve"] = "twelfth"
NUMBER_LIMIT = 1_000_000_000


def split_words(text: str) -> list[str]:
    """Return the words of a transcript in lower case, without the punctuation around them.

    Hyphens and apostrophes within a word stay. A dash between words separates them; a tag in square brackets or
    angle brackets, such as `[noise]`, is left out. `%`, `&`, and the sign of a number as `minus`, are read out; other
    signs are left out.
    """
    text = unicodedata.normalize("NFKC", text).translate(_APOSTROPHES)
    text = text.replace("%", " percent ").replace("&", " and ")
    text = re.sub(r"\[[^\]\s]*\]|<[^>\s]*>", " ", text)
    text = re.sub(r"(?<=\w)[‐‑](?=\w)", "-", text)  # noqa: RUF001 - hyphens that NFKC leaves
    text = _MINUS.sub("minus ", text)
    words = (_bare(word) for word in _DASHES.sub(" ", text).lower().split())
    return [word for word in words if word]


def _bare(word: str) -> str:
    """Strip what is neither letter nor digit from both ends; an apostrophe before or after letters stays."""
    start, end = 0, len(word)
    while start < end and not (word[start].isalnum() or (word[start] == "'" and word[start + 1 : start + 2].isalpha())):
        start += 1
    while end > start and not (word[end - 1].isalnum() or unicodedata.combining(word[end - 1])):
        end -= 1
    return word[start:end]


def number_words(text: str) -> list[str] | None:
    """Return the words of a number below a thousand million, `1,250`, `3.5` or `21st`; None of anything else.

    It is read as a cardinal or ordinal number, without `and`; the digits after a point one by one.
    """
    if (ordinal := _ORDINAL.fullmatch(text)) and text.isascii():
        *words, last = number_words(ordinal[1]) or [""]
        named = _ordinal(last)
        return [*words, named] if last and named.endswith(ordinal[2]) else None
    if not _NUMBER.fullmatch(text) or not text.isascii():
        return None
    whole, _, fraction = text.replace(",", "").partition(".")
    if int(whole) >= NUMBER_LIMIT:
        return None
    point = ["point", *(_ONES[int(digit)] for digit in fraction)] if fraction else []
    return [*_cardinal(int(whole)), *point]


def _ordinal(word: str) -> str:
    """Return the ordinal of the last word of a cardinal number."""
    return _ORDINALS.get(word) or (f"{word[:-1]}ieth" if word.endswith("y") else f"{word}th")


def _cardinal(number: int) -> list[str]:
    for scale, name in _SCALES:
        if number >= scale:
            rest = number % scale
            return [*_cardinal(number // scale), name, *(_cardinal(rest) if rest else [])]
    if number < len(_ONES):
        return [_ONES[number]]
    tens, ones = divmod(number, 10)
    return [_TENS[tens - 2], *([_ONES[ones]] if ones else [])]
