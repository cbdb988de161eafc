"""Finding layouts, and telling from their files whether the cache still has them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from dali_asr import Corpus
from dali_asr.corpus import PackSettings, export_corpus
from dali_asr.corpus.layouts import find_layout, partition_names
from dali_asr.errors import UsageError
from tests.makers import make_features


def make(kind: str, root: Path, course: Path) -> Path:
    """Write a folder of a layout with a labelled partition `train`."""
    if kind == "libriphone":
        (root / "feat/train").mkdir(parents=True)
        torch.save(torch.from_numpy(make_features(3, 39)), root / "feat/train/u.pt")
        (root / "train_labels.txt").write_text("u 1 2 3\n")
        (root / "train_split.txt").write_text("u\n")
        return root
    corpus = Corpus.open(course, PackSettings(normalization="none"))
    export_corpus(corpus, root, kind)  # type: ignore[arg-type]
    return root


@pytest.mark.parametrize("kind", ["course", "libriphone", "kaldi", "npz"])
def test_a_change_of_any_file_is_packed_anew(kind: str, course: Path, tmp_path: Path) -> None:
    root = make(kind, tmp_path / "source", course)
    settings = PackSettings(("train",))
    before = Corpus.open(root, settings).path
    assert Corpus.open(root, settings).path == before
    stamps = list(find_layout(root, ("train",)).stamps())
    files = [path for path in root.rglob("*") if path.is_file() and not {"dev", "test"} & set(path.parts)]
    files = [path for path in files if path.stem not in ("dev", "test")]
    for path in files:
        os.utime(path, ns=(1, path.stat().st_mtime_ns + 1))
        now = list(find_layout(root, ("train",)).stamps())
        assert now != stamps, path
        stamps = now
    assert Corpus.open(root, settings).path != before


@pytest.mark.parametrize("kind", ["course", "libriphone", "kaldi", "npz"])
def test_an_unknown_partition_is_refused(kind: str, course: Path, tmp_path: Path) -> None:
    root = make(kind, tmp_path / "source", course)
    assert "train" in partition_names(root)
    with pytest.raises(UsageError, match=r"no partition 'trian'; it has .*'train'; did you mean train\?"):
        find_layout(root, ("trian",))
