"""Recordings on disk: finding them, and what their headers say.

Headers are read by libsndfile (through `soundfile`). So are samples where DALI's decoder cannot read them: those of MP3
files, and of long recordings block by block.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import soundfile

from dali_asr.errors import DataError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

PARTITIONS = ("train", "dev", "test")
ONE_PARTITION = "all"
DECODED = (".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aiff", ".aif", ".au", ".caf", ".w64", ".sph")
SUFFIXES = (*DECODED, ".m4a", ".aac", ".wma", ".webm")  # the last cannot be decoded, which is said, not passed over
_UNKNOWN_SIZES = (0, 0xFFFFFFFF, 0x7FFFFFFF + 0x24)  # of WAV files that were written to a pipe


@dataclass(frozen=True)
class Recording:
    """A recording of a corpus.

    Attributes:
        path: the file.
        partition: the partition that it belongs to.
        name: of its utterance: the file's name without its suffix.
    """

    path: Path
    partition: str
    name: str


@dataclass(frozen=True)
class Header:
    """What the header of a recording says.

    Attributes:
        samples: number of samples of a channel.
        sample_rate: in Hz.
        channels: number of channels.
        format: of the file, such as `WAV`, in libsndfile's words.
    """

    samples: int
    sample_rate: int
    channels: int
    format: str


def find_recordings(source: Path) -> tuple[list[Recording], list[DataError]]:
    """Find the recordings of a folder and the folders in it, or take one file.

    If there is a folder `train`, `dev` or `test`, such folders are partitions; otherwise all are in partition `all`.

    Returns:
        The recordings, in order of partition and name; and errors of those that are left out: the second of one name,
        and folders that cannot be read.

    Raises:
        DataError: there are no recordings and no errors.
    """
    if source.is_file():
        return [Recording(source, ONE_PARTITION, source.stem)], []
    if not source.exists():
        raise DataError(f"{source}: no such file or folder; give a recording, or a folder of recordings")
    partitions = [name for name in PARTITIONS if (source / name).is_dir()]
    folders = {name: source / name for name in partitions} or {ONE_PARTITION: source}
    found: list[Recording] = []
    errors: list[DataError] = []
    for partition, folder in folders.items():
        found += _recordings_in(folder, partition, errors)
    if not found and not errors:
        raise DataError(f"{source}: holds no recordings; they are known by suffix: {', '.join(DECODED[:6])}, ...")
    return found, errors


def _recordings_in(folder: Path, partition: str, errors: list[DataError]) -> list[Recording]:
    def refuse(error: OSError) -> None:
        errors.append(DataError(f"{error.filename}: {error.strerror}; make it readable, or move it away"))

    paths = (Path(where) / file for where, _, files in os.walk(folder, onerror=refuse) for file in files)
    by_name: dict[str, Path] = {}
    for path in sorted(path for path in paths if path.suffix.lower() in SUFFIXES and not path.name.startswith(".")):
        first = by_name.setdefault(path.stem, path)
        if first != path:
            errors.append(
                DataError(f"{path}: has the same name as {first}, and a name stands for one utterance; rename it")
            )
    return [Recording(by_name[name], partition, name) for name in sorted(by_name)]


def read_header(path: Path) -> Header:
    """Read the header of a recording.

    Raises:
        DataError: the file cannot be read, is empty or cut short, or is no recording that can be decoded.
    """
    try:
        with path.open("rb") as file:  # libsndfile would not say why it cannot be opened
            start = file.read(8)
        if not start:
            raise DataError(f"{path}: is empty; record it again, or remove it")
        info = soundfile.info(str(path))
        if info.format in ("WAV", "WAVEX"):
            _check_whole(path, start)
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file; check the path") from error
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}; make it readable, or remove it") from error
    except soundfile.LibsndfileError as error:
        raise DataError(
            f"{path}: is not audio that can be decoded ({_reason(error)}); convert it to WAV or FLAC, or remove it"
        ) from error
    if not info.frames:
        raise DataError(f"{path}: has no samples; record it again, or remove it")
    return Header(info.frames, info.samplerate, info.channels, info.format)


def read_blocks(path: Path, length: int, overlap: int = 0) -> Iterator[NDArray[np.float32]]:
    """Yield the samples of a recording, downmixed to one channel, in memory that does not grow with it.

    Args:
        path: the file.
        length: samples from one block to the next.
        overlap: further samples that a block has before and after these, where the recording has them.

    Raises:
        DataError: it is damaged, or a sample is NaN or infinite.
    """
    try:
        with soundfile.SoundFile(str(path)) as file:
            before, ahead = np.zeros(0, np.float32), _read_mono(file, length + overlap)
            while len(ahead):
                yield np.concatenate([before, ahead])
                done = np.concatenate([before, ahead[:length]])
                before = done[max(len(done) - overlap, 0) :]
                ahead = np.concatenate([ahead[length:], _read_mono(file, length)])
    except (soundfile.LibsndfileError, OSError) as error:
        raise damaged(path, error) from error


def read_stretch(path: Path, start: float, end: float) -> tuple[NDArray[np.float32], int]:
    """Return the samples of a part of a recording, downmixed to one channel, and their rate in Hz.

    Args:
        path: the file.
        start: in seconds.
        end: in seconds; what lies beyond the recording is left out.

    Raises:
        DataError: the file cannot be read, is damaged, or ends before the part begins.
    """
    header = read_header(path)
    first, stop = (min(round(time * header.sample_rate), header.samples) for time in (start, end))
    if first >= stop:
        raise DataError(f"{path}: has no samples from {start:g} seconds on; record it again, or remove it")
    try:
        with soundfile.SoundFile(str(path)) as file:
            file.seek(first)
            return _read_mono(file, stop - first), header.sample_rate
    except (soundfile.LibsndfileError, OSError) as error:
        raise damaged(path, error) from error


def damaged(path: Path, error: Exception) -> DataError:
    """Return the error of a recording whose samples cannot be decoded."""
    return DataError(
        f"{path}: cannot be decoded ({_reason(error)}), so it is damaged or cut short; copy or record it again, or "
        "remove it"
    )


def decoding_error(path: Path) -> DataError | None:
    """Return why a recording cannot be decoded, in libsndfile's words; None if it can."""
    try:
        for _ in read_blocks(path, 1 << 20):
            pass
    except DataError as error:
        return error
    return None


