"""Writing packed corpora utterance by utterance, in memory that does not grow with the corpus.

Shape letters: `T` frames of an utterance, `D` features of a frame.
"""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dali_asr.corpus.draft import PackedDraft, check_destination, new_draft
from dali_asr.corpus.features import REMEDY_OF_ARRAYS, as_array, finite
from dali_asr.corpus.normalize import Kind, Normalization, as_normalization
from dali_asr.corpus.packed import STORED_DTYPES, PartitionEntry, check_partition_name
from dali_asr.corpus.storing import long_blocks, stored_frames
from dali_asr.errors import DataError, UsageError, brief
from dali_asr.inventory import as_inventory, is_text
from dali_asr.segments import NO_LABEL

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from types import TracebackType

    from numpy.typing import ArrayLike, NDArray
    from typing_extensions import Self

    from dali_asr.inventory import Inventory


class PackedWriter:
    """Write a packed corpus utterance by utterance, in memory that does not grow with the corpus.

    Args:
        dest: the folder to write; it appears when the `with` block ends without an error.
        inventory: the label set, or its symbols in label order.
        normalization: `none`, `utterance`, or a `Normalization` with statistics (`Normalization.of`); applied to the
            frames that are added.
        dtype: of the stored frames, `float32` or `float16`.
        overwrite: whether a packed corpus at `dest` is replaced.
        features: settings that the frames were computed with, as JSON (`FeatureSettings.to_json`); None if unknown.
        recordings_folder: the folder of the recordings that `add` names; None if they are not kept.

    Attributes:
        label_shift: that of the `Corpus`, to be set before the `with` block ends.

    Raises:
        UsageError: `dest` exists, or frames cannot be stored as `dtype`.
        DataError: the path of `recordings_folder` is not Unicode text.

    Example:
        with PackedWriter("corpus", inventory=Inventory(("silence", "speech"))) as writer:
            writer.add("train", "recording-1", frames, labels)
    """

    def __init__(
        self,
        dest: str | Path,
        *,
        inventory: Inventory | Sequence[str],
        normalization: Kind | Normalization = "none",
        dtype: str = "float32",
        overwrite: bool = False,
        features: dict[str, Any] | None = None,
        recordings_folder: str | Path | None = None,
    ) -> None:
        check_stored_dtype(dtype)
        self.dest, self.inventory, self.dtype = Path(dest), as_inventory(inventory), dtype
        self.normalization = as_normalization(normalization)
        self._overwrite, self._features = overwrite, features
        self._recordings_folder = _absolute(Path(recordings_folder)) if recordings_folder else None
        if not is_text(str(self._recordings_folder)):
            raise DataError(f"{recordings_folder}: its path is not Unicode text; rename it")
        check_destination(self.dest, overwrite=overwrite)
        self.label_shift = 0.0
        self._open = False
        self._stack = ExitStack()
        self._draft: PackedDraft | None = None
        self._lengths: list[int] = []
        self._checksums: list[tuple[int, int]] = []
        self._rows = 0
        self._names: dict[str, dict[str, None]] = {}  # of utterances by partition, in order
        self._labelled: dict[str, bool] = {}
        self._origins: dict[str, list[tuple[str | None, str | None]]] = {}  # speaker and recording of each utterance

    def add(
        self,
        partition: str,
        utterance: str,
        frames: ArrayLike,
        labels: ArrayLike | None = None,
        *,
        speaker: str | None = None,
        recording: str | None = None,
    ) -> None:
        """Append an utterance.

        Args:
            partition: its partition; the utterances of a partition are added one after another.
            utterance: its name, unique in its partition.
            frames: `[T, D]`, floating point, D as in the utterances before.
            labels: `[T]` integers, indices into the inventory, −100 where a frame has none. None for all utterances
                of a partition without labels.
            speaker: its name; for all utterances of a partition or for none.
            recording: its path below `recordings_folder`; for all utterances of a partition or for none.

        Raises:
            DataError: names, shapes or values do not fit, or the disk is full or cannot be written.
            UsageError: the writer is not open.
        """
        if not self._open:
            raise UsageError(f"{self.dest}: the writer is not open; add utterances inside its with block")
        for name in (partition, utterance):
            if not isinstance(name, str):
                raise DataError(
                    f"add: received {brief(name)} as a name; expected add(partition, utterance, frames, labels)"
                )
        where = f"{partition}/{utterance}"
        features, encoded = check_utterance(where, frames, labels, self.inventory)
        draft = self._open_draft(features.shape[1])
        if features.shape[1] != draft.feature_dim:
            raise DataError(
                f"{where}: {features.shape[1]} features per frame, {draft.feature_dim} in the utterances before"
            )
        self.normalization.check(where, features.shape[1])
        self._check_names(partition, utterance, where, labelled=encoded is not None)
        self._check_origin(partition, where, speaker, recording)
        blocks = partial(long_blocks, features)
        stored = stored_frames(where, blocks, len(features), self.normalization, draft.dtype)
        self._checksums.append(draft.write(self._rows, stored, encoded))
        self._names.setdefault(partition, {})[utterance] = None
        self._origins.setdefault(partition, []).append((speaker, recording))
        self._labelled[partition] = encoded is not None
        self._lengths.append(len(features))
        self._rows += len(features)

    def __enter__(self) -> Self:
        self._open = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open = False
        if error is not None:
            self._stack.__exit__(kind, error, trace)  # removes the draft
            return
        with self._stack:
            if not self._draft:
                raise DataError(f"{self.dest}: no utterance was added; a corpus needs at least one")
            entries = tuple(map(self._entry, self._names))
            self._draft.finish(
                self._lengths,
                self._checksums,
                entries,
                self.normalization,
                self._features,
                self._recordings_folder,
                self.label_shift,
            )

    def _entry(self, name: str) -> PartitionEntry:
        speakers, recordings = (
            tuple(one for one in column if one is not None) for column in zip(*self._origins[name], strict=True)
        )
        return PartitionEntry(name, tuple(self._names[name]), self._labelled[name], speakers, recordings)

    def _open_draft(self, feature_dim: int) -> PackedDraft:
        if self._draft is None:
            draft = new_draft(
                self.dest,
                feature_dim=feature_dim,
                dtype=self.dtype,
                inventory=self.inventory,
                overwrite=self._overwrite,
            )
            self._draft = self._stack.enter_context(draft)
        return self._draft

    def _check_origin(self, partition: str, where: str, speaker: str | None, recording: str | None) -> None:
        for what, value in (("speaker", speaker), ("recording", recording)):
            if value is not None and not (isinstance(value, str) and is_text(value)):
                raise DataError(f"{where}: {what} {value!r}; give a string of Unicode text")
        before = self._origins.get(partition, [(speaker, recording)])[0]
        for what, first, value in zip(("speaker", "recording"), before, (speaker, recording), strict=True):
            if (first is None) != (value is None):
                raise DataError(f"{where}: a {what} for some utterances of {partition} alone; give it for all or none")

    def _check_names(self, partition: str, utterance: str, where: str, *, labelled: bool) -> None:
        check_partition_name(partition)
        check_utterance_name(partition, utterance, self._names.get(partition, {}))
        if partition not in self._names:
            return
        if partition != next(reversed(self._names)):
            raise DataError(
                f"{where}: other partitions were added after {partition}; add all utterances of a partition in a row"
            )
        if self._labelled[partition] != labelled:
            state = "labels" if labelled else "no labels"
            raise DataError(f"{where}: has {state}, unlike the utterances before it in {partition}")


