"""Prediction: every frame, in order, in every format."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st

from dali_asr import Corpus, Inventory, PackedWriter, evaluate, load_model, predict
from dali_asr.config import Config
from dali_asr.corpus import PackSettings, pack_corpus
from dali_asr.errors import CheckpointError, DataError, SymbolError, UsageError
from dali_asr.inference.classify import by_utterance
from dali_asr.inference.decoding import FrameScores, build_decoder
from dali_asr.inference.predict import LabelledUtterance, Labelling, label, prepare
from dali_asr.inference.writers import write_prediction
from dali_asr.inventory import ARPABET
from dali_asr.runs.checkpoint import load_checkpoint
from dali_asr.segments import FrameTiming, segments_of
from dali_asr.training import train
from tests.corpus.archives import make_archive
from tests.makers import make_course, make_features


def train_small(course: Path, folder: Path, **sections: dict[str, Any]) -> Path:
    """Train a small model on the small course folder; return the folder of the run."""
    values = {
        "data": {"root": str(course), **sections.get("data", {})},
        "loader": {"context": 1, "batch_size": 16, **sections.get("loader", {})},
        "model": {"hidden": [8]},
        "training": {"epochs": 1},
    }
    return train(Config.check(values), run=folder / "run").run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a run of a small model on a course folder like the small one; no test changes it."""
    folder = tmp_path_factory.mktemp("predict")
    make_course(folder / "c", {"train": [7, 1, 30, 12], "dev": [9, 4], "test": [5, 6]}, unlabelled=("test",))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        return train_small(folder / "c", folder, loader={"context": [3, 2]})


def judge(run: Path, features: list[np.ndarray]) -> np.ndarray:
    """Return posteriors of utterances, window by window: NumPy windows, and the weights by hand."""
    weights = load_checkpoint(run).weights
    rows = []
    for raw in features:
        wide = raw.astype(np.float64)
        deviation = wide.std(axis=0)
        frames = ((wide - wide.mean(axis=0)) / np.where(deviation > 0, deviation, np.inf)).astype(np.float32)
        padded = np.pad(frames, ((3, 2), (0, 0)))
        for t in range(len(frames)):
            x = torch.from_numpy(padded[t : t + 6].reshape(-1))
            hidden = torch.nn.functional.gelu(weights["layers.1.weight"] @ x + weights["layers.1.bias"])
            rows.append((weights["layers.3.weight"] @ hidden + weights["layers.3.bias"]).softmax(0).numpy())
    return np.array(rows)


@pytest.mark.parametrize("long", [100_000, 4])
def test_posteriors_equal_the_judges(run: Path, course: Path, long: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """By windows, or by the convolution of long utterances, here in batches of 5 frames."""
    monkeypatch.setattr("dali_asr.inference.classify.LONG", long)
    monkeypatch.setattr("dali_asr.inference.classify.BATCH_SIZE", 5)
    raw = [np.load(p) for p in sorted((course / "test/mfcc").iterdir())]
    expected = judge(run, raw)
    prediction = predict(run, course, posteriors=True)
    assert prediction.partition == "test"
    assert prediction.posteriors is not None
    assert np.allclose(prediction.posteriors, expected, rtol=0, atol=1e-5)
    assert np.array_equal(prediction.labels, expected.argmax(axis=1))
    assert prediction.offsets.tolist() == [0, 5, 11]
    assert prediction.accuracy is None


def test_every_kind_of_source_gives_the_same_labels(run: Path, course: Path, tmp_path: Path) -> None:
    pack_corpus(course, tmp_path / "packed")
    files = sorted((course / "test/mfcc").iterdir())
    predictions = [
        predict(run, course),
        predict(run, tmp_path / "packed", partition="test"),
        predict(run, files),
        predict(run, course / "test/mfcc"),
        predict(run, course, checkpoint="best", device="cpu"),
        predict(run, make_archive(tmp_path / "a.tar.gz", course)),
    ]
    for other in predictions[1:]:
        assert np.array_equal(other.labels, predictions[0].labels)
        assert other.utterances == predictions[0].utterances == ("u00", "u01")
    one = predict(run, files[1])
    assert np.array_equal(one.labels, predictions[0].labels[5:])


def test_accuracy_of_a_labelled_partition(run: Path, course: Path) -> None:
    prediction = predict(run, course, partition="dev")
    truth = Corpus.open(course).partition("dev").labels()
    assert prediction.accuracy == pytest.approx((prediction.labels == truth).mean())


def made() -> Labelling:
    utterance = LabelledUtterance("a", np.array([0, 5]), np.ones(2, np.float32))
    return Labelling("test", ARPABET, "none", FrameTiming(), ("a",), iter([utterance]))


def test_only_regular_files_are_written_and_links_are_followed(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UsageError, match="is not a regular file; name one, or - for standard output"):
        write_prediction(made(), tmp_path / "pipe", "kaggle", overwrite=True)
    (tmp_path / "link").symlink_to(tmp_path / "file")
    (tmp_path / "file").write_text("old")
    write_prediction(made(), tmp_path / "link", "kaggle", overwrite=True)
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "file").read_text().startswith("id,label")


