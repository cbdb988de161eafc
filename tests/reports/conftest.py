"""A run that the tests of this folder share."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from dali_asr import Config, train
from tests.makers import make_course
from tests.training_runs import SMALL


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a run of two epochs, with a packed corpus beside it whose test partition has 70 unlabelled frames."""
    from dali_asr import PackSettings, pack_corpus

    path = tmp_path_factory.mktemp("reports")
    make_course(path / "course", {"train": [60, 50], "dev": [40], "test": [30, 40]}, unlabelled=("test",))
    pack_corpus(path / "course", path / "corpus", PackSettings())
    options = [f"data.root={path / 'corpus'}", "data.dtype=null", "training.epochs=2", "loader.batch_size=4"]
    return train(Config.load("demo", [*SMALL, *options, "training.log_every=2"]), run=path / "run").run


@pytest.fixture
def copy(run: Path, tmp_path: Path) -> Path:
    """Return a copy of the run."""
    return Path(shutil.copytree(run, tmp_path / "tiny"))
