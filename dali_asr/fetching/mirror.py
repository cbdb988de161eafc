"""Mirroring a remote folder: its files in parts, several at a time, continued by another process after a kill.

In the work folder, `files` holds the files, `plan.json` their sizes and versions, and each line of `parts` a part that
was received.
"""

from __future__ import annotations

import json
import os
import shutil
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass
from threading import Event, Lock
from typing import TYPE_CHECKING, TypeVar

from dali_asr.errors import DataError
from dali_asr.fetching.archives import check_name
from dali_asr.fetching.fetch import KEPT, Fetched
from dali_asr.fetching.transfer import PATIENCE, Patience, Progress, quiet, receive
from dali_asr.fetching.work import Record, already_fetched, settled, work_folder
from dali_asr.files import disk_errors, replace_folder, write_file

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from concurrent.futures import Future
    from pathlib import Path

    from dali_asr.fetching.sources import Source
    from dali_asr.fetching.transfer import Received, Remote
    from dali_asr.fetching.work import WorkFolder

_T = TypeVar("_T")
_PART = 16 << 20  # bytes
_WORKERS = 8
_FILES, _PLAN, _PARTS = "files", "plan.json", "parts"
STAGE = "fetching"


@dataclass(frozen=True)
class _File:
    """A file to mirror: its size, its version, and whether parts of it can be asked for."""

    name: str
    size: int
    version: str | None
    ranges: bool


@dataclass(frozen=True)
class _Part:
    """The bytes of a file from `start` up to `end`."""

    file: _File
    start: int
    end: int

    @property
    def line(self) -> str:
        """How the part is noted."""
        return json.dumps([self.file.name, self.start, self.end])


def mirror(
    source: Source,
    remotes: Mapping[str, Remote],
    dest: Path,
    *,
    check: Callable[[Path], object] = lambda _: None,
    overwrite: bool = False,
    progress: Progress = quiet,
    patience: Patience = PATIENCE,
) -> Fetched:
    """Copy remote files into a folder that appears when it is complete and checked.

    Args:
        source: of the files, for messages and the record.
        remotes: the files by their names in the folder.
        dest: the folder to make.
        check: called with the complete folder; raises `DataError` if it is damaged.
        overwrite: whether a folder at `dest` is replaced, even if it was fetched from this source.
        progress: called with the bytes received, and all of them.
        patience: how long servers are waited for.

    Raises:
        UsageError: something else is at `dest`.
        DataError: a file cannot be received or written, changes, or is damaged.
        KeyboardInterrupt: interrupted; its message says what is kept.
    """
    dest = dest.expanduser().absolute()
    for name in remotes:
        check_name(name, source.shown)
    if not overwrite and (record := settled(source, None, dest, None)):
        return Fetched(dest, record, before=True)
    with work_folder(dest, progress) as work:
        record = already_fetched(source, None, dest, None, overwrite=overwrite)
        if record:
            return Fetched(dest, record, before=True)
        try:
            with disk_errors(dest, "choose another place; the same command continues"):
                size = _Mirror(source, remotes, work, progress, patience).run()
        except KeyboardInterrupt as error:
            raise KeyboardInterrupt(KEPT) from error
        files = work.path / _FILES
        _check(files, check, work, source)
        record = Record(source.shown, size=size)
        with disk_errors(dest):
            record.write(files)
            replace_folder(files, dest)
    return Fetched(dest, record)


def _check(files: Path, check: Callable[[Path], object], work: WorkFolder, source: Source) -> None:
    try:
        check(files)
    except DataError as error:
        work.clear()
        reason = str(error).replace(f"{files}{os.sep}", "").partition(";")[0]
        raise DataError(
            f"{source.shown}: what it holds is damaged, or changed while it was fetched ({reason}); fetch it again, or "
            "ask its owner to pack it again"
        ) from error


