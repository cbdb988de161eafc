"""From configuration to objects: what is wrong with the corpus is said before it is packed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dali_asr import Corpus
from dali_asr.build import check_corpus, open_corpus
from dali_asr.config import DataConfig
from dali_asr.corpus import pack_corpus
from dali_asr.corpus.packing import quiet
from dali_asr.errors import DataError, UsageError
from tests.corpus.archives import make_archive
from tests.makers import make_course


def opened(root: Path, **data: Any) -> Corpus:
    return open_corpus(DataConfig(root=str(root), **data), quiet)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("key", ["train", "dev", "test"])
def test_an_unknown_partition_is_refused_with_its_key(
    key: str, packed: bool, course: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = course
    if packed:
        pack_corpus(course, tmp_path / "packed")
        root = tmp_path / "packed"
    monkeypatch.setattr("dali_asr.corpus.cache.pack_corpus", lambda *_, **__: pytest.fail("packed"))
    remedy = rf"[^?]*data\.{key}=NAME[^?]*; did you mean train\?$"
    with pytest.raises(UsageError, match=rf"^data\.{key}: {root}: no partition 'trian'; it has {remedy}"):
        opened(root, **{"train": "test", "dev": None, "test": None} | {key: "trian"})


@pytest.mark.parametrize("packed", [False, True])
def test_a_partition_of_another_role_is_not_suggested(packed: bool, tmp_path: Path) -> None:
    root = tmp_path / "course"
    make_course(root, {"train-clean": [9], "dev-clean": [9]})
    if packed:
        pack_corpus(root, tmp_path / "packed")
        root = tmp_path / "packed"
    names: dict[str, Any] = {"train": "train-clean", "dev": "dev-clean", "test": "test-clean"}
    problem = f"{root}: no partition 'test-clean'; it has 'dev-clean', 'train-clean'"
    null_first = "set it to null if there is none (data.test=null), or name one of these (data.test=NAME)"
    with pytest.raises(UsageError) as raised:
        opened(root, **names)
    assert str(raised.value) == f"data.test: {problem}; {null_first}"
    with pytest.raises(UsageError, match=r"data\.dev=null\); did you mean dev-clean\?$"):
        opened(root, **names | {"dev": "dev", "test": None})


def test_a_partition_is_not_a_root(course: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        DataError,
        match=f"data.root: {course}/train: is a partition, .* set data.root to {course} and data.train to train$",
    ):
        opened(course / "train")
    monkeypatch.chdir(course / "dev")
    with pytest.raises(DataError, match=f"set data.root to {course} and data.train to dev$"):
        opened(Path())


def test_a_course_folder_is_packed(course: Path) -> None:
    assert list(opened(course, dev=None, test=None).partitions) == ["train"]


def test_an_archive_is_packed_and_not_read_before(course: Path, tmp_path: Path) -> None:
    archive = make_archive(tmp_path / "a.tar.gz", course)
    assert not check_corpus(DataConfig(root=str(archive)))
    with pytest.raises(UsageError, match=r"^data\.train: .*a\.tar\.gz: no partition 'x'; it has .* \(data\.train=NAME"):
        opened(archive, train=("x",))
    found = opened(archive, dev=None, test=None)
    assert list(found.partitions) == ["train"]
    assert found.partition("train").fingerprint == opened(course).partition("train").fingerprint
