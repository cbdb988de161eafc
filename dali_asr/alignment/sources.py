"""What is aligned: recordings, `.npy` files of features, or a partition of a corpus, with a model's log posteriors.

Shape letters: `T` frames of a recording, `C` labels, `K` states of a label.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dali_asr.audio.devices import gpu_number
from dali_asr.audio.extract import Failed, extract
from dali_asr.audio.recordings import find_recordings
from dali_asr.audio.settings import FeatureSettings
from dali_asr.corpus.features import is_npy_name, read_features
from dali_asr.corpus.packing import quiet
from dali_asr.device import resolve_device
from dali_asr.errors import DaliAsrWarning, DataError, UsageError, quoted
from dali_asr.inference.classify import by_utterance, state_scores
from dali_asr.inference.files import is_recording_name, original_duration
from dali_asr.inference.sources import holds_files, open_source, source_partitions
from dali_asr.inference.trained import TrainedModel, run_config
from dali_asr.runs.checkpoint import run_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    import numpy as np
    import torch
    from numpy.typing import NDArray

    from dali_asr.audio.recordings import Recording
    from dali_asr.corpus.packing import Progress
    from dali_asr.inference.sources import Source
    from dali_asr.runs.checkpoint import Checkpoint
    from dali_asr.segments import FrameTiming


@dataclass(frozen=True, eq=False)
class Scored:
    """A recording with what the model says of it.

    Attributes:
        log_posteriors: of the states of each label, `[T, C·K]` float32.
        duration: in seconds; None of features whose recording is unknown or missing; they end with their last frame.
    """

    log_posteriors: NDArray[np.float32]
    duration: float | None = None


@dataclass(frozen=True, eq=False)
class AlignmentSource:
    """What is aligned.

    Attributes:
        names: of the recordings; those of several partitions begin with the partition, as `dev/NAME`.
        where: the file of each, or what else tells where it is.
        timing: when frames are.
        scored: the recordings in the order of their names; an error for those that cannot be used.
        refused: errors of what is left out from the beginning.
    """

    names: Sequence[str]
    where: Sequence[str]
    timing: FrameTiming
    scored: Iterator[Scored | DataError]
    refused: Sequence[DataError] = ()


def open_recordings(
    run: Path,
    checkpoint: Checkpoint,
    source: Path,
    *,
    partition: str | None = None,
    device: str = "auto",
    packing: Progress = quiet,
) -> AlignmentSource:
    """Open what is to be aligned.

    Args:
        run: folder of the run, or of one of its checkpoints.
        checkpoint: the one that is used.
        source: a recording or a folder of recordings; a file or folder of `.npy` features; or a corpus.
        partition: of the corpus, or the folder `train`, `dev` or `test` of a folder of recordings; None for all.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        packing: called with the progress of packing source files.

    Raises:
        DataError, UsageError, CheckpointError, DeviceError: it cannot be opened, or does not fit the model.
    """
    features = checkpoint.description.features or FeatureSettings()
    config = run_config(run_of(run), checkpoint)
    holds_single_files = holds_files(source)
    if holds_single_files and _holds_recordings(source):
        found, refused = _recordings(source, partition)
        several = len({recording.partition for recording in found}) > 1
        names = [f"{one.partition}/{one.name}" if several else one.name for one in found]
        model = TrainedModel.of(checkpoint, config.data.dtype or "float32", resolve_device(device))
        _check_features(features, model)
        scored = _of_recordings(found, features, model, gpu_number(device))
        return AlignmentSource(names, [str(one.path) for one in found], features.timing, scored, refused)
    files = _feature_files(source) if holds_single_files else []
    if files:
        _refuse_partition(partition)
        model = TrainedModel.of(checkpoint, config.data.dtype or "float32", resolve_device(device))
        return AlignmentSource(
            [path.stem for path in files], [str(path) for path in files], features.timing, _of_files(files, model)
        )
    chosen = [partition] if partition else source_partitions(source)
    opened = [open_source([source], name, checkpoint.description, config.data, packing) for name in chosen]
    return AlignmentSource(
        [f"{one.name}/{name}" if len(opened) > 1 else name for one in opened for name in one.utterances],
        [f"{source}, partition {one.name}" for one in opened for _ in one.utterances],
        features.timing,
        _of_corpus(opened, checkpoint, features.timing, resolve_device(device)),
    )


def _holds_recordings(source: Path) -> bool:
    if not source.is_dir():
        return is_recording_name(source)
    return any(is_recording_name(path) for path in source.rglob("*"))


def _recordings(source: Path, partition: str | None) -> tuple[list[Recording], list[DataError]]:
    """Return the recordings of a partition, by default of all, and errors of those that are left out."""
    if not source.is_dir():
        _refuse_partition(partition)
    found, refused = find_recordings(source)
    names = sorted({recording.partition for recording in found})
    if partition and partition not in names:
        raise UsageError(f"{source}: no partition {partition!r}; it has {quoted(names)}")
    return [recording for recording in found if partition in (None, recording.partition)], refused


def _refuse_partition(partition: str | None) -> None:
    if partition:
        raise UsageError(f"partition {partition}: single files have no partitions; leave it out")


def _feature_files(source: Path) -> list[Path]:
    """Return the `.npy` files that a source is or directly holds."""
    if source.is_file():
        return [source] if is_npy_name(source.name) else []
    return sorted(path for path in source.iterdir() if is_npy_name(path.name)) if source.is_dir() else []


def _check_features(features: FeatureSettings, model: TrainedModel) -> None:
    if features.feature_dim != model.feature_dim:
        raise DataError(
            f"align: the model was trained on {model.feature_dim} features per frame of unknown settings; give the "
            "features of the recordings as .npy files, or train on a corpus that `dali-asr prepare` made"
        )


def _of_recordings(
    recordings: Sequence[Recording], features: FeatureSettings, model: TrainedModel, gpu: int | None
) -> Iterator[Scored | DataError]:
    for result in extract([one.path for one in recordings], features, keep_going=True, gpu=gpu):
        if isinstance(result, Failed):
            yield result.error
        else:
            if result.remark:
                warnings.warn(result.remark, DaliAsrWarning, stacklevel=2)
            yield Scored(model.state_log_probabilities(result.frames), result.samples / features.sample_rate)


def _of_corpus(
    partitions: Sequence[Source], checkpoint: Checkpoint, timing: FrameTiming, device: torch.device
) -> Iterator[Scored]:
    for partition in partitions:
        for part in partition.parts:
            every = by_utterance(state_scores(checkpoint, part, device), part.lengths)
            for number, scores in enumerate(every):
                assert scores.log_posteriors is not None
                duration = original_duration(part.origins.recording(number), len(scores.log_posteriors), timing)
                yield Scored(scores.log_posteriors, duration)


def _of_files(files: Sequence[Path], model: TrainedModel) -> Iterator[Scored | DataError]:
    for path in files:
        try:
            yield Scored(model.state_log_probabilities(read_features(path)))
        except DataError as error:
            yield error
