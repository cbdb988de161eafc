"""Pages: HTML files that hold everything they show, so that they open without a network.

A page extends `templates/base.html`, which has the colors of light and dark, the layout and the script. Pictures are
SVG by matplotlib, whose colors follow the page: `COLORS` maps each color of a figure to a variable of its style sheet.
"""

from __future__ import annotations

import io
import itertools
import re
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from dali_asr.environment import installed_version
from dali_asr.errors import printable
from dali_asr.files import check_output, disk_errors, sweep, write_file

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from matplotlib.figure import Figure

INK, FAINT, GRID = "#222222", "#555555", "#b0b0b0"
SERIES = ("#4c78a8", "#e4572e", "#3a9d5d", "#8e6bbf", "#b8860b", "#008b9c", "#c2569b", "#7a7a3a")  # of overlaid curves
COLORS = {INK: "ink", FAINT: "faint", GRID: "line"} | {color: f"series-{at}" for at, color in enumerate(SERIES)}
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


def render(template: str, **values: Any) -> str:
    """Return the page of a template in `templates/`; texts are escaped."""
    return _environment().get_template(template).render(version=installed_version("dali-asr"), **values)


def write_page(path: Path, page: str, *, overwrite: bool = False) -> None:
    """Write a page to a file.

    Raises:
        UsageError: the file exists.
        DataError: the disk is full or cannot be written.
    """
    check_output(path, overwrite=overwrite)
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        sweep(path.parent)
        write_file(path, page.encode("utf-8", errors="xmlcharrefreplace"))


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


def percent(fraction: float | None, digits: int = 2) -> str:
    """Return a fraction as a percentage, or a dash for none."""
    return "–" if fraction is None else f"{fraction:.{digits}%}"


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("dali_asr.reports"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"percent": percent, "count": lambda number: f"{number:,}", "printable": printable}
    return environment
