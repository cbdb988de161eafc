"""The utterances that a model labels worst and best, with its posteriors.

Shape letters: `T` frames shown of an utterance, `C` labels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from dali_asr.corpus import Partition
    from dali_asr.inference.scores import UtteranceScores
    from dali_asr.runs.checkpoint import Checkpoint

MAX_FRAMES = 800  # shown of an utterance: its first eight seconds
_MIN_FRAMES = 50  # of an utterance that is judged, unless all are shorter: a few frames are all right or all wrong


@dataclass(frozen=True, eq=False)
class Example:
    """The beginning of an utterance with the model's posteriors.

    Attributes:
        name: of the utterance.
        position: number of the utterance in its partition.
        frames: number of its labelled frames.
        accuracy: fraction of them predicted right.
        true: true labels of the first frames, `[T]` int64; negative for frames without a label.
        posteriors: of the same frames, `[T, C]` float32.
        complete: whether all of the utterance's frames are shown.
    """

    name: str
    position: int
    frames: int
    accuracy: float
    true: NDArray[np.int64]
    posteriors: NDArray[np.float32]
    complete: bool

    @property
    def predicted(self) -> NDArray[np.int64]:
        """Predicted labels of the frames shown, `[T]`."""
        labels: NDArray[np.int64] = self.posteriors.argmax(axis=1).astype(np.int64)
        return labels


def choose(utterances: UtteranceScores, count: int) -> tuple[list[int], list[int]]:
    """Return the numbers of the utterances with the lowest and with the highest frame accuracy.

    Args:
        utterances: scores of each utterance of a partition.
        count: number of utterances to choose of either kind.

    Returns:
        The lowest first, and the highest first without those that are among the lowest.
    """
    judged = np.flatnonzero(utterances.frames >= _MIN_FRAMES)
    if not len(judged):
        judged = np.flatnonzero(utterances.frames)
    accuracy = utterances.right[judged] / utterances.frames[judged]
    worst, best = (judged[np.argsort(sign * accuracy, kind="stable")[:count]].tolist() for sign in (1, -1))
    return worst, [number for number in best if number not in worst]


def make_examples(
    numbers: Sequence[int],
    checkpoint: Checkpoint,
    partition: Partition,
    utterances: UtteranceScores,
    device: torch.device,
) -> list[Example]:
    """Return examples of some utterances.

    Args:
        numbers: of the utterances in their partition.
        checkpoint: the model.
        partition: the partition, labelled.
        utterances: scores of each of its utterances.
        device: where posteriors are computed.
    """
    model = checkpoint.build(device)
    examples = []
    for number in numbers:
        start, end = partition.offsets[number : number + 2].tolist()
        stop = min(end, start + MAX_FRAMES)
        true = partition.labels(start, stop)
        assert true is not None
        frames = int(utterances.frames[number])
        examples.append(
            Example(
                partition.utterances[number],
                number,
                frames,
                int(utterances.right[number]) / frames,
                true,
                _posteriors(model, _windows(partition, number, stop - start, checkpoint.description.context), device),
                stop == end,
            )
        )
    return examples


def _windows(partition: Partition, number: int, count: int, context: tuple[int, int]) -> torch.Tensor:
    """Return the windows of the first frames of an utterance, `[T, W, D]`."""
    left, right = context
    utterance = np.empty((int(partition.lengths[number]), partition.feature_dim), partition.dtype)
    partition.read_into([utterance], number)
    padded = torch.nn.functional.pad(torch.from_numpy(utterance).float(), (0, 0, left, right))
    return padded.unfold(0, left + 1 + right, 1)[:count].transpose(1, 2)


@torch.inference_mode()
def _posteriors(model: torch.nn.Module, windows: torch.Tensor, device: torch.device) -> NDArray[np.float32]:
    posteriors: NDArray[np.float32] = model(windows.to(device)).softmax(dim=1).cpu().numpy()
    return posteriors
