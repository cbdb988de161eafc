"""How recordings become a corpus: `PrepareSettings`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from dali_asr.audio.settings import FeatureSettings
    from dali_asr.corpus.normalize import Kind


@dataclass(frozen=True)
class PrepareSettings:
    """How recordings become a corpus.

    Attributes:
        features: what is computed from the recordings.
        alignments: a further folder of alignments, at the places of the recordings or in one folder; None for none.
        tier: of TextGrids, a name or a pattern; None for the one that holds phones by its name.
        inventory: `arpabet` (also None), a text file with one symbol per line, or `found` for the symbols found.
        fold: the symbols that others stand for, a fold's name or file; None for the fold of `corpus.folding` that fits.
        silence: symbol of gaps between segments; None for that of the inventory.
        speakers: how speakers are told, see `find_speakers`; None for the way that fits.
        split: shares of train, dev and test; None for the partitions that folders say, or else 0.8, 0.1 and 0.1.
        seed: of the split.
        normalization: of the frames, `utterance` or `none`.
        dtype: of the stored frames, `float32` or `float16`.
        gpu: number of the GPU that computes features; None: the CPU does.
        keep_going: whether what cannot be used is left out; otherwise nothing is written.
    """

    features: FeatureSettings
    alignments: Path | None = None
    tier: str | None = None
    inventory: str | None = None
    fold: str | None = None
    silence: str | None = None
    speakers: str | None = None
    split: tuple[float, ...] | None = None
    seed: int = 0
    normalization: Kind = "utterance"
    dtype: str = "float32"
    gpu: int | None = None
    keep_going: bool = False