def test_training_and_prediction_share_the_cache(course: Path, tmp_path: Path) -> None:
    run = train_small(course, tmp_path)
    cache = Path(os.environ["XDG_CACHE_HOME"]) / "dali-asr/corpora"
    before = sorted(p.name for p in cache.iterdir())
    predict(run, course)
    assert sorted(p.name for p in cache.iterdir()) == before


def test_an_existing_output_is_kept_unless_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "p.csv"
    path.write_text("mine")
    with pytest.raises(UsageError, match=r"exists; choose another file, or overwrite it \(overwrite=True\)"):
        write_prediction(made(), path, "kaggle")
    assert path.read_text() == "mine"
    write_prediction(made(), path, "kaggle", overwrite=True)
    assert path.read_text().startswith("id,label")
    with pytest.raises(UsageError, match="is a folder"):
        write_prediction(made(), tmp_path, "kaggle", overwrite=True)
    assert [p.name for p in tmp_path.iterdir()] == ["p.csv"]


def test_features_of_another_width_are_refused(run: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "wide.npy", make_features(9, dim=7))
    make_course(tmp_path / "c", {"test": [4]}, dim=7)
    message = "7 features per frame, the checkpoint was trained on 5; compute them as those of"
    for source in (tmp_path / "wide.npy", tmp_path / "c"):
        with pytest.raises(DataError, match=message):
            predict(run, source)


def test_labels_that_the_model_does_not_know_are_refused(run: Path, course: Path) -> None:
    symbols = np.load(course / "dev/transcript/u00.npy")
    symbols[1] = "Q"
    np.save(course / "dev/transcript/u00.npy", symbols)
    message = r"u00\.npy: unknown symbol 'Q' at position 1; the checkpoint knows 42 symbols \(\[SIL\] AA .*\): give a"
    with pytest.raises(SymbolError, match=message):
        predict(run, course, partition="dev")


def test_a_corpus_of_another_inventory_or_normalization_is_refused(run: Path, course: Path, tmp_path: Path) -> None:
    with PackedWriter(tmp_path / "other", inventory=Inventory(("a", "b")), normalization="utterance") as writer:
        writer.add("test", "u", make_features(4))
    with pytest.raises(CheckpointError, match="an inventory of 2 symbols, the checkpoint one of 42"):
        predict(run, tmp_path / "other")
    pack_corpus(course, tmp_path / "raw", PackSettings(normalization="none"))
    with pytest.raises(
        DataError, match="normalized by none, the checkpoint was trained on features normalized by utterance"
    ):
        predict(run, tmp_path / "raw", partition="test")


