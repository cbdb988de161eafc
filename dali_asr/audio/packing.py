"""Recordings to a packed corpus without labels, continued where a process was killed.

Beside the destination, in `.NAME.features`, features are kept until all are there:

    settings.json             settings that they were computed with
    00000.npy  00000.json     frames [F, D] of some recordings; which they are, and their files' sizes and times
    packing.json              all are there and the corpus is being written

They take as much room as the corpus, for as long as it is written.

Shape letters: `F` frames of several recordings, `D` features of a frame.
"""

from __future__ import annotations

import io
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from dali_asr.audio.extract import Extracted, Failed, extract
from dali_asr.audio.recordings import check_source, find_recordings
from dali_asr.corpus.packed import is_packed
from dali_asr.corpus.packing import quiet
from dali_asr.corpus.writer import PackedWriter
from dali_asr.errors import DataError, UsageError, or_leave_out
from dali_asr.fetching.work import work_folder
from dali_asr.files import disk_errors, write_file
from dali_asr.inventory import ARPABET

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from dali_asr.audio.recordings import Recording
    from dali_asr.audio.settings import FeatureSettings
    from dali_asr.corpus.normalize import Kind
    from dali_asr.corpus.packing import Progress
    from dali_asr.inventory import Inventory

RECORD = "recordings.json"
_SETTINGS, _PACKING = "settings.json", "packing.json"
_SHARD_BYTES = 1 << 24
_REMEDY = "choose another place"


class _Version(NamedTuple):
    """Which version of a recording features are of.

    Attributes:
        partition: the recording's.
        name: the recording's.
        size: of the file, in bytes.
        time: of its last change, in nanoseconds.
    """

    partition: str
    name: str
    size: int
    time: int


@dataclass
class Summary:
    """What became of the recordings.

    Attributes:
        recordings: number of recordings that were found.
        computed: number of those whose features were computed now.
        kept: number of those whose features were there already.
        failed: errors of those that have no features, one line each.
        remarks: what is odd about others, one line each.
        nothing_to_do: whether the packed corpus was complete.
    """

    recordings: int
    computed: int = 0
    kept: int = 0
    failed: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    nothing_to_do: bool = False


@dataclass(frozen=True)
class _Stored:
    """Where the features of a recording are: rows of a shard."""

    shard: Path
    first: int
    frames: int


def extract_corpus(
    source: Path,
    dest: Path,
    settings: FeatureSettings,
    *,
    normalization: Kind = "utterance",
    dtype: str = "float32",
    inventory: Inventory = ARPABET,
    keep_going: bool = False,
    overwrite: bool = False,
    gpu: int | None = None,
    progress: Progress = quiet,
) -> Summary:
    """Compute the features of recordings and write them as a packed corpus without labels.

    Args:
        source: a folder of recordings, perhaps in folders `train`, `dev` and `test`, or one recording.
        dest: the folder to write; it appears when it is complete.
        settings: what to compute.
        normalization: `utterance` or `none`.
        dtype: of the stored frames, `float32` or `float16`.
        inventory: label set of the corpus.
        keep_going: leave out recordings that cannot be used, instead of raising the error of the first one.
        overwrite: whether a packed corpus at `dest` is replaced.
        gpu: number of the GPU that computes the features; by default the CPU does.
        progress: called as recordings are done.

    Raises:
        DataError: a recording cannot be used, none can, or the disk is full.
        UsageError: `dest` exists and is something else, or is inside `source`.
    """
    check_source(source, dest)
    recordings, errors = find_recordings(source)
    if errors and not keep_going:
        raise or_leave_out(errors[0])
    versions = [_version(recording) for recording in recordings]
    identity = {
        "settings": settings.to_json(),
        "normalization": normalization,
        "dtype": dtype,
        "recordings": [list(version) for version in versions],
    }
    summary = Summary(len(recordings) + len(errors), failed=[str(error) for error in errors])
    with work_folder(dest, progress, "features") as work:
        packing = work.path / _PACKING
        before = None if overwrite else _finished(dest, identity, interrupted=packing.exists())
        if before is not None:
            summary.failed, summary.nothing_to_do = before, True
            return summary
        if _read_json(work.path / _SETTINGS) != settings.to_json():
            work.clear()
            _write_json(work.path / _SETTINGS, settings.to_json(), dest)
        stored = _stored(work.path)
        summary.kept = sum(version in stored for version in versions)
        missing = [at for at, version in enumerate(versions) if version not in stored]
        found = extract([recordings[at].path for at in missing], settings, keep_going=True, gpu=gpu)
        shards = _Shards(work.path, dest)
        for result in found:
            progress("computing features", summary.kept + result.position, len(recordings))
            if isinstance(result, Failed):
                if not keep_going:
                    raise or_leave_out(result.error) if len(recordings) > 1 else result.error
                summary.failed.append(str(result.error))
                continue
            summary.computed += 1
            summary.remarks += [result.remark] if result.remark else []
            shards.add(versions[missing[result.position]], result)
        shards.flush()
        progress("computing features", len(recordings), len(recordings))
        if len(summary.failed) == summary.recordings:
            raise DataError(f"{source}: no recording could be used; the first: {summary.failed[0]}")
        _write_json(packing, {}, dest)
        with PackedWriter(
            dest,
            inventory=inventory,
            normalization=normalization,
            dtype=dtype,
            overwrite=overwrite or dest.exists(),
            features=settings.to_json(),
        ) as writer:
            for version, frames in _frames(versions, _stored(work.path)):
                writer.add(version.partition, version.name, frames)
        _write_json(dest / RECORD, {**identity, "failed": summary.failed}, dest)
    return summary


