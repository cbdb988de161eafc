"""Which alignment belongs to which recording: the one of the same name, in the same folder or in a parallel tree."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dali_asr.audio.alignments.ctm import read_ctm
from dali_asr.audio.alignments.label_files import HTK_RATE, read_audacity, read_lab, read_phn
from dali_asr.audio.alignments.textgrid import read_textgrid
from dali_asr.audio.preparing.files import ALIGNMENT_SUFFIXES, common_depth
from dali_asr.audio.recordings import read_header
from dali_asr.errors import DataError, printable
from dali_asr.files import composed

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from dali_asr.audio.preparing.files import File, Found
    from dali_asr.segments import Segment

_RANK = {suffix: rank for rank, suffix in enumerate(ALIGNMENT_SUFFIXES)}
TITLES = {
    ".textgrid": "Praat TextGrids",
    ".phn": ".phn files of TIMIT's form",
    ".ctm": "CTM files",
    ".lab": "HTK label files",
    ".txt": "Audacity label tracks",
}


@dataclass(frozen=True)
class Alignment:
    """Where the alignment of a recording is.

    Attributes:
        path: the file.
        suffix: which says its format.
        segments: those of a CTM file, which is read at once; None for files of one recording.
    """

    path: Path
    suffix: str
    segments: tuple[Segment, ...] | None = None

    def read(self, sample_rate: int, tier: str | None) -> list[Segment]:
        """Read the segments.

        Args:
            sample_rate: of the recording, in Hz.
            tier: of a TextGrid, see `read_textgrid`.

        Raises:
            DataError: the file cannot be read, or is damaged.
        """
        if self.segments is not None:
            return list(self.segments)
        if self.suffix == ".textgrid":
            return read_textgrid(self.path, tier)
        if self.suffix == ".phn":
            return read_phn(self.path, sample_rate)
        return read_lab(self.path) if self.suffix == ".lab" else read_audacity(self.path)

    def rate(self, sample_rate: int) -> float:
        """Return the units of time per second of the file."""
        return {".phn": sample_rate, ".lab": HTK_RATE}.get(self.suffix, 1)


@dataclass(frozen=True)
class Pair:
    """A recording and its alignment."""

    recording: File
    alignment: Alignment


@dataclass(frozen=True)
class Paired:
    """Recordings with their alignments.

    Attributes:
        pairs: in the order of the recordings.
        problems: a line for each file that stands alone or is ambiguous.
        remarks: a line for each kind of further alignments, which are not used.
    """

    pairs: list[Pair]
    problems: list[str]
    remarks: list[str]


def pair(found: Found) -> Paired:
    """Return the recordings with their alignments.

    Of the formats, the first of `ALIGNMENT_SUFFIXES` counts. Of its files, the one in the recording's own folder comes
    first; then the one at the same place in a parallel tree, as in `wavs/p1/x.wav` and `textgrids/p1/x.TextGrid`; then
    one in a tree with fewer folders, or more.
    """
    recordings, alignments = found.recordings, found.alignments
    problems: list[str] = []
    by_stem: dict[str, list[File]] = defaultdict(list)
    for file in alignments:
        if file.suffix != ".ctm":
            by_stem[file.stem].append(file)
    places = _places(recordings, alignments)
    listed = _ctm_entries([file for file in alignments if file.suffix == ".ctm"], problems)
    pairs = []
    for recording in recordings:
        try:
            pairs.append(Pair(recording, _alignment_of(recording, by_stem[recording.stem], listed, places)))
        except DataError as error:
            problems.append(str(error))
    shared = Counter(p.alignment.path for p in pairs if p.alignment.segments is None)
    twice = {path for path, number in shared.items() if number > 1}
    for path in sorted(twice):
        names = " and ".join(printable(str(p.recording.path)) for p in pairs if p.alignment.path == path)
        problems.append(f"{names}: two recordings of one name, and one alignment, {path}; keep one of them")
    pairs = [p for p in pairs if p.alignment.path not in twice]
    stems = {recording.stem for recording in (*recordings, *found.unusable)}
    used = {p.alignment.suffix for p in pairs}
    for stem in sorted(by_stem.keys() - stems):
        problems += [
            f"{_shown(f)}: has no recording; add it, or remove the alignment" for f in by_stem[stem] if _is_one(f, used)
        ]
    problems += [
        f"{alignment.path}: {printable(name)}: has no recording; add it, or remove its lines"
        for name, alignment in listed.items()
        if name not in stems
    ]
    return Paired(pairs, problems, _unused(pairs, by_stem, listed, places))


def _unused(
    pairs: Sequence[Pair],
    by_stem: dict[str, list[File]],
    listed: dict[str, Alignment],
    places: dict[Path, tuple[str, ...]],
) -> list[str]:
    """Return a line for each format of further alignments of recordings; transcripts beside recordings are none."""
    unused: dict[str, list[tuple[Path, Pair]]] = defaultdict(list)
    for each in pairs:
        recording, later = each.recording, _RANK[each.alignment.suffix]
        further = [file for file in by_stem[recording.stem] if _nearness(recording, file, places)]
        for suffix, path in (
            *((file.suffix, file.path) for file in further),
            *((".ctm", listed[name].path) for name in (recording.stem,) if name in listed),
        ):
            if _RANK[suffix] > later:
                unused[suffix].append((path, each))
    lines = []
    for suffix in sorted(unused, key=_RANK.__getitem__):
        path, each = unused[suffix][0]
        if _holds_segments(path):
            others = len({path for path, _ in unused[suffix]}) - 1
            more = f", nor are {others:,} more {suffix} files" if others > 1 else ", nor is 1 more" if others else ""
            lines.append(
                f"{printable(str(path))}: is not used{more}, since {printable(str(each.alignment.path))} aligns the "
                f"recording too; to use it, move the other away"
            )
    return lines


def _holds_segments(path: Path) -> bool:
    """Return whether a file is an alignment, which a `.lab` or `.txt` file beside a recording need not be."""
    read = {".lab": read_lab, ".txt": read_audacity}.get(path.suffix.lower())
    try:
        return read is None or bool(read(path))
    except DataError:
        return False


def _alignment_of(
    recording: File, candidates: Sequence[File], listed: dict[str, Alignment], places: dict[Path, tuple[str, ...]]
) -> Alignment:
    for suffix in ALIGNMENT_SUFFIXES:
        if suffix == ".ctm":
            if recording.stem in listed:
                return listed[recording.stem]
            continue
        near = {file: _nearness(recording, file, places) for file in candidates if file.suffix == suffix}
        best = [file for file, value in near.items() if value and value == max(near.values())]
        if len(best) > 1:
            names = " and ".join(map(_shown, best))
            raise DataError(f"{_shown(recording)}: {names} may both be its alignment; keep one of them")
        if best:
            return Alignment(best[0].path, suffix)
    read_header(recording.path)  # which no alignment would help, if it is no audio
    raise DataError(f"{_shown(recording)}: has no alignment; align it, or remove it")


def _nearness(recording: File, alignment: File, places: dict[Path, tuple[str, ...]]) -> int:
    """Return 3 for the same folder, 2 for the same place in parallel trees, 1 if one tree has fewer folders; else 0."""
    if recording.path.parent == alignment.path.parent:
        return 3
    a, b = places[recording.path], places[alignment.path]
    if a == b:
        return 2
    return int(a[len(a) - len(b) :] == b or b[len(b) - len(a) :] == a)


def _places(recordings: Sequence[File], alignments: Sequence[File]) -> dict[Path, tuple[str, ...]]:
    """Return the folders of each file, without those that only say which tree it is in.

    These are the folders that all files of a tree are in, and names that are in all paths of one tree and none of the
    other, such as `wavs` in `train/wavs/x.wav` beside `train/textgrids/x.TextGrid`.
    """
    trees = []
    for files in (recordings, alignments):
        depth = common_depth(files)
        trees.append({file.path: file.folders[depth:] for file in files})
    some = [{name for folders in tree.values() for name in folders} for tree in trees]
    every = [set.intersection(*map(set, tree.values())) if tree else set() for tree in trees]
    own = [every[0] - some[1], every[1] - some[0]]
    return {
        path: tuple(folder for folder in folders if folder not in one)
        for tree, one in zip(trees, own, strict=True)
        for path, folders in tree.items()
    }


def _ctm_entries(files: Sequence[File], problems: list[str]) -> dict[str, Alignment]:
    """Return the recordings that CTM files list."""
    entries: dict[str, Alignment] = {}
    for file in files:
        try:
            for given, segments in read_ctm(file.path).items():
                name = composed(given)
                if name in entries:
                    raise DataError(f"{file.path}: {name} is in {entries[name].path} too; keep one of them")
                entries[name] = Alignment(file.path, ".ctm", tuple(segments))
        except DataError as error:
            problems.append(str(error))
    return entries


def _is_one(file: File, used: set[str]) -> bool:
    """Return whether a file without a recording is an alignment, in a format that others here have."""
    return file.suffix in used and (file.suffix != ".txt" or _holds_segments(file.path))  # else it is a README or such


def _shown(file: File) -> str:
    return printable(str(file.path))
