"""TextGrids: the files of tiers that Praat opens."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


def to_textgrid(tiers: Mapping[str, Sequence[tuple[float, float, str]]], end: float) -> str:
    """Return a TextGrid in the long text format; see "TextGrid file formats" in the manual of Praat.

    Args:
        tiers: by name, their intervals: start and end in seconds, and text. Those of a tier follow one another without
            gaps, from 0 to `end`.
        end: of the recording, in seconds.

    Returns:
        The text. All times have as many decimals as the finest one needs, at most 6.
    """
    ends = {end, *(last for intervals in tiers.values() for _, last, _ in intervals)}
    decimals = max(len(seconds_text(time).partition(".")[2]) for time in ends)

    def time_text(seconds: float) -> str:
        return f"{seconds:.{decimals}f}"

    lines = [
        'File type = "ooTextFile"',
        'Object class = "TextGrid"',
        "",
        f"xmin = {time_text(0)}",
        f"xmax = {time_text(end)}",
        "tiers? <exists>",
        f"size = {len(tiers)}",
        "item []:",
    ]
    for number, (name, intervals) in enumerate(tiers.items(), 1):
        lines += [
            f"    item [{number}]:",
            '        class = "IntervalTier"',
            f"        name = {_quoted(name)}",
            f"        xmin = {time_text(0)}",
            f"        xmax = {time_text(end)}",
            f"        intervals: size = {len(intervals)}",
        ]
        for at, (first, last, text) in enumerate(intervals, 1):
            lines += [
                f"        intervals [{at}]:",
                f"            xmin = {time_text(first)}",
                f"            xmax = {time_text(last)}",
                f"            text = {_quoted(text)}",
            ]
    return "\n".join(lines) + "\n"


def seconds_text(seconds: float) -> str:
    """Return a time in decimal digits, to the microsecond, without zeros at the end."""
    return f"{seconds:.6f}".rstrip("0").rstrip(".")


def _quoted(text: str) -> str:
    return '"' + text.replace('"', '""') + '"'