def overflowing(path: Path) -> DataError:
    """Return the error of a recording whose samples are finite, but not after resampling."""
    return DataError(f"{path}: has samples too large to be resampled; scale them to -1 to 1, or remove it")


def _read_mono(file: soundfile.SoundFile, samples: int) -> NDArray[np.float32]:
    """Read samples, `[S]`, downmixed to one channel.

    Raises:
        DataError: one of them is NaN or infinite, as floating-point formats can have them.
    """
    read = file.read(samples, dtype="float32", always_2d=True)
    mono = np.ascontiguousarray(read[:, 0]) if read.shape[1] == 1 else read.mean(axis=1, dtype=np.float32)
    finite = np.isfinite(mono)
    if not finite.all():
        within = int(finite.argmin())
        at = file.tell() - len(mono) + within
        raise DataError(
            f"{file.name}: sample {at:,}, at {at / file.samplerate:.3f} s, is {mono[within]}; export or record it "
            "again, or remove it"
        )
    return mono


def _check_whole(path: Path, start: bytes) -> None:
    """Check that a WAV file is as long as its first 8 bytes say; libsndfile takes what is there."""
    size = path.stat().st_size
    stated = int.from_bytes(start[4:8], "big" if start[:4] == b"RIFX" else "little")
    if stated not in _UNKNOWN_SIZES and stated + 8 > size + 1:  # some leave out the last byte of padding
        raise DataError(
            f"{path}: is cut short, {size:,} of {stated + 8:,} bytes; copy or record it again, or remove it"
        )


def _reason(error: Exception) -> str:
    if isinstance(error, soundfile.LibsndfileError):
        text = error.error_string.removeprefix("Error :").lower()
    else:
        text = str(error).rpartition("encountered:")[2].partition("C++ context")[0]  # of DALI's, which are long
    return " ".join(text.split()).rstrip(".")[:200]


def check_source(source: Path, dest: Path) -> None:
    """Check that what is written is not within what is read, nor named as a recording.

    Raises:
        UsageError: it is.
    """
    if dest.suffix.lower() in SUFFIXES:
        raise UsageError(
            f"{dest}: is named as a recording, and a corpus is a folder; name one, and put several recordings in one"
        )
    if source.resolve() in dest.resolve().parents:
        raise UsageError(f"{dest}: is inside {source}, the recordings; choose a place outside")
