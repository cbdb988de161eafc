"""The names of the formats of predictions, which `formats` describes; imports nothing, so that `--help` is quick."""

from __future__ import annotations

from typing import Literal

Format = Literal["kaggle", "npz", "json", "ctm", "textgrid", "audacity", "html"]
SUFFIXES: dict[Format, str] = {
    "kaggle": "csv",
    "npz": "npz",
    "json": "json",
    "ctm": "ctm",
    "textgrid": "TextGrid",
    "audacity": "txt",
    "html": "html",
}
PER_UTTERANCE: tuple[Format, ...] = ("textgrid", "audacity", "html")
OF_FRAMES: tuple[Format, ...] = ("kaggle", "npz")
WITH_POSTERIORS: tuple[Format, ...] = ("npz", "html")


def format_of(suffix: str) -> Format | None:
    """Return the format whose files have a suffix, such as `.json`, in upper or lower case; None if none has."""
    return next((form for form, own in SUFFIXES.items() if suffix.lower() == f".{own.lower()}"), None)
