"""Sources of prediction: what a course folder costs, besides the prediction itself."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dali_asr import Corpus, Normalization, evaluate, predict
from dali_asr.cli.console import with_flags
from dali_asr.config import Config, DataConfig
from dali_asr.corpus.packing import quiet
from dali_asr.errors import DataError
from dali_asr.inference.sources import open_source
from dali_asr.inventory import ARPABET
from dali_asr.runs.description import ModelDescription
from dali_asr.training import train
from tests.fetching.archives import archive, tree
from tests.fetching.server import serving


def cached() -> set[str]:
    """Return the names in the cache of packed corpora."""
    return {path.name for path in (Path(os.environ["XDG_CACHE_HOME"]) / "dali-asr/corpora").iterdir()}


def test_nan_in_a_file_names_what_a_user_of_predict_can_do(tmp_path: Path) -> None:
    frames = np.zeros((5, 3), np.float32)
    frames[2, 1] = np.nan
    np.save(tmp_path / "a.npy", frames)
    description = ModelDescription((1, 1), 3, (), "gelu", False, ARPABET, Normalization("none"))
    with pytest.raises(DataError, match=r"a\.npy: nan at frame 2, feature 1; .*numpy\.nan_to_num") as raised:
        list(open_source([tmp_path / "a.npy"], None, description, DataConfig(), quiet).parts)
    assert with_flags(str(raised.value)) == str(raised.value), "no option of another command"


@pytest.mark.parametrize("normalization", ["global", "utterance", "none"])
def test_prediction_opens_what_training_packed(course: Path, tmp_path: Path, normalization: Any) -> None:
    values = {
        "data": {"root": str(course), "normalization": normalization},
        "loader": {"context": 1, "batch_size": 16},
        "model": {"hidden": [8]},
    }
    run = train(Config.check(values), run=tmp_path / "run").run
    packed = cached()
    first = predict(run, course, posteriors=True)
    assert cached() == packed
    features = np.load(course / "train/mfcc/u00.npy")
    np.save(course / "train/mfcc/u00.npy", features + 1)
    second = predict(run, course, posteriors=True)
    assert first.posteriors is not None
    assert second.posteriors is not None
    assert second.posteriors.tobytes() == first.posteriors.tobytes(), "by the statistics of the training"
    (new,) = {name for name in cached() - packed if not name.endswith((".lock", ".json"))}
    corpus = Corpus.open(Path(os.environ["XDG_CACHE_HOME"]) / "dali-asr/corpora" / new)
    assert list(corpus.partitions) == ["test"], "no other partition is packed"


def test_statistics_are_those_of_the_training(course: Path, tmp_path: Path) -> None:
    """Also where a folder with changed training data was packed with statistics of its own."""
    values: dict[str, Any] = {
        "data": {"root": str(course), "normalization": "global"},
        "loader": {"context": 1, "batch_size": 16},
        "model": {"hidden": [8]},
    }
    run = train(Config.check(values), run=tmp_path / "run").run
    first = predict(run, course, posteriors=True)
    np.save(course / "train/mfcc/u00.npy", np.load(course / "train/mfcc/u00.npy") * 9)
    train(Config.check(values), run=tmp_path / "other")
    second = predict(run, course, posteriors=True)
    assert first.posteriors is not None
    assert second.posteriors is not None
    assert second.posteriors.tobytes() == first.posteriors.tobytes()


def test_what_is_elsewhere_is_fetched_once_for_all(course: Path, tmp_path: Path) -> None:
    """Training, prediction and evaluation find it in the cache."""
    with serving({"/data.zip": archive(tree(course), "zip")}) as server:
        source = server.url("/data.zip")
        values: dict[str, Any] = {
            "data": {"root": source},
            "loader": {"context": 1, "batch_size": 16},
            "model": {"hidden": [8]},
        }
        run = train(Config.check(values), run=tmp_path / "run").run
        assert len(predict(run, source).labels) == len(predict(run, course).labels) == 11
        assert evaluate(run).scores.frames == 13
        assert len(server.requests) == 1
