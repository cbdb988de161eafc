"""Exporting a corpus in a layout that other tools read, and that can be packed again.

Frames are exported as they are stored: normalized, unless the corpus was packed with `none`. The
course layout of a corpus that was packed from a course folder with `none` has the bytes of that folder, if the features
were stored in the same dtype and the symbols as `<U5` in today's spelling.

Shape letters: `T` frames of an utterance, `F` frames of a partition, `U` utterances, `D` features of a frame.
"""

from __future__ import annotations

import zipfile
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
from numpy.lib import format as npy_format

from dali_asr.corpus.layouts import layout_title
from dali_asr.corpus.layouts.array_files import ARRAYS
from dali_asr.corpus.layouts.course import COURSE, FEATURES, TRANSCRIPTS
from dali_asr.corpus.layouts.kaldi import ALIGNMENT, KALDI, NONE, PHONES, SCP, kaldi_library
from dali_asr.errors import DataError, UsageError
from dali_asr.files import disk_errors, new_folder, sweep
from dali_asr.inventory import END_SYMBOL, START_SYMBOL
from dali_asr.segments import NO_LABEL

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from dali_asr.corpus.corpus import Corpus
    from dali_asr.corpus.packing import Progress
    from dali_asr.corpus.partition import Partition
    from dali_asr.inventory import Inventory

Format = Literal["npz", "kaldi", "course"]
_TITLES: dict[Format, str] = {"npz": ARRAYS.title, "kaldi": KALDI.title, "course": COURSE.title}
_BLOCK = 1 << 22  # labels that are written at once
_REPORT_EVERY = 64  # utterances


class _Utterance(NamedTuple):
    name: str
    frames: NDArray[Any]
    labels: NDArray[np.int64] | None


def export_corpus(
    corpus: Corpus, dest: Path, form: Format, *, overwrite: bool = False, progress: Progress | None = None
) -> None:
    """Write a corpus in another layout, in memory that does not grow with it.

    Args:
        corpus: what is written.
        dest: the folder to write; it appears when it is complete.
        form: `npz`: `PARTITION.npz` with frames, offsets, labels, names and inventory; `kaldi`: `PARTITION/feats.scp`
            of float32 matrices, `ali.txt` and `phones.txt`; `course`: `PARTITION/{mfcc,transcript}/NAME.npy`.
        overwrite: whether a folder of this layout at `dest` is replaced.
        progress: called as utterances are done.

    Raises:
        DataError: the layout cannot express a name or a label, the corpus is damaged, or the disk is full.
        UsageError: `dest` exists.
    """
    _check_destination(dest, form, overwrite=overwrite)
    _CHECKS[form](corpus)
    total = sum(len(p.utterances) for p in corpus.partitions.values())
    done = 0
    with disk_errors(dest):
        sweep(dest.parent)
        with new_folder(dest, flush=False) as folder:
            for partition in corpus.partitions.values():
                utterances = _reported(partition, done, total, progress)
                _WRITERS[form](partition, utterances, folder, dest)
                done += len(partition.utterances)
            if form == "kaldi":
                _write_phones(corpus.inventory, folder / PHONES)
            _check_destination(dest, form, overwrite=overwrite)  # another process may have made it since


def _check_destination(dest: Path, form: Format, *, overwrite: bool) -> None:
    with disk_errors(dest):
        if not dest.exists() and not dest.is_symlink():
            return
    if not overwrite:
        raise UsageError(f"{dest}: exists; choose another place, or overwrite it (overwrite=True)")
    if layout_title(dest) != _TITLES[form]:
        raise UsageError(
            f"{dest}: exists and does not hold {_TITLES[form]}, so it is not overwritten; choose another place"
        )


def _reported(partition: Partition, done: int, total: int, progress: Progress | None) -> Iterator[_Utterance]:
    """Yield the utterances of a partition, and report each."""
    offsets = partition.offsets.tolist()
    parts = zip(partition.utterances, partition.frames(), pairwise(offsets), strict=True)
    for number, (name, frames, (first, end)) in enumerate(parts, done + 1):
        yield _Utterance(name, frames, partition.labels(first, end))
        if progress and (number % _REPORT_EVERY == 0 or number == total):
            progress("exporting", number, total)


# npz


