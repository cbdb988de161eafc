"""Pictures of pages: SVG by matplotlib whose colors follow the page, in light and dark.

`COLORS` maps each color of a figure to a variable of the style sheet.
"""

from __future__ import annotations

import io
import itertools
import re
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

if TYPE_CHECKING:
    from collections.abc import Iterator

    from matplotlib.figure import Figure

INK, FAINT, GRID = "#222222", "#555555", "#b0b0b0"
SERIES = ("#4c78a8", "#e4572e", "#3a9d5d", "#8e6bbf", "#b8860b", "#008b9c", "#c2569b", "#7a7a3a")  # of overlaid curves
COLORS = {INK: "text", FAINT: "dim", GRID: "line"} | {color: f"series-{at}" for at, color in enumerate(SERIES)}
_STYLE: Any = {
    "text.color": INK,
    "axes.edgecolor": GRID,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "grid.color": GRID,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "legend.framealpha": 0.0,
    "svg.fonttype": "none",
    "svg.hashsalt": "dali-asr",
}
_COLOR = re.compile("|".join(COLORS))
_ID = re.compile(r'(\bid="|href="#|url\(#)')
_NUMBERS = itertools.count()  # of pictures, whose identifiers differ within a page


@contextmanager
def figure_style() -> Iterator[None]:
    """Give the figures that are made in the block the colors of pages."""
    import matplotlib as mpl

    with mpl.rc_context(_STYLE):
        yield


def inline_svg(figure: Figure, label: str) -> Markup:
    """Return a figure made in `figure_style` as an element of a page.

    Args:
        figure: the figure; it is as wide on the page as its inches at 96 pixels.
        label: what the picture shows, for those who do not see it.
    """
    buffer = io.StringIO()
    with figure_style():
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    prefix = f"p{next(_NUMBERS)}-"
    svg = _ID.sub(lambda found: found[1] + prefix, svg)
    svg = _COLOR.sub(lambda found: f"var(--{COLORS[found[0]]})", svg)
    width, height = figure.get_size_inches() * 96
    size = f'width="{width:.0f}" height="{height:.0f}" role="img" aria-label="{Markup.escape(label)}"'
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg, count=1)
    return Markup(svg.replace("<svg", f"<svg {size}", 1))  # noqa: S704 - matplotlib escapes the texts
