"""Exporting a run on the command line: the ONNX file, its card, and what is refused."""

from __future__ import annotations

import hashlib
import json
import re
import shlex
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from dali_asr import Config, evaluate, export_onnx, load_model, train
from dali_asr.audio.extract import Extracted, extract
from dali_asr.demo import DEMO_RECORDING
from dali_asr.errors import CheckpointError, DataError, UsageError
from dali_asr.export import onnx_file
from dali_asr.inference.writers import write_evaluation
from dali_asr.segments import FrameTiming
from tests.makers import make_course, make_features
from tests.training_runs import SMALL, fill_disk

Run = Callable[..., Any]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a run that was evaluated."""
    folder = tmp_path_factory.mktemp("export")
    make_course(folder / "course", {"train": [80, 90, 70], "dev": [40], "test": [9]}, dim=6)
    options = [
        f"data.root={folder / 'course'}",
        "training.max_steps=4",
        "loader.batch_size=16",
        "loader.context=[3, 1]",
    ]
    run = train(Config.load("demo", [*SMALL, *options]), run=folder / "a|b").run
    write_evaluation(evaluate(run, device="cpu"), run)
    return run


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Skip the building of the graph."""
    model = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 18]> g (float[T, 6] frames) => (float[T, 6] y) { y = Identity (frames) }'
    )
    monkeypatch.setattr(onnx_file, "build_graph", lambda _: model)
    monkeypatch.setattr(onnx_file, "compare", lambda *_: 0.0)


