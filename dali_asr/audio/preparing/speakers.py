"""Who speaks in each recording: from a table, the folders, or the names of the files.

`transcripts.tsv` has lines of three columns, separated by tabs: NAME, SPEAKER, WORDS.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dali_asr.audio.alignments.text import numbered_lines
from dali_asr.audio.preparing.layouts import is_timit, librispeech_speaker
from dali_asr.errors import DataError, UsageError, brief
from dali_asr.files import composed

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from dali_asr.audio.preparing.files import File
    from dali_asr.audio.preparing.layouts import Placed, SourceLayout

SPEAKER_TABLE = "transcripts.tsv"
_EXAMPLE = "'^([^_]+)_'"
_IN_PATTERNS = re.compile(r"[\\\[\]{}]")  # and hardly in names of files
_PREFIX = re.compile(r"([^_\-]+)[_\-]")
FOLDER, PREFIX, NONE = WAYS = ("folder", "prefix", "none")


@dataclass(frozen=True)
class Speakers:
    """Who speaks in each recording.

    Attributes:
        names: of the speaker of each recording.
        how: they were told, for people.
        known: whether they are speakers; otherwise each recording counts as one, and its path is the name.
    """

    names: tuple[str, ...]
    how: str
    known: bool = True


def find_speakers(layout: SourceLayout, tables: Sequence[File], way: str | None) -> Speakers:
    """Return the speaker of each recording.

    Args:
        layout: of the recordings.
        tables: files that may be tables of speakers.
        way: `folder`, `prefix` (of the name, up to the first `-` or `_`), `none` (each recording has its own), a
            regular expression with one group that is searched for in each name, or a file of lines NAME, SPEAKER and
            anything else, separated by tabs. None: the first of table, folders and names that tells more than one
            speaker.

    Raises:
        UsageError: the way is none of these.
        DataError: a recording has no speaker in this way.
    """
    placed = layout.placed
    if way is not None:
        return _by_way(placed, way)
    table = _merged([file.path for file in tables if file.path.name == SPEAKER_TABLE])
    if table and all(p.pair.recording.stem in table for p in placed):
        return Speakers(tuple(table[p.pair.recording.stem] for p in placed), f"by {SPEAKER_TABLE}")
    if all(is_timit(p.folders) for p in placed):
        return Speakers(tuple(p.folders[1] for p in placed), "by folder, as in TIMIT")
    found = [librispeech_speaker(p.pair.recording.stem, p.folders) for p in placed]
    if None not in found:
        return Speakers(tuple(speaker or "" for speaker in found), "by file name, as in LibriSpeech")
    if layout.title == "LJSpeech":
        return Speakers(("LJ",) * len(placed), "one, as in LJSpeech")
    folders = [p.folders[0] for p in placed if p.folders]
    if len(folders) == len(placed) and len(set(folders)) > 1:
        return Speakers(tuple(folders), "by folder")
    prefixes = [match[1] for match in map(_PREFIX.match, (p.pair.recording.stem for p in placed)) if match]
    if len(prefixes) == len(placed) and 1 < len(set(prefixes)) < len(placed):
        return Speakers(tuple(prefixes), "by the prefix of the file name")
    return _untold(
        placed, "unknown: each recording counts as a speaker of its own (speakers=FILE, or a pattern, names them)"
    )


def _by_way(placed: Sequence[Placed], way: str) -> Speakers:
    if way == NONE:
        return _untold(placed, "not told apart: each recording counts as a speaker of its own")
    if way == FOLDER:
        return Speakers(tuple(_one(p, p.folders[0] if p.folders else None, "folder") for p in placed), "by folder")
    if way == PREFIX or "(" in way:
        pattern = _PREFIX if way == PREFIX else _compiled(way)
        matches = [pattern.search(p.pair.recording.stem) for p in placed]
        if way != PREFIX and None in matches:
            path = placed[matches.index(None)].pair.recording.path
            raise DataError(
                f"{path}: speakers '{way}' does not match its name, {brief(path.stem)}; write a regular "
                "expression that matches every name, with a group around the speaker's part of it"
            )
        names = tuple(_one(p, match[1] if match else None, way) for p, match in zip(placed, matches, strict=True))
        return Speakers(names, "by the prefix of the file name" if way == PREFIX else f"by the pattern {way}")
    path = Path(way).expanduser()
    if not path.is_file():
        if _IN_PATTERNS.search(way):
            raise UsageError(
                f"speakers '{way}': the pattern needs a group around the speaker's part of the name, as in '({way})'; "
                "there is no file of this name either"
            )
        raise UsageError(
            f"speakers '{way}': no such file; give {', '.join(WAYS)}, a file of lines NAME, tab, SPEAKER, or a "
            f"regular expression with a group around the speaker's part of the name, such as {_EXAMPLE}"
        )
    table = read_speakers(path)
    names = tuple(_one(p, table.get(p.pair.recording.stem, table.get(p.name)), way) for p in placed)
    return Speakers(names, f"by {path.name}")


def read_speakers(path: Path) -> dict[str, str]:
    """Return the speakers of a table by the names of recordings.

    Raises:
        DataError: the file cannot be read, or a line has no speaker, or another one than a line before it.
    """
    speakers: dict[str, str] = {}
    for where, line in numbered_lines(path):
        name, speaker, *_ = *(field.strip() for field in composed(line).split("\t")), "", ""
        if not name or not speaker:
            raise DataError(f"{where}: {brief(line)}; write NAME, tab, SPEAKER")
        if speakers.setdefault(name, speaker) != speaker:
            raise DataError(f"{where}: {name} is of {speakers[name]} in a line before; keep one of them")
    return speakers


def _merged(paths: Sequence[Path]) -> Mapping[str, str]:
    """Return the speakers of tables with at least three columns; others have none."""
    merged: dict[str, str] = {}
    for path in paths:
        if all(line.count("\t") >= 2 for _, line in numbered_lines(path)):
            merged |= read_speakers(path)
    return merged


def _untold(placed: Sequence[Placed], how: str) -> Speakers:
    return Speakers(tuple(str(p.pair.recording.path) for p in placed), how, known=False)


def _one(placed: Placed, speaker: str | None, way: str) -> str:
    if not speaker:
        raise DataError(f"{placed.pair.recording.path}: no speaker by {way}; name another way (speakers=WAY)")
    return speaker


def _compiled(pattern: str) -> re.Pattern[str]:
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise UsageError(f"speakers '{pattern}': {error}; give a regular expression such as {_EXAMPLE}") from error
    if compiled.groups != 1:
        raise UsageError(
            f"speakers '{pattern}': has {compiled.groups} groups; give one, around the speaker's part of the "
            f"name, as in {_EXAMPLE}"
        )
    return compiled
