"""The picture of a model's graph, read back from what is drawn."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from matplotlib.figure import Figure

from dali_asr import MLP, HiddenLayer
from dali_asr.errors import DataError, UsageError
from dali_asr.runs.diagram import write_diagram

Run = Callable[..., Any]


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.axes[0].texts if text.get_text()]


def test_every_layer_is_drawn_with_shape_and_parameters(drawn: list[Figure], tmp_path: Path) -> None:
    model = MLP(
        window=5, feature_dim=3, classes=7, hidden=[HiddenLayer(8, 0.5, "batch"), HiddenLayer(8)], residual=True
    )
    write_diagram(model, tmp_path / "m.svg", window=5, feature_dim=3, title="a$b$")
    count = 15 * 8 + 8 + 16 + 8 * 8 + 8 + 8 * 7 + 7
    assert texts(drawn[0])[:-1] == [
        f"a$b$: {count} parameters",
        *("windows", "[B, 5, 3]"),
        *("Flatten", "[B, 15]"),
        *("Linear 15 → 8", "[B, 8]", "128", "BatchNorm1d", "[B, 8]", "16", "GELU", "[B, 8]", "Dropout 0.5", "[B, 8]"),
        *("Linear 8 → 8", "[B, 8]", "72", "GELU", "[B, 8]", "add the input", "[B, 8]"),
        *("Linear 8 → 7", "[B, 7]", "63"),
        *("logits", "[B, 7]"),
    ]
    assert len(drawn[0].axes[0].lines) == 1, "the way around the residual layer"


@pytest.mark.parametrize("recipe", ["course-tiny", "course-full"])
def test_nothing_overlaps(recipe: str, drawn: list[Figure], run_cli: Run, tmp_path: Path) -> None:
    done = run_cli("model", "show", recipe, "--plot", tmp_path / "m.png")
    assert done.exit_code == 0, done.output
    assert f"Graph: {tmp_path / 'm.png'}" in done.output
    figure = drawn[0]
    figure.draw_without_rendering()
    boxes = [text.get_window_extent() for text in figure.axes[0].texts if text.get_text()]
    inside = figure.bbox
    for at, box in enumerate(boxes):
        assert inside.x0 <= box.x0 <= box.x1 <= inside.x1
        assert inside.y0 <= box.y0 <= box.y1 <= inside.y1
        assert not any(box.overlaps(other) for other in boxes[at + 1 :])


def test_the_suffix_decides_and_equal_models_give_equal_files(tmp_path: Path, run_cli: Run) -> None:
    paths = [tmp_path / name for name in ("a.svg", "b.svg", "a.png", "a.pdf", "a.PDF")]
    for path in paths:
        assert run_cli("model", "show", "--plot", path).exit_code == 0
    assert paths[0].read_bytes() == paths[1].read_bytes()
    assert "Linear 700 → 512" in "".join(ElementTree.parse(paths[0]).getroot().itertext()), "text stays text"
    assert paths[2].read_bytes().startswith(b"\x89PNG")
    assert paths[3].read_bytes().startswith(b"%PDF")


def test_what_cannot_be_written_is_refused(tmp_path: Path, run_cli: Run) -> None:
    (tmp_path / "m.svg").write_text("mine")
    done = run_cli("model", "show", "--plot", tmp_path / "m.svg")
    assert (done.exit_code, done.stdout) == (2, "")
    assert "m.svg: exists; choose another file, or overwrite it (--force)" in done.stderr
    assert run_cli("model", "show", "--plot", tmp_path / "m.svg", "--force").exit_code == 0
    model = MLP(window=1, feature_dim=1, classes=2, hidden=[])
    with pytest.raises(UsageError, match=r"m\.gif: is not named as a picture; give a name that ends in \.svg, \.png"):
        write_diagram(model, tmp_path / "m.gif", window=1, feature_dim=1, title="m")
    with pytest.raises(DataError, match="is not a writable folder"):
        write_diagram(model, Path("/etc/passwd/m.svg"), window=1, feature_dim=1, title="m")
