"""A trained model as a module."""

from __future__ import annotations

import subprocess
import sys
from itertools import groupby
from pathlib import Path

import numpy as np
import pytest
import torch

from dali_asr import Config, Inventory, Normalization, TrainedModel, load_model, predict, train
from dali_asr.errors import CheckpointError, DataError, UsageError
from dali_asr.segments import FrameTiming, segments_of
from tests.makers import make_course, make_features
from tests.training_runs import SMALL

pytestmark = pytest.mark.usefixtures("no_curves")


def test_a_network_of_ones_own_gives_labels_and_segments() -> None:
    """Compared with windows cut by NumPy from frames that NumPy normalizes."""
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4 * 3, 2))
    frames = make_features(30, 3)
    normalization = Normalization.of([frames, make_features(20, 3, seed=1)])
    assert normalization.partitions == ()
    model = TrainedModel(network, Inventory(("a", "b")), context=(2, 1), feature_dim=3, normalization=normalization)
    standard = (frames - np.array(normalization.mean)) / np.array(normalization.deviation)
    padded = np.pad(standard, ((2, 1), (0, 0)))
    weights, bias = (parameter.detach().numpy() for parameter in network.parameters())
    logits = np.stack([padded[at : at + 4].ravel() @ weights.T + bias for at in range(30)])
    labels = model.classify(frames)
    assert labels.tolist() == logits.argmax(axis=1).tolist()
    segments = segments_of(labels, model.inventory.symbols, FrameTiming())
    assert [segment.label for segment in segments] == ["ab"[key] for key, _ in groupby(labels)]


@pytest.mark.parametrize(
    ("symbols", "context", "message"),
    [
        ("abc", (2, 1), r"maps windows \[1, 4, 3\] to \[1, 2\], expected \[1, 3\]"),
        ("ab", (2, 2), "cannot read windows"),
    ],
)
def test_a_network_that_does_not_fit_is_refused(symbols: str, context: tuple[int, int], message: str) -> None:
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4 * 3, 2))
    plain = Normalization("none")
    with pytest.raises(UsageError, match=message):
        TrainedModel(network, Inventory(tuple(symbols)), context=context, feature_dim=3, normalization=plain)


@pytest.fixture(scope="module", params=["utterance", "global"])
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Return a run and the course folder that it was trained on."""
    folder = tmp_path_factory.mktemp("trained")
    make_course(folder / "course", {"train": [80, 90, 70], "dev": [40], "test": [5000, 1]}, dim=6)
    options = [f"data.root={folder / 'course'}", f"data.normalization={request.param}", "training.max_steps=4"]
    config = Config.load("demo", [*SMALL, *options, "loader.batch_size=16", "loader.context=[3, 1]"])
    return train(config, run=folder / "run").run, folder / "course"


def test_it_classifies_an_utterance_as_predict_does(trained: tuple[Path, Path]) -> None:
    run, course = trained
    model = load_model(run, device="cpu")
    expected = predict(run, course, partition="test", posteriors=True, device="cpu")
    assert expected.posteriors is not None
    for at, name in enumerate(expected.utterances):
        frames = np.load(course / "test/mfcc" / f"{name}.npy")
        part = slice(*expected.offsets[at : at + 2])
        assert model.classify(frames).tolist() == expected.labels[part].tolist()
        np.testing.assert_allclose(model.posteriors(frames), expected.posteriors[part], rtol=1e-4, atol=1e-6)


def test_it_knows_what_it_takes(trained: tuple[Path, Path]) -> None:
    run, _ = trained
    model = load_model(run, checkpoint="last", device="cpu")
    assert (model.context, model.feature_dim, len(model.inventory)) == ((3, 1), 6, 42)
    assert model.normalization.kind in ("utterance", "global")
    assert not model.training
    windows = torch.zeros(9, 5, 6)
    assert model(windows).shape == (9, 42)
    assert model(windows).requires_grad, "it can be trained on"


def test_features_that_do_not_fit_are_refused(trained: tuple[Path, Path]) -> None:
    model = load_model(trained[0], device="cpu")
    with pytest.raises(DataError, match="classify: 4 features per frame, the model was trained on 6; give features"):
        model.classify(np.ones((3, 4)))
    with pytest.raises(DataError, match="frames must be floats"):
        model.posteriors(np.ones(6))
    with pytest.raises(CheckpointError, match="no such folder"):
        load_model("/nowhere")


def test_another_checkpoint_than_best_or_last_is_refused(trained: tuple[Path, Path]) -> None:
    with pytest.raises(UsageError, match="checkpoint 'banana'; expected best or last"):
        load_model(trained[0], checkpoint="banana")  # type: ignore[arg-type]


@pytest.mark.parametrize("trained", ["global"], indirect=True)
def test_it_needs_no_dali(trained: tuple[Path, Path]) -> None:
    code = (
        "import sys; sys.modules['nvidia'] = None\n"
        "from dali_asr import load_model\n"
        "print(load_model(sys.argv[1], device='cpu').classify([[0.5] * 6]).shape)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(trained[0])], capture_output=True, text=True, check=False)
    assert done.stdout == "(1,)\n", done.stderr
