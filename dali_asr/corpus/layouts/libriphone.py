"""The layout of NTU's `libriphone` (Machine Learning 2022, homework 2).

    feat/{train,test}/NAME.pt    a tensor of floats `[T, 39]`
    train_labels.txt             lines `NAME l l l ...`, a label for each frame: an integer of 41 classes, or a symbol
    {train,test}_split.txt       the names of the utterances, one per line, in order

The tensors are read by `torch.load(weights_only=True)`, which runs no code that a file might hold.

Shape letters: `T` frames of an utterance, `D` features of a frame.
"""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from dali_asr.corpus.features import check_features, finite
from dali_asr.corpus.layouts.base import Layout, LayoutKind, SourcePartition, SourceUtterance, stamp
from dali_asr.corpus.layouts.lines import decoded, index_lines
from dali_asr.corpus.layouts.symbols import are_integers, text_labels
from dali_asr.corpus.regular import open_regular, read_regular, reading
from dali_asr.errors import DataError, brief
from dali_asr.inventory import ARPABET, Inventory

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from dali_asr.corpus.layouts.lines import Lines

_NAMES = ("train", "test")
_CLASSES = Inventory(tuple(map(str, range(41))))


@dataclass(frozen=True)
class _Utterance(SourceUtterance):
    """A tensor, and the line of its labels."""

    features: Path
    line: Lines | None

    @property
    def where(self) -> str:
        """The file of its features."""
        return str(self.features)

    def shape(self) -> tuple[int, int]:
        """Read the shape; a tensor's file must be read for it."""
        length, dim = self._tensor().shape
        return length, dim

    def frames(self, *, zero_nonfinite: bool) -> NDArray[Any]:
        """Read the tensor."""
        return finite(self.where, self._tensor(), zero_nonfinite=zero_nonfinite)

    def labels(self, length: int, inventory: Inventory, fold: Mapping[str, str] | None) -> NDArray[np.int64]:
        """Read the line of its labels."""
        assert self.line is not None
        (tokens,) = self.line.read()
        if len(tokens) != length:
            raise DataError(f"{self.line.where}: {len(tokens)} labels for {length} frames; write one for each frame")
        return text_labels(self.line.where, tokens, inventory, fold)

    def _tensor(self) -> NDArray[Any]:
        import torch

        with open_regular(self.features) as file, open(file, "rb", closefd=False) as stream:
            try:
                tensor = torch.load(stream, map_location="cpu", weights_only=True)
            except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError) as error:
                raise DataError(
                    f"{self.where}: is not a file of torch.save with a tensor alone; save it again"
                ) from error
        if not isinstance(tensor, torch.Tensor):
            raise DataError(
                f"{self.where}: holds a {type(tensor).__name__}; save a tensor [frames, features per frame]"
            )
        array: NDArray[Any] = (
            tensor.detach().float().numpy() if tensor.dtype == torch.bfloat16 else tensor.detach().numpy()
        )
        check_features(self.where, array.shape, array.dtype)
        return array


def _partition_names(root: Path) -> list[str]:
    with reading(root):
        return [name for name in _NAMES if (root / "feat" / name).is_dir()]


def _read(root: Path, partitions: Sequence[str]) -> Layout:
    """List the files of a `libriphone` folder.

    Raises:
        DataError: a file is missing or invalid, or a name in a split has no features or labels.
    """
    read = tuple(_read_partition(root, name) for name in partitions or _partition_names(root))
    return Layout(LIBRIPHONE.title, read, _inventory(root), partial(_stamps, root, read))


def _read_partition(root: Path, name: str) -> SourcePartition:
    folder, labels = root / "feat" / name, root / f"{name}_labels.txt"
    with reading(folder):
        if not folder.is_dir():
            raise DataError(f"{folder}: no such folder; copy the features of {name} into it")
        files = {path.stem for path in folder.iterdir() if path.suffix == ".pt" and not path.name.startswith(".")}
        lines = index_lines(labels) if labels.is_file() else None
    utterances = _split(root / f"{name}_split.txt", files)
    for utterance in utterances:
        if utterance not in files:
            raise DataError(f"{folder / utterance}.pt: is missing; copy it, or remove its name from {name}_split.txt")
        if lines is not None and utterance not in lines:
            raise DataError(f"{labels}: has no labels of {utterance}; add its line, or remove the utterance")
    return SourcePartition(name, utterances, lines is not None, partial(_utterance, folder, lines or {}))


def _utterance(folder: Path, lines: Mapping[str, Lines], name: str) -> _Utterance:
    return _Utterance(folder / f"{name}.pt", lines.get(name))


def _split(path: Path, files: set[str]) -> tuple[str, ...]:
    """Return the utterances that a split names; those of all files, sorted, where there is none."""
    with reading(path):
        listed = decoded(str(path), read_regular(path)).split() if path.is_file() else sorted(files)
    if not listed:
        raise DataError(f"{path}: names no utterance; write one name per line")
    if len(set(listed)) < len(listed):
        twice = next(name for at, name in enumerate(listed) if name in listed[:at])
        raise DataError(f"{path}: names {brief(twice)} twice; write each name once")
    return tuple(listed)


def _inventory(root: Path) -> Inventory:
    """Return the 41 classes by their numbers, or the 42 symbols if the first line of labels holds symbols."""
    path = root / "train_labels.txt"
    if not path.is_file():
        return _CLASSES
    first = next(iter(index_lines(path).values()), None)
    return _CLASSES if first is None or are_integers(first.read()[0]) else ARPABET


def _stamps(root: Path, partitions: Sequence[SourcePartition]) -> Iterator[str]:
    for partition in partitions:
        for name in (f"{partition.name}_split.txt", f"{partition.name}_labels.txt"):
            if (root / name).is_file():
                yield stamp(root / name)
        for utterance in partition.utterances:
            yield stamp(root / "feat" / partition.name / f"{utterance}.pt")


LIBRIPHONE = LayoutKind("libriphone folder", "feat/PARTITION/*.pt", _partition_names, _read)
