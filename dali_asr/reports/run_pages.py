"""How the pages of runs are written: the templates of reports and comparisons share what is here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dali_asr.errors import printable
from dali_asr.files import check_output, disk_errors, sweep, write_file
from dali_asr.reports.page import render
from dali_asr.runs.curves import epoch_label

if TYPE_CHECKING:
    from pathlib import Path


def write_page(path: Path, template: str, *, overwrite: bool = False, **values: Any) -> None:
    """Write a page to a file.

    Args:
        path: the file.
        template: name of a file in `templates/`, which is given `printable`, `percent` and `counted` too.
        overwrite: whether a file is replaced.
        values: what the template inserts.

    Raises:
        UsageError: the file exists.
        DataError: the disk is full or cannot be written.
    """
    check_output(path, overwrite=overwrite)
    page = render(template, printable=printable, percent=percent, counted=counted, epoch_label=epoch_label, **values)
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        sweep(path.parent)
        write_file(path, page.encode("utf-8", errors="xmlcharrefreplace"))


def percent(fraction: float | None, digits: int = 2) -> str:
    """Return a fraction as a percentage, or a dash for none."""
    return "–" if fraction is None else f"{fraction:.{digits}%}"


def counted(number: float | None) -> str:
    """Return a number without decimals, its thousands separated, or a dash for none."""
    return "–" if number is None else f"{number:,.0f}"
