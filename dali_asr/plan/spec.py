"""The loader spec: every argument that decides which windows come in which order, validated once.

Arguments that change only speed or memory (device, graph, prefetch, memory budget) are not part of it.
"""

from __future__ import annotations

import json
import operator
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from functools import cached_property
from typing import Any, Literal, cast, get_args

import numpy as np

from dali_asr.errors import UsageError, brief, did_you_mean
from dali_asr.plan.masking import Bands, Masking
from dali_asr.plan.steps import MIN_WINDOWS_PER_RANK, Steps

Dtype = Literal["float32", "float16", "bfloat16"]

BYTES = r"(\d+(?:\.\d+)?) ?(?:([KMGkmg])([Ii]?)[Bb])?"  # a text that `as_bytes` takes
MAX_ROWS = 1 << 31  # DALI numbers rows by int32
MAX_EPOCHS = (1 << 32) - 1  # an epoch is one word of the draws' counter, and the source runs one epoch ahead


@dataclass(frozen=True)
class LoaderSpec:
    """What decides the sequence of windows.

    Attributes:
        frame_count: F, number of frames of the partition.
        feature_dim: D, number of features per frame.
        context: frames (left, right) around the window's own.
        batch_size: B, windows per batch on this rank.
        shuffle: whether an epoch is a random permutation of the frames; otherwise it follows frame order.
        seed: seed of order and masks, below 2^64.
        masking: masks to draw; None for none.
        subset: read every `subset`-th frame.
        drop_last: whether a short last batch is dropped; otherwise the last two batches share the rest evenly.
        dtype: data type of the windows.
        rank: number of this process, from 0.
        world_size: number of processes that share the steps.

    Raises:
        UsageError: an argument is out of range, or a mask is wider than the window.
    """

    frame_count: int
    feature_dim: int
    context: tuple[int, int]
    batch_size: int
    shuffle: bool = True
    seed: int = 0
    masking: Masking | None = None
    subset: int = 1
    drop_last: bool = False
    dtype: Dtype = "float32"
    rank: int = 0
    world_size: int = 1

    def __post_init__(self) -> None:
        self._set("context", both_sides(self.context))
        for name in ("shuffle", "drop_last"):
            self._set(name, checked_boolean(name, getattr(self, name)))
        self._set("masking", as_masking(self.masking))
        for name, minimum, limit in (
            ("frame_count", 1, 1 << 62),
            ("feature_dim", 1, 1 << 31),
            ("batch_size", 1, MAX_ROWS),
            ("subset", 1, MAX_ROWS),
            ("seed", 0, 1 << 64),
            ("rank", 0, MAX_ROWS),
            ("world_size", 1, MAX_ROWS),
        ):
            self._set(name, checked_integer(name, getattr(self, name), minimum, limit))
        self._set("dtype", as_dtype(self.dtype))
        if self.masking:
            self.masking.check_fits(window=self.window, feature_dim=self.feature_dim)
        self._check_ranks()

    @property
    def window(self) -> int:
        """Number of frames per window, W."""
        return sum(self.context) + 1

    @property
    def cut_dtype(self) -> Literal["float32", "float16"]:
        """Data type in which DALI cuts the windows. It has no bfloat16, to which torch rounds them."""
        return "float16" if self.dtype == "float16" else "float32"

    @property
    def gap(self) -> int:
        """Number of zero rows between utterances, so that no window reaches another utterance."""
        return max(*self.context, 1)

    @property
    def positions(self) -> int:
        """Number of windows that an epoch can read, N."""
        return -(-self.frame_count // self.subset)

    @cached_property
    def steps(self) -> Steps:
        """The steps of an epoch."""
        return Steps(self.positions, self.batch_size, self.drop_last, self.rank, self.world_size)

    @property
    def masks_frequency(self) -> bool:
        """Whether any window can have a masked band of features."""
        return self.masking is not None and self.masking.frequency.count[1] > 0

    def identity(self) -> dict[str, Any]:
        """Return what the order of the windows in global batches depends on, as JSON values; the same on every rank.

        Masks are no part of it: they change what later windows hold, and neither their order nor what was read before.
        """
        values = asdict(self)
        for name in ("rank", "world_size", "batch_size", "masking"):
            del values[name]
        identity: dict[str, Any] = json.loads(json.dumps({**values, "global_batch": self.steps.global_batch}))
        return identity

    def _set(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)

    def _check_ranks(self) -> None:
        if self.rank >= self.world_size:
            raise UsageError(f"loader: rank {self.rank} of world size {self.world_size}; ranks count from 0")
        if self.world_size == 1:
            return
        if self.batch_size < 2 * MIN_WINDOWS_PER_RANK:
            raise UsageError(
                f"loader: batch_size {self.batch_size} on {self.world_size} ranks; expected at least "
                f"{2 * MIN_WINDOWS_PER_RANK} per rank, so that each has {MIN_WINDOWS_PER_RANK} windows in every step"
            )
        if self.positions < MIN_WINDOWS_PER_RANK * self.world_size and not self.drop_last:
            raise UsageError(
                f"loader: {self.positions} windows for {self.world_size} ranks; each rank needs "
                f"{MIN_WINDOWS_PER_RANK}, use fewer ranks"
            )


def checked_integer(name: str, value: object, minimum: int, limit: int = 1 << 62, *, where: str = "loader") -> int:
    """Return a value as a plain integer; NumPy's integers are accepted, floats and booleans are not.

    The error names what the value is given to: `where`.

    Raises:
        UsageError: not an integer, or outside [minimum, limit).
    """
    try:
        if isinstance(value, bool):
            raise TypeError
        number = operator.index(value)  # type: ignore[arg-type]
    except TypeError as error:
        raise UsageError(f"{where}: {name} {brief(value)}; expected an integer") from error
    if not minimum <= number < limit:
        upper = "or more" if limit >= 1 << 62 else f"to {limit - 1}"
        raise UsageError(f"{where}: {name} {number}; expected {minimum} {upper}")
    return number


def checked_boolean(name: str, value: object) -> bool:
    """Return a value as a plain boolean; NumPy's are accepted, what is merely true or false is not.

    Raises:
        UsageError: not a boolean.
    """
    if not isinstance(value, (bool, np.bool_)):
        raise UsageError(f"loader: {name} {brief(value)}; expected True or False")
    return bool(value)


def as_dtype(dtype: object) -> Dtype:
    """Return the name of a data type of windows, given its name or an object of torch or NumPy.

    Raises:
        UsageError: windows cannot have it.
    """
    name = str(getattr(dtype, "__name__", dtype)).removeprefix("torch.")
    for known in get_args(Dtype):
        if name == known:
            return cast("Dtype", known)
    raise UsageError(f"loader: dtype {brief(dtype)}; expected {', '.join(get_args(Dtype))}")


def as_bytes(name: str, value: object) -> int:
    """Return a number of bytes, given as such or as text (`2GiB`).

    Raises:
        UsageError: neither, or zero.
    """
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # 3e9
    if not isinstance(value, str):
        return checked_integer(name, value, 1)
    found = re.fullmatch(BYTES, value)
    if not found:
        raise UsageError(f"loader: {name} {brief(value)}; expected bytes, or a number with KB, MB, GB, KiB, MiB or GiB")
    number, unit, binary = found.groups()
    size = float(number) * (1024 if binary else 1000) ** ("KMG".index(unit.upper()) + 1 if unit else 0)
    return checked_integer(name, int(size), 1)


def both_sides(context: object, *, where: str = "loader") -> tuple[int, int]:
    """Return a context as (left, right); one number stands for both sides.

    The error names what the context is given to: `where`.

    Raises:
        UsageError: neither one number nor two, or negative.
    """
    sides = tuple(context) if isinstance(context, (tuple, list)) else (context, context)
    if len(sides) != 2:
        raise UsageError(f"{where}: context {brief(context)}; expected one number of frames, or (left, right)")
    left, right = (checked_integer("context", side, 0, where=where) for side in sides)
    return left, right


def as_masking(masking: object) -> Masking | None:
    """Return a masking; True stands for the defaults, False and None for none.

    A mapping holds the keys of `loader.masking` of a configuration: `{}` stands for the defaults too.

    Raises:
        UsageError: something else.
    """
    if masking is None or isinstance(masking, (bool, Masking)):
        return Masking() if masking is True else masking or None
    if isinstance(masking, Mapping):
        _check_keys("masking", masking, Masking)
        given: dict[str, Any] = dict(masking)
        for key, bands in masking.items():
            if isinstance(bands, Mapping) and key != "scope":
                _check_keys(f"masking.{key}", bands, Bands)
                given[key] = replace(getattr(Masking(), key), **bands)
        return Masking(**given)
    raise UsageError(f"loader: masking {brief(masking)}; expected None, True, a Masking, or its fields as a mapping")


def _check_keys(where: str, given: Mapping[str, Any], kind: type[Masking | Bands]) -> None:
    allowed = [field.name for field in fields(kind)]
    for key in given:
        if key not in allowed:
            near = did_you_mean(str(key), allowed)
            raise UsageError(f"loader: {where}: unknown key {brief(key)}; allowed are {', '.join(allowed)}{near}")