def test_the_file_predicts_as_the_run_and_describes_itself(
    trained: Path, run_cli: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "new" / "m.onnx"
    done = run_cli("export", trained, "-o", path)
    assert done.exit_code == 0, done.output
    assert f" to {path} (" in done.stdout
    assert "differ by at most" in done.stdout
    assert done.stderr == ""
    frames = make_features(70, 6)
    (found,) = onnx_file.open_session(path.read_bytes()).run(None, {"frames": frames})
    model = load_model(trained, device="cpu")
    assert found.argmax(axis=1).tolist() == model.classify(frames).tolist()
    np.testing.assert_allclose(np.exp(found), model.posteriors(frames), atol=1e-5)
    content = onnx.load(path)
    properties = {entry.key: json.loads(entry.value) for entry in content.metadata_props}
    assert properties["symbols"] == list(model.inventory.symbols)
    assert (properties["context"], properties["feature_dim"]) == ([3, 1], 6)
    assert properties["normalization"] == model.normalization.kind
    assert b"/" + Path(__file__).parts[1].encode() not in path.read_bytes(), "names no path of this machine"
    card = path.with_suffix(".md").read_text()
    assert f"{path.stat().st_size / 1e6:.1f} MB, SHA-256: `{hashlib.sha256(path.read_bytes()).hexdigest()}`" in card
    monkeypatch.chdir(path.parent)
    np.save("utterance.npy", frames)
    (script,) = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    values: dict[str, Any] = {}
    exec(script, values)
    assert values["labels"].tolist() == np.array(model.inventory.symbols)[model.classify(frames)].tolist()
    assert "When frames are depends on how their features were computed, which is not recorded." in card


def test_the_card_says_what_the_run_knows(trained: Path, quick: None, tmp_path: Path) -> None:
    card = export_onnx(trained, tmp_path / "m.onnx").card.read_text()
    (recorded,) = trained.glob("evaluation-*.json")
    scores = json.loads(recorded.read_text())
    assert card.startswith("# a|b: a frame classifier\n")
    assert f"| `dev` | none | 40 | {scores['accuracy']:.2%} |" in card
    assert "| corpus | `course` |" in card
    assert str(trained.parent) not in card
    assert "3 frames before and 1 after each frame, 0.05 s" in card
    assert re.search(r"\| progress \| \d complete epochs?, \d steps? \|", card)
    assert "no choice depended on are unknown" in card, "dev chose the checkpoint"
    assert "    [SIL] AA AE" in card
    rows = [line for line in card.splitlines() if line.startswith("| ")]
    assert all(line.endswith(" |") for line in rows)


def test_what_is_not_recorded_is_not_invented(trained: Path, quick: None, tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    shutil.copytree(trained, bare)
    (bare / "environment.json").unlink()
    (evaluation,) = bare.glob("evaluation-*.json")
    evaluation.write_text("{")
    with pytest.raises(DataError, match=r"evaluation-.*\.json: damaged .*; evaluate again"):
        export_onnx(bare)
    evaluation.unlink()
    card = export_onnx(bare).card.read_text()
    assert card.count("not recorded") == 5
    assert "was not evaluated with `dali-asr evaluate`" in card
    assert "top 3" not in card


def test_the_model_in_the_package_keeps_its_own_card(
    quick: None, run_cli: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = run_cli("export", "english-small")
    assert done.stdout.startswith("Exported english-small to model.onnx")
    card = Path("model.md").read_text()
    assert "It is the model `english-small`, exported" in card
    assert "### Limits" in card
    assert "speechocean762" in card
    assert "not recorded" not in card
    links = re.findall(r"\]\(([^)]*)\)", card)
    assert links
    assert all(link.startswith("https://") for link in links), "the card may be anywhere"
    commands, *_ = re.findall(r"```sh\n(.*?)\n```", card, re.DOTALL)
    for command in commands.replace("RECORDINGS", "demo.wav").splitlines():
        assert run_cli(*shlex.split(command)[1:]).exit_code == 0, command
    (array,) = re.findall(r'np\.load\("(.*)"\)', card)
    model = load_model("english-small", device="cpu")
    (extracted,) = extract([DEMO_RECORDING], model.features)
    assert isinstance(extracted, Extracted)
    np.testing.assert_array_equal(np.load(array.replace("NAME", "demo")), extracted.frames)
    (line,) = re.findall(r"^times = .*", card, re.MULTILINE)
    values: dict[str, Any] = {"np": np, "labels": range(350)}
    exec(line, values)
    np.testing.assert_allclose(values["times"], FrameTiming().centers(350))
    assert "Frame `t` is centered 0.0125 + 0.01 · `t` seconds after the beginning of the recording" in card


def test_outputs_are_replaced_only_on_request(trained: Path, quick: None, run_cli: Run, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.with_suffix(".md").write_text("mine")
    done = run_cli("export", trained, "-o", path)
    assert done.exit_code == 2
    assert "m.md: exists; choose another file, or overwrite it (--force)" in done.stderr
    assert run_cli("export", trained, "-o", path, "--force").exit_code == 0
    assert path.with_suffix(".md").read_text() != "mine"
    for name in ("m", "m.onnx.txt", "m.pt"):
        with pytest.raises(UsageError, match=r"is not named as an ONNX file; give a name that ends in \.onnx"):
            export_onnx(trained, tmp_path / name)
    with pytest.raises(DataError, match="is not a writable folder"):
        export_onnx(trained, "/etc/passwd/m.onnx")
    with pytest.raises(
        UsageError, match=r"received a TrainedModel; give the folder of a run\. .* by torch\.onnx\.export"
    ):
        export_onnx(load_model(trained))  # type: ignore[arg-type]


def test_damaged_runs_are_refused(trained: Path, quick: None, run_cli: Run, tmp_path: Path) -> None:
    done = run_cli("export", tmp_path, "-o", tmp_path / "m.onnx")
    assert (done.exit_code, "not a run, it has no checkpoints" in done.stderr) == (1, True)
    run = tmp_path / "run"
    shutil.copytree(trained, run)
    for weights in run.glob("checkpoints/*/model.safetensors"):
        weights.write_bytes(weights.read_bytes()[:-9])
    with pytest.raises(CheckpointError, match="SHA-256 differs"):
        export_onnx(run)
    shutil.copytree(trained, run, dirs_exist_ok=True)
    (run / "config.yaml").unlink()
    with pytest.raises(CheckpointError, match=r"config\.yaml: missing; copy the whole folder"):
        export_onnx(run)
    assert not (run / "model.onnx").exists()


def test_a_full_disk_leaves_what_was_there(
    trained: Path, quick: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "m.onnx"
    old = export_onnx(trained, path)
    before = (old.path.read_bytes(), old.card.read_bytes())
    monkeypatch.setattr("os.fsync", lambda _: None)
    fill_disk(1)
    with pytest.raises(DataError, match=r"No space left on device while writing; free some space, or choose"):
        export_onnx(trained, path, overwrite=True)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["m.md", "m.onnx"]
    assert (old.path.read_bytes(), old.card.read_bytes()) == before


@pytest.mark.parametrize("package", ["onnx", "onnxruntime", "onnxscript"])
def test_a_missing_package_is_named_with_its_extra(
    package: str, run_cli: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    done = run_cli("export", tmp_path)
    assert done.exit_code == 2
    assert done.stderr.strip() == f"error: export: needs {package}; pip install 'dali-asr[onnx]'"
