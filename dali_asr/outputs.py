"""Files that a user asks for: where they may be written."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from dali_asr.errors import DataError, UsageError

if TYPE_CHECKING:
    from pathlib import Path


def check_output(path: Path, *, overwrite: bool) -> None:
    """Refuse an output file that cannot be written, or that exists and may not be overwritten.

    Raises:
        UsageError: it exists, or is a folder.
        DataError: its folder cannot be written.
    """
    if path.is_dir():
        raise UsageError(f"{path}: is a folder; name a file in it")
    if path.exists() and not path.is_file():
        raise UsageError(f"{path}: is no ordinary file; name one, or - for standard output")
    if path.exists() and not overwrite:
        raise UsageError(f"{path}: exists; choose another file, or overwrite it (--force)")
    above = next(folder for folder in path.absolute().parents if folder.exists())
    if not (above.is_dir() and os.access(above, os.W_OK)):
        raise DataError(f"{path}: {above} is no folder that can be written; choose another place")
