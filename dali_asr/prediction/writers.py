"""Predictions as files.

kaggle   CSV `id,label`: frames numbered from 0 over the partition, labels as symbols
json     partition, inventory, accuracy, and of each utterance its name and symbols
npz      posteriors [F, C] float32, labels [F], offsets [U + 1], utterances [U], inventory [C]
"""

from __future__ import annotations

import json
import os
import secrets
from contextlib import suppress
from typing import TYPE_CHECKING, BinaryIO, Literal

import numpy as np

from dali_asr.errors import DataError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from dali_asr.prediction.predict import Prediction

Format = Literal["kaggle", "json", "npz"]
SUFFIXES: dict[Format, str] = {"kaggle": "csv", "json": "json", "npz": "npz"}


def write_prediction(prediction: Prediction, path: Path, form: Format, *, overwrite: bool = False) -> None:
    """Write a prediction; the file is there whole or not at all.

    Raises:
        UsageError: the file exists, or `npz` without posteriors.
        DataError: it cannot be written.
    """
    check_output(path, overwrite=overwrite)
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


def check_output(path: Path, *, overwrite: bool) -> None:
    """Refuse an output file that cannot be written, or that exists and may not be overwritten.

    Raises:
        UsageError: it exists, or is a folder.
        DataError: its folder cannot be written.
    """
    if path.is_dir():
        raise UsageError(f"{path}: is a folder; name a file in it")
    if path.exists() and not overwrite:
        raise UsageError(f"{path}: exists; choose another file, or overwrite it (--force)")
    above = next(folder for folder in path.absolute().parents if folder.exists())
    if not (above.is_dir() and os.access(above, os.W_OK)):
        raise DataError(f"{path}: {above} is no folder that can be written; choose another place")


def _kaggle(prediction: Prediction, stream: BinaryIO) -> None:
    stream.write(b"id,label\n")
    stream.writelines(f"{number},{symbol}\n".encode() for number, symbol in enumerate(prediction.symbols.tolist()))


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
