"""An HTTP server on loopback that does to its clients what servers do."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread
from typing import Any

from dali_asr.fetching.transfer import Patience

HURRIED = Patience(attempts=3, wait=0.01, timeout=0.3)

Mischief = Callable[["Handler"], bool]  # returns whether it has answered


class FileServer(ThreadingHTTPServer):
    """Serves files from memory, with ETag and ranges.

    Attributes:
        files: content by path, which begins with a slash.
        mischief: what is done at the next requests, one each; may change what the server holds or answer itself.
        requests: path and `Range` of each request that came.
        etags: whether files have ETags.
        ranges: whether parts are sent.
        pause: seconds between pieces of 64 KiB.
        headers: sent with every file.
    """

    daemon_threads = True
    request_queue_size = 64

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.mischief: list[Mischief] = []
        self.requests: list[tuple[str, str | None]] = []
        self.etags = self.ranges = True
        self.pause = 0.0
        self.headers = {"Content-Type": "application/octet-stream"}
        self.closing = Event()

    def url(self, path: str) -> str:
        """Return the link to a path."""
        return f"http://127.0.0.1:{self.server_port}{path}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing about clients that hang up."""


@contextmanager
def serving(files: dict[str, bytes] | None = None) -> Iterator[FileServer]:
    """Run a server while the block runs."""
    with FileServer() as server:
        server.files.update(files or {})
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        yield server
        server.closing.set()
        server.shutdown()


class Handler(BaseHTTPRequestHandler):
    """Answers one request."""

    server: FileServer

    def do_GET(self) -> None:
        """Answer a request for a file."""
        self.server.requests.append((self.path, self.headers.get("Range")))
        if self.server.mischief and self.server.mischief.pop(0)(self):
            return
        if self.path.partition("?")[0] in self.server.files:
            self.send_part(self.content)
        else:
            self.refuse(404)

    @property
    def content(self) -> bytes:
        """Content of the file that is asked for."""
        return self.server.files[self.path.partition("?")[0]]

    def refuse(self, status: int, **headers: str) -> None:
        """Answer with a status, and `Retry_After` and other headers, with `_` for `-`."""
        self.send_response(status)
        for name, value in (self.server.headers | headers).items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def send_part(self, content: bytes, *, stop_after: int | None = None, announced: int | None = None) -> None:
        """Send what was asked for; hang up after some bytes, or announce another length."""
        tag = f'"{hashlib.md5(content).hexdigest()}"' if self.server.etags else None
        asked = self.headers.get("Range") if self.server.ranges else None
        start, end = 0, len(content)
        if asked and self.headers.get("If-Range") in (None, tag):
            first, _, last = asked.removeprefix("bytes=").partition("-")
            start, end = int(first), min(len(content), int(last) + 1 if last else len(content))
            if start >= len(content):
                self.refuse(416)
                return
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{end - 1}/{announced or len(content)}")
        else:
            self.send_response(200)
        self.send_header("Content-Length", str((announced or end) - start if announced else end - start))
        for name, value in self.server.headers.items():
            self.send_header(name, value)
        if tag:
            self.send_header("ETag", tag)
        if self.server.ranges:
            self.send_header("Accept-Ranges", "bytes")
        self.end_headers()
        self._send(content[start:end] if stop_after is None else content[start : start + stop_after])

    def _send(self, content: bytes) -> None:
        for at in range(0, len(content), 1 << 16):
            self.wfile.write(content[at : at + (1 << 16)])
            if self.server.pause:
                time.sleep(self.server.pause)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def breaks(after: int) -> Mischief:
    """Hang up after some bytes of the file."""

    def act(handler: Handler) -> bool:
        handler.send_part(handler.content, stop_after=after)
        return True

    return act


def stalls(after: int) -> Mischief:
    """Send some bytes of the file, and then nothing."""

    def act(handler: Handler) -> bool:
        handler.send_part(handler.content, stop_after=after)
        handler.wfile.flush()
        handler.server.closing.wait(5)
        return True

    return act


def announces(size: int) -> Mischief:
    """Send the file and announce another length."""

    def act(handler: Handler) -> bool:
        handler.send_part(handler.content, announced=size)
        return True

    return act


def answers(status: int, **headers: str) -> Mischief:
    """Answer with a status."""

    def act(handler: Handler) -> bool:
        handler.refuse(status, **headers)
        return True

    return act


def changes(path: str, content: bytes) -> Mischief:
    """Replace a file, and then answer as usual."""

    def act(handler: Handler) -> bool:
        handler.server.files[path] = content
        return False

    return act


def as_usual(_: Handler) -> bool:
    """Do nothing."""
    return False


def shows_page(handler: Handler) -> bool:
    """Answer with a web page."""
    page = b"<!DOCTYPE html><title>Log in</title>"
    handler.send_response(200)
    handler.send_header("Content-Type", "text/html; charset=utf-8")
    handler.send_header("Content-Length", str(len(page)))
    handler.end_headers()
    handler.wfile.write(page)
    return True
