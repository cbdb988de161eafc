"""What source files are packed to, judged by the arrays that they were made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dali_asr import Corpus
from dali_asr.corpus import PackSettings, pack_corpus

Utterances = Mapping[str, tuple[NDArray[Any], "NDArray[Any] | None"]]  # frames and labels by name


def packed(root: Path, dest: Path, **settings: Any) -> Corpus:
    """Pack without normalization, and open."""
    pack_corpus(root, dest, PackSettings(normalization="none", **settings))
    return Corpus.open(dest)


def check(corpus: Corpus, expected: Mapping[str, Utterances], symbols: Sequence[str]) -> None:
    """Compare a corpus with the arrays that it was made of, to the bit."""
    assert corpus.inventory.symbols == tuple(symbols)
    assert list(corpus.partitions) == list(expected)
    for name, utterances in expected.items():
        partition = corpus.partition(name)
        assert partition.utterances == tuple(utterances)
        for found, (frames, _) in zip(partition.frames(), utterances.values(), strict=True):
            assert found.tobytes() == frames.astype(np.float32).tobytes()
        labels = [given for _, given in utterances.values() if given is not None]
        assert partition.labelled == bool(labels)
        if labels:
            stored = partition.labels()
            assert stored is not None
            assert np.array_equal(np.concatenate(labels), stored)
