"""Files of predictions and evaluations. Each appears whole or not at all.

Formats of predictions:

kaggle   CSV with the columns `id,label`: the position of each frame in the partition, from 0, and its symbol
json     partition, inventory and accuracy; name and symbols of each utterance
npz      posteriors [F, C] float32, labels [F], offsets [U + 1], utterances [U], inventory [C]

An evaluation is a JSON file with all scores, and a picture of its confusion matrix. The matrix is stored as `confusion`
(C rows of C counts) up to 300 symbols, and as `confusion_cells` (`[true, predicted, count]` of each cell that is not
zero) above.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, BinaryIO, Literal

import numpy as np

from dali_asr.errors import UsageError
from dali_asr.files import check_output, disk_errors, new_file, write_file
from dali_asr.inference.pictures import draw_confusion

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from dali_asr.inference.evaluate import Evaluation
    from dali_asr.inference.predict import Prediction

Format = Literal["kaggle", "json", "npz"]
SUFFIXES: dict[Format, str] = {"kaggle": "csv", "json": "json", "npz": "npz"}


def write_prediction(prediction: Prediction, path: Path, form: Format, *, overwrite: bool = False) -> None:
    """Write a prediction to a file.

    Raises:
        UsageError: the file exists, or the format is `npz` and the prediction has no posteriors.
        DataError: the disk is full or cannot be written.
    """
    check_output(path, overwrite=overwrite)
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with new_file(path) as file:
            encode(prediction, form, file)


def encode(prediction: Prediction, form: Format, stream: BinaryIO) -> None:
    """Write a prediction to a stream.

    Raises:
        UsageError: the format is `npz` and the prediction has no posteriors.
    """
    _ENCODERS[form](prediction, stream)


def _kaggle(prediction: Prediction, stream: BinaryIO) -> None:
    fields = [_csv_field(symbol) for symbol in prediction.inventory.symbols]
    stream.write(b"id,label\n")
    stream.writelines(f"{number},{fields[label]}\n".encode() for number, label in enumerate(prediction.labels.tolist()))


def _csv_field(text: str) -> str:
    """Quote a field if RFC 4180 requires it."""
    return '"' + text.replace('"', '""') + '"' if set(text) & set(',"\r\n') else text


def _json(prediction: Prediction, stream: BinaryIO) -> None:
    symbols = np.split(prediction.symbols, prediction.offsets[1:-1])
    values = {
        "partition": prediction.partition,
        "inventory": prediction.inventory.symbols,
        "accuracy": prediction.accuracy,
        "utterances": [
            {"name": name, "labels": row.tolist()} for name, row in zip(prediction.utterances, symbols, strict=True)
        ],
    }
    stream.write((json.dumps(values, ensure_ascii=False) + "\n").encode())


def _npz(prediction: Prediction, stream: BinaryIO) -> None:
    if prediction.posteriors is None:
        raise UsageError("npz holds posteriors; predict with posteriors=True")
    np.savez(
        stream,
        posteriors=prediction.posteriors,
        labels=prediction.labels,
        offsets=prediction.offsets,
        utterances=np.array(prediction.utterances),
        inventory=np.array(prediction.inventory.symbols),
    )


_ENCODERS: dict[Format, Callable[[Prediction, BinaryIO], None]] = {"kaggle": _kaggle, "json": _json, "npz": _npz}


def write_evaluation(evaluation: Evaluation, folder: Path) -> list[Path]:
    """Write `evaluation-PARTITION-CHECKPOINT.json` and `.png`, and return both paths.

    They replace those of an earlier evaluation of the same checkpoint on a partition of this name.

    Raises:
        DataError: the disk is full or cannot be written.
    """
    stem = f"evaluation-{evaluation.partition.replace('+', '-')}-{evaluation.checkpoint}"
    scores, picture = folder / f"{stem}.json", folder / f"{stem}.png"
    with disk_errors(folder):
        write_file(scores, (json.dumps(evaluation.to_json()) + "\n").encode())
        write_file(picture, draw_confusion(evaluation))
    return [scores, picture]
