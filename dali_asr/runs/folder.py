"""The run folder: what a run leaves behind, so that it explains itself.

config.yaml         the resolved configuration
environment.json    versions, machine, git commit, and what the loader made of them
metrics.jsonl       a line every so many steps and one an epoch; the same for the same seed
timings.jsonl       seconds and frames per second of each epoch
curves.png          loss and accuracy
checkpoints/        the last ones and the best
"""

from __future__ import annotations

import errno
import json
import os
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from dali_asr.environment import environment
from dali_asr.errors import DataError, UsageError
from dali_asr.runs.checkpoint import CONFIG, list_checkpoints

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from dali_asr.config import Config
    from dali_asr.loading import WindowLoader

METRICS, TIMINGS = "metrics.jsonl", "timings.jsonl"
_LOCK = ".lock"


class RunFolder:
    """A run's folder, which one process holds at a time.

    Args:
        path: the folder; it may exist when it is empty.
        resumed: whether a run in it goes on; one that has no checkpoint yet begins anew.

    Raises:
        UsageError: it holds something else, or another process trains in it.
        DataError: it cannot be made.
    """

    def __init__(self, path: Path, *, resumed: bool = False) -> None:
        self.path = path
        self._unwritten: dict[str, list[str]] = {METRICS: [], TIMINGS: []}
        if path.exists() and not path.is_dir():
            raise UsageError(f"{path}: is a file; choose a folder (--run-folder)")
        if path.exists() and not resumed and _content(path):
            raise UsageError(
                f"{path}: exists and is not empty; choose another folder (--run-folder), or go on with its run "
                "(--resume auto)"
            )
        with writing(path):
            path.mkdir(parents=True, exist_ok=True)
            self._lock = FileLock(path / _LOCK)
            try:
                self._lock.acquire(timeout=0)
            except Timeout as error:
                raise UsageError(
                    f"{path}: another process trains in this run; wait for it, or choose another folder (--run-folder)"
                ) from error

    @property
    def checkpoints(self) -> Path:
        """Where checkpoints lie."""
        return self.path / "checkpoints"

    def close(self) -> None:
        """Let other processes train here."""
        self._lock.release()

    def describe(self, config: Config, loader: WindowLoader) -> None:
        """Write the resolved configuration, versions and machine, and how the loader reads."""
        reading = {"graph": loader.graph, "groups": loader.groups, "memory": asdict(loader.memory)}
        about = json.dumps(environment(loader.device) | {"loader": reading}, indent=2) + "\n"
        with writing(self.path):
            write_whole(self.path / CONFIG, config.to_yaml().encode())
            write_whole(self.path / "environment.json", about.encode())

    def check(self, offset: int) -> None:
        """Check that the metrics reach to where a checkpoint was saved, in bytes.

        Raises:
            DataError: the file is shorter than that.
        """
        path = self.path / METRICS
        size = path.stat().st_size if path.is_file() else 0
        if size < offset:
            raise DataError(f"{path}: {size} bytes, the checkpoint was saved after {offset}; copy the whole run again")

    def cut(self, offset: int) -> None:
        """Cut the metrics back to where a checkpoint was saved, in bytes.

        Raises:
            DataError: the disk cannot be written.
        """
        with writing(self.path), (self.path / METRICS).open("ab") as file:
            file.truncate(offset)
            if not offset:
                (self.path / TIMINGS).unlink(missing_ok=True)

    def log(self, line: dict[str, Any]) -> None:
        """Append to the metrics; what a full disk refuses is written with a later line.

        Raises:
            DataError: the disk is full, or cannot be written.
        """
        self._append(METRICS, line)

    def time(self, line: dict[str, Any]) -> None:
        """Append to the timings, as `log`."""
        self._append(TIMINGS, line)

    def flush(self) -> int:
        """Put the metrics on the disk; return how many bytes there are.

        Raises:
            DataError: the disk is full, or cannot be written.
        """
        with writing(self.path):
            self._write(METRICS)
            with (self.path / METRICS).open("ab") as file:
                os.fsync(file.fileno())
                return file.tell()

    def _append(self, name: str, line: dict[str, Any]) -> None:
        self._unwritten[name].append(json.dumps(line) + "\n")
        with writing(self.path):
            self._write(name)

    def _write(self, name: str) -> None:
        """Append what is not yet written: all of it, or nothing."""
        waiting = "".join(self._unwritten[name])
        with (self.path / name).open("ab", buffering=0) as file:
            end = file.tell()
            try:
                written = file.write(waiting.encode())
                if written < len(waiting):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path / name))
            except OSError:
                file.truncate(end)
                raise
        self._unwritten[name].clear()


def is_run(path: Path) -> bool:
    """Whether a run was begun in a folder."""
    return (path / CONFIG).is_file() or bool(list_checkpoints(path))


def write_whole(path: Path, content: bytes) -> None:
    """Write a file aside, flush it and rename it to its place."""
    aside = path.with_name(f".{path.name}.partial")
    with aside.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    aside.replace(path)


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
            f"{error.filename or path}: {error.strerror} while writing; {remedy} (--run-folder); "
            "what was written before stays"
        ) from error


def _content(path: Path) -> list[Path]:
    return [entry for entry in path.iterdir() if entry.name != _LOCK]
