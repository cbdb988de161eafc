"""What a model says of every frame of a partition: batches of scores, and cut into utterances.

    Partition ──▶ WindowLoader or Convolution ──▶ model ──logits▶ FrameScores of batches ──▶ FrameScores of utterances

Shape letters: `B` frames of a batch, `T` frames of an utterance, `U` utterances, `C` labels, `K` states of a label.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn import functional

from dali_asr.build import complete_loader
from dali_asr.corpus.storing import LONG
from dali_asr.inference.convolution import Convolution
from dali_asr.inference.decoding import FrameScores

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from numpy.typing import NDArray

    from dali_asr.corpus import Partition
    from dali_asr.runs.checkpoint import Checkpoint

BATCH_SIZE = 4096


@torch.inference_mode()
def frame_scores(
    checkpoint: Checkpoint, partition: Partition, device: torch.device, *, log_posteriors: bool
) -> Iterator[FrameScores]:
    """Yield what the model says of each batch of a partition, in order."""
    for _, logits in classify(checkpoint, partition, device):
        yield reduce_logits(logits, log_posteriors=log_posteriors)


@torch.inference_mode()
def state_scores(checkpoint: Checkpoint, partition: Partition, device: torch.device) -> Iterator[FrameScores]:
    """Yield the log posteriors of each batch of a partition, in order, by state of each label, `[B, C·K]`."""
    for _, logits in classify(checkpoint, partition, device, by_state=True):
        yield reduce_logits(logits, log_posteriors=True)


def reduce_logits(logits: torch.Tensor, *, log_posteriors: bool) -> FrameScores:
    """Return labels, confidences and log posteriors of logits `[B, C]`; the last take the most memory."""
    best, labels = logits.max(dim=1)
    # The softmax of the best label alone: that of all labels would double the memory.
    confidences = (best - logits.logsumexp(dim=1)).exp()
    kept = logits.log_softmax(dim=1).cpu().numpy() if log_posteriors else None
    return FrameScores(labels.cpu().numpy(), confidences.cpu().numpy(), kept)


def by_utterance(batches: Iterable[FrameScores], lengths: NDArray[np.int64]) -> Iterator[FrameScores]:
    """Cut consecutive batches of frames into utterances of the lengths `[U]`.

    The batches of a long utterance are copied into arrays of its length as they come: kept, they would lie scattered
    among the memory of windows, which then could not be used again.
    """
    source = iter(batches)
    batch, at = next(source), 0
    for length in lengths.tolist():
        if at == len(batch.labels):
            batch, at = next(source), 0
        whole = _part(batch, slice(at, at + length))
        at += len(whole.labels)
        if (done := len(whole.labels)) < length:
            whole = _grown(whole, length)
        while done < length:
            batch = next(source)
            part = _part(batch, slice(0, length - done))
            at = len(part.labels)
            _copy(part, whole, done)
            done += at
        yield whole


def _grown(scores: FrameScores, length: int) -> FrameScores:
    """Return scores in arrays of a greater length, whose rest is not filled yet."""
    kept = scores.log_posteriors
    whole = FrameScores(
        np.empty(length, scores.labels.dtype),
        np.empty(length, scores.confidences.dtype),
        None if kept is None else np.empty((length, kept.shape[1]), kept.dtype),
    )
    _copy(scores, whole, 0)
    return whole


def _copy(part: FrameScores, whole: FrameScores, first: int) -> None:
    frames = slice(first, first + len(part.labels))
    whole.labels[frames], whole.confidences[frames] = part.labels, part.confidences
    if part.log_posteriors is not None and whole.log_posteriors is not None:
        whole.log_posteriors[frames] = part.log_posteriors


def _part(scores: FrameScores, frames: slice) -> FrameScores:
    kept = scores.log_posteriors
    return FrameScores(scores.labels[frames], scores.confidences[frames], None if kept is None else kept[frames])


def classify(
    checkpoint: Checkpoint, partition: Partition, device: torch.device, *, by_state: bool = False
) -> Iterator[tuple[torch.Tensor | None, torch.Tensor]]:
    """Yield the true labels `[B]` of consecutive frames, if there are any, with the model's logits.

    On the CPU, a partition with a long utterance goes through a convolution: windows of a quarter of an hour and more
    fragment the heap, to hundreds of MiB.

    Yields:
        Labels, −100 for none, and logits `[B, C]`; or `[B, C·K]`, see `MLP.forward`.
    """
    model, context = checkpoint.build(device), checkpoint.description.context
    if device.type == "cpu" and partition.lengths.max() > LONG:
        network = Convolution(model, partition.feature_dim, by_state=by_state)
        yield from _convolved(network, partition, context)
        return
    for batch in complete_loader(partition, context=context, batch_size=BATCH_SIZE, device=device):
        yield batch.labels, model(batch.windows.float(), by_state=by_state)


def _convolved(
    network: Convolution, partition: Partition, context: tuple[int, int]
) -> Iterator[tuple[torch.Tensor | None, torch.Tensor]]:
    left, right = context
    first = 0
    for frames in map(torch.from_numpy, partition.frames()):
        for start in range(0, len(frames), BATCH_SIZE):
            end = min(start + BATCH_SIZE, len(frames))
            rows = frames[max(start - left, 0) : end + right].float()
            missing = (left - start, end + right - len(frames))  # rows beyond both ends, which are zeros
            logits = network(functional.pad(rows, (0, 0, max(missing[0], 0), max(missing[1], 0))))
            labels = partition.labels(first + start, first + end)
            yield None if labels is None else torch.from_numpy(labels), logits
        first += len(frames)
