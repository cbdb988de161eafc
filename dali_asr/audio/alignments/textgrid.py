"""Praat TextGrids, in the long and the short text format.

Praat reads free-standing numbers, texts in double quotes and flags such as `<exists>`, and ignores everything else, so
that both formats are one to it: "TextGrid file formats" in Praat's manual. This reader does the same. Unlike praatio's
reader, it notices a file that was cut off, and a text may contain anything.
"""

from __future__ import annotations

import math
import re
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, NamedTuple

from dali_asr.audio.alignments.text import read_text
from dali_asr.errors import DataError, brief, did_you_mean
from dali_asr.segments import Segment

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

# Between spaces: a text, in which "" stands for a quote; a comment; a text without an end; or another word.
_TOKEN = re.compile(r'\s*(?:"([^"]*(?:""[^"]*)*)"(?!\S)|!.*|(")|(\S+))')
_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")
_FLAG = re.compile(r"<\w+>")
_PHONE_TIERS = ("phones", "phone", "phonemes", "phoneme", "segments", "* - phones")
_INTERVALS, _POINTS = "IntervalTier", "TextTier"


class Tier(NamedTuple):
    """A tier of intervals.

    Attributes:
        name: of the tier.
        segments: its intervals, in the order of the file; those without a text too.
    """

    name: str
    segments: list[Segment]


def read_textgrid(path: Path, tier: str | None = None) -> list[Segment]:
    """Read a tier of a TextGrid.

    Args:
        path: the file.
        tier: its name, or a pattern such as `* - phones`; None for the tier that holds phones by its name: `phones`,
            `phone`, `phonemes`, `phoneme`, `segments`, or one that ends in ` - phones`, in either case.

    Raises:
        DataError: the file cannot be read or is damaged, or not exactly one tier has such a name.
    """
    tiers = read_tiers(path)
    patterns = [tier] if tier is not None else _PHONE_TIERS
    names = [t.name for t in tiers]
    found = [t for t in tiers if t.name == tier] or [t for t in tiers if _matches(t.name, patterns)]
    if len(found) == 1:
        return found[0].segments
    wanted = f"tier {brief(tier)}" if tier is not None else "tier of phones"
    listed = f"its tiers are {', '.join(map(brief, names))}" if names else "it has no tiers of intervals"
    near = did_you_mean(tier, names) if tier and not found else ""
    what = f"{len(found)} tiers match {wanted}" if found else f"no {wanted}"
    raise DataError(f"{path}: {what}; {listed}{near or '; name one (tier=NAME)'}")


def read_tiers(path: Path) -> list[Tier]:
    """Read the tiers of intervals of a TextGrid; tiers of points are left out.

    Raises:
        DataError: the file cannot be read, or is damaged.
    """
    tokens = _Tokens(path, read_text(path))
    if tokens.text("ooTextFile").partition(" ")[0] != "ooTextFile" or tokens.text("TextGrid") != "TextGrid":
        raise tokens.damaged('it does not open with "ooTextFile" and "TextGrid"')
    tokens.number(), tokens.number()
    if tokens.flag() != "<exists>":
        return []
    tiers = (_read_tier(tokens) for _ in range(tokens.count()))
    return [tier for tier in tiers if tier]


def _read_tier(tokens: _Tokens) -> Tier | None:
    kind, name = tokens.text("a tier's class"), tokens.text("a tier's name")
    if kind not in (_INTERVALS, _POINTS):
        raise tokens.damaged(f"{brief(kind)} is not a class of tiers")
    tokens.number(), tokens.number()
    segments = []
    for _ in range(tokens.count()):
        start = tokens.number()
        end = tokens.number() if kind == _INTERVALS else start
        segments.append(Segment(start, end, tokens.text("a label").strip()))
    return Tier(name.strip(), segments) if kind == _INTERVALS else None


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(name.lower(), pattern.lower()) for pattern in patterns)


class _Tokens:
    """The free-standing texts, numbers and flags of a file, taken one after another."""

    def __init__(self, path: Path, content: str) -> None:
        self._path, self._content = path, content
        self._at = 0

    def text(self, what: str) -> str:
        """Take a text; `what` it is, for the error."""
        kind, value = self._next(what)
        if kind != "text":
            raise self.damaged(f"{brief(value)} where {what} belongs")
        return value

    def number(self) -> float:
        """Take a finite number."""
        kind, value = self._next("a number")
        if kind != "number" or not math.isfinite(float(value)):
            raise self.damaged(f"{brief(value)} where a number belongs")
        return float(value)

    def count(self) -> int:
        """Take a number of tiers or intervals."""
        value = self.number()
        if value < 0 or not value.is_integer():
            raise self.damaged(f"{value:g} is not a number of tiers or intervals")
        return int(value)

    def flag(self) -> str:
        """Take a flag."""
        kind, value = self._next("a flag")
        if kind != "flag":
            raise self.damaged(f"{brief(value)} where <exists> belongs")
        return value

    def damaged(self, why: str) -> DataError:
        """Return an error that names the line that was read last."""
        line = self._content.count("\n", 0, self._at) + 1
        return DataError(f"{self._path}, line {line}: damaged TextGrid, {why}; save it again as a text file")

    def _next(self, what: str) -> tuple[str, str]:
        while True:
            found = _TOKEN.match(self._content, self._at)
            if not found:
                raise self.damaged(f"it ends where {what} belongs")
            self._at = found.end()
            text, unclosed, word = found.groups()
            if text is not None:
                return "text", text.replace('""', '"')
            if unclosed:
                raise self.damaged('a quote that is not closed, or not doubled ("")')
            if word and _NUMBER.fullmatch(word):
                return "number", word
            if word and _FLAG.fullmatch(word):
                return "flag", word
