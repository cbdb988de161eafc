"""What the rounds of a bootstrap are measured by, and its first alignment of real speech."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile

from dali_asr.alignment.bootstrap import CORPUS, bootstrap, moved_share
from dali_asr.alignment.dictionary import load_dictionary
from dali_asr.alignment.sphinx import SphinxAligner
from dali_asr.config import Config
from dali_asr.corpus import Corpus
from dali_asr.errors import DataError
from dali_asr.inventory import ARPABET
from dali_asr.segments import Segment

SPEECH = Path(__file__).parents[3] / "shared" / "data" / "speech"


def phones(*starts: float) -> list[Segment]:
    return [Segment(start, start + 0.1, label) for start, label in zip(starts, ("[SIL]", "K", "AE", "T"), strict=True)]


def test_share_of_boundaries_that_moved() -> None:
    before = {"a": phones(0, 0.1, 0.2, 0.3), "b": phones(0, 1, 2, 3), "c": phones(0, 1, 2, 3)}
    after = {"a": phones(0, 0.121, 0.181, 0.3), "b": phones(5, 1, 2.5, 3), "c": phones(0, 1, 2, 3)[:2]}
    assert moved_share(before, after) == pytest.approx(2 / 6)
    assert moved_share(before, {}) is None


def test_one_recording_is_too_few(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.zeros(16_000), 16_000)
    with pytest.raises(DataError, match=r"one recording in .*, and the model is trained on at least 2, better on"):
        bootstrap(tmp_path / "runs", tmp_path, tmp_path, rounds=1)


@pytest.mark.skipif(not SPEECH.is_dir(), reason=f"needs real speech in {SPEECH}")
def test_pocketsphinx_aligns_real_speech() -> None:
    """Its truth was made by an aligner like this one."""
    pytest.importorskip("pocketsphinx", reason="needs the extra `align`")
    words = load_dictionary(ARPABET)
    text = next(line for line in (SPEECH / "transcripts.tsv").read_text().splitlines() if line.startswith("000360013"))
    said = text.split("\t")[-1].lower().split()
    entries = [(word, entry) for word in said if (entry := words.find(word))]
    found = [p for p in SphinxAligner(words).align(SPEECH / "000360013.wav", entries) if p.label != "[SIL]"]
    lines = (line.split() for line in (SPEECH / "000360013.phn").read_text().splitlines())
    truth = [(int(start) / 16_000, phone) for start, _, phone in lines if phone != "SIL"]
    assert [p.label for p in found] == [phone for _, phone in truth]
    close = [abs(p.start - start) <= 0.02 for p, (start, _) in zip(found, truth, strict=True)]
    assert sum(close) >= 0.8 * len(close)


@pytest.mark.skipif(not SPEECH.is_dir(), reason=f"needs real speech in {SPEECH}")
def test_a_round_trains_on_the_first_alignment_and_aligns_again(tmp_path: Path) -> None:
    pytest.importorskip("pocketsphinx", reason="needs the extra `align`")
    recordings = tmp_path / "recordings"
    recordings.mkdir()
    lines = (SPEECH / "transcripts.tsv").read_text().splitlines()[:3]
    for name in (line.split("\t")[0] for line in lines):
        shutil.copy(next(path for path in SPEECH.glob(f"{name}.*") if path.suffix != ".phn"), recordings)
    (tmp_path / "transcripts.tsv").write_text("\n".join(lines))
    config = Config.check(
        {
            "model": {"hidden": [8], "states": 3},
            "loader": {"context": 2, "batch_size": 64, "device": "cpu"},
            "training": {"max_steps": 2},
        }
    )
    first, second = bootstrap(tmp_path / "runs", recordings, tmp_path / "transcripts.tsv", rounds=1, config=config)
    assert (first.aligned, second.aligned) == (3, 3)
    assert first.mean_log_posterior is None
    assert second.mean_log_posterior is not None
    assert second.mean_log_posterior < -1, "two steps of training do not teach much"
    corpus = Corpus.open(tmp_path / "runs" / CORPUS)
    assert [len(corpus.partition(name).utterances) for name in ("train", "dev")] == [2, 1]
    assert corpus.label_shift == 0.0025  # pocketsphinx writes whole hops
