"""Partitions from arrays in memory.

Shape letters: `T` frames of an utterance, `D` features of a frame.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar, get_args

import numpy as np

from dali_asr.corpus.features import as_array
from dali_asr.corpus.normalize import Kind, Normalization
from dali_asr.corpus.partition import Partition
from dali_asr.corpus.storing import store_into
from dali_asr.corpus.writer import check_stored_dtype, check_utterance, check_utterance_name
from dali_asr.errors import DataError, UsageError, brief
from dali_asr.inventory import ARPABET, Inventory, as_inventory
from dali_asr.segments import NO_LABEL

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

_Item = TypeVar("_Item")
ByPartition: TypeAlias = "Iterable[_Item] | Mapping[str, Iterable[_Item]]"
_DIMENSIONS = {"frames": 2, "labels": 1}  # of one utterance


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
    _check_normalization(normalization)
    by_name = frames if isinstance(frames, Mapping) else {partition: frames}
    given = {name: _listed(name, "frames", arrays) for name, arrays in by_name.items()}
    labels_of = _by_partition(labels, given, "labels")
    names_of = _by_partition(names, given, "names")
    utterances_of = {name: names_of.get(name) or [str(at) for at in range(len(given[name]))] for name in given}
    called = {name: _called(name, utterances_of[name], named=isinstance(frames, Mapping)) for name in given}
    known = _inventory(inventory, labels_of, called)
    checked = {name: _checked(called[name], given[name], labels_of.get(name), known) for name in given}
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
        applied = normalization if isinstance(normalization, Normalization) else Normalization(normalization)
    applied.check(every[0][0], every[0][1].shape[1])
    made = {}
    for name, utterances in checked.items():
        lengths = np.array([len(features) for _, features, _ in utterances], np.int64)
        stored = np.empty((lengths.sum(), every[0][1].shape[1]), dtype)
        for (where, features, _), end in zip(utterances, np.cumsum(lengths).tolist(), strict=True):
            store_into(stored[end - len(features) : end], where, features, applied)
        rows = [encoded for _, _, encoded in utterances if encoded is not None]
        made[name] = Partition.from_memory(
            name,
            known,
            tuple(utterances_of[name]),
            lengths,
            stored,
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
        values = {name: values for name in frames}  # noqa: C420 - mypy
    for name in values:
        if name not in frames:
            raise UsageError(f"from_arrays: {what} of {name!r}, which has no frames; it has {', '.join(frames)}")
    listed = {name: _listed(name, what, some) for name, some in values.items()}
    for name, some in listed.items():
        if len(some) != len(frames[name]):
            raise UsageError(
                f"from_arrays: {name}: frames of {len(frames[name])}, {what} of {len(some)}; "
                "give both for every utterance"
            )
    return listed


def _listed(partition: str, what: str, values: Iterable[_Item]) -> list[_Item]:
    """Return the values of a partition's utterances as a list.

    Raises:
        UsageError: they are not several, but one array.
    """
    if isinstance(values, Mapping):
        raise UsageError(f"from_arrays: {what} of {partition}: a dict; give a list of utterances, and names=")
    shape = getattr(values, "shape", None)
    one = shape is not None and len(shape) == _DIMENSIONS.get(what) and getattr(values, "dtype", None) != "object"
    if one or isinstance(values, str) or not isinstance(values, Iterable):
        received = f"one array {list(shape)}" if one and shape is not None else brief(values)
        raise UsageError(f"from_arrays: {what} of {partition}: {received}; give a list of utterances")
    return list(values)


def _check_normalization(normalization: object) -> None:
    if not isinstance(normalization, Normalization) and normalization not in get_args(Kind):
        raise UsageError(
            f"from_arrays: normalization {brief(normalization)}; expected none, utterance, global, or statistics: "
            "Normalization.of(FRAMES)"
        )


def _inventory(
    inventory: Inventory | Sequence[str] | None,
    labels: Mapping[str, Sequence[ArrayLike]],
    called: Mapping[str, Sequence[str]],
) -> Inventory:
    """Return the inventory; without one, the labels are named by their numbers."""
    if inventory is not None:
        return as_inventory(inventory)
    highest = [
        np.max(row, initial=0)
        for name, rows in labels.items()
        for row in (as_array(where, "labels", given) for where, given in zip(called[name], rows, strict=True))
        if row.dtype.kind in "iu"
    ]
    return Inventory(tuple(map(str, range(int(max(highest)) + 1)))) if highest else ARPABET


def _called(partition: str, names: Sequence[str], *, named: bool) -> list[str]:
    """Return what to call each utterance in messages, with its partition if that was `named`.

    Raises:
        UsageError: there are no utterances.
        DataError: a name is not text, or not unique.
    """
    if not names:
        raise UsageError(f"from_arrays: {partition} has no utterances; give at least one")
    called: dict[str, str] = {}
    for name in names:
        check_utterance_name(partition, name, called)
        called[name] = f"{partition}/{name}" if named else f"utterance {name}"
    return list(called.values())


def _checked(
    called: Sequence[str],
    frames: Sequence[ArrayLike],
    labels: Sequence[ArrayLike] | None,
    inventory: Inventory,
) -> list[tuple[str, NDArray[Any], NDArray[np.int64] | None]]:
    """Return what to call each utterance in messages, its frames, and its labels as they are stored."""
    unlabelled = [where for where, given in zip(called, labels or (), strict=False) if given is None]
    if labels and 0 < len(unlabelled) < len(labels):
        raise DataError(
            f"{unlabelled[0]}: has no labels, unlike {len(labels) - len(unlabelled)} of the {len(labels)} utterances; "
            f"give labels for all of a partition, {NO_LABEL} where there are none"
        )
    return [
        (where, *check_utterance(where, features, labels[at] if labels is not None else None, inventory))
        for at, (where, features) in enumerate(zip(called, frames, strict=True))
    ]


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
