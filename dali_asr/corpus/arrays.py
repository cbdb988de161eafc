"""Partitions from arrays in memory.

Shape letters: `T` frames of an utterance, `D` features of a frame.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import numpy as np

from dali_asr.corpus.normalize import Normalization, as_normalization
from dali_asr.corpus.partition import Partition
from dali_asr.corpus.writer import check_stored_dtype, check_utterance, store
from dali_asr.errors import DataError, UsageError
from dali_asr.inventory import ARPABET, Inventory, as_inventory

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from dali_asr.corpus.normalize import Kind

_Item = TypeVar("_Item")
ByPartition: TypeAlias = "Sequence[_Item] | Mapping[str, Sequence[_Item]]"


def partitions_from_arrays(
    frames: ByPartition[ArrayLike],
    labels: ByPartition[ArrayLike] | None,
    inventory: Inventory | Sequence[str] | None,
    *,
    normalization: Kind | Normalization,
    train: Sequence[str],
    dtype: str,
    names: ByPartition[str] | None,
    partition: str,
) -> tuple[dict[str, Partition], Inventory, Normalization]:
    """Return partitions, inventory and normalization; arguments and errors as in `Corpus.from_arrays`."""
    check_stored_dtype(dtype)
    given = frames if isinstance(frames, Mapping) else {partition: frames}
    labels_of = _by_partition(labels, given, "labels")
    names_of = _by_partition(names, given, "names")
    known = _inventory(inventory, labels_of)
    checked = {
        name: _checked(name, arrays, labels_of.get(name), names_of.get(name), known) for name, arrays in given.items()
    }
    every = [(where, features) for utterances in checked.values() for where, features, _ in utterances]
    if not every:
        raise UsageError("from_arrays: received no utterances; give at least one")
    _check_feature_dims(every)
    if normalization == "global":
        applied = Normalization.of(
            (features for name in _training(train, checked) for _, features, _ in checked[name]),
            partitions=_training(train, checked),
        )
    else:
        applied = as_normalization(normalization)
    applied.check(every[0][0], every[0][1].shape[1])
    made = {}
    for name, utterances in checked.items():
        stored = [store(where, applied.apply(features), np.dtype(dtype)) for where, features, _ in utterances]
        rows = [encoded for _, _, encoded in utterances if encoded is not None]
        made[name] = Partition.from_memory(
            name,
            known,
            tuple(names_of.get(name) or map(str, range(len(utterances)))),
            np.array([len(row) for row in stored], np.int64),
            np.concatenate(stored),
            np.concatenate(rows).astype(known.label_dtype) if rows else None,
        )
    return made, known, applied


def _by_partition(
    values: ByPartition[_Item] | None, frames: Mapping[str, Sequence[ArrayLike]], what: str
) -> Mapping[str, Sequence[_Item]]:
    """Return values by partition, and check that they fit the frames."""
    if values is None:
        return {}
    if not isinstance(values, Mapping):
        if len(frames) > 1:
            raise UsageError(f"from_arrays: frames of {len(frames)} partitions, but {what} in a list; give a dict, too")
        values = dict.fromkeys(frames, values)
    for name in values:
        if name not in frames:
            raise UsageError(f"from_arrays: {what} of {name!r}, which has no frames; it has {', '.join(frames)}")
    for name, some in values.items():
        if len(some) != len(frames[name]):
            raise UsageError(
                f"from_arrays: {name} has {len(frames[name])} frames, {len(some)} {what}; give one per utterance"
            )
    return values


def _inventory(inventory: Inventory | Sequence[str] | None, labels: Mapping[str, Sequence[ArrayLike]]) -> Inventory:
    """Return the inventory; without one, the labels are named by their numbers."""
    if inventory is not None:
        return as_inventory(inventory)
    highest = [
        np.max(row, initial=0) for rows in labels.values() for row in map(np.asarray, rows) if row.dtype.kind in "iu"
    ]
    return Inventory(tuple(map(str, range(int(max(highest)) + 1)))) if highest else ARPABET


def _checked(
    partition: str,
    frames: Sequence[ArrayLike],
    labels: Sequence[ArrayLike] | None,
    names: Sequence[str] | None,
    inventory: Inventory,
) -> list[tuple[str, NDArray[Any], NDArray[np.int64] | None]]:
    """Return what to call each utterance in messages, its frames, and its labels as they are stored."""
    if not len(frames):
        raise UsageError(f"from_arrays: {partition} has no utterances; give at least one")
    checked = []
    for at, features in enumerate(frames):
        where = f"utterance {names[at] if names else at}"
        checked.append(
            (where, *check_utterance(where, features, labels[at] if labels is not None else None, inventory))
        )
    return checked


def _check_feature_dims(utterances: Sequence[tuple[str, NDArray[Any]]]) -> None:
    (first, features), *others = utterances
    for where, other in others:
        if other.shape[1] != features.shape[1]:
            raise DataError(
                f"{where}: {other.shape[1]} features per frame, {features.shape[1]} in {first}; "
                "all utterances must agree"
            )


def _training(train: Sequence[str], partitions: Mapping[str, object]) -> tuple[str, ...]:
    names = (train,) if isinstance(train, str) else tuple(train) or tuple(partitions)[:1]
    for name in names:
        if name not in partitions:
            raise UsageError(f"from_arrays: train names {name!r}, which has no frames; it has {', '.join(partitions)}")
    return names
