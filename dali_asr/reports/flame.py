"""Flame graphs (Gregg 2016, "The flame graph", CACM 59:6) as SVG: a row per depth of the stack, a width per time.

The picture needs no script: a browser shows what a box is when the pointer rests on it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

Stacks = dict[tuple[str, ...], int]  # frames from the outermost to the innermost, and their samples or microseconds

_WIDTH, _ROW, _TOP, _SIDE = 1200, 18, 46, 10  # pixels
_MIN_WIDTH = 0.6  # narrower boxes are left out
_LETTER = 6.6  # width of a letter
_COLORS = {"dali_asr": "#a6cee3", "nvidia": "#b2df8a", "torch": "#fdbf6f", "numpy": "#cab2d6"}
_OTHER = "#e0e0e0"


@dataclass
class _Box:
    name: str
    weight: int = 0
    inner: dict[str, _Box] = field(default_factory=dict)

    @property
    def depth(self) -> int:
        return 1 + max((box.depth for box in self.inner.values()), default=0)


def read_folded(text: str, within: str = "") -> Stacks:
    """Read folded stacks, one per line: frames joined by semicolons, and a count.

    Args:
        text: the lines.
        within: the start of a frame; other stacks are left out, and so are the frames outside of it.
    """
    stacks: Stacks = {}
    for line in text.splitlines():
        folded, _, count = line.rpartition(" ")
        frames = tuple(folded.split(";"))
        start = next((at for at, frame in enumerate(frames) if frame.startswith(within)), None)
        if start is not None:
            kept = frames[start:]
            stacks[kept] = stacks.get(kept, 0) + int(count)
    return stacks


def draw_flame(stacks: Stacks, title: str) -> str:
    """Return the SVG of a flame graph, the outermost frames at the bottom; frames are colored by their package."""
    root = _Box("all")
    for frames, weight in stacks.items():
        box = root
        box.weight += weight
        for name in frames:
            box = box.inner.setdefault(name, _Box(name))
            box.weight += weight
    height = _TOP + (root.depth + 1) * _ROW + 30
    scale = (_WIDTH - 2 * _SIDE) / max(root.weight, 1)
    boxes = "\n".join(_draw(root, _SIDE, height - 30 - _ROW, scale, root.weight))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" height="{height}" '
        f'font-family="DejaVu Sans Mono, Menlo, Consolas, monospace" font-size="11">\n'
        f'<rect width="100%" height="100%" fill="#ffffff"/>\n'
        f'<text x="{_SIDE}" y="20" font-size="13">{escape(_clip(title, _WIDTH - 2 * _SIDE, 7.9))}</text>\n'
        f'<text x="{_SIDE}" y="37" fill="#555555">width: share of the samples; rest the pointer on a box to read it'
        f"</text>\n{boxes}\n{_legend(height - 12)}\n</svg>\n"
    )


def _draw(box: _Box, x: float, y: float, scale: float, total: int) -> Iterator[str]:
    width = box.weight * scale
    if width < _MIN_WIDTH:
        return
    name = escape(box.name)
    text = escape(_clip(box.name, width - 6, _LETTER))
    yield (
        f'<g><title>{name}: {box.weight / max(total, 1):.1%}</title><rect x="{x:.1f}" y="{y:.1f}" '
        f'width="{max(width - 0.4, 0.4):.1f}" height="{_ROW - 1}" rx="1" fill="{_color(box.name)}"/>'
        f'<text x="{x + 3:.1f}" y="{y + 12.5:.1f}">{text}</text></g>'
    )
    for inner in sorted(box.inner.values(), key=lambda inner: inner.name):
        yield from _draw(inner, x, y - _ROW, scale, total)
        x += inner.weight * scale


def _clip(text: str, width: float, letter: float) -> str:
    """Return a text shortened to a width in pixels; empty where hardly a word fits."""
    fitting = int(width / letter)
    if fitting >= len(text):
        return text
    return text[: fitting - 1] + "…" if fitting >= 4 else ""


def _color(name: str) -> str:
    return next((color for package, color in _COLORS.items() if package in name), _OTHER)


def _legend(y: float) -> str:
    parts, x = [], float(_SIDE)
    for name, color in (*_COLORS.items(), ("other", _OTHER)):
        parts.append(
            f'<rect x="{x:.0f}" y="{y - 10:.0f}" width="12" height="12" fill="{color}"/>'
            f'<text x="{x + 17:.0f}" y="{y:.0f}">{name}</text>'
        )
        x += 40 + _LETTER * len(name)
    return "\n".join(parts)
