"""What all pages share: the frame of a page with its styles, and pictures that follow the reader's colours."""

from __future__ import annotations

from functools import cache
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined

if TYPE_CHECKING:
    from numpy.typing import NDArray

_LEVELS = (0.1, 0.25, 0.5, 0.75)  # lower bounds of the shades that are drawn


@cache
def _environment() -> Environment:
    """Return the templates of `templates/`; whatever they insert is escaped."""
    return Environment(
        loader=PackageLoader("dali_asr.reports"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def render(template: str, **values: Any) -> str:
    """Return a page as HTML that needs no other file: its template extends `base.html`.

    Args:
        template: name of a file in `templates/`.
        values: what the template inserts; `title` is the page's.
    """
    return _environment().get_template(template).render(**values)


def shades(values: NDArray[Any], width: int, height: int) -> list[tuple[int, str]]:
    """Return a matrix of values from 0 to 1 as SVG paths, one per shade; cells side by side are joined.

    The colours are the style sheet's (`.shade1` to `.shade4`), so that a picture is right in light and dark.

    Args:
        values: `[rows, columns]`.
        width: of a cell.
        height: of a cell.

    Returns:
        The number of each shade, from 1, and its path.
    """
    levels = np.digitize(values, _LEVELS)
    paths: list[list[str]] = [[] for _ in range(len(_LEVELS) + 1)]
    for row, line in enumerate(levels):
        bounds = [0, *(np.flatnonzero(line[1:] != line[:-1]) + 1).tolist(), len(line)]
        for start, end in pairwise(bounds):
            if line[start]:
                across = (end - start) * width
                paths[line[start]].append(f"M{start * width} {row * height}h{across}v{height}h-{across}z")
    return [(level, "".join(path)) for level, path in enumerate(paths) if path]
