"""A run's submission file: predicted, and checked against a competition's sample.

Both are CSV files with a header and two columns, the identity of a frame and its symbol, as `predict` writes them. How
the columns are called is up to the competition: a prediction gets the header of the sample.
"""

from __future__ import annotations

import csv
from collections import Counter
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING

import xxhash

from dali_asr.build import corpus_path
from dali_asr.config import Config
from dali_asr.corpus.packing import quiet
from dali_asr.corpus.regular import open_regular
from dali_asr.errors import DataError, UsageError, brief, did_you_mean
from dali_asr.files import disk_errors, new_file
from dali_asr.inference.formats import COLUMNS, encode_kaggle
from dali_asr.inference.predict import label, prepare
from dali_asr.runs.checkpoint import checkpoint_folder, is_of_package, run_of
from dali_asr.runs.run_path import CONFIG

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from dali_asr.corpus.packing import Progress
    from dali_asr.inventory import Inventory
    from dali_asr.runs.checkpoint import Which

_MAX_NAMED = 5  # symbols in a message
_HEADER = ",".join(COLUMNS)
_REMEDY = f"give a CSV file of {_HEADER}"


@dataclass(frozen=True)
class Submission:
    """What a submission file was predicted from.

    Attributes:
        partition: name of the partition.
        source: the corpus that holds it.
        checkpoint: name of the checkpoint's folder.
    """

    partition: str
    source: str
    checkpoint: str

    def __str__(self) -> str:
        """Say what was predicted, and by what."""
        return f"{self.partition} of {self.source} by {self.checkpoint}, frame by frame"


def predict_submission(
    run: str | Path,
    path: Path,
    *,
    source: str | Path | None = None,
    partition: str | None = None,
    checkpoint: Which = "best",
    device: str = "auto",
    columns: tuple[str, str] = COLUMNS,
    progress: Progress = quiet,
) -> Submission:
    """Write a run's submission file: the most probable label of each frame.

    It is always predicted anew: a file that `predict` left in the run's folder does not say which checkpoint, corpus
    and decoding it is of.

    Args:
        run: folder of a run, or of one of its checkpoints.
        path: the CSV file to write.
        source: what holds the partition; by default the corpus that the run was trained on. A model in the package
            comes without one.
        partition: by default the run's `data.test`.
        checkpoint: `best` or `last`.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        columns: the header of the file.
        progress: called with a stage, the amount done, and the amount of all.

    Raises:
        CheckpointError, DataError, UsageError, DeviceError: as `predict`; or the run has no test partition
            or no corpus.
    """
    run = Path(run).expanduser()
    weights = checkpoint_folder(run, checkpoint)
    data = Config.load(run_of(run) / CONFIG).data
    name = partition or data.test
    if name is None:
        raise UsageError(f"{run}: its data.test names no partition; name the one to predict (partition=NAME)")
    if source is None and is_of_package(run):
        raise UsageError(f"{run}: a model in the package comes without a corpus; name one to predict (source=FOLDER)")
    root = data.root if source is None else str(source)
    if not corpus_path(root, progress).exists():
        if source is None:
            raise DataError(f"{root}: no such folder, which the run was trained on; name the corpus (source=FOLDER)")
        raise DataError(f"{root}: no such folder; name a packed corpus or source files (source=FOLDER)")
    trained, opened = prepare(weights, root, partition=name, packing=progress)
    labelled = label(trained, opened, device=device, progress=lambda done, total: progress("predicting", done, total))
    with disk_errors(path), new_file(path) as stream:
        encode_kaggle(labelled, stream, columns)
    return Submission(name, root, trained.name)


@dataclass(frozen=True)
class Check:
    """What a submission that fits its sample was found to be.

    Attributes:
        rows: the number of its rows.
        placeholder: the symbol in every row of the sample, which says nothing about the others; None if it has several.
    """

    rows: int
    placeholder: str | None

    def __str__(self) -> str:
        """Say what was compared with what."""
        if self.placeholder is None:
            return f"{_counted(self.rows)}, with the ids and the label symbols of the sample submission"
        return (
            f"{_counted(self.rows)}, with the ids of the sample submission; its symbols were not compared, because "
            f"{brief(self.placeholder)} in every row is a placeholder: the labels are symbols of the run's inventory"
        )


def check_submission(submission: Path, sample: Table, inventory: Inventory, *, partition: str | None = None) -> Check:
    """Compare a submission with a competition's sample.

    Columns, number of rows and ids must be the sample's; ids may come in another order. A sample with many symbols
    names all that are allowed. One with few of them shows how symbols are spelled: one of them must be in the
    submission, whose others are of the inventory. One with a single symbol in every row shows nothing, so that all
    symbols must be of the inventory.

    Args:
        submission: the CSV file to check.
        sample: the competition's.
        inventory: that of the run.
        partition: what the file was predicted from, which messages name instead of it; None for a file of the user's.

    Raises:
        DataError: they differ, or the submission cannot be read.
    """
    ours = Table.read(submission)
    called = str(submission) if partition is None else f"the prediction of {partition}"
    if ours.columns != sample.columns:
        remedy = "write the header of the sample, which a prediction of data submit gets by itself"
        if sorted(ours.columns) == sorted(sample.columns):
            remedy = "exchange the columns"
        raise DataError(
            f"{called}: columns {','.join(ours.columns)}, the sample has {','.join(sample.columns)}; {remedy}, or "
            "check the competition's name"
        )
    if ours.ids != sample.ids:
        _check_ids(called, ours, sample, "" if partition is None else " (partition=NAME)")
    _check_symbols(called, ours, sample, inventory)
    return Check(ours.rows, next(iter(sample.symbols)) if len(sample.symbols) == 1 else None)