@pytest.mark.parametrize(
    ("section", "key", "value", "message"),
    [
        ("loader", "context", [1, 1], r"says context \[1, 1\], its checkpoint \[3, 2\]"),
        ("data", "inventory", ["a", "b"], "says an inventory of 2 symbols, its checkpoint another one of 42"),
    ],
)
def test_a_checkpoint_that_disagrees_with_its_configuration_is_refused(
    run: Path, course: Path, tmp_path: Path, section: str, key: str, value: object, message: str
) -> None:
    changed = shutil.copytree(run, tmp_path / "run")
    config = yaml.safe_load((run / "config.yaml").read_text())
    config[section][key] = value
    (changed / "config.yaml").write_text(yaml.safe_dump(config))
    with pytest.raises(CheckpointError, match=message):
        predict(changed, course)


def test_what_is_neither_a_path_nor_a_corpus_is_refused(run: Path) -> None:
    message = r"source: received (ndarray|Partition); give paths, or a Corpus, .* load_model\(RUN\).classify labels the"
    frames = np.zeros((9, 5), np.float32)
    partition = Corpus.from_arrays([frames]).partition("all")
    for source in (frames, [frames], partition):
        with pytest.raises(UsageError, match=message):
            predict(run, source)  # type: ignore[arg-type]
        with pytest.raises(UsageError, match=r"source: received (ndarray|list|Partition); give paths"):
            evaluate(run, source)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="load_model: run is None; give the folder of a run"):
        load_model(None)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="train: config is 'demo'; give a Config, as Config"):
        train("demo")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"train: corpus is 'packed'; give a Corpus, as Corpus\.open"):
        train(Config.load("demo"), corpus="packed")  # type: ignore[arg-type]


def test_unclear_sources_are_refused(run: Path, course: Path, tmp_path: Path) -> None:
    make_course(tmp_path / "two", {"x": [4], "y": [4]})
    with pytest.raises(UsageError, match="which partition\\? It has x, y; name one \\(partition=NAME\\)"):
        predict(run, tmp_path / "two")
    with pytest.raises(UsageError, match=r"no partition 'tset'.*did you mean test"):
        predict(run, course, partition="tset")
    with pytest.raises(UsageError, match="single files have no partitions"):
        predict(run, course / "test/mfcc/u00.npy", partition="test")
    with pytest.raises(UsageError, match=r"several sources must all be recordings, \.npy files, or folders of them"):
        predict(run, [course, course])
    with pytest.raises(DataError, match="no such file or directory"):
        predict(run, tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"nowhere\.npy: no such file"):
        predict(run, tmp_path / "nowhere.npy")


def test_global_statistics_travel_with_the_checkpoint(course: Path, tmp_path: Path) -> None:
    run = train_small(course, tmp_path, data={"normalization": "global"})
    from_corpus = predict(run, course, partition="test", posteriors=True)
    from_files = predict(run, course / "test/mfcc", posteriors=True)
    assert from_corpus.posteriors is not None
    assert from_files.posteriors is not None
    assert np.allclose(from_corpus.posteriors, from_files.posteriors, rtol=0, atol=1e-6)
    raw = np.concatenate([np.load(p) for p in sorted((course / "train/mfcc").iterdir())])
    assert np.allclose(load_checkpoint(run).description.normalization.mean, raw.astype(np.float64).mean(axis=0))


def test_features_are_stored_as_the_run_stored_them(course: Path, tmp_path: Path) -> None:
    """Rounded to the dtype and with NaN zeroed, from a folder, from files and from a packed corpus."""
    features = np.load(course / "test/mfcc/u00.npy")
    features[2, 1] = np.nan
    np.save(course / "test/mfcc/u00.npy", features)
    run = train_small(course, tmp_path, data={"dtype": "float16", "zero_nonfinite": True}, loader={"context": [3, 2]})
    whole = predict(run, course, posteriors=True)
    files = predict(run, sorted((course / "test/mfcc").iterdir()), posteriors=True)
    assert whole.posteriors is not None
    assert files.posteriors is not None
    assert whole.posteriors.tobytes() == files.posteriors.tobytes()
    pack_corpus(course, tmp_path / "p", PackSettings(("test",), dtype="float16", zero_nonfinite=True))
    packed = predict(run, tmp_path / "p", posteriors=True)
    assert packed.posteriors is not None
    assert packed.posteriors.tobytes() == whole.posteriors.tobytes()


