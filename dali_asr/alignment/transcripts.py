"""Transcripts: the words of recordings, in files of several layouts.

    transcripts.tsv     NAME, tab, perhaps SPEAKER, tab, WORDS
    metadata.csv        NAME|WORDS or NAME|WORDS|WORDS WITH NUMBERS SPELLED OUT, as in LJSpeech
    SPEAKER-BOOK.trans.txt   NAME WORDS, as in LibriSpeech
    NAME.lab, NAME.txt  WORDS, one file per recording

In a folder, files of the first three layouts are read wherever they are; if there are none, those of the last. The
first line of a table may be a header: it is left out where its name, such as `id`, is that of no recording.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dali_asr.corpus.regular import read_regular
from dali_asr.errors import DataError
from dali_asr.files import composed

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

_TABLES = ("transcripts.tsv", "metadata.csv")
_LIBRISPEECH = ".trans.txt"
_SINGLE = (".lab", ".txt")
_TEXTGRID = ".textgrid"
_HEADINGS = frozenset({"name", "id", "utterance", "file", "filename", "path", "recording"})  # of a first column
TEXTGRIDS = f"TextGrids are not read as transcripts, but {', '.join(_TABLES)}, *{_LIBRISPEECH}, NAME.lab and NAME.txt"
_AUDIO = (".wav", ".flac", ".mp3", ".ogg", ".opus")


@dataclass(frozen=True)
class Transcript:
    """What was said in a recording.

    Attributes:
        name: of the recording, composed.
        text: its words.
        where: file and line.
        may_be_header: whether it is the first line of a table, and its name that of a column.
    """

    name: str
    text: str
    where: str
    may_be_header: bool = False


def read_transcripts(source: Path) -> dict[str, Transcript]:
    """Read the transcripts of a file or folder, by the composed names of their recordings.

    Raises:
        DataError: there are none, a file cannot be read, a line is not of the layout, or a name occurs twice.
    """
    found: dict[str, Transcript] = {}
    for path in _files(source):
        for transcript in _read(path):
            first = found.setdefault(transcript.name, transcript)
            if first is not transcript and not (first.may_be_header and transcript.may_be_header):
                raise DataError(
                    f"{transcript.where}: {transcript.name!r} has a transcript at {first.where} already; remove one"
                )
    if not found:
        if source.is_dir() and any(path.suffix.lower() == _TEXTGRID for path in source.rglob("*")):
            raise DataError(f"{source}: holds no transcripts; {TEXTGRIDS}")
        raise DataError(f"{source}: holds no transcripts; give {', '.join(_TABLES)}, *{_LIBRISPEECH}, *.lab or *.txt")
    return found


def without_headers(texts: dict[str, Transcript], names: Collection[str]) -> dict[str, Transcript]:
    """Leave out the headers of tables.

    Args:
        texts: transcripts by the names of their recordings.
        names: of the recordings, composed, without their partitions. A header has none of these names.

    Raises:
        DataError: there is nothing else.
    """
    kept = {name: text for name, text in texts.items() if name in names or not text.may_be_header}
    if not kept:
        raise DataError(f"{next(iter(texts.values())).where}: is a header; write a line for each recording below it")
    return kept


def _files(source: Path) -> list[Path]:
    if not source.is_dir():
        return [source]
    paths = sorted(Path(where) / file for where, _, files in os.walk(source) for file in files)
    tables = [path for path in paths if path.name in _TABLES or path.name.endswith(_LIBRISPEECH)]
    return tables or [path for path in paths if path.suffix in _SINGLE and not path.name.startswith(".")]


def _read(path: Path) -> Iterator[Transcript]:
    try:
        text = read_regular(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: {error}; give transcripts as UTF-8 text") from error
    if path.name.endswith(_LIBRISPEECH):
        yield from _lines(path, text, None)
    elif path.suffix == ".tsv":
        yield from _lines(path, text, "\t")
    elif path.suffix == ".csv":
        yield from _lines(path, text, "|")
    elif path.suffix in _SINGLE:
        yield Transcript(composed(path.stem), " ".join(text.split()), str(path))
    elif path.suffix.lower() == _TEXTGRID:
        raise DataError(f"{path}: {TEXTGRIDS}")
    else:
        raise DataError(f"{path}: no known layout of transcripts; name it .tsv, .csv, {_LIBRISPEECH}, .lab or .txt")


def _lines(path: Path, text: str, separator: str | None) -> Iterator[Transcript]:
    """Yield the transcripts of lines, whose first field is the name and whose last one is the words.

    Args:
        path: of the file, for messages.
        text: of the file.
        separator: of fields; None for spaces after a name without any.
    """
    lines = [(number, line) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
    for number, line in lines:
        name, *rest = line.split(separator, 1) if separator is None else line.split(separator)
        if separator and not rest:
            shown = {"\t": "a tab", "|": "|"}[separator]
            comma = ", not by a comma" if "," in line else ""
            raise DataError(
                f"{path}, line {number}: {line[:40]!r} is one field; separate the name and the words by {shown}{comma}"
            )
        words = rest[-1].strip() if rest else ""
        heads = separator is not None and number == lines[0][0] and name.strip().lower() in _HEADINGS
        yield Transcript(composed(_without_suffix(name.strip())), words, f"{path}, line {number}", heads)


def _without_suffix(name: str) -> str:
    """Return the name of a recording whose file's name is given."""
    stem, suffix = os.path.splitext(name)  # noqa: PTH122 - a name, not a path
    return stem if suffix.lower() in _AUDIO else name
