"""Evaluations that the folder of a run keeps, so that a model need not label the same frames twice.

`evaluation-PARTITION-CHECKPOINT.json` holds all scores; another decoding than `none` is named behind the partition. The
file states the identity of what was evaluated. If that is not what is asked for, the model is evaluated again.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from dali_asr.corpus.regular import read_regular
from dali_asr.errors import DataError
from dali_asr.files import disk_errors, write_file
from dali_asr.inference.decoding import NONE
from dali_asr.inference.evaluate import Evaluation, identity_of, score
from dali_asr.inference.scores import Scores

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from dali_asr.corpus import Partition
    from dali_asr.runs.checkpoint import Checkpoint


def evaluate_once(
    folder: Path,
    checkpoint: Checkpoint,
    partition: Partition,
    silence: int | None = None,
    *,
    device: str = "auto",
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Evaluation, str]:
    """Return the evaluation of undecoded labels that a folder keeps; without one, evaluate and keep it.

    A folder that cannot be written is no error.

    Args:
        folder: where evaluations of the run are kept.
        checkpoint: the model.
        partition: a labelled partition.
        silence: the label of silence; None if there is none.
        device: as in `evaluate`.
        progress: as in `evaluate`.

    Returns:
        The evaluation, and a sentence about where it comes from.

    Raises:
        DataError: the corpus is damaged.
        UsageError: an unknown device name.
        DeviceError: the device is missing or has too little memory.
    """
    path = evaluation_path(folder, partition.name, checkpoint.name)
    reason = "no stored evaluation of this checkpoint"
    if path.exists():
        try:
            return _read(path, checkpoint, partition, silence), f"Scores were read from {path}"
        except DataError as error:
            reason = str(error)
    evaluation = score(checkpoint, partition, silence, device=device, progress=progress)
    try:
        keep(evaluation, folder)
        path.with_suffix(".png").unlink(missing_ok=True)  # the picture of the one before
    except (DataError, OSError) as error:
        return evaluation, f"Evaluated: {reason}. Not stored: {error}"
    return evaluation, f"Evaluated: {reason}. Stored in {path}"


def keep(evaluation: Evaluation, folder: Path) -> Path:
    """Write an evaluation to a folder and return its file, which replaces that of an earlier one.

    Raises:
        DataError: the disk is full or cannot be written.
    """
    path = evaluation_path(folder, evaluation.partition, evaluation.checkpoint, evaluation.decode)
    with disk_errors(folder):
        write_file(path, (json.dumps(evaluation.to_json()) + "\n").encode())
    return path


def evaluation_path(folder: Path, partition: str, checkpoint: str, decode: str = NONE) -> Path:
    """Return where the evaluation of a checkpoint on a partition is kept."""
    decoding = "" if decode == NONE else f"-{decode.replace(':', '-')}"
    return folder / f"evaluation-{partition.replace('+', '-')}{decoding}-{checkpoint}.json"


def _read(path: Path, checkpoint: Checkpoint, partition: Partition, silence: int | None) -> Evaluation:
    """Return the evaluation in a file.

    Raises:
        DataError: it cannot be read, or is of something else.
    """
    inventory, identity = checkpoint.description.inventory, identity_of(checkpoint, partition, silence)
    try:
        values = json.loads(read_regular(path))
        if values.get("identity") != identity:
            raise DataError("the stored evaluation is of another corpus, model or version")
        scores = Scores.from_json(values, inventory, silence)
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise DataError("the stored evaluation is damaged") from error
    return Evaluation(partition.name, checkpoint.name, scores, inventory, silence, identity=identity)
