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
