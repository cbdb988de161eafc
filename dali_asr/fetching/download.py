"""Downloading one remote file into a folder, where another process can continue it.

`file` holds what was received, `state.json` which version it is of. The version is written before the first byte.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from base64 import b64encode
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from dali_asr.errors import DataError
from dali_asr.fetching.transfer import CHUNK, PATIENCE, Patience, Progress, receive
from dali_asr.fetching.work import FILE, STATE
from dali_asr.files import disk_errors, write_file

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from dali_asr.fetching.transfer import Answer, Remote

STAGE = "fetching"


@dataclass(frozen=True)
class Downloaded:
    """A file that was downloaded and verified.

    Attributes:
        path: of the file.
        size: in bytes; None for a folder.
        sha256: of its content, 64 hexadecimal digits; empty if it was not computed.
        version: that the server gave it; None if it gave none.
    """

    path: Path
    size: int | None
    sha256: str
    version: str | None


@dataclass(frozen=True)
class _State:
    """What is known of a partial file."""

    source: str
    version: str | None
    size: int | None
    md5: str | None = None
    complete: bool = False


class _Partial:
    """A partial file, its checksums, and its state on the disk."""

    def __init__(self, folder: Path, source: str) -> None:
        self.path, self._state_path = folder / FILE, folder / STATE
        self.sha256, self.md5 = hashlib.sha256(), hashlib.md5(usedforsecurity=False)
        self.state = self._read_state(source)
        self.size = 0
        if self.state.complete or self.state.version:
            for chunk in _chunks(self.path):
                self._count(chunk)
        self._file = self.path.open("ab")
        self._file.truncate(self.size)

    def _read_state(self, source: str) -> _State:
        try:
            state = _State(**json.loads(self._state_path.read_bytes()))
        except (OSError, ValueError, TypeError):
            return _State(source, None, None)
        return state if state.source == source and self.path.is_file() else _State(source, None, None)

    @property
    def is_complete(self) -> bool:
        """Whether all bytes are there."""
        return self.state.complete and self.state.size in (None, self.size)

    def begin(self, position: int, answer: Answer) -> None:
        """Continue at a position with what a server answered."""
        if position < self.size:
            self._file.truncate(position)
            self._file.seek(position)
            self.size = position
            self.sha256, self.md5 = hashlib.sha256(), hashlib.md5(usedforsecurity=False)
        if answer.size is not None and answer.size - position > (free := shutil.disk_usage(self.path.parent).free):
            raise DataError(
                f"{self.path.parent}: {answer.size - position:,} bytes are needed, {free:,} are free; "
                "free some space, or choose another place"
            )
        self._write_state(_State(self.state.source, answer.version, answer.size, answer.md5))

    def append(self, data: bytes) -> None:
        """Write bytes at the end."""
        self._file.write(data)
        self._count(data)

    def finish(self) -> None:
        """Note that all bytes are there."""
        self._file.close()
        self._write_state(_State(**(asdict(self.state) | {"complete": True})))

    def close(self) -> None:
        """Close the file; what cannot be written then is received again."""
        self._file.close()

    def _write_state(self, state: _State) -> None:
        if state != self.state:
            write_file(self._state_path, json.dumps(asdict(state)).encode())
            self.state = state

    def _count(self, data: bytes) -> None:
        self.sha256.update(data)
        self.md5.update(data)
        self.size += len(data)


def download(
    remote: Remote, folder: Path, *, sha256: str | None, progress: Progress, patience: Patience = PATIENCE
) -> Downloaded:
    """Download a file into a folder, or continue what another process began there.

    Args:
        remote: the file.
        folder: an existing folder, that one process at a time uses.
        sha256: the checksum that the file must have, 64 hexadecimal digits; None for any.
        progress: called with the bytes received, and of the whole file.
        patience: how long to wait.

    Raises:
        DataError: it cannot be received or written, or length or checksum are wrong.
    """
    with disk_errors(folder, f"choose another place; the same command continues what is in {folder}"):
        partial = _Partial(folder, remote.shown)
        try:
            if not partial.is_complete:
                _receive_into(partial, remote, progress, patience)
                partial.finish()
        finally:
            partial.close()
    _verify(partial, remote, sha256)
    return Downloaded(partial.path, partial.size, partial.sha256.hexdigest(), partial.state.version)


def file_sha256(path: Path, progress: Progress) -> str:
    """Return the SHA-256 of a file, 64 hexadecimal digits."""
    digest, total, done = hashlib.sha256(), path.stat().st_size, 0
    for chunk in _chunks(path):
        digest.update(chunk)
        done += len(chunk)
        progress("verifying the checksum", done, total)
    return digest.hexdigest()


def check_sha256(shown: str, found: str, expected: str | None) -> None:
    """Compare a checksum with the expected one.

    Raises:
        DataError: they differ.
    """
    if expected is not None and found != expected:
        raise DataError(
            f"{shown}: has SHA-256 {found}, expected {expected}; the file was replaced or is damaged: "
            "ask its owner for the right checksum, or for the file"
        )


def _receive_into(partial: _Partial, remote: Remote, progress: Progress, patience: Patience) -> None:
    if partial.size and partial.size == partial.state.size:
        return  # killed between the last byte and the note of it
    for received in receive(remote, partial.size, partial.state.version, patience=patience):
        if not received.data:
            partial.begin(received.position, received.answer)
        partial.append(received.data)
        total = received.answer.size
        progress(STAGE, partial.size, partial.size + 1 if total is None else total)


def _verify(partial: _Partial, remote: Remote, sha256: str | None) -> None:
    """Compare the checksums; a file with a wrong one is of no use and removed."""
    try:
        announced = partial.state.md5
        if announced and announced != b64encode(partial.md5.digest()).decode():
            raise DataError(f"{remote.shown}: arrived damaged (its MD5 differs from the server's); fetch it again")
        check_sha256(remote.shown, partial.sha256.hexdigest(), sha256)
    except DataError:
        partial.path.unlink()
        raise


def _chunks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            yield chunk
