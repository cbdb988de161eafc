"""Files behind http:// and https:// links.

httpx gives the bytes as they are sent and as they come (`iter_raw`): other clients decompress a `.tar.gz` that is sent
with `Content-Encoding: gzip`, and then neither its length nor its checksum is right. Its timeouts apply to every
read.
"""

from __future__ import annotations

import re
import socket
from contextlib import closing, contextmanager
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from functools import cached_property
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from dali_asr.errors import DataError, UsageError
from dali_asr.fetching.transfer import PATIENCE, Answer, BrokenTransferError, Patience, receive

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import httpx

RETRIED = (408, 429, 500, 502, 503, 504)
_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+|\*)")


class RefusedError(DataError):
    """The server has no such file, or does not give it."""


class HttpRemote:
    """A file behind a link.

    Attributes:
        url: the link.
        shown: its name in messages.
    """

    def __init__(self, url: str, shown: str, patience: Patience = PATIENCE) -> None:
        self.url, self.shown, self._patience = url, shown, patience

    @cached_property
    def _client(self) -> httpx.Client:
        import httpx

        return httpx.Client(
            follow_redirects=True,
            timeout=self._patience.timeout,
            headers={"User-Agent": "dali-asr", "Accept-Encoding": "identity"},
        )

    def child(self, name: str) -> HttpRemote:
        """Return a file in the folder behind the link; it shares the connections."""
        child = HttpRemote(f"{self.url.rstrip('/')}/{name}", f"{self.shown.rstrip('/')}/{name}", self._patience)
        child.__dict__["_client"] = self._client
        return child

    @property
    def exists(self) -> bool:
        """Whether the server gives the file."""
        try:
            with closing(receive(self, patience=self._patience)) as answers:
                next(answers)
        except RefusedError:
            return False
        return True

    @contextmanager
    def open(self, start: int = 0, version: str | None = None, end: int | None = None) -> Iterator[Answer]:
        """Ask for the file, or for a part of it if it still has this version (`Range` and `If-Range`, RFC 9110).

        Raises:
            BrokenTransferError: the connection broke or stalled, or the server is busy.
            DataError: there is no such file, access is denied, or the answer is a web page.
        """
        import httpx

        asked = {}
        if version and (start or end is not None):
            asked = {"Range": f"bytes={start}-{'' if end is None else end - 1}", "If-Range": version}
        try:
            with self._client.stream("GET", self.url, headers=asked) as response:
                self._check_status(response)
                yield self._answer(response, version)
        except (httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
            raise UsageError(f"{self.shown}: {error}; give a whole link") from error
        except httpx.TimeoutException as error:
            raise BrokenTransferError(f"no answer for {self._patience.timeout:g} seconds") from error
        except httpx.TransportError as error:
            raise unreachable(error, urlsplit(self.url).hostname) from error
        except httpx.TooManyRedirects as error:
            raise DataError(f"{self.shown}: redirects without end; give another link") from error

    def _check_status(self, response: httpx.Response) -> None:
        status = response.status_code
        if status in (200, 206):
            self._refuse_page(response)
        elif status == 416:  # the file is shorter now than what was received
            raise BrokenTransferError("the file changed", changed=True)
        elif status in RETRIED:
            wait = _retry_after(response.headers.get("Retry-After"))
            reason = "too many requests" if status == 429 else "the server is busy or failed"
            raise BrokenTransferError(f"{reason} (HTTP {status})", wait=wait)
        elif status in (401, 403):
            raise RefusedError(
                f"{self.shown}: access denied (HTTP {status}); check the link and its permissions, "
                "or download the file with a browser and give its path"
            )
        elif status in (404, 410):
            raise RefusedError(f"{self.shown}: not found (HTTP {status}); check the link")
        else:
            raise RefusedError(f"{self.shown}: the server answered HTTP {status}; check the link")

    def _refuse_page(self, response: httpx.Response) -> None:
        if response.headers.get("Content-Type", "").partition(";")[0].strip().lower() == "text/html":
            raise web_page(self.shown, response.url.host)

    def _answer(self, response: httpx.Response, asked: str | None) -> Answer:
        headers = response.headers
        version = _version(headers)
        start, size = 0, int(headers["Content-Length"]) if headers.get("Content-Length", "").isdigit() else None
        if response.status_code == 206:
            place = _RANGE.fullmatch(headers.get("Content-Range", ""))
            if not place:
                raise DataError(f"{self.shown}: the server sent a part without saying which; give another link")
            start, size = int(place[1]), None if place[2] == "*" else int(place[2])
            version = version or asked  # which the server has compared
        ranges = response.status_code == 206 or headers.get("Accept-Ranges", "") == "bytes"
        return Answer(start, size, version, response.iter_raw(), _md5(headers), ranges)


def web_page(shown: str, host: str) -> RefusedError:
    """Return the error for a web page where a file was expected."""
    return RefusedError(
        f"{shown}: received a web page (HTML) of {host} instead of a file, perhaps its login; "
        "give a direct link, or download the file with a browser and give its path"
    )


def unreachable(error: BaseException, host: str | None) -> BrokenTransferError:
    """Return what a failed connection means."""
    cause: BaseException | None = error
    while cause and not isinstance(cause, socket.gaierror):
        cause = cause.__cause__ or cause.__context__
    if cause:
        return BrokenTransferError(
            f"the host {host} is unknown ({getattr(cause, 'strerror', cause)})", unreachable=True
        )
    return BrokenTransferError(f"the connection to {host} failed ({str(error) or type(error).__name__})")


def _version(headers: Mapping[str, str]) -> str | None:
    """Return what identifies the content byte by byte: a strong ETag, or the time of the last change."""
    tag = headers.get("ETag")
    return tag if tag and not tag.startswith("W/") else headers.get("Last-Modified")


def _md5(headers: Mapping[str, str]) -> str | None:
    """Return the MD5 that Google Cloud Storage sends, where Kaggle keeps its files."""
    found = re.search(r"md5=([A-Za-z0-9+/]{22}==)", headers.get("x-goog-hash", ""))
    return found[1] if found else None


def _retry_after(value: str | None) -> float | None:
    """Return the seconds that `Retry-After` asks for: a number, or a date."""
    if value is None:
        return None
    if value.strip().isdigit():
        return float(value)
    try:
        return max(0.0, (parsedate_to_datetime(value) - datetime.now(timezone.utc)).total_seconds())
    except (ValueError, TypeError):
        return None
