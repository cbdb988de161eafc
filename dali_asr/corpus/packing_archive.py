"""Packing an archive of a course folder in one pass, whatever the order of its members.

One thread decompresses; others normalize and write what arrives. Utterances are written in the order of their arrival,
and moved to the packed order at the end if they arrived in another one. Global normalization needs its statistics
first: raw frames are then written aside, and normalized in a second pass over them. The bytes are those of packing the
folder.

Shape letters: `T` frames of an utterance, `D` features of a frame.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from dali_asr.corpus.archive import read_members
from dali_asr.corpus.archive_names import ArchiveNames
from dali_asr.corpus.copying import Run, copy_runs
from dali_asr.corpus.draft import PackedDraft, new_draft
from dali_asr.corpus.features import check_features, finite
from dali_asr.corpus.folding import read_fold
from dali_asr.corpus.layouts.course import FEATURES, check_length, transcript_labels
from dali_asr.corpus.normalize import Moments, Normalization
from dali_asr.corpus.npy import parse_array, read_header
from dali_asr.corpus.packed import FRAMES, LABELS
from dali_asr.corpus.packing import check_feature_dim, settled, statistics
from dali_asr.corpus.storing import long_blocks, stored_frames
from dali_asr.corpus.threads import Threads
from dali_asr.errors import DataError, printable
from dali_asr.files import disk_errors
from dali_asr.inventory import ARPABET

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from dali_asr.corpus.packed import PartitionEntry
    from dali_asr.corpus.packing import PackSettings, Progress
    from dali_asr.fetching.archives import Member

_MAX_MEMBER = 1 << 30  # bytes; it is held in memory
_RAW, _ARRIVED_FRAMES, _ARRIVED_LABELS = "raw", "frames", "labels"  # files of the draft, until all is in order
_REPORT_EVERY = _RUNS = 64  # members, and runs of bytes of a task
_MIB = 1 << 20
_Key = tuple[str, str]  # partition and utterance


@dataclass
class _Frames:
    """Frames of an utterance that were written.

    Attributes:
        where: the member, as errors name it.
        start: first row in the draft, or offset of the raw frames in bytes.
        length: number of frames, T.
        dtype: of the raw frames.
        checksum: of the stored frames.
        moments: of each block of the raw frames.
    """

    where: str
    start: int
    length: int
    dtype: np.dtype[Any]
    checksum: int = 0
    moments: list[Moments] = field(default_factory=list)


@dataclass
class _Labels:
    """Labels of an utterance that were written: the first row, their number, and their checksum as they are stored."""

    where: str
    start: int
    length: int
    checksum: int = 0


def pack_archive(source: Path, dest: Path, settings: PackSettings, *, overwrite: bool, progress: Progress) -> None:
    """Pack an archive of a course folder; arguments and errors as in `pack_corpus`.

    Raises:
        DataError: also where the archive is damaged, or has a member that is a link, leads out of it or stands twice.
    """
    if settings.normalization == "global":
        settled(settings, settings.partitions or settings.train, str(source), 0)
    inventory, dtype = settings.inventory or ARPABET, settings.dtype
    with (
        new_draft(dest, feature_dim=0, dtype=dtype, inventory=inventory, overwrite=overwrite) as draft,
        Threads() as threads,
    ):
        _ArchivePacking(source, draft, settings, threads, progress).run()


class _ArchivePacking:
    """The packing of one archive; its draft has D = 0 until the first features arrive."""

    def __init__(
        self, source: Path, draft: PackedDraft, settings: PackSettings, threads: Threads, progress: Progress
    ) -> None:
        self._source, self._draft, self._settings = source, draft, settings
        self._threads, self._progress = threads, progress
        self._fold = read_fold(settings.fold) if settings.fold else None
        self._names = ArchiveNames(source)
        self._frames: dict[_Key, _Frames] = {}
        self._labels: dict[_Key, _Labels] = {}
        self._frames_end = self._labels_end = 0  # where the next are written
        self._normalization: Normalization | None = None  # None before the statistics of `global` are known

    def run(self) -> None:
        """Read the archive and complete the draft."""
        self._read()
        partitions = self._names.partitions(self._settings.partitions)
        keys = [(p.name, utterance) for p in partitions for utterance in p.utterances]
        frames = [self._frames[key] for key in keys]
        firsts = np.cumsum([0, *(f.length for f in frames)]).tolist()
        labels = self._sort_labels(partitions, firsts)
        if self._normalization:
            self._sort_frames(frames, firsts)
        else:
            self._normalize(partitions, frames, firsts)
        checksums = [(f.checksum, label) for f, label in zip(frames, labels, strict=True)]
        assert self._normalization is not None
        self._draft.finish([f.length for f in frames], checksums, partitions, self._normalization)

    def _read(self) -> None:
        """Write what the members hold in the order of their arrival."""
        stage, total = "reading the archive, MiB", -(-self._source.stat().st_size // _MIB)
        for number, member in enumerate(read_members(self._source)):
            name = self._names.add(member)
            if name and name.partition in (self._settings.partitions or (name.partition,)):
                where = f"{self._source}: {printable(member.name)}"
                receive = self._receive_frames if name.folder == FEATURES else self._receive_labels
                receive((name.partition, name.utterance), where, _content(where, member))
            if number % _REPORT_EVERY == 0:
                self._progress(stage, member.position // _MIB, total)
        self._threads.finish()
        self._progress(stage, total, total)

    def _receive_frames(self, key: _Key, where: str, content: bytes) -> None:
        header = read_header(where, content[:4096], len(content))
        check_features(where, header.shape, header.dtype)
        length, dim = header.shape
        if not self._frames:
            self._draft = replace(self._draft, feature_dim=dim)
            if self._settings.normalization != "global":
                self._normalization = settled(self._settings, (), where, dim)
        else:
            check_feature_dim(where, dim, next(iter(self._frames.values())).where, self._draft.feature_dim)
        frames = self._frames[key] = _Frames(where, self._frames_end, length, header.dtype)
        self._frames_end += length if self._normalization else header.data_size
        zero = self._settings.zero_nonfinite
        self._threads.start(
            len(content), partial(_write_frames, frames, content, self._draft, self._normalization, zero)
        )

    def _receive_labels(self, key: _Key, where: str, content: bytes) -> None:
        header = read_header(where, content[:4096], len(content))
        length = max(header.shape[0] - 2, 0) if len(header.shape) == 1 else 0
        labels = self._labels[key] = _Labels(where, self._labels_end, length)
        self._labels_end += length
        self._threads.start(len(content), partial(_write_labels, labels, content, self._draft, self._fold))

    def _normalize(
        self, partitions: Sequence[PartitionEntry], frames: Sequence[_Frames], firsts: Sequence[int]
    ) -> None:
        """Compute the statistics of `global`, then normalize the raw frames and write them in the packed order."""
        names = [p.name for p in partitions]
        settled(self._settings, names, "", 0)
        train = [
            self._frames[p.name, u].moments for p in partitions if p.name in self._settings.train for u in p.utterances
        ]
        self._normalization = statistics(train, self._settings.train)
        raw = self._draft.folder / _RAW
        with disk_errors(self._draft.dest), raw.open("rb", buffering=0) as file:
            for number, (f, first) in enumerate(zip(frames, firsts, strict=False)):
                size = f.length * self._draft.feature_dim * f.dtype.itemsize
                content = os.pread(file.fileno(), size, f.start)
                work = partial(_write_raw, f, content, self._draft, self._normalization, first)
                self._threads.start(size, work)
                if number % _REPORT_EVERY == 0:
                    self._progress("normalizing", number, len(frames))
            self._threads.finish()
        self._progress("normalizing", len(frames), len(frames))
        raw.unlink()

    def _sort_frames(self, frames: Sequence[_Frames], firsts: Sequence[int]) -> None:
        """Move the frames to the packed order, unless they arrived in it."""
        if [f.start for f in frames] == firsts[:-1]:
            return
        offset = self._draft.frame_offset
        folder = self._draft.folder
        runs = [
            (offset(f.start), offset(first), offset(f.length) - offset(0))
            for f, first in zip(frames, firsts, strict=False)
        ]
        with disk_errors(self._draft.dest):
            (folder / FRAMES).rename(folder / _ARRIVED_FRAMES)
        self._move(_ARRIVED_FRAMES, FRAMES, runs, "sorting frames")

    def _sort_labels(self, partitions: Sequence[PartitionEntry], firsts: Sequence[int]) -> list[int]:
        """Move the labels to the packed order, mark frames without labels, and return the checksums."""
        offset, runs, checksums = self._draft.label_offset, [], []
        keys = ((p, (p.name, utterance)) for p in partitions for utterance in p.utterances)
        for (partition, key), (first, end) in zip(keys, pairwise(firsts), strict=True):
            if partition.labelled:
                labels = self._labels[key]
                check_length(labels.where, labels.length + 2, end - first)
                runs.append((offset(labels.start), offset(first), offset(labels.length) - offset(0)))
                checksums.append(labels.checksum)
            else:
                checksums.append(self._draft.write_labels(first, end - first, None))
        if runs:
            self._move(_ARRIVED_LABELS, LABELS, runs, "sorting labels")
        return checksums

    def _move(self, name: str, dest: str, runs: Sequence[Run], stage: str) -> None:
        """Copy runs of bytes from a file of the draft into another, and remove the first."""
        source, target = self._draft.folder / name, self._draft.folder / dest
        with disk_errors(self._draft.dest):
            target.touch()
            for first in range(0, len(runs), _RUNS):
                part = runs[first : first + _RUNS]
                self._threads.start(sum(size for _, _, size in part), partial(copy_runs, source, target, part))
                self._progress(stage, first, len(runs))
            self._threads.finish()
            source.unlink()
        self._progress(stage, len(runs), len(runs))


def _content(where: str, member: Member) -> bytes:
    if member.size > _MAX_MEMBER:
        raise DataError(
            f"{where}: {member.size:,} bytes are too many to hold in memory; unpack the archive, and pack that"
        )
    return member.read()


def _write_frames(
    frames: _Frames, content: bytes, draft: PackedDraft, normalization: Normalization | None, zero_nonfinite: bool
) -> None:
    """Write the frames of a member to their row; or raw ones, and their moments, if there is no normalization yet."""
    features = finite(frames.where, parse_array(frames.where, content), zero_nonfinite=zero_nonfinite)
    if normalization is None:
        frames.moments = [Moments.of(block) for block in long_blocks(features)]
        draft.write_at(_RAW, np.ascontiguousarray(features).data.cast("B"), frames.start)
        return
    frames.checksum = _write(frames, features, draft, normalization, frames.start)


def _write_raw(frames: _Frames, content: bytes, draft: PackedDraft, normalization: Normalization, first: int) -> None:
    """Normalize raw frames and write them to their row."""
    features = np.frombuffer(content, frames.dtype).reshape(frames.length, draft.feature_dim)
    frames.checksum = _write(frames, features, draft, normalization, first)


def _write(
    frames: _Frames, features: NDArray[Any], draft: PackedDraft, normalization: Normalization, first: int
) -> int:
    blocks = partial(long_blocks, features)
    stored = stored_frames(frames.where, blocks, frames.length, normalization, draft.dtype)
    return draft.write_frames(first, stored)[0]


def _write_labels(labels: _Labels, content: bytes, draft: PackedDraft, fold: Mapping[str, str] | None) -> None:
    transcript = parse_array(labels.where, content)
    found = transcript_labels(labels.where, transcript, labels.length, draft.inventory, fold)
    labels.checksum = draft.write_labels(labels.start, labels.length, found, _ARRIVED_LABELS)
