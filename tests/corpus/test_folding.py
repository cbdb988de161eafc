"""Symbols of aligners and other corpora become those of an inventory."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dali_asr import Corpus, Inventory
from dali_asr.corpus import PackSettings
from dali_asr.corpus.folding import FOLDS, read_fold
from dali_asr.errors import DataError, UsageError
from dali_asr.inventory import ARPABET, ARPABET_SYMBOLS
from tests.makers import make_features

TIMIT = (
    "iy ih eh ey ae aa aw ay ah ao oy ow uh uw ux er ax ix axr ax-h jh ch b d g p t k dx q s sh z zh f th v dh m n ng "
    "em en eng nx l r w y hh hv el bcl dcl gcl pcl tcl kcl pau epi h#"
)


def course_of(folder: Path, symbols: list[str]) -> Path:
    """Return a course folder of one utterance with these symbols."""
    for part in ("mfcc", "transcript"):
        (folder / "train" / part).mkdir(parents=True)
    np.save(folder / "train/mfcc/u.npy", make_features(len(symbols)))
    np.save(folder / "train/transcript/u.npy", np.array(["[SOS]", *symbols, "[EOS]"]))
    return folder


def labels_of(folder: Path, **settings: Any) -> list[str]:
    labels = Corpus.open(folder, PackSettings(**settings)).partition("train").labels()
    assert labels is not None
    return [ARPABET_SYMBOLS[label] for label in labels]


@pytest.mark.parametrize(
    ("fold", "symbols", "expected"),
    [
        ("arpabet", "IH0 ih AA1 er2 K sil sp spn", "IH IH AA ER K [SIL] [SIL] [SIL]"),
        ("timit61", "h# ix axr hv ux el kcl k dx zh", "[SIL] IH ER HH UW L [SIL] K D ZH"),
        ("mfa", "aj IY1 ɹ tʃ ŋ ð spn pʰ iː", "AY IY R CH NG DH [SIL] P IY"),
    ],
)
def test_a_fold_gives_the_symbols_of_the_inventory(tmp_path: Path, fold: str, symbols: str, expected: str) -> None:
    assert labels_of(course_of(tmp_path / "c", symbols.split()), fold=fold) == expected.split()


def test_every_target_is_in_the_inventory_and_every_symbol_of_timit_has_one() -> None:
    for fold in FOLDS.values():
        assert set(fold.values()) <= set(ARPABET_SYMBOLS)
    phones = TIMIT.split()
    assert len(phones) == 61
    assert set(phones) <= set(FOLDS["timit61"])


def test_a_fold_of_ones_own(tmp_path: Path) -> None:
    course = course_of(tmp_path / "c", ["x", "AA"])
    file = tmp_path / "fold.txt"
    file.write_text("x K\n\n")
    assert labels_of(course, fold=str(file)) == ["K", "AA"]
    file.write_text("x S\n")
    assert labels_of(course, fold=str(file)) == ["S", "AA"], "a changed file packs anew"
    file.write_text("x K K\n")
    with pytest.raises(DataError, match=r"fold.txt, line 1: 'x K K'; write `SYMBOL TARGET`, each symbol once"):
        read_fold(str(file))
    with pytest.raises(DataError, match=r"fold nothing: No such file .*; give arpabet, timit61, mfa, or a file"):
        read_fold("nothing")


def test_an_unknown_symbol_leads_to_the_fold_that_knows_it(tmp_path: Path, run_cli: Callable[..., Any]) -> None:
    course = course_of(tmp_path / "c", ["AA", "IH0"])
    with pytest.raises(DataError, match=r"unknown symbol 'IH0' at position 2; fold it \(fold='arpabet'\)"):
        Corpus.open(course)
    done = run_cli("data", "pack", course, tmp_path / "p")
    assert "fold it (data.fold, or data pack --fold: 'arpabet')" in done.stderr
    assert run_cli("data", "pack", course, tmp_path / "p", "--fold", "arpabet").exit_code == 0


def test_silence_is_found_by_name() -> None:
    assert ARPABET.silence() == 0
    assert Inventory(("a", "sp", "sil")).silence() == 2
    assert Inventory(("a", "sp")).silence("a") == 0
    assert Inventory(("a", "b")).silence() is None
    with pytest.raises(UsageError, match="silence 'SIL': not in the inventory"):
        Inventory(("a", "b")).silence("SIL")
