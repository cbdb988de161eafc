"""Recordings and alignments to a labelled packed corpus.

    folder ─files─▶ recordings, alignments ─pairs, layouts─▶ placed ─speakers, split─▶ partitions ─▶ packed corpus

Alignments and the headers of recordings are read first, so that what is wrong with them is said at once. Alignments are
read again with their recordings, so that memory does not grow with them.

Shape letters: `T` frames of a recording, `D` features of a frame.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from dali_asr.audio.extract import Failed, extract
from dali_asr.audio.preparing.files import search
from dali_asr.audio.preparing.layouts import LJSPEECH_TABLE, PARTITIONS, find_source_layout
from dali_asr.audio.preparing.pairs import TITLES, pair
from dali_asr.audio.preparing.reading import Problems, read_pairs, with_known_symbols
from dali_asr.audio.preparing.speakers import SPEAKER_TABLE, find_speakers
from dali_asr.audio.preparing.split import choose_partitions
from dali_asr.audio.preparing.symbols import label_rule
from dali_asr.audio.recordings import check_source, read_header
from dali_asr.corpus.draft import check_destination
from dali_asr.corpus.packing import quiet
from dali_asr.corpus.writer import PackedWriter
from dali_asr.errors import DataError, brief
from dali_asr.segments import boundary_shifts, common_shift

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from dali_asr.audio.alignments.labels import LabelRule
    from dali_asr.audio.extract import Extracted
    from dali_asr.audio.preparing.files import Found
    from dali_asr.audio.preparing.layouts import Placed
    from dali_asr.audio.preparing.reading import ReadPair
    from dali_asr.audio.preparing.settings import PrepareSettings
    from dali_asr.corpus.packing import Progress


@dataclass(frozen=True)
class PreparedPartition:
    """A partition that was written.

    Attributes:
        name: of the partition.
        utterances: their number.
        speakers: their number; None if they are not known.
        seconds: duration of its recordings.
    """

    name: str
    utterances: int
    speakers: int | None
    seconds: float


@dataclass(frozen=True)
class Prepared:
    """What was written, and how.

    Attributes:
        facts: what was found and decided, as lines of `subject: what`.
        partitions: in the order of the corpus.
        left_out: number of files that could not be used.
        remarks: what is odd about what was used, a line each.
    """

    facts: tuple[str, ...]
    partitions: tuple[PreparedPartition, ...]
    left_out: int
    remarks: tuple[str, ...]


def prepare(
    source: str | Path,
    dest: str | Path,
    settings: PrepareSettings,
    *,
    overwrite: bool = False,
    progress: Progress = quiet,
    complain: Callable[[str], object] = lambda _: None,
) -> Prepared:
    """Make a labelled packed corpus of recordings and their alignments.

    Args:
        source: the folder of recordings and alignments, in any layout of `layouts`.
        dest: the packed corpus to write; it appears when it is complete.
        settings: how.
        overwrite: whether a packed corpus at `dest` is replaced.
        progress: called with a stage, the number of recordings done, and the number of all.
        complain: called with a line for each file that cannot be used, which says why and what to do.

    Raises:
        UsageError: `dest` exists, or a setting does not fit.
        DataError: a file cannot be used and the work is not to go on without it, no recording can be used, a speaker
            is in two partitions, or the disk is full or cannot be written.
    """
    source, dest = Path(source).expanduser(), Path(dest).expanduser()
    check_destination(dest, overwrite=overwrite)
    check_source(source, dest)
    problems = Problems(source, complain, keep_going=settings.keep_going)
    found = _search(source, settings)
    paired = pair(found)
    pairs = paired.pairs
    problems.add(*found.problems, *paired.problems)
    if not pairs:
        problems.stop()
        raise DataError(f"{source}: no recordings with alignments; put x.TextGrid or x.phn beside x.wav or x.flac")
    layout = find_source_layout(pairs, found.tables)
    problems.add(*layout.problems)
    read = read_pairs(layout.placed, settings, problems, progress)
    rule, told = label_rule(
        frozenset[str]().union(*(each.symbols for each in read)), settings.inventory, settings.fold, settings.silence
    )
    read = with_known_symbols(read, rule, settings, problems)
    problems.stop(unless=settings.keep_going and bool(read))
    layout = replace(layout, placed=tuple(each.placed for each in read))
    speakers = find_speakers(layout, found.tables, settings.speakers)
    partitions, split = choose_partitions(layout, speakers, [each.seconds for each in read], settings)
    chosen = [
        _Chosen(each, partition, speaker if speakers.known else None)
        for each, partition, speaker in zip(read, partitions, speakers.names, strict=True)
    ]
    plan = _Plan(source, dest, settings, rule, overwrite)
    written, remarks = _write(chosen, plan, problems, progress)
    remarks = (*paired.remarks, *_tier_remarks(layout.placed, settings.tier), *remarks)
    formats = Counter(TITLES[placed.pair.alignment.suffix] for placed in layout.placed)
    named = ", ".join(f"{title} ({number:,})" for title, number in formats.items())
    facts = (f"layout: {layout.title}, {named}", f"speakers: {speakers.how}", f"partitions: {split}", f"labels: {told}")
    partitions_written = tuple(_summary(name, written) for name in PARTITIONS)
    return Prepared(facts, tuple(part for part in partitions_written if part.utterances), problems.count, remarks)


def _tier_remarks(placed: Sequence[Placed], tier: str | None) -> list[str]:
    """Return a line if a tier was named and there are alignments in formats without tiers."""
    without = Counter(TITLES[one.pair.alignment.suffix] for one in placed if one.pair.alignment.suffix != ".textgrid")
    if tier is None or not without:
        return []
    named = ", ".join(f"{title} ({number:,})" for title, number in without.items())
    return [f"tier {brief(tier)}: only TextGrids have tiers; {named} are read whole"]


def _search(source: Path, settings: PrepareSettings) -> Found:
    found = search(source, (SPEAKER_TABLE, LJSPEECH_TABLE))
    if settings.alignments:
        further, known = search(settings.alignments.expanduser()), {file.path.resolve() for file in found.alignments}
        found.alignments += [file for file in further.alignments if file.path.resolve() not in known]
        found.problems += further.problems
    if found.recordings and not found.alignments:
        if not found.recordings[1:]:
            read_header(found.recordings[0].path)  # it may be no audio at all
        raise DataError(
            f"{source}: {'recordings have' if found.recordings[1:] else 'the recording has'} no alignments there; name "
            "their folder (alignments=FOLDER), or make them with dali-asr align"
        )
    return found


@dataclass(frozen=True)
class _Chosen:
    """A recording with its partition and speaker; the speaker is None if not known."""

    read: ReadPair
    partition: str
    speaker: str | None


@dataclass(frozen=True)
class _Plan:
    """What is written from where, and how."""

    source: Path
    dest: Path
    settings: PrepareSettings
    rule: LabelRule
    overwrite: bool

    def writer(self) -> PackedWriter:
        """Return a writer of the corpus."""
        return PackedWriter(
            self.dest,
            inventory=self.rule.inventory,
            normalization=self.settings.normalization,
            dtype=self.settings.dtype,
            overwrite=self.overwrite,
            features=self.settings.features.to_json(),
            recordings_folder=self.source,
        )

    def add(self, writer: PackedWriter, chosen: _Chosen, extracted: Extracted) -> NDArray[np.float64]:
        """Label the frames of a recording and write them; return the shifts of its boundaries."""
        placed, frames = chosen.read.placed, extracted.frames
        alignment = placed.pair.alignment
        segments = alignment.read(chosen.read.sample_rate, self.settings.tier)
        labels = self.rule.labels(alignment.path, segments, self.settings.features.timing, len(frames))
        below = placed.pair.recording.path.relative_to(self.source).as_posix()
        writer.add(chosen.partition, placed.name, frames, labels, speaker=chosen.speaker, recording=below)
        return boundary_shifts(segments, self.settings.features.timing)


def _write(
    chosen: Sequence[_Chosen], plan: _Plan, problems: Problems, progress: Progress
) -> tuple[list[_Chosen], tuple[str, ...]]:
    """Compute features and labels and write them, partition by partition; return what was written, and remarks."""
    settings = plan.settings
    ordered = sorted(chosen, key=lambda each: PARTITIONS.index(each.partition))
    paths = [each.read.placed.pair.recording.path for each in ordered]
    extracted = extract(paths, settings.features, keep_going=True, gpu=settings.gpu)
    written: list[_Chosen] = []
    remarks: list[str] = []
    shifts: list[NDArray[np.float64]] = []
    with plan.writer() as writer:
        for done, (each, result) in enumerate(zip(ordered, extracted, strict=True), 1):
            if isinstance(result, Failed):
                problems.add(str(result.error))
                problems.stop(unless=settings.keep_going)
            else:
                found = plan.add(writer, each, result)
                if each.partition == "train":
                    shifts.append(found)
                written.append(each)
                remarks += [result.remark] if result.remark else []
            progress("computing features", done, len(ordered))
        problems.stop(unless=bool(written))
        writer.label_shift = common_shift(shifts)
    return written, tuple(remarks)


def _summary(name: str, written: Sequence[_Chosen]) -> PreparedPartition:
    inside = [each for each in written if each.partition == name]
    speakers = {each.speaker for each in inside}
    number = None if None in speakers else len(speakers)
    return PreparedPartition(name, len(inside), number, sum(each.read.seconds for each in inside))
