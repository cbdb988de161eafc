"""Single files as a source: `.npy` files of features, and recordings, whose features are computed as they are read.

Shape letters: `T` frames of an utterance, `D` features of a frame.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from itertools import groupby, islice
from typing import TYPE_CHECKING, NamedTuple

from dali_asr.audio.recordings import SUFFIXES, find_recordings, read_header
from dali_asr.corpus import Corpus
from dali_asr.corpus.features import is_npy_name, read_features, read_features_shape
from dali_asr.errors import CheckpointError, DaliAsrWarning, DataError, UsageError, quoted
from dali_asr.inventory import is_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from dali_asr.audio.extract import Extracted
    from dali_asr.audio.settings import FeatureSettings
    from dali_asr.config import DataConfig
    from dali_asr.corpus import Partition
    from dali_asr.runs.description import ModelDescription
    from dali_asr.segments import FrameTiming

FILES = "files"  # the name of the partition that single files make up
_PART = 1 << 17  # frames of single files that are in memory at once
_ZEROED = (
    "repair the file, or write zeros there with numpy.nan_to_num(frames, posinf=0, neginf=0), as training with "
    "data.zero_nonfinite does"
)


class Sound(NamedTuple):
    """The recording of an utterance.

    Attributes:
        path: the file.
        duration: in seconds.
    """

    path: Path
    duration: float


@dataclass(frozen=True)
class _File:
    path: Path
    frames: int
    is_recording: bool


class _Read(NamedTuple):
    path: Path
    frames: NDArray[np.floating]  # [T, D]
    sound: Sound | None = None


def original_sound(recording: Path, frames: int, timing: FrameTiming) -> Sound:
    """Return the recording that an utterance of a corpus was prepared from.

    Args:
        recording: where it was then.
        frames: number of frames of the utterance.
        timing: of the frames.

    Raises:
        DataError: it is missing, cannot be read, or is of another length now.
    """
    header = read_header(recording)
    now = timing.frame_count(-(-header.samples * timing.sample_rate // header.sample_rate))
    if abs(now - frames) > 1:  # headers of compressed files are not exact
        raise DataError(f"{recording}: has {now:,} frames, in the corpus {frames:,}")
    return Sound(recording, header.samples / header.sample_rate)


def original_duration(recording: Path | None, frames: int, timing: FrameTiming) -> float | None:
    """Return the duration of `original_sound` in seconds; None if there is none, which then ends with its frames."""
    try:
        return original_sound(recording, frames, timing).duration if recording else None
    except DataError:
        return None


def is_recording_name(path: Path) -> bool:
    """Return whether a path has the suffix of a recording."""
    return path.suffix.lower() in SUFFIXES


def files_in(folder: Path, partition: str | None, failed: Callable[[Sequence[DataError]], None]) -> list[Path]:
    """Return the `.npy` files that a folder holds, and the recordings that it and the folders in it hold.

    Args:
        folder: which is no corpus.
        partition: the folder of recordings to take; None for all.
        failed: called with the errors of what cannot be used, if there are any.
    """
    arrays = sorted(path for path in folder.iterdir() if is_npy_name(path.name))
    try:
        found, errors = find_recordings(folder)
    except DataError:  # there are none
        return arrays
    if errors:
        failed(errors)
    names = sorted({recording.partition for recording in found})
    if partition and found and partition not in names:
        raise UsageError(f"{folder}: no partition {partition!r}; it has {quoted(names)}")
    return [*arrays, *(recording.path for recording in found if partition in (None, recording.partition))]


@dataclass(eq=False)
class Files:
    """Single files, opened one after another.

    Args:
        paths: of `.npy` files and recordings.
        description: of the model.
        data: the section of the run's configuration that says how features are stored.
        failed: called with the errors of files that cannot be used: at once with all that their headers show, and with
            each that is found later. If it raises, the work ends.
        gpu: number of the GPU that computes features; None for the CPU.
        refused: errors of further files, of which nothing can be used.

    Attributes:
        sounds: the recordings of the part under way, None for other files.

    Raises:
        DataError: no file can be used.
        CheckpointError: there are recordings, and the model does not know how its features were computed.
    """

    paths: Sequence[Path]
    description: ModelDescription
    data: DataConfig
    failed: Callable[[Sequence[DataError]], None]
    gpu: int | None = None
    refused: Sequence[DataError] = ()
    sounds: list[Sound | None] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._files: list[_File] = []
        self._check_knows_features()
        errors = [*self.refused]
        for path in self.paths:
            try:
                self._files.append(self._opened(path))
            except DataError as error:
                errors.append(error)
        if errors:
            self.failed(errors)
        if not self._files:
            raise DataError(f"{self.paths[0]}: none of the files can be used; see the errors above")

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the utterances."""
        return tuple(file.path.stem for file in self._files)

    @property
    def frame_count(self) -> int:
        """The number of all frames, by the headers of the files."""
        return sum(file.frames for file in self._files)

    def parts(self) -> Iterator[Partition]:
        """Yield partitions of consecutive files, each of at most `_PART` frames unless one file has more."""
        read = self._read()
        for count in self._counts():
            part = [one for one in islice(read, count) if one]
            if not part:
                continue
            self.sounds[:] = [one.sound for one in part]
            corpus = Corpus.from_arrays(
                [one.frames for one in part],
                inventory=self.description.inventory,
                normalization=self.description.normalization,
                dtype=self.data.dtype or "float32",
                names=[one.path.stem for one in part],
                partition=FILES,
            )
            del part  # the features that are not normalized
            yield corpus.partition(FILES)
            del corpus

    def _counts(self) -> Iterator[int]:
        """Yield the number of files of each part, by their headers, so that no file is read before its part."""
        count = total = 0
        for file in self._files:
            if count and total + file.frames > _PART:
                yield count
                count = total = 0
            count, total = count + 1, total + file.frames
        yield count

    def _read(self) -> Iterator[_Read | None]:
        """Yield the files in order, None for those that cannot be used."""
        for is_recording, group in groupby(self._files, key=lambda file: file.is_recording):
            paths = [file.path for file in group]
            yield from self._computed(paths) if is_recording else map(self._read_array, paths)

    def _read_array(self, path: Path) -> _Read | None:
        try:
            return _Read(path, read_features(path, zero_nonfinite=self.data.zero_nonfinite, remedy=_ZEROED))
        except DataError as error:
            self.failed([error])
            return None

    def _computed(self, paths: Sequence[Path]) -> Iterator[_Read | None]:
        from dali_asr.audio.extract import Failed, extract  # brings DALI

        settings = self._settings

        def read(result: Extracted | Failed) -> _Read | None:
            if isinstance(result, Failed):
                self.failed([result.error])
                return None
            if result.remark:
                warnings.warn(result.remark, DaliAsrWarning, stacklevel=2)
            path = paths[result.position]
            return _Read(path, result.frames, Sound(path, result.samples / settings.sample_rate))

        yield from map(read, extract(paths, settings, keep_going=True, gpu=self.gpu))  # a loop would keep the frames

    def _opened(self, path: Path) -> _File:
        if not is_text(path.stem):
            raise DataError(f"{path.name!r}: its name is not UTF-8; rename it")
        if not is_recording_name(path):
            length, feature_dim = read_features_shape(path)
            check_feature_dim(path, feature_dim, self.description, self.data.root)
            return _File(path, length, is_recording=False)
        settings, header = self._settings, read_header(path)
        samples = -(-header.samples * settings.sample_rate // header.sample_rate)
        return _File(path, settings.timing.frame_count(samples), is_recording=True)

    def _check_knows_features(self) -> None:
        recording = next(filter(is_recording_name, self.paths), None)
        if recording and self.description.features is None:
            raise CheckpointError(
                f"{recording}: is a recording, and the model does not know how its features are computed; give "
                "features as .npy files, or train on a corpus that dali-asr prepare or dali-asr features made"
            )

    @property
    def _settings(self) -> FeatureSettings:
        assert self.description.features
        return self.description.features


def check_feature_dim(path: Path, feature_dim: int, description: ModelDescription, root: str) -> None:
    """Check that features have the model's D.

    Raises:
        DataError: they do not.
    """
    if feature_dim != description.feature_dim:
        raise DataError(
            f"{path}: {feature_dim} features per frame, the checkpoint was trained on {description.feature_dim}; "
            f"compute them as those of {root}, on which it was trained, or give the recordings"
        )