def test_a_run_does_not_need_its_inventory_file(course: Path, tmp_path: Path) -> None:
    file = tmp_path / "symbols.txt"
    file.write_text("\n".join(reversed(ARPABET.symbols)))
    run = train_small(course, tmp_path, data={"inventory": str(file)})
    file.unlink()
    assert predict(run, course).inventory.symbols == tuple(reversed(ARPABET.symbols))


def test_features_of_another_width_are_refused_by_a_global_run(course: Path, tmp_path: Path) -> None:
    run = train_small(course, tmp_path, data={"normalization": "global"})
    make_course(tmp_path / "wide", {"test": [5]}, dim=6, unlabelled=("test",))
    for source in (tmp_path / "wide", tmp_path / "wide/test/mfcc/u00.npy"):
        with pytest.raises(DataError, match=r"6 features (a|per) frame, .* 5"):
            predict(run, source)


@given(lengths=st.lists(st.integers(1, 9), min_size=1, max_size=8), batch=st.integers(1, 12), wide=st.booleans())
def test_batches_are_cut_into_utterances(lengths: list[int], batch: int, wide: bool) -> None:
    frames = np.arange(sum(lengths))
    rows = np.stack([frames, -frames], axis=1).astype(np.float32) if wide else None
    batches = [
        FrameScores(part, part.astype(np.float32), None if rows is None else rows[part])
        for part in np.split(frames, range(batch, len(frames), batch))
    ]
    found = list(by_utterance(batches, np.array(lengths)))
    expected = np.split(frames, np.cumsum(lengths)[:-1])
    assert [scores.labels.tolist() for scores in found] == [part.tolist() for part in expected]
    for scores, part in zip(found, expected, strict=True):
        assert scores.confidences.tolist() == part.tolist()
        assert (scores.log_posteriors is None) == (rows is None)
        if rows is not None and scores.log_posteriors is not None:
            assert np.array_equal(scores.log_posteriors, rows[part])


def test_files_flow(run: Path, course: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first utterance is labelled before the last file is read, and parts change no label."""
    files = sorted((course / "test/mfcc").iterdir())
    whole = predict(run, files)
    monkeypatch.setattr("dali_asr.inference.files._PART", 6)
    trained, opened = prepare(run, files)
    heard: list[tuple[int, int]] = []
    flow = label(trained, opened, progress=lambda *done: heard.append(done))
    hidden = files[1].rename(files[1].with_suffix(".hidden"))
    first = next(flow.utterances)
    hidden.rename(files[1])
    second = next(flow.utterances)
    assert (first.name, second.name) == flow.names == opened.utterances == ("u00", "u01")
    assert [*first.labels, *second.labels] == whole.labels.tolist()
    assert list(flow.utterances) == []
    assert heard == [(5, 11), (11, 11)]


def test_labels_are_those_of_the_decoding(run: Path, course: Path) -> None:
    plain = predict(run, course, posteriors=True)
    assert plain.posteriors is not None
    timing = FrameTiming(8_000, 200, 80, centered=True)
    for decode in ("none", "median:3", "viterbi"):
        found = predict(run, course, decode=decode, timing=timing)
        decoder = build_decoder(decode, load_checkpoint(run))
        for number, part in enumerate((slice(0, 5), slice(5, 11))):
            posteriors, labels = plain.posteriors[part], found.labels[part]
            scores = FrameScores(plain.labels[part], plain.confidences[part], np.log(posteriors))
            assert labels.tolist() == decoder(scores).tolist()
            confidences = found.confidences[part]
            assert confidences == pytest.approx(posteriors[np.arange(len(labels)), labels], abs=1e-6)
            segments = segments_of(labels, ARPABET.symbols, timing, probabilities=confidences)
            assert found.segments(number) == segments
    with pytest.raises(UsageError, match="decode 'best'; expected none"):
        predict(run, course, decode="best")
