"""Folds: the symbols of aligners and other corpora as those of an inventory.

arpabet    stress digits dropped, either case, names of silence: IH0, ih and IH are IH; sil and sp are [SIL]
timit61    TIMIT's 61 phones by the table of Lee and Hon 1989, "Speaker-independent phone recognition using hidden
           Markov models", but AO and ZH are kept and dx is D; closures are silence
mfa        `arpabet`, and the IPA phones of the Montreal Forced Aligner's English models
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from dali_asr.errors import DataError
from dali_asr.inventory import ARPABET_SYMBOLS, SILENCES

if TYPE_CHECKING:
    from collections.abc import Mapping

SILENCE = "[SIL]"
_PHONES = tuple(symbol for symbol in ARPABET_SYMBOLS if symbol.isalpha())
_VOWELS = tuple(symbol for symbol in _PHONES if symbol[0] in "AEIOU")
_QUIET = (*SILENCES, "spn", "SPN", "nsn", "h#", "pau", "epi", "<eps>", "")

_ALLOPHONES = (
    "ax AH, ax-h AH, axr ER, ix IH, ux UW, hv HH, el L, em M, en N, nx N, eng NG, dx D, "
    "bcl [SIL], dcl [SIL], gcl [SIL], kcl [SIL], pcl [SIL], tcl [SIL], q [SIL]"
)
_IPA = (
    "aj AY, aw AW, ej EY, ow OW, əw OW, ɔj OY, i IY, iː IY, ɪ IH, u UW, uː UW, ʉ UW, ʉː UW, ʊ UH, e EH, ɛ EH, ɛː EH, "
    "æ AE, a AA, aː AA, ɑ AA, ɑː AA, ɒ AO, ɒː AO, ɔ AO, o OW, ɐ AH, ə AH, ʌ AH, ɚ ER, ɝ ER, ɜ ER, ɜː ER, "
    "b B, bʲ B, c K, cʰ K, cʷ K, k K, kʰ K, kʷ K, kp K, d D, dʲ D, ɾ D, ɾʲ D, d̪ DH, ð DH, dʒ JH, f F, fʲ F, fʷ F, "
    "h HH, ç HH, j Y, l L, ɫ L, ɫ̩ L, ʎ L, m M, mʲ M, m̩ M, ɱ M, n N, n̩ N, ɲ N, ɾ̃ N, ŋ NG, p P, pʰ P, pʲ P, pʷ P, "
    "ɹ R, s S, ʃ SH, t T, tʰ T, tʲ T, tʷ T, ʔ T, t̪ TH, θ TH, tʃ CH, v V, vʲ V, vʷ V, w W, z Z, ʒ ZH, "
    "ɟ G, ɟʷ G, g G, ɡ G, ɡʷ G, ɡb G"
)


def _table(pairs: str) -> dict[str, str]:
    return dict(pair.split() for pair in pairs.split(", "))


def _arpabet() -> dict[str, str]:
    stressed = [(f"{vowel}{digit}", vowel) for vowel in _VOWELS for digit in "012"]
    both = [*((phone, phone) for phone in _PHONES), *stressed]
    return dict.fromkeys(_QUIET, SILENCE) | dict(both) | {symbol.lower(): target for symbol, target in both}


FOLDS = {
    "arpabet": _arpabet(),
    "timit61": _arpabet() | _table(_ALLOPHONES),
    "mfa": _arpabet() | _table(_IPA),
}


def read_fold(name: str) -> Mapping[str, str]:
    """Return a fold by its name, or from a text file with a symbol and its target on each line.

    Raises:
        DataError: the file cannot be read, or a line is not of this form.
    """
    if name in FOLDS:
        return FOLDS[name]
    path = Path(name).expanduser()
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise DataError(
            f"fold {name}: {reason}; give {', '.join(FOLDS)}, or a file of lines `SYMBOL TARGET`"
        ) from error
    fold = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        parts = line.split()
        if len(parts) != 2 or parts[0] in fold:
            raise DataError(f"{path}, line {number}: {line.strip()[:40]!r}; write `SYMBOL TARGET`, each symbol once")
        fold[parts[0]] = parts[1]
    return fold


def fold_that_knows(symbol: str, targets: Mapping[str, int]) -> str | None:
    """Return the name of a fold that turns a symbol into one of the targets, or None."""
    return next((name for name, fold in FOLDS.items() if fold.get(symbol) in targets), None)
