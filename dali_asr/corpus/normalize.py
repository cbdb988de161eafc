"""Cepstral mean and variance normalization.

Each feature's mean is subtracted, and the result is divided by the standard deviation (population, `ddof=0`). Both are
those of the utterance or of the training partitions: Viikki and Laurila 1998, "Cepstral domain segmental feature vector
normalization for noise robust speech recognition". A constant feature becomes zero.

Shape letters: `T` frames of an utterance, `D` features of a frame.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from dali_asr.corpus.features import REMEDY_OF_ARRAYS, as_array, finite
from dali_asr.errors import DataError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import ArrayLike, NDArray

Kind = Literal["utterance", "global", "none"]


@dataclass(frozen=True)
class Normalization:
    """How frames are normalized; `global` includes the statistics.

    Attributes:
        kind: `utterance`, `global` or `none`.
        mean: of the training partitions, `[D]`; empty unless `global`.
        deviation: standard deviation of the training partitions, `[D]`; empty unless `global`.
        partitions: names of the training partitions; empty if they are unknown, or unless `global`.
    """

    kind: Kind
    mean: tuple[float, ...] = ()
    deviation: tuple[float, ...] = ()
    partitions: tuple[str, ...] = ()

    @classmethod
    def of(cls, utterances: Iterable[ArrayLike], partitions: Sequence[str] = ()) -> Normalization:
        """Return the `global` normalization with the statistics of utterances.

        Args:
            utterances: frames `[T, D]` of each; read once, one at a time.
            partitions: names of the partitions that they belong to, to be recorded; none if they have no names.

        Raises:
            UsageError: there are no utterances.
            DataError: an utterance is not `[T, D]` of finite floats, or has another D than the first.
        """
        moments: Moments | None = None
        for number, frames in enumerate(utterances):
            own = _checked_moments(number, frames)
            if moments and len(own.mean) != len(moments.mean):
                raise DataError(
                    f"Normalization.of: utterance {number}: {len(own.mean)} features per frame, {len(moments.mean)} in "
                    "the utterances before; all must agree"
                )
            moments = moments.merge(own) if moments else own
        if moments is None:
            raise UsageError("Normalization.of: received no utterances; give those of the training partitions")
        return moments.normalization(tuple(partitions))

    def check(self, where: str, feature_dim: int) -> None:
        """Check that the statistics fit features of D = `feature_dim`; `where` is named in the error.

        Raises:
            DataError: the statistics have another D.
        """
        if self.kind == "global" and len(self.mean) != feature_dim:
            raise DataError(
                f"{where}: {feature_dim} features per frame, the normalization statistics have {len(self.mean)}; "
                "give features of the kind that the statistics were computed from"
            )

    def apply(self, features: NDArray[Any]) -> NDArray[np.float64]:
        """Return normalized features in float64; NaN where values are too large to compute with.

        Args:
            features: `[T, D]`, T at least 1; not modified.
        """
        with np.errstate(over="ignore", invalid="ignore"):
            return self._apply(features)

    def _apply(self, features: NDArray[Any]) -> NDArray[np.float64]:
        frames = features.astype(np.float64)
        if self.kind == "none":
            return frames
        if self.kind == "global":
            frames -= np.array(self.mean)
            return _divide(frames, np.array(self.deviation))
        frames -= frames.mean(axis=0)
        deviation = np.sqrt(np.einsum("td,td->d", frames, frames) / len(frames))
        # A constant feature has a tiny deviation from the rounding of its mean.
        suspect = deviation <= 1e-12 * np.abs(features[0])
        if suspect.any():
            deviation[suspect & (features == features[0]).all(axis=0)] = 0.0
        return _divide(frames, deviation)

    def to_json(self) -> dict[str, Any]:
        """Return the normalization as a JSON object."""
        if self.kind != "global":
            return {"kind": self.kind}
        return {
            "kind": self.kind,
            "mean": list(self.mean),
            "deviation": list(self.deviation),
            "partitions": list(self.partitions),
        }

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Normalization:
        """Return the normalization that `to_json` described.

        Raises:
            ValueError, KeyError, TypeError: the object is invalid.
        """
        kind = values["kind"]
        if kind not in get_args(Kind):
            raise ValueError(f"normalization {kind!r}")
        if kind != "global":
            return cls(kind)
        mean, deviation = (tuple(map(_finite, values[key])) for key in ("mean", "deviation"))
        partitions = tuple(values["partitions"])
        if not mean or len(mean) != len(deviation) or not all(isinstance(name, str) for name in partitions):
            raise ValueError("normalization: invalid statistics")
        return cls(kind, mean, deviation, partitions)


def as_normalization(kind: Kind | Normalization) -> Normalization:
    """Return the normalization of a kind.

    Raises:
        UsageError: the kind is unknown, or `global`, which needs statistics.
    """
    if isinstance(kind, Normalization):
        return kind
    if kind not in ("utterance", "none"):
        raise UsageError(
            f"normalization {kind!r}; expected none, utterance, or global statistics: Normalization.of(FRAMES)"
        )
    return Normalization(kind)


@dataclass(frozen=True)
class Moments:
    """Frame count, mean `[D]` and sum of squared deviations `[D]` of a set of frames.

    Merging keeps full precision: Chan, Golub and LeVeque 1979, "Updating formulae and a pairwise algorithm for
    computing sample variances".
    """

    count: int
    mean: NDArray[np.float64]
    squares: NDArray[np.float64]

    @classmethod
    def of(cls, features: NDArray[Any]) -> Moments:
        """Return the moments of features `[T, D]`, T at least 1."""
        frames = np.asarray(features, np.float64)
        with np.errstate(over="ignore", invalid="ignore"):
            mean = frames.mean(axis=0)
            return cls(len(frames), mean, np.square(frames - mean).sum(axis=0))

    def merge(self, other: Moments) -> Moments:
        """Return the moments of the union of both sets."""
        count = self.count + other.count
        with np.errstate(over="ignore", invalid="ignore"):
            step = other.mean - self.mean
            mean = self.mean + step * (other.count / count)
            squares = self.squares + other.squares + np.square(step) * (self.count * other.count / count)
        return Moments(count, mean, squares)

    def normalization(self, partitions: tuple[str, ...] = ()) -> Normalization:
        """Return the `global` normalization with these moments; `partitions` names where the frames came from."""
        deviation = np.sqrt(self.squares / self.count)
        deviation[deviation <= 1e-12 * np.abs(self.mean)] = 0.0  # constant but for rounding
        return Normalization("global", tuple(self.mean.tolist()), tuple(deviation.tolist()), partitions)


def _checked_moments(number: int, frames: ArrayLike) -> Moments:
    where = f"Normalization.of: utterance {number}"
    features = as_array(where, "frames", frames)
    if features.ndim != 2 or 0 in features.shape or features.dtype.kind != "f":
        raise DataError(
            f"{where}: {features.dtype} {list(features.shape)}; "
            "give a list of finite floats [frames, features per frame], one array per utterance"
        )
    return Moments.of(finite(where, features, zero_nonfinite=False, remedy=REMEDY_OF_ARRAYS))


def _finite(value: object) -> float:
    if type(value) not in (int, float) or not np.isfinite(value):  # type: ignore[call-overload]
        raise ValueError("normalization: a statistic is not a finite number")
    return float(value)  # type: ignore[arg-type]


def _divide(centered: NDArray[np.float64], deviation: NDArray[np.float64]) -> NDArray[np.float64]:
    constant = deviation == 0
    if constant.any():
        centered[:, constant] = 0.0
        deviation = np.where(constant, 1.0, deviation)
    centered /= np.where(np.isfinite(deviation), deviation, np.nan)  # not by an infinite deviation, which gives zeros
    return centered
