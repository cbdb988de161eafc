"""Labels that a CSV lists are not trained on."""

from __future__ import annotations

from pathlib import Path

import pytest

from dali_asr import Config, train
from dali_asr.build import training_partition
from dali_asr.config import DataConfig
from dali_asr.corpus import Corpus
from dali_asr.errors import DataError
from dali_asr.training.setup import drop_warnings

HEADER = "kind,partition,utterance,start_frame,end_frame\n"


def write(path: Path, text: str) -> str:
    path.write_text(text)
    return str(path)


def test_listed_frames_lose_their_label_and_others_keep_it(course: Path, tmp_path: Path) -> None:
    rows = "segment,train,u02,3,9\ntranscript,train,u00,,\nsegment,dev,u00,0,2\n"
    drop = write(tmp_path / "d.csv", HEADER + rows)
    corpus = Corpus.open(course)
    partition = training_partition(corpus, DataConfig(train=("train",), drop=drop))
    labels, whole = partition.labels(), corpus.partition("train").labels()
    assert labels is not None
    assert whole is not None
    gone = [*range(7), *range(8 + 3, 8 + 9)]
    assert [at for at, label in enumerate(labels) if label < 0] == gone
    assert all(labels[at] == whole[at] for at in range(len(whole)) if at not in gone)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b\n1,2\n", "has no column partition or utterance"),
        (HEADER + "x,train,u99,,\n", "line 2: train has no utterance 'u99'"),
        (HEADER + "x,train,u00,0,8\n", "line 2: frames 0 to 8 of 'u00', which has 7"),
        (HEADER + "x,train,u00,0,end\n", "line 2: start_frame '0', end_frame 'end'; expected two integers"),
    ],
)
def test_a_wrong_line_is_named(course: Path, tmp_path: Path, text: str, message: str) -> None:
    data = DataConfig(train=("train",), drop=write(tmp_path / "d.csv", text))
    with pytest.raises(DataError, match=message) as raised:
        training_partition(Corpus.open(course), data)
    assert "\n" not in str(raised.value)


def test_a_missing_file_is_named(course: Path) -> None:
    with pytest.raises(DataError, match=r"data.drop: nowhere.csv: No such file or directory; give"):
        training_partition(Corpus.open(course), DataConfig(train=("train",), drop="nowhere.csv"))


def test_a_list_of_another_corpus_is_not_ignored_in_silence(course: Path, tmp_path: Path) -> None:
    drop = write(tmp_path / "d.csv", HEADER + "segment,elsewhere,u02,3,9\n")
    data = DataConfig(root=str(course), train=("train",), drop=drop)
    assert drop_warnings(data) == [
        f"data.drop: {drop}: drops nothing: it lists labels of elsewhere, data.train is train; "
        f"give the findings.csv of this corpus: dali-asr audit {course}"
    ]
    write(tmp_path / "d.csv", HEADER + "segment,train,u02,3,9\n")
    assert not drop_warnings(data)


def test_a_run_records_what_it_dropped_and_trains_without_it(course: Path, tmp_path: Path) -> None:
    drop = write(tmp_path / "d.csv", HEADER + "segment,train,u02,3,9\n")
    small = ["loader.context=2", "loader.batch_size=8", "model.hidden=[4]", "training.max_steps=1", "data.dev=null"]
    config = Config.load("demo", [f"data.root={course}", "data.test=null", f"data.drop={drop}", *small])
    result = train(config, run=tmp_path / "run")
    assert f"drop: {drop}" in (result.run / "config.yaml").read_text()
