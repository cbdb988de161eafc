"""Labels that are not trained on: those of the utterances and spans that a CSV lists, such as an audit's findings.

The columns `partition` and `utterance` name an utterance; `start_frame` and `end_frame`, where they are given, a span
of it. Other columns are ignored. The frames stay in the windows of their neighbours: their labels alone are doubted.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from dali_asr.errors import DataError, brief

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from dali_asr.corpus.partition import Partition


@dataclass(frozen=True)
class Dropped:
    """A line of the file.

    Attributes:
        where: file and line, for messages.
        partition: name of the partition.
        utterance: name of the utterance.
        span: first frame and the frame after the last; None for the whole utterance.
    """

    where: str
    partition: str
    utterance: str
    span: tuple[int, int] | None


def read_dropped(path: Path) -> list[Dropped]:
    """Read a file of utterances and spans.

    Raises:
        DataError: it is missing, no such CSV, or a line is invalid.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            missing = {"partition", "utterance"} - set(reader.fieldnames or ())
            if missing:
                raise DataError(
                    f"{path}: has no column {' or '.join(sorted(missing))}; give the findings.csv of an audit, or a "
                    "CSV with the columns partition, utterance and, for spans, start_frame and end_frame"
                )
            return [_line(f"{path}: line {reader.line_num}", row) for row in reader]
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}; give the findings.csv of an audit") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: is not a CSV file in UTF-8 ({error}); give the findings.csv of an audit") from error


def drop_labels(partition: Partition, dropped: Iterable[Dropped]) -> Partition:
    """Return a partition without the labels of the lines that name it.

    Raises:
        DataError: the partition lacks an utterance, or the utterance lacks a frame.
    """
    numbers = {name: number for number, name in enumerate(partition.utterances)}
    frames = np.zeros(partition.frame_count, np.bool_)
    for line in dropped:
        if line.partition != partition.name:
            continue
        number = numbers.get(line.utterance)
        if number is None:
            raise DataError(
                f"{line.where}: {partition.name} has no utterance {brief(line.utterance)}; audit the corpus that is "
                "trained on"
            )
        length = int(partition.lengths[number])
        start, end = line.span or (0, length)
        if not 0 <= start < end <= length:
            raise DataError(
                f"{line.where}: frames {start} to {end} of {brief(line.utterance)}, which has {length}; audit the "
                "corpus that is trained on"
            )
        first = int(partition.offsets[number])
        frames[first + start : first + end] = True
    return partition.withhold(frames) if frames.any() else partition


def _line(where: str, row: dict[str, str | None]) -> Dropped:
    start, end = row.get("start_frame") or "", row.get("end_frame") or ""
    if not (start or end):
        return Dropped(where, row["partition"] or "", row["utterance"] or "", None)
    try:
        span = int(start), int(end)
    except ValueError as error:
        raise DataError(
            f"{where}: start_frame {brief(start)}, end_frame {brief(end)}; expected two integers"
        ) from error
    return Dropped(where, row["partition"] or "", row["utterance"] or "", span)
