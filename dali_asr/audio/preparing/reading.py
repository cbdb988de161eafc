"""The first reading of recordings and alignments: headers, times and symbols. Faults are said before any work."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from dali_asr.audio.alignments.labels import check_extent, check_order
from dali_asr.audio.extract import check_length
from dali_asr.audio.recordings import read_header
from dali_asr.errors import DataError
from dali_asr.inventory import is_text

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from dali_asr.audio.alignments.labels import LabelRule
    from dali_asr.audio.preparing.layouts import Placed
    from dali_asr.audio.preparing.settings import PrepareSettings
    from dali_asr.corpus.packing import Progress


class Problems:
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


@dataclass(frozen=True)
class ReadPair:
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


def read_pairs(
    placed: Sequence[Placed], settings: PrepareSettings, problems: Problems, progress: Progress
) -> list[ReadPair]:
    """Read all headers and alignments once, and say which of them cannot be used."""
    read = []
    for done, each in enumerate(placed, 1):
        alignment = each.pair.alignment
        try:
            _check_name(each)
            header = read_header(each.pair.recording.path)
            check_length(each.pair.recording.path, header, settings.features)
            seconds = header.samples / header.sample_rate
            segments = alignment.read(header.sample_rate, settings.tier)
            check_order(alignment.path, segments)
            rate = alignment.rate(header.sample_rate)
            check_extent(alignment.path, segments, seconds, settings.features.timing, rate)
            read.append(ReadPair(each, frozenset(s.label for s in segments), seconds, header.sample_rate))
        except DataError as error:
            problems.add(str(error))
        progress("reading alignments", done, len(placed))
    return read


def with_known_symbols(
    read: Sequence[ReadPair], rule: LabelRule, settings: PrepareSettings, problems: Problems
) -> list[ReadPair]:
    """Return the recordings all of whose symbols are known, and say which others there are."""
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


def _check_name(placed: Placed) -> None:
    if not is_text(str(placed.pair.recording.path)):
        raise DataError(f"{placed.pair.recording.path}: its path is not Unicode text; rename it")
