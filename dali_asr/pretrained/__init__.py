"""Models in the package, each a run's folder that holds a checkpoint and its configuration, with a model card.

Where a run is expected, the name of a model stands for its folder, unless there is a file or folder of that name.
Weights that are matrices are stored as float16 and read as float32. `benchmarks/pretrained.py` makes a model's folder.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

PRETRAINED = Path(__file__).parent


def pretrained_names() -> list[str]:
    """Return the names of the models in the package."""
    return sorted(path.parent.name for path in PRETRAINED.glob("*/config.yaml"))


def find_pretrained(run: Path) -> Path | None:
    """Return the folder of the model that a path names; None if it names none, or something that exists."""
    if len(run.parts) != 1 or run.exists() or str(run) not in pretrained_names():
        return None
    return PRETRAINED / run


def pretrained_for(symbols: Iterable[str], features: Mapping[str, Any]) -> list[str]:
    """Return the names of the models that know all of these symbols and whose features have these settings."""
    found = []
    for path in sorted(PRETRAINED.glob("*/checkpoints/*/checkpoint.json")):
        model = json.loads(path.read_bytes())["model"]
        if set(symbols) <= set(model["inventory"]) and model["features"] == features:
            found.append(path.parents[2].name)
    return found


def is_pretrained(folder: Path) -> bool:
    """Return whether a folder is that of a model in the package, or in it."""
    return PRETRAINED in folder.parents
