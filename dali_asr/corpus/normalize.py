"""Cepstral mean and variance normalization.

Each coefficient loses its mean and is divided by its standard deviation (population, `ddof=0`), over the
utterance or over the training partitions: Viikki and Laurila 1998, "Cepstral domain segmental feature vector
normalization for noise robust speech recognition". A coefficient that never varies becomes zero.

Shape letters: `T` frames of an utterance, `D` features of a frame.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from dali_asr.errors import DataError, UsageError

if TYPE_CHECKING:
    from numpy.typing import NDArray

Kind = Literal["utterance", "global", "none"]


@dataclass(frozen=True)
class Normalization:
    """How frames are normalized; `global` carries its statistics.

    Attributes:
        kind: `utterance`, `global` or `none`.
        mean: `[D]`, of the training partitions; empty unless `global`.
        deviation: `[D]`, standard deviation; empty unless `global`.
        partitions: those that the statistics were taken from; empty unless `global`.
    """

    kind: Kind
    mean: tuple[float, ...] = ()
    deviation: tuple[float, ...] = ()
    partitions: tuple[str, ...] = ()

    def check(self, where: str, feature_dim: int) -> None:
        """Check that statistics fit features of D = `feature_dim`, found at `where`.

        Raises:
            DataError: they are of another D.
        """
        if self.kind == "global" and len(self.mean) != feature_dim:
            raise DataError(
                f"{where}: {feature_dim} features a frame, the statistics to normalize by have {len(self.mean)}; "
                "give features of the kind that they were taken from"
            )

    def apply(self, features: NDArray[Any]) -> NDArray[np.float64]:
        """Return features `[T, D]`, T at least 1, normalized, in float64; rounding to storage is the caller's."""
        frames = features.astype(np.float64)  # a copy, to work in
        if self.kind == "none":
            return frames
        if self.kind == "global":
            frames -= np.array(self.mean)
            return _divide(frames, np.array(self.deviation))
        frames -= frames.mean(axis=0)
        deviation = np.sqrt(np.einsum("td,td->d", frames, frames) / len(frames))
        # The rounding residue of a constant column's mean is no variance.
        suspect = deviation <= 1e-12 * np.abs(features[0])
        if suspect.any():
            deviation[suspect & (features == features[0]).all(axis=0)] = 0.0
        return _divide(frames, deviation)

    def to_json(self) -> dict[str, Any]:
        """Return the normalization as JSON values."""
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
        """Read what `to_json` gave."""
        return cls(values["kind"], *(tuple(values.get(key, ())) for key in ("mean", "deviation", "partitions")))


def as_normalization(kind: Kind | Normalization) -> Normalization:
    """Return the normalization of a kind; `global` cannot be had without its statistics.

    Raises:
        UsageError: `global`, or no such kind.
    """
    if isinstance(kind, Normalization):
        return kind
    if kind not in ("utterance", "none"):
        raise UsageError(
            f"normalization {kind!r}; expected none, utterance, or a Normalization that carries global statistics"
        )
    return Normalization(kind)


@dataclass(frozen=True)
class Moments:
    """Frame count, mean `[D]` and sum of squared deviations `[D]` of some frames.

    They merge without loss of precision: Chan, Golub and LeVeque 1979, "Updating formulae and a pairwise
    algorithm for computing sample variances".
    """

    count: int
    mean: NDArray[np.float64]
    squares: NDArray[np.float64]

    @classmethod
    def of(cls, features: NDArray[Any]) -> Moments:
        """Return the moments of features `[T, D]`, T at least 1."""
        frames = np.asarray(features, np.float64)
        mean = frames.mean(axis=0)
        return cls(len(frames), mean, np.square(frames - mean).sum(axis=0))

    def merge(self, other: Moments) -> Moments:
        """Return the moments of both sets of frames together."""
        count = self.count + other.count
        step = other.mean - self.mean
        mean = self.mean + step * (other.count / count)
        squares = self.squares + other.squares + np.square(step) * (self.count * other.count / count)
        return Moments(count, mean, squares)

    def normalization(self, partitions: tuple[str, ...] = ()) -> Normalization:
        """Return the `global` normalization by these moments, of the frames of `partitions`."""
        deviation = np.sqrt(self.squares / self.count)
        deviation[deviation <= 1e-12 * np.abs(self.mean)] = 0.0  # the rounding residue of a constant
        return Normalization("global", tuple(self.mean.tolist()), tuple(deviation.tolist()), partitions)


def _divide(centred: NDArray[np.float64], deviation: NDArray[np.float64]) -> NDArray[np.float64]:
    constant = deviation == 0
    if constant.any():
        centred[:, constant] = 0.0
        deviation = np.where(constant, 1.0, deviation)
    centred /= deviation
    return centred
