"""Which label set and fold fit the symbols of alignments."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dali_asr.audio.alignments.labels import LabelRule
from dali_asr.corpus.folding import FOLDS, SILENCE, read_fold
from dali_asr.errors import UsageError
from dali_asr.inventory import Inventory, resolve_inventory

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

FOUND = "found"  # the inventory of the symbols that the alignments hold


def label_rule(
    symbols: Collection[str], inventory: str | None, fold: str | None, silence: str | None
) -> tuple[LabelRule, str]:
    """Return how symbols become labels, and a line that says so.

    Args:
        symbols: those of all alignments.
        inventory: `arpabet` (also None), a text file with one symbol per line, or `found` for the symbols themselves.
        fold: a fold's name or file; None for that of `arpabet`, `timit61` and `mfa` which knows most symbols.
        silence: symbol of gaps; None for the inventory's.

    Raises:
        UsageError: the inventory has no such symbol of silence, or none at all.
        DataError: inventory or fold cannot be read.
    """
    if inventory == FOUND:
        rule = _found(symbols, fold, silence)
        return rule, f"{len(rule.inventory)} symbols, those found"
    known = resolve_inventory(inventory)
    label = known.silence(silence)
    if label is None:
        raise UsageError(f"inventory {inventory}: has no symbol of silence, which gaps need; name it (silence=SYMBOL)")
    quiet = known.symbols[label]
    names = [fold] if fold else list(FOLDS)
    rules = [LabelRule(known, quiet, _quieted(read_fold(name), quiet)) for name in names]
    unknown = [sum(rule.target(symbol) is None for symbol in symbols) for rule in rules]
    best = min(range(len(rules)), key=unknown.__getitem__)  # the first one of equal ones
    return rules[best], f"{len(known)} symbols, folded by {names[best]}"


def _found(symbols: Collection[str], fold: str | None, silence: str | None) -> LabelRule:
    """Return a rule whose inventory is silence, and the other symbols in order."""
    quiet = silence or SILENCE
    table = read_fold(fold) if fold else {symbol: SILENCE for symbol, to in FOLDS["arpabet"].items() if to == SILENCE}
    table = _quieted(table, quiet)
    others = sorted({table.get(symbol, symbol) for symbol in symbols} - {quiet})
    return LabelRule(Inventory((quiet, *others)), quiet, table)


def _quieted(fold: Mapping[str, str], silence: str) -> dict[str, str]:
    """Return a fold whose silence is that of the inventory."""
    return {symbol: silence if target == SILENCE else target for symbol, target in fold.items()}
