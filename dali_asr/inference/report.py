"""An evaluation as files: JSON, and its confusion matrix as a picture."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np

from dali_asr.errors import DataError

if TYPE_CHECKING:
    from pathlib import Path

    from dali_asr.inference.evaluate import Evaluation

_MOST_NAMED = 80  # symbols that have room beside the picture


def write_evaluation(evaluation: Evaluation, folder: Path) -> list[Path]:
    """Write `evaluation-PARTITION.json` and `.png`, over those of an earlier evaluation; return both.

    Raises:
        DataError: the disk is full, or cannot be written.
    """
    stem = f"evaluation-{evaluation.partition.replace('+', '-')}"
    values, picture = folder / f"{stem}.json", folder / f"{stem}.png"
    try:
        values.write_text(json.dumps(evaluation.to_json()) + "\n", encoding="utf-8")
        draw_confusion(evaluation, picture)
    except OSError as error:
        raise DataError(f"{error.filename or folder}: {error.strerror} while writing; free some space") from error
    return [values, picture]


def draw_confusion(evaluation: Evaluation, picture: Path) -> None:
    """Draw the confusion matrix of the symbols that occur, each row as shares of its true symbol's frames."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    confusion = evaluation.scores.confusion
    shown = np.flatnonzero(confusion.sum(axis=0) + confusion.sum(axis=1))
    shares = confusion[np.ix_(shown, shown)] / np.maximum(confusion[shown].sum(axis=1, keepdims=True), 1)
    size = min(max(4.5, 0.2 * len(shown) + 2), 16)
    figure = Figure(figsize=(size + 0.8, size), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    image = axes.imshow(shares, cmap="magma_r", vmin=0, vmax=1)
    figure.colorbar(image, ax=axes, shrink=0.7, label="share of the true symbol's frames")
    if len(shown) <= _MOST_NAMED:
        names = [evaluation.inventory.symbols[at] for at in shown]
        axes.set_xticks(range(len(names)), names, rotation=90, fontsize=7)
        axes.set_yticks(range(len(names)), names, fontsize=7)
    axes.set_xlabel("given")
    axes.set_ylabel("true")
    axes.set_title(f"{evaluation.partition}: frame accuracy {evaluation.scores.accuracy:.2%}", fontsize=10)
    figure.savefig(picture, dpi=120)
