"""The layout of Kaldi's data folders: one is a partition, and so is each folder within a folder of them.

    feats.scp               lines `NAME FILE.ark:OFFSET` of matrices `[T, D]`, compressed or not; read as float32
    ctm, or phones.ctm      lines `NAME CHANNEL START DURATION PHONE`, in seconds
    or ali.txt              lines `NAME PHONE PHONE ...`, one for each frame, as of `ali-to-phones --per-frame`
    phones.txt              lines `PHONE NUMBER`, in the folder or the one above, where phones are given by numbers

Utterances are in the order of `feats.scp`. Archives with a relative path are looked for from the folder of `feats.scp`
upwards. Matrices are read by `kaldi_native_io`; a command (`gunzip -c x |`) is never run.

Shape letters: `T` frames of an utterance, `D` features of a frame.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any

from dali_asr.corpus.features import check_features, finite
from dali_asr.corpus.layouts.alignment import Alignment
from dali_asr.corpus.layouts.base import Layout, LayoutKind, SourcePartition, SourceUtterance, stamp
from dali_asr.corpus.layouts.lines import decoded, index_lines
from dali_asr.corpus.regular import open_regular, read_regular, reading
from dali_asr.errors import DataError, brief
from dali_asr.inventory import ARPABET, Inventory

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray


SCP, PHONES, ALIGNMENT, NONE = "feats.scp", "phones.txt", "ali.txt", "<eps>"
_CTM = ("ctm", "phones.ctm")


@dataclass(frozen=True)
class _Utterance(SourceUtterance):
    """A line of `feats.scp`, with the archive and the offset of a matrix, and the alignment of the utterance."""

    scp: Path
    number: int
    archive: Path
    offset: int
    alignment: Alignment | None

    @property
    def where(self) -> str:
        """The line of `feats.scp`."""
        return f"{self.scp}, line {self.number}"

    def shape(self) -> tuple[int, int]:
        """Read the shape from the header of the matrix."""
        found = self._read("MatrixShape")
        shape = (int(found.num_rows), int(found.num_cols))
        if 0 in shape:
            raise DataError(f"{self.where}: a matrix without frames; remove the line")
        return shape

    def frames(self, *, zero_nonfinite: bool) -> NDArray[Any]:
        """Read the matrix as float32."""
        matrix: NDArray[Any] = self._read("FloatMatrix").numpy()
        check_features(self.where, matrix.shape, matrix.dtype)
        return finite(self.where, matrix, zero_nonfinite=zero_nonfinite)

    def labels(self, length: int, inventory: Inventory, fold: Mapping[str, str] | None) -> NDArray[np.int64]:
        """Read the alignment of the utterance."""
        assert self.alignment is not None
        return self.alignment.labels(length, inventory, fold)

    def _read(self, kind: str) -> Any:
        library = kaldi_library(self.where)
        with open_regular(self.archive):  # says what is wrong with the file, which the library does not
            pass
        try:
            return getattr(library, kind).read(f"{self.archive}:{self.offset}")
        except (RuntimeError, MemoryError) as error:
            raise DataError(
                f"{self.where}: no matrix at byte {self.offset} of {self.archive}; write the archive and its .scp again"
            ) from error


def kaldi_library(where: str) -> Any:
    """Return `kaldi_native_io`, which is imported when it is needed.

    Raises:
        DataError: it is not installed.
    """
    try:
        import kaldi_native_io
    except ImportError as error:
        raise DataError(f"{where}: needs kaldi_native_io: pip install 'dali-asr[kaldi]'") from error
    return kaldi_native_io


def _partition_names(root: Path) -> list[str]:
    with reading(root):
        if (root / SCP).is_file():
            return [root.absolute().name]
        return sorted(entry.name for entry in root.iterdir() if (entry / SCP).is_file())


def _read(root: Path, partitions: Sequence[str]) -> Layout:
    """Read the `.scp` files of data folders, and find the lines of their alignments.

    Raises:
        DataError: a file is missing or invalid.
    """
    alone = (root / SCP).is_file()
    folders = {name: root if alone else root / name for name in partitions or _partition_names(root)}
    read = tuple(_read_partition(name, folder) for name, folder in folders.items())
    tables = [table for folder in folders.values() if (table := _phones_path(folder))]
    inventory = Inventory(_symbols(tables[0])) if tables else ARPABET
    return Layout(KALDI.title, read, inventory, partial(_stamps, read, tuple(folders.values())))


def _read_partition(name: str, folder: Path) -> SourcePartition:
    entries = _read_scp(folder / SCP)
    alignments = _alignments(folder)
    if alignments is not None and not alignments.keys() & entries.keys():
        raise DataError(f"{folder}: its alignment names no utterance of {SCP}; give that of the same utterances")
    source = partial(_utterance, folder / SCP, entries, alignments)
    return SourcePartition(name, tuple(entries), alignments is not None, source)


def _utterance(
    scp: Path,
    entries: Mapping[str, tuple[int, Path, int]],
    alignments: Mapping[str, Alignment] | None,
    name: str,
) -> _Utterance:
    return _Utterance(scp, *entries[name], None if alignments is None else alignments.get(name, Alignment()))


def _read_scp(path: Path) -> dict[str, tuple[int, Path, int]]:
    """Return line, archive and offset of each utterance."""
    entries: dict[str, tuple[int, Path, int]] = {}
    for number, line in enumerate(decoded(str(path), read_regular(path)).splitlines(), 1):
        where, fields = f"{path}, line {number}", line.split(None, 1)
        if not fields:
            continue
        archive, colon, offset = fields[-1].strip().rpartition(":")
        if len(fields) < 2 or not colon or not offset.isdecimal() or "|" in archive:
            raise DataError(
                f"{where}: {brief(line)}; write `NAME FILE.ark:OFFSET`, without commands and ranges (copy-feats does)"
            )
        if fields[0] in entries:
            raise DataError(f"{where}: {fields[0]} is also in line {entries[fields[0]][0]}; write each name once")
        entries[fields[0]] = number, _resolve(path.parent, archive), int(offset)
    if not entries:
        raise DataError(f"{path}: names no utterance; write a line `NAME FILE.ark:OFFSET` for each")
    return entries


@lru_cache(maxsize=1024)
def _resolve(folder: Path, archive: str) -> Path:
    """Return the path of an archive; a relative one is looked for from the folder upwards."""
    above = (folder.absolute(), *folder.absolute().parents)
    return next((path / archive for path in above if (path / archive).exists()), folder / archive)


def _alignments(folder: Path) -> dict[str, Alignment] | None:
    """Return the alignment of each utterance; None if there are none."""
    found = _alignment_paths(folder)
    if not found:
        return None
    if len(found) > 1:
        raise DataError(f"{folder}: holds {found[0].name} and {found[1].name}; leave one of them")
    table = _phones_path(folder)
    phones = _read_phones(table) if table else {}
    timed = found[0].name in _CTM
    return {name: Alignment(lines, timed=timed, phones=phones) for name, lines in index_lines(found[0]).items()}


def _alignment_paths(folder: Path) -> list[Path]:
    return [folder / name for name in (*_CTM, ALIGNMENT) if (folder / name).is_file()]


def _phones_path(folder: Path) -> Path | None:
    return next((f / PHONES for f in (folder, folder.absolute().parent) if (f / PHONES).is_file()), None)


def _read_phones(path: Path) -> dict[str, str]:
    """Return the phone of each number; the numbers are texts."""
    phones: dict[str, str] = {}
    for number, line in enumerate(decoded(str(path), read_regular(path)).splitlines(), 1):
        fields = line.split()
        if fields and (len(fields) != 2 or not fields[1].isdecimal() or fields[1] in phones):
            raise DataError(f"{path}, line {number}: {brief(line)}; write `PHONE NUMBER`, each number once")
        if fields:
            phones[fields[1]] = fields[0]
    return phones


def _symbols(path: Path) -> tuple[str, ...]:
    """Return the phones of a table in the order of their numbers, without `<eps>` and disambiguation symbols (#0)."""
    phones = _read_phones(path)
    ordered = [phones[number] for number in sorted(phones, key=int)]
    return tuple(symbol for symbol in ordered if symbol != NONE and not symbol.startswith("#"))


def _stamps(partitions: Sequence[SourcePartition], folders: Sequence[Path]) -> Iterator[str]:
    for partition, folder in zip(partitions, folders, strict=True):
        table = _phones_path(folder)
        files = {folder / SCP, *_alignment_paths(folder), *([table] if table else [])}
        files |= {archive for _, archive, _ in _read_scp(folder / SCP).values()}
        yield from (f"{partition.name}/{stamp(path)}" for path in sorted(files))


KALDI = LayoutKind("Kaldi data folders", "PARTITION/feats.scp", _partition_names, _read)