@dataclass(frozen=True)
class Table:
    """What a submission file holds.

    Attributes:
        path: the file.
        columns: the header.
        rows: their number.
        ids: checksum of the ids in their order.
        symbols: rows with each symbol.
        lines: the first line with each symbol; the header is line 1.
    """

    path: Path
    columns: tuple[str, str]
    rows: int
    ids: bytes
    symbols: Counter[str]
    lines: dict[str, int]

    @classmethod
    def read(cls, path: Path) -> Table:
        """Read a submission file.

        Raises:
            DataError: it cannot be read, holds no rows, or is no CSV file of two columns with a header.
        """
        lines = _lines(path)
        columns = next(lines)
        if columns[0].isdecimal():
            row = ",".join(columns)
            raise DataError(f"{path}: line 1: {row} is a row, not a header; write one above it ({_HEADER})")
        ids = xxhash.xxh3_128()
        symbols: Counter[str] = Counter()
        first: dict[str, int] = {}
        for line, (identity, symbol) in enumerate(lines, 2):
            ids.update(f"{identity}\0".encode())
            symbols[symbol] += 1
            first.setdefault(symbol, line)
        if not symbols:
            raise DataError(f"{path}: no rows after the header; {_REMEDY}")
        return cls(path, columns, sum(symbols.values()), ids.digest(), symbols, first)


def _lines(path: Path) -> Iterator[tuple[str, str]]:
    """Yield the two columns of each line of a submission file, the header first."""
    with open_regular(path) as file, open(file, encoding="utf-8-sig", newline="", closefd=False) as text:
        lines = csv.reader(text)
        try:
            header = next(lines, [])
            if not header:
                raise DataError(f"{path}: is empty, or its first line is; {_REMEDY}")
            for line in chain([header], lines):
                if len(line) != 2:
                    names = f" ({','.join(header)})" if line is header else ""
                    raise ValueError(f"{_columns(line)}{names}, expected 2")
                yield line[0], line[1]
        except (ValueError, csv.Error) as error:
            reason = "not UTF-8" if isinstance(error, UnicodeDecodeError) else str(error)
            where = f"{path}: line {max(lines.line_num, 1)}"
            raise DataError(f"{where}: not a submission ({reason}); {_REMEDY}") from error


def _columns(line: Sequence[str]) -> str:
    return "1 column" if len(line) == 1 else f"{len(line)} columns"


def _check_ids(called: str, ours: Table, sample: Table, argument: str) -> None:
    """Compare the ids of a submission with the sample's, which may come in another order.

    Args:
        called: what the submission is called in messages.
        ours: the submission.
        sample: the competition's.
        argument: what names the partition to predict, for messages; empty if nothing does.
    """
    mine, theirs = ([identity for identity, _ in islice(_lines(table.path), 1, None)] for table in (ours, sample))
    if sorted(mine) == sorted(theirs):
        return
    if len(set(theirs)) == len(theirs):
        _check_unique(called, mine)
    if len(mine) != len(theirs):
        raise DataError(
            f"{called} has {_counted(len(mine))}, the sample has {len(theirs):,}; "
            f"predict the competition's test partition{argument}, or check the competition's name"
        )
    line, first, second = next((at, a, b) for at, (a, b) in enumerate(zip(mine, theirs, strict=True), 2) if a != b)
    raise DataError(
        f"{called}: line {line}: id {brief(first)}, the sample has {brief(second)}; "
        f"predict the competition's test partition{argument}"
    )


def _check_unique(called: str, ids: Sequence[str]) -> None:
    lines: dict[str, int] = {}
    for line, identity in enumerate(ids, 2):
        if lines.setdefault(identity, line) != line:
            raise DataError(
                f"{called}: line {line}: id {brief(identity)} is a duplicate of line {lines[identity]}; "
                "give every id once"
            )


def _check_symbols(called: str, ours: Table, theirs: Table, inventory: Inventory) -> None:
    sample = set(theirs.symbols)
    is_placeholder = len(sample) == 1
    is_part = 2 * len(sample) < len(ours.symbols) and bool(sample & set(ours.symbols))
    known = set(inventory.symbols)
    allowed = (known if is_placeholder else sample | known if is_part else sample) - {""}
    unknown = [symbol for symbol, _ in ours.symbols.most_common() if symbol not in allowed]
    if not unknown:
        return
    rows = sum(ours.symbols[symbol] for symbol in unknown)
    if is_placeholder or is_part:
        has = f"the run's inventory has {_named(inventory.symbols)}"
        remedy = "predict the file again, or name the run that it is of"
    else:
        has = f"the sample has {_named(list(theirs.symbols))}"
        remedy = (
            "train with the competition's symbols (data.inventory), or give a sample without placeholders (--sample)"
        )
    raise DataError(
        f"{called}: line {ours.lines[unknown[0]]}: {_named(unknown)} in {_counted(rows)}, {has}"
        f"; {remedy}{did_you_mean(unknown[0], sorted(allowed))}"
    )


def _counted(rows: int) -> str:
    return "1 row" if rows == 1 else f"{rows:,} rows"


def _named(symbols: Sequence[str]) -> str:
    more = f" and {len(symbols) - _MAX_NAMED} more" if len(symbols) > _MAX_NAMED else ""
    return ", ".join(map(brief, symbols[:_MAX_NAMED])) + more
