"""Pronunciations of words that no dictionary lists, by rule. They are guesses.

A word without a vowel letter is spelled letter by letter. Of others, the longest group of letters that the table
knows gives its phones, from left to right:

    final silent e     after a vowel and one consonant: the vowel says its name, `stroke`: S T R OW K
    doubled consonants sound once
    c before e, i, y   S; g there JH
    y first            Y, elsewhere IY
"""

from __future__ import annotations

import re

VOWELS = "aeiouy"

_LETTERS = {
    "a": "EY", "b": "B IY", "c": "S IY", "d": "D IY", "e": "IY", "f": "EH F", "g": "JH IY", "h": "EY CH", "i": "AY",
    "j": "JH EY", "k": "K EY", "l": "EH L", "m": "EH M", "n": "EH N", "o": "OW", "p": "P IY", "q": "K Y UW",
    "r": "AA R", "s": "EH S", "t": "T IY", "u": "Y UW", "v": "V IY", "w": "D AH B AH L Y UW", "x": "EH K S",
    "y": "W AY", "z": "Z IY",
}  # fmt: skip
_SOUNDS = {
    "tion": "SH AH N", "sion": "ZH AH N", "tch": "CH", "igh": "AY", "eau": "OW", "sch": "SH", "dge": "JH",
    "ch": "CH", "ck": "K", "gh": "G", "kn": "N", "ng": "NG", "ph": "F", "qu": "K W", "sh": "SH", "th": "TH",
    "wh": "W", "wr": "R", "ai": "EY", "ay": "EY", "au": "AO", "aw": "AO", "ea": "IY", "ee": "IY", "ei": "EY",
    "eu": "UW", "ew": "UW", "ey": "IY", "ie": "IY", "oa": "OW", "oi": "OY", "oo": "UW", "ou": "AW", "ow": "OW",
    "oy": "OY", "ue": "UW", "er": "ER", "ir": "ER", "ur": "ER", "ce": "S EH", "ci": "S IH", "cy": "S IY",
    "ge": "JH EH", "gi": "JH IH", "gy": "JH IY",
    "a": "AE", "b": "B", "c": "K", "d": "D", "e": "EH", "f": "F", "g": "G", "h": "HH", "i": "IH", "j": "JH",
    "k": "K", "l": "L", "m": "M", "n": "N", "o": "AA", "p": "P", "q": "K", "r": "R", "s": "S", "t": "T", "u": "AH",
    "v": "V", "w": "W", "x": "K S", "y": "IY", "z": "Z",
}  # fmt: skip
_LONGEST = max(map(len, _SOUNDS))
_LONG = {"a": "EY", "e": "IY", "i": "AY", "o": "OW", "u": "UW", "y": "AY"}
_SILENT_E = re.compile("(.*[^aeiouy]|)([aeiouy])([bcdfgklmnpqstvz])e")


def guess(word: str) -> list[str] | None:
    """Return the ARPAbet phones that a word of the letters a to z probably has; None for other words."""
    if not word or any(letter not in _LETTERS for letter in word):
        return None
    if not set(word) & set(VOWELS):
        return " ".join(_LETTERS[letter] for letter in word).split()
    found = _SILENT_E.fullmatch(word)
    if found:
        start, vowel, consonant = found.groups()
        return [*_sound_out(start), _LONG[vowel], *({"c": "S", "g": "JH"}.get(consonant) or _SOUNDS[consonant]).split()]
    return _sound_out(word)


def _sound_out(word: str) -> list[str]:
    phones: list[str] = []
    at = 0
    while at < len(word):
        if at and word[at] == word[at - 1] and word[at] not in VOWELS:
            at += 1
            continue
        length = next(n for n in range(_LONGEST, 0, -1) if word[at : at + n] in _SOUNDS)
        sound = "Y" if word[at] == "y" and not at and len(word) > 1 else _SOUNDS[word[at : at + length]]
        phones += sound.split()
        at += length
    return phones
