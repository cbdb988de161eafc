"""Scoring a run's model on a labelled partition.

Shape letters: `B` frames of a batch, `F` frames of a partition, `C` labels.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from dali_asr.build import corpus_path
from dali_asr.config import Config
from dali_asr.corpus import Corpus
from dali_asr.corpus.labels import label_counts
from dali_asr.corpus.packing import quiet
from dali_asr.device import resolve_device
from dali_asr.errors import DataError
from dali_asr.inference.boundaries import BoundaryScores, score_boundaries
from dali_asr.inference.classify import by_utterance, classify, reduce_logits
from dali_asr.inference.decoding import MEDIAN, NONE, VITERBI, build_decoder, check_decoding
from dali_asr.inference.files import FILES
from dali_asr.inference.predict import check_run, listed_sources, prepare
from dali_asr.inference.scores import TOP, Scores, error_rate, score_labels
from dali_asr.inference.sources import holds_files
from dali_asr.runs.checkpoint import is_of_package
from dali_asr.runs.start import config_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from dali_asr.corpus import Partition
    from dali_asr.corpus.packing import Progress
    from dali_asr.inference.decoding import FrameScores
    from dali_asr.inventory import Inventory
    from dali_asr.runs.checkpoint import Checkpoint, Which
    from dali_asr.segments import FrameTiming

_VERSION = 1  # of what is counted and how; raise it when other scores follow from the same labels


@dataclass(frozen=True)
class DecodingScores:
    """The scores of the labels that a decoding gives; see `Scores` for the first three.

    Attributes:
        decode: the decoding.
        accuracy: fraction of the labelled frames predicted right.
        phoneme_error_rate: edits per true symbol.
        phoneme_error_rate_without_silence: the same without silence; None if there is no label of silence.
        boundaries: how well the boundaries of segments are placed.
    """

    decode: str
    accuracy: float
    phoneme_error_rate: float
    phoneme_error_rate_without_silence: float | None
    boundaries: BoundaryScores


@dataclass(frozen=True, eq=False)
class Evaluation:
    """The scores of a checkpoint on a partition.

    Attributes:
        partition: name of the partition.
        checkpoint: name of the checkpoint's folder.
        scores: all scores.
        inventory: the label set.
        silence: the label of silence; None if there is none.
        decode: the decoding that the scores are of.
        decodings: scores of this and other decodings, to be compared.
        identity: identity of what was evaluated, as `identity_of` returns it; empty if it is not known.
    """

    partition: str
    checkpoint: str
    scores: Scores
    inventory: Inventory
    silence: int | None = None
    decode: str = NONE
    decodings: tuple[DecodingScores, ...] = ()
    identity: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return the evaluation as JSON values; see `Confusion.to_json` for the confusion matrix."""
        return {
            "partition": self.partition,
            "checkpoint": self.checkpoint,
            "decoding": self.decode,
            "identity": self.identity,
            **self.scores.to_json(),
            "decodings": [asdict(one) for one in self.decodings],
        }


