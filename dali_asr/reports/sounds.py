"""Sounds within pages, as FLAC with 16 bits: all browsers play it, and it is half as large as WAV."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import soundfile

from dali_asr.audio.recordings import read_stretch
from dali_asr.errors import DataError, UsageError, printable

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from numpy.typing import NDArray

    from dali_asr.corpus import Partition
    from dali_asr.segments import FrameTiming

MAX_SECONDS = 10.0  # of a stretch


@dataclass(frozen=True)
class Sound:
    """A stretch of a recording in a page.

    Attributes:
        address: of the sound, which holds all of it; empty if it is left out.
        seconds: its duration.
        left_out: why it is left out, or which part is not: a few words, empty if it is whole.
    """

    address: str = ""
    seconds: float = 0.0
    left_out: str = ""


class Sounds:
    """The sounds of a page: stretches of the recordings of a partition, up to a total size.

    Args:
        partition: the partition.
        timing: of its frames.
        max_size: of all sounds in the page, in bytes.
        folder: of the recordings, if they are no longer where the corpus was prepared from.

    Raises:
        UsageError: the folder does not exist, or the partition names no recordings.
    """

    def __init__(self, partition: Partition, timing: FrameTiming, max_size: int, folder: Path | None = None) -> None:
        check_recordings(folder, [partition])
        self._partition, self._timing, self._folder = partition, timing, folder
        self._left = max_size
        self._faults: dict[Path, str] = {}

    @property
    def known(self) -> bool:
        """Whether the partition names recordings, and where they are."""
        origins = self._partition.origins
        return bool(origins.recordings and (self._folder or origins.folder))

    @property
    def remark(self) -> str:
        """A line about the recordings that are missing or cannot be read; empty if there are none."""
        if not self._faults:
            return ""
        first, others = next(iter(self._faults.values())), len(self._faults) - 1
        lacks = f"it and {others:,} more" if others else "it"
        return f"{first}; the page lacks the sound of {lacks}: say where recordings are now (recordings=FOLDER)"

    def stretch(self, utterance: int, first: int, end: int, beside: float = 0.0) -> Sound | None:
        """Return the sound of some frames of an utterance, of at most ten seconds; None if it has no recording.

        A recording that is missing or damaged, or that would make the page too large, is left out.

        Args:
            utterance: its number.
            first: the first frame.
            end: the frame after the last one.
            beside: seconds before and after them.
        """
        path = self._partition.origins.recording(utterance, self._folder)
        if path is None:
            return None
        edges = self._timing.edges(end)
        start = max(float(edges[first]) - beside, 0.0) if first else 0.0
        wanted = float(edges[end]) + beside
        stop = min(wanted, start + MAX_SECONDS)
        try:
            samples, rate = read_stretch(path, start, stop)
            address = flac_address(samples, rate)
        except DataError as error:
            self._faults.setdefault(path, without_remedy(error))
            return Sound(left_out="its recording is missing or cannot be read")
        if len(address) > self._left:
            return Sound(left_out="the page would be too large")
        self._left -= len(address)
        return Sound(address, len(samples) / rate, "" if stop == wanted else f"the first {MAX_SECONDS:g} seconds")


def check_recordings(folder: Path | None, partitions: Iterable[Partition]) -> None:
    """Check that recordings can be in a folder, if one is given.

    Raises:
        UsageError: it does not exist, or no partition names recordings.
    """
    if folder is None:
        return
    if not folder.is_dir():
        raise UsageError(
            f"{folder}: no such folder; give the one that the corpus was prepared from (recordings=FOLDER)"
        )
    if not any(partition.origins.recordings for partition in partitions):
        raise UsageError(
            f"{folder}: the corpus names no recordings, as those that `dali-asr prepare` makes do; leave it out "
            "(recordings=FOLDER)"
        )


def flac_address(samples: NDArray[np.float32], rate: int) -> str:
    """Return a sound `[S]` as the address of a FLAC file.

    Raises:
        DataError: FLAC has no such sample rate.
    """
    file = io.BytesIO()
    try:
        soundfile.write(file, np.clip(samples, -1, 1), rate, format="FLAC", subtype="PCM_16")
    except soundfile.LibsndfileError as error:
        raise DataError(f"FLAC cannot store {rate:,} Hz; resample the recording to 16,000 Hz") from error
    return data_address("audio/flac", file.getvalue())


def data_address(kind: str, content: bytes) -> str:
    """Return the address of a file that holds all of it.

    Args:
        kind: its media type, such as `image/png`.
        content: the file.
    """
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def without_remedy(error: DataError) -> str:
    """Return the error up to what to do about it."""
    return printable(str(error).partition("; ")[0])
