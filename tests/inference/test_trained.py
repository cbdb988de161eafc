"""A trained model as a module."""

from __future__ import annotations

import subprocess
import sys
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dali_asr import Config, Corpus, FrameTiming, Inventory, Normalization, TrainedModel, load_model, predict, train
from dali_asr.corpus import count_segments
from dali_asr.corpus.segment_counts import SegmentCounts
from dali_asr.errors import CheckpointError, DataError, UsageError
from tests.makers import make_course, make_features
from tests.training_runs import SMALL


def test_a_network_of_ones_own_gives_labels_and_segments() -> None:
    """Compared with windows cut by NumPy from frames that NumPy normalizes."""
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4 * 3, 2))
    frames = make_features(30, 3)
    normalization = Normalization.of([frames, make_features(20, 3, seed=1)])
    assert normalization.partitions == ()
    model = TrainedModel(network, ["a", "b"], context=(2, 1), feature_dim=3, normalization=normalization)
    assert not network.training, "it is not copied"
    standard = (frames - np.array(normalization.mean)) / np.array(normalization.deviation)
    padded = np.pad(standard, ((2, 1), (0, 0)))
    weights, bias = (parameter.detach().numpy() for parameter in network.parameters())
    logits = np.stack([padded[at : at + 4].ravel() @ weights.T + bias for at in range(30)])
    labels = model.classify(frames)
    assert labels.tolist() == logits.argmax(axis=1).tolist()
    posteriors = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    runs = [list(run) for _, run in groupby(range(30), key=labels.__getitem__)]
    segments = model.segments(frames, decode="none", timing=FrameTiming(8000, 200, 80))
    assert [segment.label for segment in segments] == ["ab"[labels[run[0]]] for run in runs]
    expected = [posteriors[run, labels[run]].mean() for run in runs]
    assert [segment.confidence for segment in segments] == pytest.approx(expected, rel=1e-5)
    assert [segment.end for segment in segments] == pytest.approx([0.01 * (run[-1] + 1) + 0.0075 for run in runs])
    votes = [sum(labels[max(t - 2, 0) : t + 3]) / len(labels[max(t - 2, 0) : t + 3]) for t in range(30)]
    smooth = [int(vote > 0.5) if vote != 0.5 else labels[t] for t, vote in enumerate(votes)]
    assert [segment.label for segment in model.segments(frames)] == ["ab"[key] for key, _ in groupby(smooth)]


@pytest.mark.parametrize(
    ("symbols", "context", "message"),
    [
        ("abc", (2, 1), r"maps windows \[1, 4, 3\] to \[1, 2\], expected \[1, 3\]"),
        ("ab", (2, 2), "cannot process windows"),
    ],
)
def test_a_network_that_does_not_fit_is_refused(symbols: str, context: tuple[int, int], message: str) -> None:
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4 * 3, 2))
    plain = Normalization("none")
    with pytest.raises(UsageError, match=message):
        TrainedModel(network, Inventory(tuple(symbols)), context=context, feature_dim=3, normalization=plain)


def test_one_number_is_a_context_and_a_text_a_normalization() -> None:
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(5 * 3, 2))
    model = TrainedModel(network, ["a", "b"], context=2, feature_dim=3, normalization="utterance")
    assert (model.context, model.normalization) == ((2, 2), Normalization("utterance"))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            {"context": (1, 2, 3)},
            r"TrainedModel: context \(1, 2, 3\); expected one number of frames, or",
        ),
        ({"context": 1.5}, r"TrainedModel: context 1\.5; expected an integer"),
        ({"feature_dim": "3"}, "TrainedModel: feature_dim '3'; expected an integer"),
        (
            {"normalization": "global"},
            r"normalization 'global'; expected none, utterance, or .*Normalization\.of",
        ),
        ({"inventory": "ab"}, "inventory 'ab'; expected an Inventory, or a list of symbols in label order"),
        ({"frame_dtype": "int8"}, "dtype 'int8'; expected the text 'float32' or 'float16'"),
        ({"model": 3}, r"TrainedModel: received 3; give a network, which is a torch\.nn\.Module"),
        ({"segment_counts": SegmentCounts.empty(3)}, "segment_counts of 3 labels, an inventory of 2"),
    ],
)
def test_arguments_that_are_not_valid_are_refused(changed: dict[str, Any], message: str) -> None:
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(5 * 3, 2))
    valid: dict[str, Any] = {
        "model": network,
        "inventory": ["a", "b"],
        "context": 2,
        "feature_dim": 3,
        "normalization": "none",
    }
    with pytest.raises(UsageError, match=message):
        TrainedModel(**(valid | changed))


def test_segments_are_decoded_by_viterbi_only_with_counts() -> None:
    linear = torch.nn.Linear(3, 2, bias=False)
    with torch.no_grad():  # the label is the sign of the first feature
        linear.weight[:] = torch.tensor([[-4.0, 0, 0], [4.0, 0, 0]])
    network = torch.nn.Sequential(torch.nn.Flatten(), linear)
    about: dict[str, Any] = {"context": 0, "feature_dim": 3, "normalization": "none"}
    true = np.repeat([0, 1, 0, 1], 10)
    frames = np.zeros((40, 3), np.float32)
    frames[:, 0] = np.where(true, 0.5, -0.5)
    frames[[4, 25], 0] *= -1
    plain = TrainedModel(network, ["a", "b"], **about)
    with pytest.raises(UsageError, match=r"decode viterbi: no counts of segments.*segment_counts=count_segments\(PART"):
        plain.segments(frames, decode="viterbi")
    with pytest.raises(UsageError, match="decode 'best'; expected none, viterbi, or median:K"):
        plain.segments(frames, decode="best")
    counts = count_segments(Corpus.from_arrays([frames], [true]).partition("all"))
    found = TrainedModel(network, ["a", "b"], segment_counts=counts, **about).segments(frames)
    assert [segment.label for segment in found] == ["a", "b", "a", "b"]
    assert len(plain.segments(frames, decode="none")) == 8


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
    decoded = predict(run, course, partition="test", decode="viterbi", device="cpu")
    segments = model.segments(np.load(course / "test/mfcc" / f"{decoded.utterances[0]}.npy"))
    assert [segment[:3] for segment in segments] == [segment[:3] for segment in decoded.segments(0)]


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
