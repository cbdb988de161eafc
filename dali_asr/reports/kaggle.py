"""Competitions on Kaggle, by the `kaggle` package: their sample, and sending a submission.

The package finds its key where it always does: the variable KAGGLE_API_TOKEN, `~/.kaggle/access_token`, what
`kaggle auth login` left, KAGGLE_USERNAME and KAGGLE_KEY, or `~/.kaggle/kaggle.json`. It prints, and ends the process
without a key; both are contained here.
"""

from __future__ import annotations

import re
from contextlib import contextmanager, redirect_stdout, suppress
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dali_asr.errors import DaliAsrError, DataError, UsageError
from dali_asr.fetching.kaggle import KEY_ADVICE

if TYPE_CHECKING:
    from collections.abc import Iterator

_SITE = "https://www.kaggle.com"
_SAMPLES = ("sample_submission.csv", "sampleSubmission.csv", "random_submission.csv")
_FILES_PER_PAGE = 200
_NAME = re.compile(rf"(?:{re.escape(_SITE)}/(?:competitions|c)/)?([A-Za-z0-9][\w-]*)(?:/.*)?")


class Competition:
    """A competition.

    Args:
        name: as in its address, `https://www.kaggle.com/competitions/NAME`; the address will do.

    Raises:
        UsageError: that is no name, or the `kaggle` package is not installed.
        DataError: there is no key, Kaggle refuses it, or cannot be reached.
    """

    def __init__(self, name: str) -> None:
        found = _NAME.fullmatch(name)
        if not found:
            raise UsageError(f"competition {name!r}: not a name; give the NAME of {_SITE}/competitions/NAME")
        self.name = found[1]
        with self._errors():
            self._api = _client()

    @property
    def page(self) -> str:
        """The address of its page."""
        return f"{_SITE}/competitions/{self.name}"

    def fetch_sample(self, folder: Path) -> Path:
        """Download the sample submission into a folder and return its path.

        Raises:
            DataError: there is none, or Kaggle refuses.
        """
        with self._errors():
            listed = self._api.competition_list_files(self.name, page_size=_FILES_PER_PAGE).files
        names = [str(file.name) for file in listed or ()]
        likely = [name for name in names if Path(name).name.removesuffix(".zip") in _SAMPLES]
        for name in likely or _SAMPLES:  # of many files, it may not be among those listed first
            with self._errors(missing=not likely):
                self._api.competition_download_file(
                    self.name, name, path=str(folder), force=True, quiet=True, unzip=True
                )
                return next(folder.rglob("*.csv"))
        raise DataError(f"{self.page}/data: no {_SAMPLES[0]} among its files; download the sample and name its file")

    def check_allowance(self) -> None:
        """Check that a submission is left today.

        Raises:
            DataError: there is none.
        """
        from requests import RequestException

        with suppress(RequestException), redirect_stdout(StringIO()):  # sending will say what is wrong
            limits = self._api.competition_get_submission_limits(self.name)
            # The counts of those without a team are all zero.
            if not limits.num_allowed_now and limits.num_total:
                when = "in all" if limits.limited_by_total else "today; the next day begins at 00:00 UTC"
                raise DataError(
                    f"{self.page}: the limit of submissions is reached, "
                    f"{limits.num_total if limits.limited_by_total else limits.num_today} were sent {when}"
                )

    def send(self, submission: Path, message: str) -> str:
        """Send a submission file, and return what Kaggle answers.

        Raises:
            DataError: Kaggle refuses it, or cannot be reached.
        """
        with self._errors(), redirect_stdout(StringIO()) as printed:
            answer = self._api.competition_submit(str(submission), message, self.name, quiet=True)
        said = str(answer.message)
        if said == self._api.COMPETITION_SUBMIT_UPLOAD_FAILED_MESSAGE:
            reason = " ".join(printed.getvalue().split())[:200] or "no reason was given"
            raise DataError(f"{submission}: the upload failed ({reason}); try again, or upload it at {self.page}")
        return said

    @contextmanager
    def _errors(self, *, missing: bool = False) -> Iterator[None]:
        """Turn an error of the package into one line, and drop what it prints.

        Args:
            missing: whether to go on after the answer that a file is missing.

        Raises:
            UsageError: the competition is unknown.
            DataError: everything else.
        """
        try:
            with redirect_stdout(StringIO()):
                yield
        except DaliAsrError:
            raise
        except Exception as error:
            status = getattr(getattr(error, "response", None), "status_code", None)
            if status == 404 and missing:
                return
            explained = self._explain(error, status)
            if explained is None:
                raise
            raise explained from error

    def _explain(self, error: Exception, status: int | None) -> DaliAsrError | None:
        """Return the error to raise instead; None if it is not about Kaggle's answer or the network."""
        said = " ".join(str(error).split())[:200]
        if status == 404:
            return UsageError(f"competition {self.name}: Kaggle knows none of this name; give the NAME of {self.page}")
        reasons = {
            401: f"Kaggle refuses the key; make a new one at {_SITE}/settings/api",
            403: f"Kaggle refuses ({said}); join the competition and accept its rules at {self.page}/rules",
            429: "Kaggle receives too many requests; wait a minute and try again",
        }
        if status is not None:
            reason = reasons.get(status, f"Kaggle answers {status} ({said}); see {self.page}")
            return DataError(f"competition {self.name}: {reason}")
        if isinstance(error, OSError):  # requests' errors are
            return DataError(
                f"api.kaggle.com: cannot be reached ({_cause(error)}); connect to the network, or upload the file "
                f"later at {self.page}"
            )
        return None


def _client() -> Any:
    """Return the package's client, with its key."""
    try:
        from kaggle import api

        api.authenticate()
    except ImportError as error:
        raise UsageError("the kaggle package is not installed; pip install 'dali-asr[kaggle]'") from error
    except SystemExit as error:
        raise DataError(f"Kaggle: found no valid key; {KEY_ADVICE}") from error
    return api


def _cause(error: BaseException) -> str:
    """Return the innermost reason of an error, without the objects that requests prints."""
    while error.__cause__ or error.__context__:
        error = error.__cause__ or error.__context__ or error
    return " ".join(str(getattr(error, "strerror", None) or error).split())[:120]
