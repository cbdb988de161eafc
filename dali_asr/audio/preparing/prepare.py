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

from dali_asr.audio.alignments.labels import check_extent, check_order
from dali_asr.audio.extract import Failed, extract
from dali_asr.audio.preparing.files import search
from dali_asr.audio.preparing.layouts import DEV, LJSPEECH_TABLE, PARTITIONS, TRAIN, find_source_layout
from dali_asr.audio.preparing.pairs import TITLES, pair
from dali_asr.audio.preparing.speakers import SPEAKER_TABLE, find_speakers
from dali_asr.audio.preparing.split import DEFAULT_SPLIT, split_speakers
from dali_asr.audio.preparing.symbols import label_rule
from dali_asr.audio.recordings import check_source, read_header
from dali_asr.corpus.draft import check_destination
from dali_asr.corpus.packing import quiet
from dali_asr.corpus.writer import PackedWriter
from dali_asr.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from dali_asr.audio.alignments.labels import LabelRule
    from dali_asr.audio.extract import Extracted
    from dali_asr.audio.preparing.files import Found
    from dali_asr.audio.preparing.layouts import Placed, SourceLayout
    from dali_asr.audio.preparing.speakers import Speakers
    from dali_asr.audio.settings import FeatureSettings
    from dali_asr.corpus.normalize import Kind
    from dali_asr.corpus.packing import Progress


