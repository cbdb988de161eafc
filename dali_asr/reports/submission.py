"""A run's submission file: predicted, and checked against a competition's sample.

Both are CSV files with a header and two columns, the identity of a frame and its symbol, as `predict` writes them.
"""

from __future__ import annotations

import csv
from collections import Counter
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import xxhash

from dali_asr.build import corpus_path
from dali_asr.config import Config
from dali_asr.corpus.packing import quiet
from dali_asr.corpus.regular import open_regular
from dali_asr.errors import DataError, UsageError, brief, did_you_mean
from dali_asr.inference.predict import label, prepare
from dali_asr.inference.writers import write_prediction
from dali_asr.runs.checkpoint import CONFIG, find_checkpoint, is_checkpoint, run_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from dali_asr.corpus.packing import Progress
    from dali_asr.inventory import Inventory
    from dali_asr.runs.checkpoint import Which

_MAX_NAMED = 5  # symbols in a message


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
    progress: Progress = quiet,
) -> Submission:
    """Write a run's submission file: the most probable label of each frame.

    It is always predicted anew: a file that `predict` left in the run's folder does not say which checkpoint, corpus
    and decoding it is of.

    Args:
        run: folder of a run, or of one of its checkpoints.
        path: the CSV file to write.
        source: what holds the partition; by default the corpus that the run was trained on.
        partition: by default the run's `data.test`.
        checkpoint: `best` or `last`.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        progress: called with a stage, the amount done, and the amount of all.

    Raises:
        CheckpointError, DataError, UsageError, DeviceError: as `predict`; or the run has no test partition.
    """
    run = Path(run).expanduser()
    weights = run if is_checkpoint(run) else find_checkpoint(run_of(run), checkpoint)
    data = Config.load(run_of(run) / CONFIG).data
    name = partition or data.test
    if name is None:
        raise UsageError(f"{run}: its data.test names no partition; name the one to predict (partition=NAME)")
    root = data.root if source is None else str(source)
    if not corpus_path(root, progress).exists():
        if source is None:
            raise DataError(f"{root}: no such folder, which the run was trained on; name the corpus (source=FOLDER)")
        raise DataError(f"{root}: no such folder; name a packed corpus or source files (source=FOLDER)")
    trained, opened = prepare(weights, root, partition=name, packing=progress)
    labelled = label(trained, opened, device=device, progress=lambda done, total: progress("predicting", done, total))
    write_prediction(labelled, path, "kaggle")
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


def check_submission(submission: Path, sample: Path, inventory: Inventory) -> Check:
    """Compare a submission with a competition's sample.

    Columns, number of rows and ids must be the sample's; ids may come in another order. A sample with many symbols
    names all that are allowed. One with few of them shows how symbols are spelled: one of them must be in the
    submission, whose others are of the inventory. One with a single symbol in every row shows nothing, so that all
    symbols must be of the inventory.

    Args:
        submission: the CSV file to check.
        sample: the competition's.
        inventory: that of the run.

    Raises:
        DataError: they differ, or one of them cannot be read.
    """
    ours, theirs = _Table.read(submission), _Table.read(sample)
    if ours.columns != theirs.columns:
        raise DataError(
            f"{submission}: columns {','.join(ours.columns)}, the sample has {','.join(theirs.columns)}; "
            "check the competition's name"
        )
    if ours.rows != theirs.rows:
        raise DataError(
            f"{submission}: {_counted(ours.rows)}, the sample has {theirs.rows:,}; "
            "predict the competition's test partition, or check the competition's name"
        )
    if ours.ids != theirs.ids:
        _check_ids(submission, sample)
    _check_symbols(submission, ours, theirs, inventory)
    return Check(ours.rows, next(iter(theirs.symbols)) if len(theirs.symbols) == 1 else None)


@dataclass(frozen=True)
class _Table:
    """What a submission file holds.

    Attributes:
        columns: the header.
        rows: their number.
        ids: checksum of the ids in their order.
        symbols: rows with each symbol.
        lines: the first line with each symbol; the header is line 1.
    """

    columns: tuple[str, str]
    rows: int
    ids: bytes
    symbols: Counter[str]
    lines: dict[str, int]

    @classmethod
    def read(cls, path: Path) -> _Table:
        lines = _lines(path)
        columns = next(lines)
        ids = xxhash.xxh3_128()
        symbols: Counter[str] = Counter()
        first: dict[str, int] = {}
        for line, (identity, symbol) in enumerate(lines, 2):
            ids.update(f"{identity}\0".encode())
            symbols[symbol] += 1
            first.setdefault(symbol, line)
        return cls(columns, sum(symbols.values()), ids.digest(), symbols, first)


def _lines(path: Path) -> Iterator[tuple[str, str]]:
    """Yield the two columns of each line of a submission file, the header first."""
    with open_regular(path) as file, open(file, encoding="utf-8-sig", newline="", closefd=False) as text:
        lines = csv.reader(text)
        try:
            header = next(lines, [])
            for line in chain([header], lines):
                if len(line) != 2:
                    raise ValueError(f"{len(line)} columns, expected 2")
                yield line[0], line[1]
        except (ValueError, csv.Error) as error:
            reason = "not UTF-8" if isinstance(error, UnicodeDecodeError) else str(error)
            where = f"{path}: line {max(lines.line_num, 1)}"
            raise DataError(f"{where}: not a submission ({reason}); give a CSV file of id,label") from error


def _check_ids(submission: Path, sample: Path) -> None:
    """Compare the ids of two files of as many rows, which may come in another order."""
    ours, theirs = ([identity for identity, _ in _lines(path)] for path in (submission, sample))
    if sorted(ours) == sorted(theirs):
        return
    line, first, second = next((at, a, b) for at, (a, b) in enumerate(zip(ours, theirs, strict=True), 1) if a != b)
    raise DataError(
        f"{submission}: line {line}: id {brief(first)}, the sample has {brief(second)}; "
        "predict the competition's test partition again"
    )


def _check_symbols(submission: Path, ours: _Table, theirs: _Table, inventory: Inventory) -> None:
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
        f"{submission}: line {ours.lines[unknown[0]]}: {_named(unknown)} in {_counted(rows)}, {has}"
        f"{did_you_mean(unknown[0], sorted(allowed))}; {remedy}"
    )


def _counted(rows: int) -> str:
    return "1 row" if rows == 1 else f"{rows:,} rows"


def _named(symbols: Sequence[str]) -> str:
    more = f" and {len(symbols) - _MAX_NAMED} more" if len(symbols) > _MAX_NAMED else ""
    return ", ".join(map(brief, symbols[:_MAX_NAMED])) + more
