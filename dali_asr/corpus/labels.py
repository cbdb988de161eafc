"""Label counts, class weights computed from them, and a warning for symbols that label no frame.

Shape letters: `C` labels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from dali_asr.errors import DataError
from dali_asr.inventory import ARPABET, END_SYMBOL, START_SYMBOL

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from dali_asr.corpus import Partition
    from dali_asr.inventory import Inventory

_BLOCK = 1 << 22  # frames per read
_MAX_NAMED = 5  # symbols in a warning


def count_labels(partition: Partition) -> NDArray[np.int64]:
    """Return the number of frames with each label, `[C]`; all 0 in an unlabelled partition."""
    counts = np.zeros(len(partition.inventory), np.int64)
    for first in range(0, partition.frame_count, _BLOCK):
        labels = partition.labels(first, min(first + _BLOCK, partition.frame_count))
        if labels is not None:
            counts += np.bincount(labels[labels >= 0], minlength=len(counts))
    return counts


def label_counts(partition: Partition, key: str) -> NDArray[np.int64]:
    """Return the number of frames with each label, `[C]`, of a partition that must have labels.

    Args:
        partition: whose frames are counted.
        key: the configuration key that names the partition, for error messages.

    Raises:
        DataError: no frame has a label.
    """
    if not partition.labelled:
        raise DataError(f"{partition.name}: has no transcripts; name a labelled partition in {key}")
    counts = count_labels(partition)
    if not counts.any():
        raise DataError(
            f"{partition.name}: all of its {partition.frame_count:,} frames are unlabelled; "
            f"name a labelled partition in {key}"
        )
    return counts


def balanced_weights(counts: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return a weight per label, `[C]`, in inverse proportion to its count.

    The mean over all frames is 1. Labels that do not occur have weight 1.
    """
    occurring = counts > 0
    weights = counts.sum() / (occurring.sum() * np.maximum(counts, 1))
    return np.where(occurring, weights, 1).astype(np.float32)


def warn_of_missing(counts: NDArray[np.int64], inventory: Inventory, name: str, *, trained: bool = False) -> str | None:
    """Return a warning that names the symbols that label no frame, or None.

    Start and end symbols label no frame in any corpus and are not named.

    Args:
        counts: number of frames of each label, `[C]`.
        inventory: the label set.
        name: of the partition.
        trained: whether the model starts from weights that may know these symbols.
    """
    never = [symbol for symbol, count in zip(inventory.symbols, counts, strict=True) if not count]
    missing = [symbol for symbol in never if symbol not in (START_SYMBOL, END_SYMBOL)]
    if not missing:
        return None
    more = f" and {len(missing) - _MAX_NAMED} more" if len(missing) > _MAX_NAMED else ""
    advice = "" if inventory == ARPABET else ", check data.inventory and data.train"  # small corpora lack some of its
    effect = "the model may forget those it knows" if trained else "the model cannot learn what it never sees"
    return f"{name}: no frame is labelled {', '.join(missing[:_MAX_NAMED])}{more}; {effect}{advice}"
