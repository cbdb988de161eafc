"""A corpus: partitions that share features, normalization and an inventory.

Shape letters: `T` frames of an utterance, `F` frames of a corpus, `D` features of a frame.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dali_asr.corpus.arrays import partitions_from_arrays
from dali_asr.corpus.cache import open_cached
from dali_asr.corpus.normalize import Normalization
from dali_asr.corpus.origins import Origins
from dali_asr.corpus.packed import Manifest, is_packed, open_arrays
from dali_asr.corpus.packing import PackSettings, quiet
from dali_asr.corpus.partition import Partition, join
from dali_asr.errors import UsageError, brief, did_you_mean, quoted
from dali_asr.segments import FrameTiming

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    from numpy.typing import ArrayLike

    from dali_asr.corpus.arrays import ByPartition
    from dali_asr.corpus.normalize import Kind
    from dali_asr.corpus.packing import Progress
    from dali_asr.inventory import Inventory


@dataclass(frozen=True, eq=False)
class Corpus:
    """Partitions that share features, normalization and an inventory.

    Attributes:
        partitions: by name, in the order of the corpus.
        inventory: the label set.
        normalization: applied to the frames.
        path: the packed corpus; None if the corpus was made from arrays.
        features: settings that the features were computed with, as JSON (`FeatureSettings.from_json`); None if unknown.
        label_shift: time from the edges of frames where labels change to the boundaries that they were read from, in
            seconds, if it is mostly the same (`common_shift`); else 0.
    """

    partitions: Mapping[str, Partition]
    inventory: Inventory
    normalization: Normalization
    path: Path | None = None
    features: Mapping[str, Any] | None = None
    label_shift: float = 0.0

    def __repr__(self) -> str:
        partitions = ", ".join(f"{name} [{p.frame_count}, {p.feature_dim}]" for name, p in self.partitions.items())
        where = f"{str(self.path)!r}: " if self.path else ""
        return f"Corpus({where}{partitions}, {self.dtype}, {self.normalization.kind}, {len(self.inventory)} symbols)"

    @property
    def feature_dim(self) -> int:
        """Features per frame, D."""
        return next(iter(self.partitions.values())).feature_dim

    @property
    def dtype(self) -> np.dtype[Any]:
        """Dtype of the stored frames, float16 or float32."""
        return next(iter(self.partitions.values())).dtype

    @property
    def timing(self) -> FrameTiming:
        """When frames are; 25 ms every 10 ms at 16 kHz if unknown."""
        return FrameTiming(**self.features["timing"]) if self.features else FrameTiming()

    @classmethod
    def open(cls, path: str | Path, settings: PackSettings | None = None, *, progress: Progress = quiet) -> Corpus:
        """Open a packed corpus, or source files in any layout, which are packed into the cache the first time.

        Args:
            path: the folder, or an archive of a course folder.
            settings: how source files are packed; by default all partitions, normalized by utterance, in float32. A
                packed corpus must have been packed with the same settings, if they are given.
            progress: called with a stage and the number of utterances done, of a total.

        Raises:
            DataError: it is neither of them, or damaged.
            UsageError: a packed corpus was packed with other settings, or lacks a partition.
        """
        folder = Path(path).expanduser()
        if is_packed(folder):
            corpus = cls._open_packed(folder)
            if settings:
                corpus.check_settings(
                    normalization=settings.normalization,
                    train=settings.train,
                    dtype=settings.dtype,
                    inventory=settings.inventory,
                )
                for name in settings.partitions:
                    corpus.partition(name)
            return corpus
        return open_cached(folder, settings or PackSettings(), cls._open_packed, progress)

    @classmethod
    def from_arrays(
        cls,
        frames: ByPartition[ArrayLike],
        labels: ByPartition[ArrayLike] | None = None,
        inventory: Inventory | Sequence[str] | None = None,
        *,
        normalization: Kind | Normalization = "none",
        train: Sequence[str] = (),
        dtype: str = "float32",
        names: ByPartition[str] | None = None,
        partition: str = "all",
    ) -> Corpus:
        """Make a corpus from arrays in memory.

        Args:
            frames: `[T, D]` floats per utterance: a list (or another iterable) for one partition, or a dict of
                lists by partition.
            labels: `[T]` integers per utterance, −100 where a frame has none, in the same form. A dict may leave out
                partitions without labels; None if there are no labels at all.
            inventory: the label set, or its symbols in label order; by default the numbers up to the highest label, or
                ARPAbet if there are no labels at all.
            normalization: `none`, `utterance`, `global`, or a `Normalization` with statistics.
            train: partitions whose statistics `global` uses; by default the first one.
            dtype: of the stored frames, `float32` or `float16`.
            names: of the utterances, in the form of `frames`, unique in a partition; by default `0`, `1`, ...
            partition: name of the partition if `frames` is a list.

        Raises:
            DataError: shapes, values or names do not fit.
            UsageError: there are no utterances, or the arguments do not fit each other.
        """
        made = partitions_from_arrays(
            frames,
            labels,
            inventory,
            normalization=normalization,
            train=train,
            dtype=dtype,
            names=names,
            partition=partition,
        )
        return cls(*made)

    def partition(self, *names: str) -> Partition:
        """Return a partition by name, or several partitions joined in the order given.

        Raises:
            UsageError: the corpus has no partition of a name, or no name is given.
        """
        for name in names:
            if not isinstance(name, str):
                raise UsageError(f"partition: received {brief(name)}; give names one by one: partition('train', 'dev')")
            if name not in self.partitions:
                has = quoted(self.partitions)
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
            origins = Origins(entry.speakers, entry.recordings, manifest.recordings_folder)
            partitions[entry.name] = Partition(entry.name, manifest.inventory, entry.utterances, (block,), origins)
            first += len(entry.utterances)
        return cls(
            partitions,
            manifest.inventory,
            manifest.normalization,
            folder,
            manifest.features,
            manifest.label_shift,
        )

    def check_settings(
        self,
        *,
        normalization: Kind | Normalization | None = None,
        train: Sequence[str] = (),
        dtype: str | None = None,
        inventory: Inventory | None = None,
    ) -> None:
        """Check that the corpus was packed with some settings; None stands for any.

        Raises:
            UsageError: it was packed with others.
        """
        kind = normalization.kind if isinstance(normalization, Normalization) else normalization
        expected = {
            "normalization": (self.normalization.kind, kind),
            "dtype": (self.dtype.name, dtype),
            "inventory": (self.inventory.symbols, inventory.symbols if inventory else None),
        }
        for name, (packed, asked) in expected.items():
            if asked is not None and packed != asked:
                was, is_asked = (f"{len(v)} symbols" if isinstance(v, tuple) else v for v in (packed, asked))
                raise UsageError(
                    f"{self.path}: packed with {name} {was}, asked for {is_asked}; "
                    f"leave out data.{name}, or pack the corpus again"
                )
        if normalization == "global" and tuple(train) != self.normalization.partitions:
            packed_with, wanted = (
                "+".join(names) or "nothing named" for names in (self.normalization.partitions, train)
            )
            raise UsageError(
                f"{self.path}: packed with the statistics of {packed_with}, asked for those of {wanted}; "
                "name the former in data.train, or pack the corpus again"
            )
        if isinstance(normalization, Normalization) and normalization != self.normalization:
            raise UsageError(f"{self.path}: packed with other statistics than asked for; pack the corpus again")
