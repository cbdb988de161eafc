"""Predictions as files.

kaggle   CSV `id,label`: frames numbered from 0 over the partition, labels as symbols
json     partition, inventory, accuracy, and of each utterance its name and symbols
npz      posteriors [F, C] float32, labels [F], offsets [U + 1], utterances [U], inventory [C]
"""

from __future__ import annotations

import json
import secrets
from contextlib import suppress
from typing import TYPE_CHECKING, BinaryIO, Literal

import numpy as np

from dali_asr.errors import DataError, UsageError
from dali_asr.files import check_output

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from dali_asr.inference.predict import Prediction

Format = Literal["kaggle", "json", "npz"]
SUFFIXES: dict[Format, str] = {"kaggle": "csv", "json": "json", "npz": "npz"}


def write_prediction(prediction: Prediction, path: Path, form: Format, *, overwrite: bool = False) -> None:
    """Write a prediction; the file is there whole or not at all.

    Raises:
        UsageError: the file exists, or `npz` without posteriors.
        DataError: it cannot be written.
    """
    check_output(path, overwrite=overwrite)
    path = path.resolve()  # a link stays, and what it leads to is written
    aside = path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with aside.open("wb") as file:
            encode(prediction, form, file)
        aside.replace(path)
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}; nothing was written, choose another place") from error
    finally:
        with suppress(OSError):  # it was renamed, or could not be made
            aside.unlink()


def encode(prediction: Prediction, form: Format, stream: BinaryIO) -> None:
    """Write a prediction to a stream in a format.

    Raises:
        UsageError: `npz` without posteriors.
    """
    _ENCODERS[form](prediction, stream)


def _kaggle(prediction: Prediction, stream: BinaryIO) -> None:
    fields = [_csv_field(symbol) for symbol in prediction.inventory.symbols]
    stream.write(b"id,label\n")
    stream.writelines(f"{number},{fields[label]}\n".encode() for number, label in enumerate(prediction.labels.tolist()))


def _csv_field(text: str) -> str:
    """Quote a field where RFC 4180 asks for it."""
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