def _finished(dest: Path, identity: dict[str, Any], *, interrupted: bool) -> list[str] | None:
    """Return the errors of a complete packed corpus; None if it is to be written.

    Raises:
        UsageError: something else is there.
    """
    with disk_errors(dest, _REMEDY):
        if not dest.exists() and not dest.is_symlink():
            return None
    record = _read_json(dest / RECORD)
    if record is None and interrupted and is_packed(dest):
        return None
    if record is None or {**record, "failed": None} != {**json.loads(json.dumps(identity)), "failed": None}:
        changed = "exists" if record is None else "was made by other settings or of other recordings"
        raise UsageError(f"{dest}: {changed}; choose another place, or overwrite it (overwrite=True)")
    return list(record["failed"])


class _Shards:
    """Writes features into shards of some size.

    Args:
        folder: where shards are written.
        dest: named in errors.
    """

    def __init__(self, folder: Path, dest: Path) -> None:
        self._folder, self._dest = folder, dest
        self._frames: list[NDArray[np.float32]] = []
        self._entries: list[dict[str, Any]] = []
        self._bytes = 0

    def add(self, version: _Version, result: Extracted) -> None:
        """Add the features of a recording."""
        self._frames.append(result.frames)
        self._entries.append({**version._asdict(), "frames": len(result.frames)})
        self._bytes += result.frames.nbytes
        if self._bytes >= _SHARD_BYTES:
            self.flush()

    def flush(self) -> None:
        """Write what was added. The list of recordings comes last, so that a shard with one is whole."""
        if not self._frames:
            return
        number = len(list(self._folder.glob("*.npy")))
        buffer = io.BytesIO()
        np.save(buffer, np.concatenate(self._frames))
        with disk_errors(self._dest, _REMEDY):
            write_file(self._folder / f"{number:05}.npy", buffer.getvalue())
        _write_json(self._folder / f"{number:05}.json", self._entries, self._dest)
        self._frames, self._entries, self._bytes = [], [], 0


def _stored(folder: Path) -> dict[_Version, _Stored]:
    """Return where the features of recordings are."""
    found = {}
    for shard in sorted(folder.glob("*.npy")):
        first = 0
        for entry in _read_json(shard.with_suffix(".json")) or ():
            frames = entry.pop("frames")
            found[_Version(**entry)] = _Stored(shard, first, frames)
            first += frames
    return found


def _frames(
    versions: Sequence[_Version], stored: dict[_Version, _Stored]
) -> Iterator[tuple[_Version, NDArray[np.float32]]]:
    """Yield the frames of recordings, those without any left out."""
    opened: tuple[Path | None, NDArray[np.float32]] = (None, np.empty(0, np.float32))
    for version in versions:
        if version in stored:
            at = stored[version]
            if opened[0] != at.shard:
                opened = at.shard, np.load(at.shard, mmap_mode="r", allow_pickle=False)
            yield version, opened[1][at.first : at.first + at.frames]


def _version(recording: Recording) -> _Version:
    try:
        status = recording.path.stat()
    except OSError as error:
        raise DataError(f"{recording.path}: {error.strerror}; make it readable, or remove it") from error
    return _Version(recording.partition, recording.name, status.st_size, status.st_mtime_ns)


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None


def _write_json(path: Path, values: Any, dest: Path) -> None:
    with disk_errors(dest, _REMEDY):
        write_file(path, f"{json.dumps(values)}\n".encode())
