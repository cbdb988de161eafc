"""The data of Kaggle competitions, through kagglehub's client, which finds the user's key in its own places.

Only the address of the archive is asked for there: `kagglehub.competition_download` unpacks it at once, without limits,
continues a file that has changed, and draws a progress bar of its own.
"""

from __future__ import annotations

from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from contextlib import contextmanager
from threading import Thread
from typing import TYPE_CHECKING, Any

from dali_asr.errors import DataError, UsageError
from dali_asr.fetching.http import HttpRemote, unreachable
from dali_asr.fetching.transfer import CHUNK, PATIENCE, Answer, BrokenTransferError, Patience

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_SITE = "https://www.kaggle.com"
KEY_ADVICE = f"make one at {_SITE}/settings/api and save it as ~/.kaggle/access_token, or log in: kaggle auth login"


def _within(seconds: float, call: Callable[[], Any]) -> Any:
    """Return what a call returns; its client would wait for a silent server without end."""
    result: Future[Any] = Future()

    def run() -> None:
        try:
            result.set_result(call())
        except BaseException as error:  # noqa: BLE001 - raised in the caller
            result.set_exception(error)

    Thread(target=run, daemon=True).start()
    try:
        return result.result(seconds)
    except FutureTimeoutError as error:
        raise BrokenTransferError(f"no answer of the Kaggle API for {seconds:g} seconds") from error


class KaggleRemote:
    """The archive of a competition's data.

    Attributes:
        competition: the last part of the competition's address.
        shown: its name in messages.
    """

    def __init__(self, competition: str, patience: Patience = PATIENCE) -> None:
        self.competition, self.shown, self._patience = competition, f"kaggle:{competition}", patience

    @contextmanager
    def open(self, start: int = 0, version: str | None = None, end: int | None = None) -> Iterator[Answer]:
        """Ask for the archive, or for a part of it if it still has this version.

        Raises:
            BrokenTransferError: the connection broke or stalled, or the server is busy.
            DataError: there is no key or a wrong one, the rules are not accepted, or there is no such competition.
            UsageError: kagglehub is not installed.
        """
        with self._asked() as response:
            if not response.history:  # the archive itself; usually a redirection to where it is stored
                size = response.headers.get("Content-Length")
                yield Answer(0, int(size) if size else None, None, response.iter_content(CHUNK), ranges=False)
                return
            stored = HttpRemote(response.url, self.shown, self._patience)
        with stored.open(start, version, end) as answer:
            yield answer

    @contextmanager
    def _asked(self) -> Iterator[Any]:
        """Ask Kaggle for the archive; yields the response, whose body is not read."""
        try:
            from kagglehub.clients import build_kaggle_client
            from kagglehub.config import get_kaggle_credentials
            from kagglesdk.competitions.types.competition_api_service import ApiDownloadDataFilesRequest
            from requests.exceptions import HTTPError, RequestException
        except ImportError as error:
            raise UsageError(f"{self.shown}: needs kagglehub; pip install 'dali-asr[kaggle]'") from error
        try:
            if not get_kaggle_credentials():
                raise DataError(f"{self.shown}: no Kaggle key found; {KEY_ADVICE}")
        except ValueError as error:
            raise DataError(f"{self.shown}: {error}; {KEY_ADVICE}") from error
        request = ApiDownloadDataFilesRequest()
        request.competition_name = self.competition
        try:
            with build_kaggle_client() as client:
                api = client.competitions.competition_api_client
                with _within(self._patience.timeout, lambda: api.download_data_files(request)) as response:
                    yield response
        except HTTPError as error:
            raise self._refused(getattr(error.response, "status_code", 0)) from error
        except RequestException as error:
            raise unreachable(error, "of the Kaggle API") from error

    def _refused(self, status: int) -> Exception:
        if status == 401:
            return DataError(f"{self.shown}: Kaggle does not accept the key (HTTP 401); {KEY_ADVICE}")
        if status == 403:
            return DataError(
                f"{self.shown}: Kaggle denies access (HTTP 403), most often because the rules are not accepted; "
                f"accept them at {_SITE}/competitions/{self.competition}/rules and start again"
            )
        if status == 404:
            return DataError(
                f"{self.shown}: Kaggle has no such competition (HTTP 404); "
                f"give the last part of its address, {_SITE}/competitions/NAME"
            )
        return BrokenTransferError(f"Kaggle answered HTTP {status}")