def check_stored_dtype(dtype: str) -> None:
    """Check that frames can be stored in a dtype.

    Raises:
        UsageError: the dtype is neither `float32` nor `float16`.
    """
    if dtype not in STORED_DTYPES:
        raise UsageError(f"dtype {dtype!r}; expected the text {' or '.join(map(repr, STORED_DTYPES))}")


def check_utterance_name(partition: str, utterance: object, before: Collection[str]) -> None:
    """Check that an utterance's name can be stored, and that no utterance `before` it in its partition has it.

    Raises:
        DataError: it is not text, or not unique.
    """
    if not isinstance(utterance, str) or not is_text(utterance):
        raise DataError(f"{partition}: utterance {utterance!r}: invalid name; give a string of Unicode text")
    if utterance in before:
        raise DataError(
            f"{partition}/{utterance}: was added before; give every utterance of a partition a name of its own"
        )


def check_utterance(
    where: str, frames: ArrayLike, labels: ArrayLike | None, inventory: Inventory
) -> tuple[NDArray[Any], NDArray[np.int64] | None]:
    """Check the arrays of an utterance; return frames and labels, with −100 replaced by the inventory's `unlabelled`.

    Raises:
        DataError: shapes, dtypes or values do not fit.
    """
    features = as_array(where, "frames", frames)
    if features.ndim == 2 and not len(features):
        raise DataError(f"{where}: has no frames; leave it out")
    if features.ndim != 2 or 0 in features.shape or features.dtype.kind != "f":
        remedy = '; give frames.astype("float32")' if features.ndim == 2 and features.dtype.kind in "iub" else ""
        raise DataError(f"{where}: {features.dtype} {list(features.shape)}; frames must be floats [T, D]{remedy}")
    finite(where, features, zero_nonfinite=False, remedy=REMEDY_OF_ARRAYS)
    if labels is None:
        return features, None
    given = as_array(where, "labels", labels)
    if given.shape != features.shape[:1] or given.dtype.kind not in "iu":
        raise DataError(
            f"{where}: labels are {given.dtype} {list(given.shape)}; expected integers [{len(features)}], one per frame"
            + ("; or are the frames transposed? Give them as [T, D]" if given.shape == features.shape[1:] else "")
        )
    encoded = given.astype(np.int64)
    absent = encoded == NO_LABEL
    wrong = ((encoded < 0) | (encoded >= len(inventory))) & ~absent
    if wrong.any():
        at = int(wrong.argmax())
        raise DataError(
            f"{where}: label {encoded[at]} at frame {at}; the inventory has labels 0 to {len(inventory) - 1}, and "
            f"{NO_LABEL} stands for none"
        )
    encoded[absent] = inventory.unlabelled
    return features, encoded


def stored_labels(labels: NDArray[np.int64], inventory: Inventory) -> NDArray[Any]:
    """Return labels, −100 where a frame has none, as they are stored."""
    return np.where(labels == NO_LABEL, inventory.unlabelled, labels).astype(inventory.label_dtype)


def _absolute(folder: Path) -> Path:
    """Return an absolute path without `..`; links stay where nothing leads back out of them."""
    return folder.resolve() if ".." in folder.parts else folder.absolute()
