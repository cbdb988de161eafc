"""Utterances whose transcript says something else than their frames.

Shape letters: `F` frames, `U` utterances, `C` labels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


def transcript_evidence(
    labels: NDArray[np.int64], offsets: NDArray[np.int64], log_posteriors: NDArray[np.float32], silence: int | None
) -> NDArray[np.float64]:
    """Return how much the frames of each utterance speak for its labels.

    A frame speaks for its label by the log of its posterior against the label's share of the corpus: 0 if the folds
    know nothing, below 0 if they contradict. Silence is left out where other labels occur, since exchanged
    transcripts are silent at the same places.

    Args:
        labels: of every frame, `[F]`, −100 where it has none.
        offsets: start of each utterance and end of the last, `[U + 1]`.
        log_posteriors: of every frame, `[F, C]`.
        silence: the label of silence; None if there is none.

    Returns:
        Means over the labelled frames, `[U]` in nats; infinity for an utterance without any.
    """
    labelled = labels >= 0
    share = np.bincount(labels[labelled], minlength=log_posteriors.shape[1]) / max(labelled.sum(), 1)
    given = np.where(labelled, labels, 0)
    frames = log_posteriors[np.arange(len(labels)), given] - np.log(np.maximum(share, 1e-9))[given]
    counted = labelled & (labels != (-1 if silence is None else silence))
    sums = np.add.reduceat(np.where(counted, frames, 0.0), offsets[:-1])
    counts = np.add.reduceat(counted.astype(np.int64), offsets[:-1])
    return np.where(counts > 0, sums / np.maximum(counts, 1), np.inf)