def _write_npz(partition: Partition, utterances: Iterator[_Utterance], folder: Path, _: Path) -> None:
    inventory = partition.inventory
    with zipfile.ZipFile(folder / f"{partition.name}.npz", "w") as archive:
        with _array(archive, "frames", (partition.frame_count, partition.feature_dim), partition.dtype) as stream:
            for utterance in utterances:
                stream.write(utterance.frames.data.cast("B"))
        _write_array(archive, "offsets", partition.offsets)
        if partition.labelled:
            dtype = inventory.signed_dtype
            with _array(archive, "labels", (partition.frame_count,), dtype) as stream:
                for first in range(0, partition.frame_count, _BLOCK):
                    labels = partition.labels(first, min(first + _BLOCK, partition.frame_count), dtype)
                    assert labels is not None
                    stream.write(np.ascontiguousarray(labels).data.cast("B"))
        _write_array(archive, "names", np.array(partition.utterances))
        _write_array(archive, "inventory", np.array(inventory.symbols))


def _write_array(archive: zipfile.ZipFile, name: str, array: NDArray[Any]) -> None:
    with _array(archive, name, array.shape, array.dtype) as stream:
        stream.write(array.tobytes())


def _array(archive: zipfile.ZipFile, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Any:
    """Open an array of an `.npz` file to be written, after its header."""
    info = zipfile.ZipInfo(f"{name}.npy")  # without the time, so that equal corpora give equal bytes
    stream = archive.open(info, "w", force_zip64=True)
    described = {"descr": npy_format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    npy_format.write_array_header_1_0(stream, described)
    return stream


# Kaldi


def _check_kaldi(corpus: Corpus) -> None:
    kaldi_library("export")
    names = [name for p in corpus.partitions.values() for name in p.utterances]
    for text in (*names, *corpus.inventory.symbols):
        if not text or text.split() != [text] or text == NONE or text.startswith("#"):
            raise DataError(f"{text!r}: Kaldi's files cannot hold this name or symbol; export npz")


def _write_kaldi(partition: Partition, utterances: Iterator[_Utterance], folder: Path, dest: Path) -> None:
    library = kaldi_library("export")
    (folder / partition.name).mkdir()
    place, final = folder / partition.name, dest.absolute() / partition.name
    table = place / ".scp"
    with (
        (place / ALIGNMENT).open("w", encoding="utf-8") as alignment,
        library.FloatMatrixWriter(f"ark,scp:{place / 'feats.ark'},{table}") as writer,
    ):
        for name, frames, labels in utterances:
            writer.write(name, frames.astype(np.float32))
            if labels is not None:
                numbers = np.where(labels == NO_LABEL, 0, labels + 1)
                alignment.write(f"{name} {' '.join(map(str, numbers.tolist()))}\n")
    with table.open(encoding="utf-8") as lines, (place / SCP).open("w", encoding="utf-8") as scp:
        scp.writelines(f"{line.split(None, 1)[0]} {final / 'feats.ark'}:{line.rpartition(':')[2]}" for line in lines)
    table.unlink()
    if not partition.labelled:
        (place / ALIGNMENT).unlink()


def _write_phones(inventory: Inventory, path: Path) -> None:
    rows = enumerate((NONE, *inventory.symbols))
    path.write_text("".join(f"{symbol} {number}\n" for number, symbol in rows), encoding="utf-8")


# The course


def _check_course(corpus: Corpus) -> None:
    for symbol in (START_SYMBOL, END_SYMBOL):
        if symbol not in corpus.inventory.symbols:
            raise DataError(f"the inventory has no {symbol}, which course transcripts need; export npz or kaldi")
    for partition in corpus.partitions.values():
        for name in partition.utterances:
            if "/" in name or "\0" in name or name.startswith(".") or not name:
                raise DataError(f"{partition.name}: {name!r} cannot be the name of a file; export npz or kaldi")


def _write_course(partition: Partition, utterances: Iterator[_Utterance], folder: Path, _: Path) -> None:
    symbols = np.array(partition.inventory.symbols)
    for name in (FEATURES, TRANSCRIPTS) if partition.labelled else (FEATURES,):
        (folder / partition.name / name).mkdir(parents=True)
    for name, frames, labels in utterances:
        np.save(folder / partition.name / FEATURES / f"{name}.npy", frames)
        if labels is None:
            continue
        if (labels == NO_LABEL).any():
            at = int((labels == NO_LABEL).argmax())
            raise DataError(
                f"{partition.name}/{name}: frame {at} has no label, which course transcripts cannot say; "
                "export npz or kaldi"
            )
        rows = np.concatenate([[START_SYMBOL], symbols[labels], [END_SYMBOL]]).astype(symbols.dtype)
        np.save(folder / partition.name / TRANSCRIPTS / f"{name}.npy", rows)


_CHECKS: dict[Format, Callable[[Corpus], None]] = {
    "npz": lambda _: None,
    "kaldi": _check_kaldi,
    "course": _check_course,
}
_WRITERS: dict[Format, Callable[[Partition, Iterator[_Utterance], Path, Path], None]] = {
    "npz": _write_npz,
    "kaldi": _write_kaldi,
    "course": _write_course,
}
