"""The graph of a model as a picture: its layers, the shapes between them, and their parameters.

Shape letters: `B` windows of a batch, `W` frames of a window, `D` features, `C` labels.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from dali_asr.errors import UsageError
from dali_asr.files import check_output, disk_errors, new_file
from dali_asr.model import Residual, parameter_count, summarize

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from matplotlib.axes import Axes

    from dali_asr.model import MLP, LayerSummary

SUFFIXES = (".svg", ".png", ".pdf")
_ROW, _GAP, _WIDTH, _SIDE = 0.21, 0.3, 4.6, 0.5  # inches: a layer, the arrow between boxes, a box, and beside it
_SHAPE = 3.55  # inches from a box's left side to the end of the shapes
_LINEAR, _OTHER, _DATA, _LINE = "#dbe6f3", "#f4f6f9", "#fdeee7", "#4c78a8"
_JOINED = "#e4572e"


@dataclass
class _Box:
    """Layers that are drawn together: a hidden layer with what follows it."""

    rows: list[tuple[str, str, str]] = field(default_factory=list)  # name, shape, parameters
    residual: bool = False
    is_data: bool = False

    @property
    def height(self) -> float:
        return _ROW * len(self.rows)


def write_diagram(
    model: MLP, path: Path, *, window: int, feature_dim: int, title: str, overwrite: bool = False
) -> None:
    """Draw a model into a file, as SVG, PNG or PDF by its suffix.

    Args:
        model: the model.
        path: the file to write.
        window: frames per window, W.
        feature_dim: features per frame, D.
        title: stands above the picture.
        overwrite: whether an existing file is replaced.

    Raises:
        UsageError: another suffix, or the file exists.
        DataError: the disk is full or cannot be written.
    """
    check_diagram(path, overwrite=overwrite)
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    boxes = list(_boxes(model, window, feature_dim))
    width = _WIDTH + 2 * _SIDE
    height = sum(box.height for box in boxes) + _GAP * (len(boxes) - 1) + 0.9
    figure = Figure(figsize=(width, height))
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(height, 0))
    axes.set_axis_off()
    text = f"{title}: {parameter_count(model):,} parameters"
    axes.text(width / 2, 0.28, text, ha="center", va="center", fontsize=11, parse_math=False)
    top = 0.55
    for number, box in enumerate(boxes):
        if number:
            _arrow(axes, top - _GAP, top)
        _draw_box(axes, box, top)
        top += box.height + _GAP
    note = "B: windows of a batch; shapes are those of the output; parameters on the right"
    axes.text(width / 2, height - 0.14, note, ha="center", va="center", fontsize=7, color="#555555")
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        # Letters stay text, and equal models give equal files.
        with new_file(path) as file, rc_context({"svg.fonttype": "none", "svg.hashsalt": "dali-asr"}):
            dated = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}
            form = path.suffix[1:].lower()
            figure.savefig(file, format=form, dpi=150, metadata=dated.get(form))


def check_diagram(path: Path, *, overwrite: bool) -> None:
    """Refuse a file that `write_diagram` cannot write; errors as there."""
    if path.suffix.lower() not in SUFFIXES:
        raise UsageError(f"{path}: is not named as a picture; give a name that ends in {', '.join(SUFFIXES)}")
    check_output(path, overwrite=overwrite)


def _boxes(model: MLP, window: int, feature_dim: int) -> Iterator[_Box]:
    """Yield the boxes from the windows to the logits: one per linear layer, with the layers that follow it."""
    yield _Box([("windows", f"[B, {window}, {feature_dim}]", "")], is_data=True)
    lines = summarize(model, window, feature_dim)
    box = _Box()
    for module in model.layers:
        residual = isinstance(module, Residual)
        for _ in range(len(module) + 1 if isinstance(module, Residual) else 1):
            line = next(lines)
            if line.name.startswith("Linear"):
                yield box
                box = _Box(residual=residual)
            box.rows.append(_row(line))
    yield box
    yield _Box([("logits", line.output, "")], is_data=True)


def _row(line: LayerSummary) -> tuple[str, str, str]:
    name = "add the input" if line.name == "Residual" else line.name.replace("->", "→")
    return name, line.output, f"{line.parameters:,}" if line.parameters else ""


def _draw_box(axes: Axes, box: _Box, top: float) -> None:
    """Draw a box whose upper side is at `top`, and the way around it of a residual layer's input."""
    from matplotlib.patches import Rectangle

    for number, (name, shape, parameters) in enumerate(box.rows):
        upper = top + number * _ROW
        color = _DATA if box.is_data else _LINEAR if name.startswith("Linear") else _OTHER
        axes.add_patch(Rectangle((_SIDE, upper), _WIDTH, _ROW, facecolor=color, edgecolor="none"))
        middle = upper + _ROW / 2
        bold = "bold" if box.is_data else "normal"
        axes.text(_SIDE + 0.1, middle, name, va="center", fontsize=8, fontweight=bold)
        axes.text(_SIDE + _SHAPE, middle, shape, va="center", ha="right", fontsize=8)
        axes.text(_SIDE + _WIDTH - 0.1, middle, parameters, va="center", ha="right", fontsize=8)
    outline = Rectangle((_SIDE, top), _WIDTH, box.height, facecolor="none", edgecolor=_LINE, linewidth=0.9)
    axes.add_patch(outline)
    if box.residual:
        begin, end, right = top - _GAP / 2, top + box.height - _ROW / 2, _SIDE + _WIDTH
        axes.plot([_SIDE + _WIDTH / 2, right + 0.25, right + 0.25], [begin, begin, end], color=_JOINED, linewidth=0.9)
        arrow = {"arrowstyle": "-|>", "color": _JOINED, "linewidth": 0.9, "shrinkA": 0, "shrinkB": 0}
        axes.annotate("", (right, end), (right + 0.25, end), arrowprops=arrow)


def _arrow(axes: Axes, start: float, end: float) -> None:
    arrow = {"arrowstyle": "-|>", "color": _LINE, "linewidth": 0.9, "shrinkA": 0, "shrinkB": 0}
    axes.annotate("", (_SIDE + _WIDTH / 2, end), (_SIDE + _WIDTH / 2, start), arrowprops=arrow)
