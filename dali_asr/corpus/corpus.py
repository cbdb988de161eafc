"""A corpus: partitions that share features, normalization and an inventory.

Shape letters: `T` frames of an utterance, `F` frames of a corpus, `D` features of a frame.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dali_asr.corpus.cache import open_cached
from dali_asr.corpus.course import is_course_folder
from dali_asr.corpus.normalize import Kind, Normalization, as_normalization
from dali_asr.corpus.packed import Manifest, is_packed, open_arrays
from dali_asr.corpus.packing import PackSettings, quiet
from dali_asr.corpus.partition import Partition, join
from dali_asr.corpus.writer import check_stored_dtype, check_utterance, store
from dali_asr.errors import DataError, UsageError, did_you_mean
from dali_asr.inventory import ARPABET, Inventory

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import ArrayLike, NDArray

    from dali_asr.corpus.packing import Progress


@dataclass(frozen=True, eq=False)
class Corpus:
    """Partitions that share features, normalization and an inventory.

    Attributes:
        partitions: by name, in the order of the corpus.
        inventory: the label set.
        normalization: applied to the frames.
        path: the packed corpus; None if the corpus was made from arrays.
    """

    partitions: Mapping[str, Partition]
    inventory: Inventory
    normalization: Normalization
    path: Path | None = None

    @property
    def feature_dim(self) -> int:
        """Features per frame, D."""
        return next(iter(self.partitions.values())).feature_dim

    @property
    def dtype(self) -> np.dtype[Any]:
        """Dtype of the stored frames, float16 or float32."""
        return next(iter(self.partitions.values())).dtype

    @classmethod
    def open(cls, path: str | Path, settings: PackSettings | None = None, *, progress: Progress = quiet) -> Corpus:
        """Open a packed corpus, or a course folder, which is packed into the cache the first time.

        Args:
            path: the folder.
            settings: how a course folder is packed; by default all partitions, normalized by utterance, in float32. A
                packed corpus must have been packed with the same settings, if they are given.
            progress: called with a stage and the number of utterances done, of a total.

        Raises:
            DataError: the folder is neither of them, or damaged.
            UsageError: a packed corpus was packed with other settings, or lacks a partition.
        """
        folder = Path(path).expanduser()
        if is_packed(folder):
            corpus = cls._open_packed(folder)
            if settings:
                corpus._check_settings(settings)
            return corpus
        if not is_course_folder(folder):
            problem = "neither a packed corpus nor a course folder" if folder.is_dir() else "no such folder"
            raise DataError(f"{folder}: {problem}; give a folder with corpus.json, or with PARTITION/mfcc/*.npy")
        return open_cached(folder, settings or PackSettings(), cls._open_packed, progress)

    @classmethod
    def from_arrays(
        cls,
        frames: Sequence[ArrayLike],
        labels: Sequence[ArrayLike] | None = None,
        inventory: Inventory = ARPABET,
        *,
        normalization: Kind | Normalization = "none",
        dtype: str = "float32",
        names: Sequence[str] | None = None,
        partition: str = "all",
    ) -> Corpus:
        """Make a corpus of one partition from arrays in memory.

        Args:
            frames: `[T, D]` floats per utterance.
            labels: `[T]` integers per utterance, −100 where a frame has none; None if there are no labels.
            inventory: the label set.
            normalization: `none`, `utterance`, or a `Normalization` with statistics.
            dtype: of the stored frames, `float32` or `float16`.
            names: of the utterances; by default `0`, `1`, ...
            partition: name of the partition.

        Raises:
            DataError: shapes or values do not fit.
            UsageError: there are no utterances, the numbers of arrays differ, or `global` has no statistics.
        """
        applied = as_normalization(normalization)
        check_stored_dtype(dtype)
        names = tuple(names) if names is not None else tuple(map(str, range(len(frames))))
        if not len(frames) or len(names) != len(frames) or (labels is not None and len(labels) != len(frames)):
            counts = f"{len(frames)} frames, {'no' if labels is None else len(labels)} labels, {len(names)} names"
            raise UsageError(f"from_arrays: {counts}; give one array per utterance, and at least one")
        checked = [
            check_utterance(name, f, labels[i] if labels is not None else None, inventory)
            for i, (name, f) in enumerate(zip(names, frames, strict=True))
        ]
        for name, (features, _) in zip(names, checked, strict=True):
            applied.check(name, features.shape[1])
        blocks = [store(name, applied.apply(f), np.dtype(dtype)) for name, (f, _) in zip(names, checked, strict=True)]
        _check_feature_dims(names, blocks)
        stored = None
        if labels is not None:
            stored = np.concatenate([row for _, row in checked if row is not None])
            stored = stored.astype(inventory.label_dtype)
        lengths = np.array([len(b) for b in blocks], np.int64)
        made = Partition.from_memory(partition, inventory, names, lengths, np.concatenate(blocks), stored)
        return cls({partition: made}, inventory, applied)

    def partition(self, *names: str) -> Partition:
        """Return a partition by name, or several partitions joined in the order given.

        Raises:
            UsageError: the corpus has no partition of a name, or no name is given.
        """
        for name in names:
            if name not in self.partitions:
                has = ", ".join(self.partitions)
                raise UsageError(
                    f"{self.path or 'corpus'}: no partition {name!r}; it has {has}{did_you_mean(name, self.partitions)}"
                )
        return join([self.partitions[name] for name in names])

    @classmethod
    def _open_packed(cls, folder: Path) -> Corpus:
        manifest = Manifest.read(folder)
        arrays = open_arrays(folder, manifest)
        partitions, first = {}, 0
        for entry in manifest.partitions:
            block = arrays.block(first, entry.utterances, labelled=entry.labelled)
            partitions[entry.name] = Partition(entry.name, manifest.inventory, entry.utterances, (block,))
            first += len(entry.utterances)
        return cls(partitions, manifest.inventory, manifest.normalization, folder)

    def _check_settings(self, settings: PackSettings) -> None:
        wanted = settings.normalization
        kind = wanted.kind if isinstance(wanted, Normalization) else wanted
        expected = {
            "normalization": (self.normalization.kind, kind),
            "dtype": (self.dtype.name, settings.dtype),
            "inventory": (self.inventory.symbols, settings.inventory.symbols),
        }
        for name, (packed, asked) in expected.items():
            if packed != asked:
                was, is_asked = (f"{len(v)} symbols" if isinstance(v, tuple) else v for v in (packed, asked))
                raise UsageError(
                    f"{self.path}: packed with {name} {was}, asked for {is_asked}; "
                    f"set data.{name} to match, or pack the corpus again"
                )
        if wanted == "global" and settings.train != self.normalization.partitions:
            packed_with, asked = ("+".join(names) for names in (self.normalization.partitions, settings.train))
            raise UsageError(
                f"{self.path}: packed with the statistics of {packed_with}, asked for those of {asked}; "
                "name the former in data.train, or pack the corpus again"
            )
        if isinstance(wanted, Normalization) and wanted != self.normalization:
            raise UsageError(f"{self.path}: packed with other statistics than asked for; pack the corpus again")
        for name in settings.partitions:
            self.partition(name)


def _check_feature_dims(names: Sequence[str], blocks: Sequence[NDArray[Any]]) -> None:
    for name, block in zip(names, blocks, strict=True):
        if block.shape[1] != blocks[0].shape[1]:
            raise DataError(
                f"{name}: {block.shape[1]} features per frame, {blocks[0].shape[1]} in {names[0]}; "
                "all utterances must agree"
            )