class _Mirror:
    """Receives what is missing in a work folder."""

    def __init__(
        self, source: Source, remotes: Mapping[str, Remote], work: WorkFolder, progress: Progress, patience: Patience
    ) -> None:
        self._source, self._remotes, self._work = source, remotes, work
        self._progress, self._patience = progress, patience
        self._files = work.path / _FILES
        self._stop, self._lock = Event(), Lock()
        self._done = self._total = 0

    def run(self) -> int:
        """Receive all files; return the bytes of all of them."""
        pool = ThreadPoolExecutor(_WORKERS)
        try:
            files = _results([pool.submit(self._about, name) for name in self._remotes])
            self._total = sum(file.size for file in files)
            _results([pool.submit(self._receive, part) for part in self._missing(files)])
        except BaseException as error:
            self._stop.set()
            # Ctrl-C does not wait for a connection that stalls; what still arrives is the same bytes.
            pool.shutdown(wait=not isinstance(error, KeyboardInterrupt), cancel_futures=True)
            raise
        pool.shutdown()
        return self._total

    def _about(self, name: str) -> _File:
        """Ask for size and version of a file."""
        for received in receive(self._remotes[name], patience=self._patience):
            answer = received.answer
            if answer.size is None:
                raise DataError(f"{self._remotes[name].shown}: the server does not say its size; fetch an archive")
            return _File(name, answer.size, answer.version, answer.ranges and answer.version is not None)
        raise AssertionError

    def _missing(self, files: Iterable[_File]) -> list[_Part]:
        """Prepare the files, and return the parts that were not received yet."""
        plan = json.dumps([[f.name, f.size, f.version] for f in files]).encode()
        plan_path, parts_path = self._work.path / _PLAN, self._work.path / _PARTS
        received: set[str] = set()
        if plan_path.is_file() and plan_path.read_bytes() == plan and parts_path.is_file():
            received = set(parts_path.read_text(encoding="utf-8").splitlines())
        else:
            self._work.clear()
            write_file(plan_path, plan)
        missing = []
        for file in files:
            path = self._files / file.name
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("ab") as opened:
                opened.truncate(file.size)
            for part in _parts(file):
                if part.line in received and file.ranges:
                    self._done += part.end - part.start
                else:
                    missing.append(part)
        needed, free = self._total - self._done, shutil.disk_usage(self._work.path).free
        if needed > free:
            raise DataError(
                f"{self._work.path.parent}: {needed:,} bytes are needed, {free:,} are free; "
                "free some space, or choose another place"
            )
        self._progress(STAGE, self._done, self._total)
        return missing

    def _receive(self, part: _Part) -> None:
        position = part.start
        file = os.open(self._files / part.file.name, os.O_WRONLY | os.O_CLOEXEC)
        try:
            remote, version = self._remotes[part.file.name], part.file.version
            for received in receive(remote, part.start, version, part.end, self._patience):
                if self._stop.is_set():
                    return
                self._check_same(part, received, position)
                data = memoryview(received.data)[: part.end - position]
                self._report(len(data))
                while data:
                    written = os.pwrite(file, data, position)  # fewer bytes where the disk is nearly full
                    data, position = data[written:], position + written
        finally:
            os.close(file)
        self._note(part)

    def _check_same(self, part: _Part, received: Received, position: int) -> None:
        if received.answer.version != part.file.version or received.position != position:
            raise DataError(f"{self._source.shown}: {part.file.name} changed while it was fetched; fetch it again")

    def _report(self, count: int) -> None:
        with self._lock:
            self._done += count
            self._progress(STAGE, self._done, self._total)

    def _note(self, part: _Part) -> None:
        with self._lock, (self._work.path / _PARTS).open("a", encoding="utf-8") as file:
            file.write(f"{part.line}\n")


def _parts(file: _File) -> list[_Part]:
    step = _PART if file.ranges else file.size
    return [_Part(file, at, min(at + step, file.size)) for at in range(0, file.size, step)] if file.size else []


def _results(futures: list[Future[_T]]) -> list[_T]:
    """Return the results; the first error ends the wait."""
    done, _ = wait(futures, return_when=FIRST_EXCEPTION)
    for future in done:
        future.result()
    return [future.result() for future in futures]
