"""Predictions as files.

kaggle   CSV `id,label`: frames numbered from 0 over the partition, labels as symbols
json     partition, inventory, accuracy, and of each utterance its name and symbols
npz      posteriors [F, C] float32, labels [F], offsets [U + 1], utterances [U], inventory [C]
"""

from __future__ import annotations

import io
import json
import secrets
from typing import TYPE_CHECKING, Literal

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
    content = encode(prediction, form)
    aside = path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        aside.write_bytes(content)
        aside.replace(path)
    except OSError as error:
        aside.unlink(missing_ok=True)
        raise DataError(f"{path}: {error.strerror}; nothing was written, choose another place") from error


def encode(prediction: Prediction, form: Format) -> bytes:
    """Return a prediction in a format.

    Raises:
        UsageError: `npz` without posteriors.
    """
    return _ENCODERS[form](prediction)


def check_output(path: Path, *, overwrite: bool) -> None:
    """Refuse an output file that exists, unless it may be overwritten.

    Raises:
        UsageError: it exists, or is a folder.
    """
    if path.is_dir():
        raise UsageError(f"{path}: is a folder; name a file in it")
    if path.exists() and not overwrite:
        raise UsageError(f"{path}: exists; choose another file, or overwrite it (--force)")


def _kaggle(prediction: Prediction) -> bytes:
    lines = (f"{number},{symbol}" for number, symbol in enumerate(prediction.symbols.tolist()))
    return ("\n".join(["id,label", *lines]) + "\n").encode()


def _json(prediction: Prediction) -> bytes:
    symbols = np.split(prediction.symbols, prediction.offsets[1:-1])
    values = {
        "partition": prediction.partition,
        "inventory": prediction.inventory.symbols,
        "accuracy": prediction.accuracy,
        "utterances": [
            {"name": name, "labels": row.tolist()} for name, row in zip(prediction.utterances, symbols, strict=True)
        ],
    }
    return (json.dumps(values, ensure_ascii=False) + "\n").encode()


def _npz(prediction: Prediction) -> bytes:
    if prediction.posteriors is None:
        raise UsageError("npz holds posteriors; predict with posteriors=True")
    buffer = io.BytesIO()
    np.savez(
        buffer,
        posteriors=prediction.posteriors,
        labels=prediction.labels,
        offsets=prediction.offsets,
        utterances=np.array(prediction.utterances),
        inventory=np.array(prediction.inventory.symbols),
    )
    return buffer.getvalue()


_ENCODERS: dict[Format, Callable[[Prediction], bytes]] = {"kaggle": _kaggle, "json": _json, "npz": _npz}
