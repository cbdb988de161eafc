"""The run folder: what a run leaves behind, so that it explains itself.

config.yaml         the resolved configuration
environment.json    versions, machine, and what the loader made of them
metrics.jsonl       a line every so many steps and one an epoch; the same for the same seed
timings.jsonl       seconds and frames per second of each epoch
curves.png          loss and accuracy
checkpoints/        last and best
"""

from __future__ import annotations

import errno
import json
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from dali_asr.environment import environment
from dali_asr.errors import DataError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from dali_asr.config import Config
    from dali_asr.loading import WindowLoader


class RunFolder:
    """A run's folder, newly made.

    Args:
        path: the folder; it may exist when it is empty.

    Raises:
        UsageError: it holds something.
        DataError: it cannot be made.
    """

    def __init__(self, path: Path) -> None:
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise UsageError(f"{path}: exists and is not empty; choose another folder (--run)")
        self.path = path
        with writing(path):
            path.mkdir(parents=True, exist_ok=True)

    @property
    def checkpoints(self) -> Path:
        """Where checkpoints lie."""
        return self.path / "checkpoints"

    def describe(self, config: Config, loader: WindowLoader) -> None:
        """Write the resolved configuration, versions and machine, and how the loader reads."""
        reading = {"graph": loader.graph, "groups": loader.groups, "memory": asdict(loader.memory)}
        about = json.dumps(environment(loader.device) | {"loader": reading}, indent=2) + "\n"
        with writing(self.path):
            (self.path / "config.yaml").write_text(config.to_yaml(), encoding="utf-8")
            (self.path / "environment.json").write_text(about, encoding="utf-8")

    def log(self, line: dict[str, Any]) -> None:
        """Append to the metrics."""
        self._append("metrics.jsonl", line)

    def time(self, line: dict[str, Any]) -> None:
        """Append to the timings."""
        self._append("timings.jsonl", line)

    def _append(self, name: str, line: dict[str, Any]) -> None:
        with writing(self.path), (self.path / name).open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn a fault of the disk below `path` into an error for the user.

    Raises:
        DataError: it is full, or cannot be written.
    """
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        remedy = "free some space, or choose another folder" if full else "choose another folder"
        raise DataError(
            f"{error.filename or path}: {error.strerror} while writing; {remedy} (--run); what was written before stays"
        ) from error
