"""Whether two models differ: the paired bootstrap over utterances.

Frames of an utterance are not independent, so utterances are drawn: 10,000 times as many as there are, with
replacement, the same ones for both models. The spread of the difference over these draws gives its interval
(percentile method, Efron and Tibshirani 1993, "An Introduction to the Bootstrap", chapter 13) and how often it has the
other sign (Bisani and Ney 2004, "Bootstrap estimates for confidence intervals in ASR performance evaluation").

Shape letters: `U` utterances, `R` resamples.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from dali_asr.errors import DataError

if TYPE_CHECKING:
    from numpy.typing import NDArray

RESAMPLES = 10_000
CONFIDENCE = 0.95
_SEED = 0
_MAX_DRAWN = 4_000_000  # utterances drawn at once, which bounds the memory


@dataclass(frozen=True)
class Difference:
    """The difference of a rate between two models on the same utterances, the second minus the first.

    Attributes:
        difference: over all utterances.
        low: lower end of the 95% interval.
        high: upper end of the 95% interval.
        p_value: two-sided, of no difference; at least 2 / 10,001.
    """

    difference: float
    low: float
    high: float
    p_value: float

    @property
    def significant(self) -> bool:
        """Whether the p-value is below 0.05."""
        return self.p_value < 1 - CONFIDENCE


def paired_bootstrap(
    first: NDArray[np.int64],
    second: NDArray[np.int64],
    size: NDArray[np.int64],
    *,
    resamples: int = RESAMPLES,
    seed: int = _SEED,
) -> Difference:
    """Return the difference between two rates, such as frame accuracies, with its interval and p-value.

    A rate is a sum over utterances of counts, over the sum of sizes.

    Args:
        first: counts of the first model, such as frames predicted right, `[U]`.
        second: counts of the second model, `[U]`.
        size: what the counts are of, such as labelled frames, `[U]`.
        resamples: number of draws, R.
        seed: of the draws; equal seeds and U give equal draws.

    Raises:
        DataError: there are fewer than two utterances with a size.
    """
    used = size > 0
    gain, size = (second - first)[used], size[used]
    count = len(size)
    if count < 2:
        raise DataError(f"{count} labelled utterances: significance needs two or more; name a larger partition")
    rng = np.random.default_rng(seed)
    drawn = np.empty(resamples)
    step = max(1, _MAX_DRAWN // count)
    for start in range(0, resamples, step):
        chosen = rng.integers(0, count, (min(step, resamples - start), count), dtype=np.int32)
        drawn[start : start + step] = gain[chosen].sum(axis=1) / size[chosen].sum(axis=1)
    low, high = np.quantile(drawn, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    # The draws themselves count as one more, so that p is never 0 (Davison and Hinkley 1997, section 4.2).
    opposite = min(int((drawn <= 0).sum()), int((drawn >= 0).sum()))
    p_value = min(1.0, 2 * (opposite + 1) / (resamples + 1))
    return Difference(float(gain.sum() / size.sum()), float(low), float(high), p_value)
