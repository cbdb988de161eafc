"""Bytes of a remote file: received again from where a connection broke, as long as the file is the same.

A remote file has a version, such as its ETag. What was received is continued only if the version is still that of the
beginning; otherwise it starts anew.
"""

from __future__ import annotations

import random
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from dali_asr.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator
    from contextlib import AbstractContextManager

CHUNK = 1 << 20  # bytes
BYTE_STAGES = ("fetching", "verifying the checksum", "unpacking", "copying")  # whose progress counts bytes
_MAX_RESTARTS = 3
_MAX_WAIT = 60.0  # seconds, unless the server asks for more
_MAX_ASKED = 600.0  # seconds


class Progress(Protocol):
    """Called with the name of a stage, and the amount done, of `total`."""

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Report."""


def quiet(stage: str, done: int, total: int) -> None:
    """Report no progress."""


@dataclass(frozen=True)
class Patience:
    """How long a server is waited for.

    Attributes:
        attempts: number of attempts in a row that may bring no byte.
        wait: seconds before the second attempt; doubled before each further one (exponential back-off).
        timeout: seconds without a byte after which a connection counts as broken.
    """

    attempts: int = 6
    wait: float = 1.0
    timeout: float = 30.0


PATIENCE = Patience()


class BrokenTransferError(Exception):
    """The transfer broke and may be tried again; the message says why.

    Attributes:
        wait: seconds that the server asked to wait; None if it did not.
        unreachable: whether the host's name is unknown, so that another attempt is in vain.
        changed: whether the file is no longer the one whose beginning was received.
    """

    def __init__(
        self, reason: str, *, wait: float | None = None, unreachable: bool = False, changed: bool = False
    ) -> None:
        super().__init__(reason)
        self.wait, self.unreachable, self.changed = wait, unreachable, changed


@dataclass(frozen=True)
class Answer:
    """What a server answers.

    Attributes:
        start: position of the first byte that follows.
        size: of the whole file in bytes; None if the server does not say.
        version: what changes with the file, such as its ETag; None if the server does not say.
        chunks: the bytes.
        md5: of the whole file, base64, as the server says; None if it does not.
        ranges: whether the server sends parts of the file.
    """

    start: int
    size: int | None
    version: str | None
    chunks: Iterator[bytes]
    md5: str | None = None
    ranges: bool = True


class Remote(Protocol):
    """A file on a server.

    Attributes:
        shown: its name in messages.
    """

    @property
    def shown(self) -> str:
        """The file's name in messages."""

    def open(
        self, start: int = 0, version: str | None = None, end: int | None = None
    ) -> AbstractContextManager[Answer]:
        """Ask for the bytes from `start` up to `end` if the file still has this version, otherwise for all of it.

        Raises:
            BrokenTransferError: it may be tried again.
            DataError: it will not succeed.
        """


@dataclass(frozen=True)
class Received:
    """Bytes that arrived.

    Attributes:
        position: of the first of them in the file.
        data: the bytes.
        answer: what they are part of.
    """

    position: int
    data: bytes
    answer: Answer


def receive(
    remote: Remote, start: int = 0, version: str | None = None, end: int | None = None, patience: Patience = PATIENCE
) -> Generator[Received]:
    """Yield the bytes of a remote file, across broken connections.

    A position that is smaller than the end of what was yielded before says that the file is received anew.

    Args:
        remote: the file.
        start: first position; with `version`, that of what was received before.
        version: the version that the bytes before `start` belong to.
        end: position after the last byte; by default that of the file.
        patience: how long to wait.

    Raises:
        DataError: the file cannot be received; says what remains to be done.
    """
    place = _Place(remote, start, version)
    failures, arrived = 0, False
    while True:
        try:
            with remote.open(place.position if place.version else 0, place.version, end) as answer:
                place.begin(answer)
                yield Received(place.position, b"", answer)
                for data in answer.chunks:
                    yield Received(place.position, data, answer)
                    place.position += len(data)
                    failures, arrived = 0, True
                _check_end(place.position, end if end is not None else answer.size)
                return
        except BrokenTransferError as broken:
            failures += 1
            if broken.changed:
                place.restart()
            else:
                in_vain = broken.unreachable and not arrived
                pause(remote.shown, broken, patience.attempts if in_vain else failures, place.position, patience)


@dataclass
class _Place:
    """How much of a remote file has been received, and of which version."""

    remote: Remote
    position: int
    version: str | None
    restarts: int = 0

    def begin(self, answer: Answer) -> None:
        """Continue where an answer starts; a part of another version than before is of no use."""
        if self.position and (answer.start == 0 or answer.version != self.version):
            self.restart()
        self.version = answer.version
        if answer.start != self.position:
            raise BrokenTransferError("the file changed")

    def restart(self) -> None:
        """Start anew, because the file changed."""
        self.position, self.version = 0, None
        self.restarts += 1
        if self.restarts > _MAX_RESTARTS:
            raise DataError(
                f"{self.remote.shown}: differs each time it is asked for, or is shorter than announced; "
                "try again later, or give another link"
            )


def _check_end(position: int, end: int | None) -> None:
    if end is not None and position < end:
        raise BrokenTransferError(f"the connection ended after {position:,} of {end:,} bytes")


def pause(shown: str, broken: BrokenTransferError, failures: int, position: int, patience: Patience) -> None:
    """Wait before another attempt: as long as the server asks, or longer with each failure, with jitter.

    Args:
        shown: name of the source in messages.
        broken: why the last attempt ended.
        failures: number of attempts in a row that brought no byte.
        position: number of bytes that were received.
        patience: how long to wait.

    Raises:
        DataError: another attempt is in vain, or there were enough of them.
    """
    if failures >= patience.attempts:
        raise _given_up(shown, broken, position) from broken
    seconds = broken.wait
    if seconds is None:
        seconds = min(_MAX_WAIT, patience.wait * 2.0 ** (failures - 1)) * random.uniform(0.75, 1.25)  # noqa: S311
    elif seconds > _MAX_ASKED:
        raise DataError(f"{shown}: {broken}, for {seconds / 60:,.0f} minutes; try again later") from broken
    time.sleep(seconds)


def _given_up(shown: str, broken: BrokenTransferError, position: int) -> DataError:
    if position:
        return DataError(f"{shown}: {broken}; start again to continue after {position:,} bytes")
    return DataError(
        f"{shown}: {broken}; check the link and the network, or fetch it on a machine that has one and give "
        "its path here"
    )