def evaluate(
    run: str | Path,
    source: str | Path | Corpus | None = None,
    *,
    partition: str | None = None,
    checkpoint: Which = "best",
    decode: str = NONE,
    timing: FrameTiming | None = None,
    device: str = "auto",
    packing: Progress = quiet,
    progress: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """Score a trained model on a labelled partition, and compare decodings of its posteriors.

    Args:
        run: folder of a run, or of one of its checkpoints.
        source: a packed corpus, an opened one, a course folder or `demo`; by default the corpus that the run was
            trained on.
        partition: name of the partition; by default the run's `data.dev`.
        checkpoint: `best` or `last`.
        decode: the decoding that is scored in detail, as in `predict`. It is compared with `none`, `median:5` and, if
            the checkpoint has what it needs, `viterbi`.
        timing: when frames are; by default 25 ms every 10 ms.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        packing: called with the progress of packing a course folder.
        progress: called with the number of frames done, and of all frames.

    Raises:
        CheckpointError: the run or checkpoint is damaged, does not fit the corpus, or lacks what `viterbi` needs.
        DataError: the partition has no labels, or the corpus is missing or damaged.
        UsageError: an unknown partition, decoding or device name.
        DeviceError: the device is missing or has too little memory.
    """
    check_decoding(decode)
    prepared = prepare_evaluation(run, source, partition=partition, checkpoint=checkpoint, packing=packing)
    compared = comparable_decodings(prepared[0])
    return score(*prepared, decode=decode, compared=compared, timing=timing, device=device, progress=progress)


def comparable_decodings(checkpoint: Checkpoint) -> tuple[str, ...]:
    """Return the decodings that `evaluate` compares: those that the checkpoint has what it takes for."""
    return (NONE, MEDIAN, VITERBI) if checkpoint.segments else (NONE, MEDIAN)


def prepare_evaluation(
    run: str | Path,
    source: str | Path | Corpus | None = None,
    *,
    partition: str | None = None,
    checkpoint: Which = "best",
    packing: Progress = quiet,
) -> tuple[Checkpoint, Partition, int | None]:
    """Load a checkpoint and open the partition to score it on; arguments and errors as in `evaluate`.

    Returns:
        Both, and the label of silence if there is one.
    """
    check_run(run)
    path = config_of(run)
    data = Config.load(path).data if path else None  # `prepare` reports a missing configuration
    if data and source is None and (is_of_package(Path(run)) or not corpus_path(data.root, packing).exists()):
        raise _no_corpus(run, data.root)
    (root,) = listed_sources([(data.root if data else "demo") if source is None else source])
    has_partitions = isinstance(root, Corpus) or not holds_files(corpus_path(str(root), packing))
    default = data.dev if data and has_partitions else None
    trained, found = prepare(
        run,
        root,
        partition=partition or default,
        checkpoint=checkpoint,
        packing=packing,
        failed=lambda _: None,  # of single files, none of which can be scored
    )
    if found.name == FILES:
        raise DataError(
            f"{root}: recordings and files of features have no labels to compare with; make a corpus of recordings "
            "and their alignments (dali-asr prepare), and give that"
        )
    opened = next(iter(found.parts))
    label_counts(opened, "partition=NAME")
    return trained, opened, opened.inventory.silence(data.silence if data else None)


def _no_corpus(run: str | Path, root: str) -> DataError:
    """Return the error of a run whose corpus is not here, where none is named."""
    if is_of_package(Path(run)):
        return DataError(
            f"{run}: a model in the package comes without a corpus; give one after it, as in dali-asr evaluate {run} "
            "CORPUS"
        )
    return DataError(
        f"{run}: the corpus that it was trained on, {root}, is not there; give one after the run, as in dali-asr "
        f"evaluate {run} CORPUS"
    )


def score(
    checkpoint: Checkpoint,
    partition: Partition,
    silence: int | None = None,
    *,
    decode: str = NONE,
    compared: Sequence[str] = (),
    timing: FrameTiming | None = None,
    device: str = "auto",
    progress: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """Score a checkpoint on an open partition; otherwise as `evaluate`.

    Args:
        checkpoint: the model.
        partition: a labelled partition.
        silence: the label of silence; None if there is none.
        decode: as in `evaluate`.
        compared: decodings to compare; `decode` is added. None are compared if empty.
        timing: as in `evaluate`.
        device: as in `evaluate`.
        progress: as in `evaluate`.
    """
    inventory, true = checkpoint.description.inventory, partition.labels()
    if true is None:
        raise DataError(f"{partition.name}: has no transcripts; name a labelled partition")
    names = list(dict.fromkeys([*compared, decode]))
    decoders = {name: build_decoder(name, checkpoint) for name in names}
    decoded = {name: np.empty(len(true), inventory.signed_dtype) for name in names}
    confidence = np.empty(len(true), np.float32)
    in_top = np.empty(len(true), np.bool_)
    log_posteriors = any(name != NONE for name in names)
    batches = _batches(checkpoint, partition, resolve_device(device), in_top, log_posteriors=log_posteriors)
    offsets, period = partition.offsets, (timing or checkpoint.description.timing).period
    for first, scores in zip(offsets.tolist(), by_utterance(batches, partition.lengths), strict=False):
        part = slice(first, first + len(scores.labels))
        for name, decoder in decoders.items():
            labels = decoder(scores)
            decoded[name][part] = labels
            if name == decode:
                confidence[part] = scores.confidences_of(labels)
        if progress:
            progress(part.stop, partition.frame_count)
    of_labels = {name: labels.astype(np.int64) for name, labels in decoded.items()}
    return Evaluation(
        partition.name,
        checkpoint.name,
        score_labels(of_labels[decode], confidence, in_top, true, offsets, inventory, silence),
        inventory,
        silence,
        decode,
        tuple(_score_decoding(name, of_labels[name], true, offsets, period, silence) for name in names)
        if compared
        else (),
        identity_of(checkpoint, partition, silence),
    )


def identity_of(checkpoint: Checkpoint, partition: Partition, silence: int | None) -> str:
    """Return the identity of what is evaluated, a SHA-256 in hexadecimal digits.

    It is that of the model with its weights, the content of the partition, the label of silence, and what scores mean.
    """
    digest = hashlib.sha256(repr((_VERSION, partition.fingerprint, silence)).encode())
    digest.update(json.dumps(checkpoint.description.to_json(), sort_keys=True).encode())
    for name, tensor in sorted(checkpoint.weights.items()):
        digest.update(name.encode())
        digest.update(tensor.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


@torch.inference_mode()
def _batches(
    checkpoint: Checkpoint,
    partition: Partition,
    device: torch.device,
    in_top: NDArray[np.bool_],
    *,
    log_posteriors: bool,
) -> Iterator[FrameScores]:
    """Yield what the model says of each batch, and note whether the true labels are among its first three."""
    done = 0
    for labels, logits in classify(checkpoint, partition, device):
        assert labels is not None
        top = logits.topk(min(TOP, logits.shape[1]), dim=1).indices
        in_top[done : done + len(logits)] = (top == labels[:, None]).any(dim=1).cpu().numpy()
        done += len(logits)
        yield reduce_logits(logits, log_posteriors=log_posteriors)


def _score_decoding(
    name: str,
    labels: NDArray[np.int64],
    true: NDArray[np.int64],
    offsets: NDArray[np.int64],
    period: float,
    silence: int | None,
) -> DecodingScores:
    labelled = true >= 0
    return DecodingScores(
        name,
        float((labels == true)[labelled].mean()),
        error_rate(labels, true, offsets),
        None if silence is None else error_rate(labels, true, offsets, silence),
        score_boundaries(labels, true, offsets, period),
    )
