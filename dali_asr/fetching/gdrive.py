"""Files on Google Drive, through gdown, which answers Drive's question about large files and continues partial ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dali_asr.errors import DataError, UsageError
from dali_asr.fetching.download import STAGE, Downloaded, check_sha256, file_sha256
from dali_asr.fetching.http import RETRIED, unreachable
from dali_asr.fetching.transfer import PATIENCE, BrokenTransferError, Patience, Progress, pause
from dali_asr.files import disk_errors

if TYPE_CHECKING:
    from pathlib import Path


def download_from_drive(
    identifier: str, folder: Path, *, sha256: str | None, progress: Progress, patience: Patience = PATIENCE
) -> Downloaded:
    """Download a file of Google Drive into a folder; arguments and errors as in `download`."""
    shown = f"gdrive:{identifier}"
    try:
        import gdown
        from gdown.exceptions import DownloadError
        from requests.exceptions import RequestException
    except ImportError as error:
        raise UsageError(f"{shown}: needs gdown; pip install 'dali-asr[gdrive]'") from error
    path, done = folder / f"drive-{identifier}", 0  # gdown continues whatever partial file has the name

    def report(count: int, total: int | None) -> None:
        nonlocal done
        done = count
        progress(STAGE, count, count + 1 if total is None else total)

    failures = 0
    while not path.exists():
        before = done
        try:
            gdown.download(
                id=identifier,
                output=str(path),
                quiet=True,
                use_cookies=False,
                resume=True,
                progress=report,
                timeout=patience.timeout,
            )
        except (DownloadError, RequestException) as error:
            broken = _meaning(error, shown)
            failures = 1 if done > before else failures + 1
            failures = patience.attempts if broken.unreachable and not done else failures
            pause(shown, broken, failures, done, patience)
    with disk_errors(path):
        found = file_sha256(path, progress)
        try:
            check_sha256(shown, found, sha256)
        except DataError:
            path.unlink()
            raise
        return Downloaded(path, path.stat().st_size, found, None)


def _meaning(error: Exception, shown: str) -> BrokenTransferError:
    """Return what broke, if it may be tried again.

    Raises:
        DataError: another attempt is in vain.
    """
    from gdown.exceptions import FileURLRetrievalError

    status = getattr(getattr(error, "response", None), "status_code", None)
    if status and status not in RETRIED:
        raise DataError(f"{shown}: Google Drive answered HTTP {status}; check the identifier") from error
    if isinstance(error, FileURLRetrievalError):
        reason = " ".join(str(error).split()).rstrip(".")
        raise DataError(
            f"{shown}: {reason}; share the file with anyone who has the link, or download it with a browser and give "
            "its path"
        ) from error
    return unreachable(error, "drive.google.com")
