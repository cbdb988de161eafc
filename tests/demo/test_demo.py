"""The embedded corpus, and the script that makes it."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

from dali_asr import Corpus
from dali_asr.corpus import verify
from dali_asr.demo import DEMO_CORPUS, sentences


def test_the_demo_corpus_is_small() -> None:
    corpus = Corpus.open(DEMO_CORPUS)
    assert sum(p.hours * 60 for p in corpus.partitions.values()) <= 12
    assert sum(f.stat().st_size for f in DEMO_CORPUS.iterdir()) < 5e6
    assert corpus.dtype == np.float16
    assert corpus.feature_dim == 28
    verify(DEMO_CORPUS)


def test_all_forty_labels_occur_everywhere() -> None:
    for partition in Corpus.open(DEMO_CORPUS).partitions.values():
        labels = partition.labels()
        assert labels is not None
        assert set(labels.tolist()) == set(range(40))


def test_partitions_share_no_sentence_and_test_shares_no_voice() -> None:
    sets = [set(s) for s in (sentences.TRAIN, sentences.DEV, sentences.TEST)]
    assert sum(map(len, sets)) == len(set.union(*sets)) >= 80
    voices = {name: {u.split("-")[0] for u in p.utterances} for name, p in Corpus.open(DEMO_CORPUS).partitions.items()}
    assert voices == {"train": {"slt", "awb", "kal16"}, "dev": {"slt", "awb", "kal16"}, "test": {"rms"}}


def test_the_script_makes_the_committed_corpus() -> None:
    if shutil.which("flite") is None:
        pytest.skip("flite is not installed, so speech cannot be synthesized again")
    from dali_asr.audio.features import mfcc
    from dali_asr.corpus import Normalization
    from dali_asr.demo.make import frame_labels, speak

    partition = Corpus.open(DEMO_CORPUS).partition("test")
    samples, phones = speak(sentences.TEST[0], "rms")
    features = mfcc(samples)
    first = next(iter(partition.frames()))
    assert len(features) == 1 + (len(samples) - 400) // 160
    assert np.allclose(Normalization("utterance").apply(features), first, rtol=0, atol=2e-2)
    labels = partition.labels()
    assert labels is not None
    assert np.array_equal(frame_labels(phones, len(features)), labels[: len(features)])


def test_a_label_is_the_phone_at_the_center_of_the_frame() -> None:
    from dali_asr.demo.make import frame_labels
    from dali_asr.inventory import ARPABET

    labels = frame_labels([(0.02, "[SIL]"), (0.0325, "AA"), (0.05, "B")], 4)
    assert [ARPABET.symbols[i] for i in labels] == ["[SIL]", "AA", "B", "B"]  # centers 12.5, 22.5, 32.5 and 42.5 ms