@dataclass(frozen=True)
class PrepareSettings:
    """How recordings become a corpus.

    Attributes:
        features: what is computed from the recordings.
        alignments: a further folder of alignments, at the places of the recordings or in one folder; None for none.
        tier: of TextGrids, a name or a pattern; None for the one that holds phones by its name.
        inventory: `arpabet` (also None), a text file with one symbol per line, or `found` for the symbols found.
        fold: the symbols that others stand for, a fold's name or file; None for the fold of `corpus.folding` that fits.
        silence: symbol of gaps between segments; None for that of the inventory.
        speakers: how speakers are told, see `find_speakers`; None for the way that fits.
        split: shares of train, dev and test; None for the partitions that folders say, or else 0.8, 0.1 and 0.1.
        seed: of the split.
        normalization: of the frames, `utterance` or `none`.
        dtype: of the stored frames, `float32` or `float16`.
        gpu: number of the GPU that computes features; None: the CPU does.
        keep_going: whether what cannot be used is left out; otherwise nothing is written.
    """

    features: FeatureSettings
    alignments: Path | None = None
    tier: str | None = None
    inventory: str | None = None
    fold: str | None = None
    silence: str | None = None
    speakers: str | None = None
    split: tuple[float, ...] | None = None
    seed: int = 0
    normalization: Kind = "utterance"
    dtype: str = "float32"
    gpu: int | None = None
    keep_going: bool = False


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
        remarks: what is odd about recordings that were used, a line each.
    """

    facts: tuple[str, ...]
    partitions: tuple[PreparedPartition, ...]
    left_out: int
    remarks: tuple[str, ...]


@dataclass(frozen=True)
class _Read:
    """A recording whose header and alignment were read.

    Attributes:
        placed: the recording and its alignment.
        symbols: those of the alignment.
        seconds: duration of the recording.
        sample_rate: of the recording, in Hz.
    """

    placed: Placed
    symbols: frozenset[str]
    seconds: float
    sample_rate: int


@dataclass(frozen=True)
class _Chosen:
    """A recording with its partition and speaker; the speaker is None if not known."""

    read: _Read
    partition: str
    speaker: str | None


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
    problems = _Problems(source, complain, keep_going=settings.keep_going)
    found = _search(source, settings)
    pairs, alone = pair(found)
    problems.add(*found.problems, *alone)
    if not pairs:
        problems.stop()
        raise DataError(f"{source}: no recordings with alignments; put x.TextGrid or x.phn beside x.wav or x.flac")
    layout = find_source_layout(pairs, found.tables)
    read = _read_all(layout.placed, settings, problems, progress)
    rule, told = label_rule(
        frozenset[str]().union(*(each.symbols for each in read)), settings.inventory, settings.fold, settings.silence
    )
    read = _known(read, rule, settings, problems)
    problems.stop(unless=settings.keep_going and bool(read))
    layout = replace(layout, placed=tuple(each.placed for each in read))
    speakers = find_speakers(layout, found.tables, settings.speakers)
    partitions, split = _partitions(layout, speakers, [each.seconds for each in read], settings)
    chosen = [
        _Chosen(each, partition, speaker if speakers.known else None)
        for each, partition, speaker in zip(read, partitions, speakers.names, strict=True)
    ]
    remarks: list[str] = []
    written = _write(chosen, source, dest, rule, settings, problems, remarks, overwrite=overwrite, progress=progress)
    formats = Counter(TITLES[placed.pair.alignment.suffix] for placed in layout.placed)
    named = ", ".join(f"{number:,} {title}" for title, number in formats.items())
    facts = (f"layout: {layout.title}, {named}", f"speakers: {speakers.how}", f"partitions: {split}", f"labels: {told}")
    return Prepared(facts, written, problems.count, tuple(remarks))


class _Problems:
    """Lines about what cannot be used."""

    def __init__(self, source: Path, complain: Callable[[str], object], *, keep_going: bool) -> None:
        self.count = 0
        self._source, self._complain, self._keep_going = source, complain, keep_going

    def add(self, *lines: str) -> None:
        """Say what cannot be used."""
        for line in lines:
            self._complain(line)
        self.count += len(lines)

    def stop(self, *, unless: bool = False) -> None:
        """Stop if there was a problem, unless the work is to go on.

        Raises:
            DataError: there was.
        """
        if self.count and not unless:
            advice = "" if self._keep_going else ", or leave these out (keep_going=True)"
            files = "1 fault" if self.count == 1 else f"{self.count:,} faults"
            raise DataError(f"{self._source}: {files}, nothing is written; repair the files{advice}")


def _search(source: Path, settings: PrepareSettings) -> Found:
    found = search(source, (SPEAKER_TABLE, LJSPEECH_TABLE))
    if settings.alignments:
        further = search(settings.alignments.expanduser())
        found.alignments += further.alignments
        found.problems += further.problems
    return found


def _read_all(
    placed: Sequence[Placed], settings: PrepareSettings, problems: _Problems, progress: Progress
) -> list[_Read]:
    """Read all headers and alignments once, and say which of them cannot be used."""
    read = []
    for done, each in enumerate(placed, 1):
        alignment = each.pair.alignment
        try:
            header = read_header(each.pair.recording.path)
            seconds = header.samples / header.sample_rate
            segments = alignment.read(header.sample_rate, settings.tier)
            check_order(alignment.path, segments)
            rate = alignment.rate(header.sample_rate)
            check_extent(alignment.path, segments, seconds, settings.features.timing, rate)
            read.append(_Read(each, frozenset(s.label for s in segments), seconds, header.sample_rate))
        except DataError as error:
            problems.add(str(error))
        progress("reading alignments", done, len(placed))
    return read


def _known(read: Sequence[_Read], rule: LabelRule, settings: PrepareSettings, problems: _Problems) -> list[_Read]:
    """Return the recordings all of whose symbols are known."""
    unknown = {symbol for each in read for symbol in each.symbols if rule.target(symbol) is None}
    known = []
    for each in read:
        if not each.symbols & unknown:
            known.append(each)
            continue
        alignment = each.placed.pair.alignment
        try:
            rule.check(alignment.path, alignment.read(each.sample_rate, settings.tier))
        except DataError as error:
            problems.add(str(error))
    return known


def _partitions(
    layout: SourceLayout, speakers: Speakers, seconds: Sequence[float], settings: PrepareSettings
) -> tuple[list[str], str]:
    """Return the partition of each recording, and a line that says how they came about."""
    if layout.partitioned and settings.split is None:
        partitions = [placed.partition or TRAIN for placed in layout.placed]
        _check_apart(speakers, partitions)
        if DEV in partitions or TRAIN not in partitions:
            return partitions, "those of the folders"
        return _with_dev(speakers.names, seconds, partitions, settings.seed)
    shares = settings.split or DEFAULT_SPLIT
    names, by = speakers.names, "speaker"
    if len(set(names)) == 1:
        names, by = tuple(placed.name for placed in layout.placed), "recording, since all are of one speaker"
    partitions = split_speakers(names, seconds, shares, settings.seed)
    asked = ", ".join(f"{share:g} {name}" for share, name in zip(shares, PARTITIONS, strict=True) if share)
    return partitions, f"{asked}, split by {by}, seed {settings.seed}"


def _with_dev(
    speakers: Sequence[str], seconds: Sequence[float], partitions: Sequence[str], seed: int
) -> tuple[list[str], str]:
    """Take speakers for dev out of train, where folders give train and test alone, as in TIMIT."""
    train, dev, _ = DEFAULT_SPLIT
    inside = [at for at, partition in enumerate(partitions) if partition == TRAIN]
    shares = (train / (train + dev), dev / (train + dev))
    parts = split_speakers([speakers[at] for at in inside], [seconds[at] for at in inside], shares, seed, (TRAIN, DEV))
    result = list(partitions)
    for at, part in zip(inside, parts, strict=True):
        result[at] = part
    return result, f"those of the folders, and dev out of train by speaker, seed {seed}"


def _check_apart(speakers: Speakers, partitions: Sequence[str]) -> None:
    """Check that no speaker is in two partitions.

    Raises:
        DataError: one is.
    """
    of: dict[str, str] = {}
    for speaker, partition in zip(speakers.names, partitions, strict=True):
        if of.setdefault(speaker, partition) != partition:
            raise DataError(
                f"speaker {speaker} ({speakers.how}) is in {of[speaker]} and {partition}; split anew "
                "(split=0.8,0.1,0.1), or tell the speakers another way (speakers=WAY)"
            )


def _write(
    chosen: Sequence[_Chosen],
    source: Path,
    dest: Path,
    rule: LabelRule,
    settings: PrepareSettings,
    problems: _Problems,
    remarks: list[str],
    *,
    overwrite: bool,
    progress: Progress,
) -> tuple[PreparedPartition, ...]:
    """Compute features and labels and write them, partition by partition; return what was written."""
    ordered = sorted(chosen, key=lambda each: PARTITIONS.index(each.partition))
    paths = [each.read.placed.pair.recording.path for each in ordered]
    extracted = extract(paths, settings.features, keep_going=True, gpu=settings.gpu)
    written: list[_Chosen] = []
    writer = PackedWriter(
        dest,
        inventory=rule.inventory,
        normalization=settings.normalization,
        dtype=settings.dtype,
        overwrite=overwrite,
        features=settings.features.to_json(),
    )
    with writer:
        for done, (each, result) in enumerate(zip(ordered, extracted, strict=True), 1):
            if isinstance(result, Failed):
                problems.add(str(result.error))
                problems.stop(unless=settings.keep_going)
            else:
                _add(writer, each, result, source, rule, settings)
                written.append(each)
                remarks += [result.remark] if result.remark else []
            progress("computing features", done, len(ordered))
        if not written:
            problems.stop()
    return tuple(_summary(name, written) for name in PARTITIONS if any(each.partition == name for each in written))


def _add(
    writer: PackedWriter,
    chosen: _Chosen,
    extracted: Extracted,
    source: Path,
    rule: LabelRule,
    settings: PrepareSettings,
) -> None:
    placed = chosen.read.placed
    alignment, recording = placed.pair.alignment, placed.pair.recording.path
    segments = alignment.read(chosen.read.sample_rate, settings.tier)
    labels = rule.labels(alignment.path, segments, settings.features.timing, len(extracted.frames))
    below = recording.relative_to(source).as_posix()
    writer.add(chosen.partition, placed.name, extracted.frames, labels, speaker=chosen.speaker, recording=below)


def _summary(name: str, written: Sequence[_Chosen]) -> PreparedPartition:
    inside = [each for each in written if each.partition == name]
    speakers = {each.speaker for each in inside}
    number = None if None in speakers else len(speakers)
    return PreparedPartition(name, len(inside), number, sum(each.read.seconds for each in inside))
