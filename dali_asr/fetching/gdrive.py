"""Files on Google Drive, through gdown, which answers Drive's question about large files and continues partial ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dali_asr.errors import DataError, UsageError
from dali_asr.fetching.download import FILE, STAGE, Downloaded, check_sha256, file_sha256
from dali_asr.fetching.http import unreachable
from dali_asr.fetching.transfer import PATIENCE, Patience, Progress
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
    path = folder / FILE

    def report(done: int, total: int | None) -> None:
        progress(STAGE, done, done + 1 if total is None else total)

    try:
        gdown.download(
            id=identifier,
            output=str(path),
            quiet=True,
            use_cookies=False,
            resume=True,
            progress=report,
            timeout=patience.timeout,
            retries=patience.attempts - 1,
        )
    except DownloadError as error:
        reason = " ".join(str(error).split()).rstrip(".")
        raise DataError(
            f"{shown}: {reason}; share the file with anyone who has the link, or download it with a browser and give "
            "its path"
        ) from error
    except RequestException as error:
        status = getattr(error.response, "status_code", None)
        if status:
            raise DataError(f"{shown}: Google Drive answered HTTP {status}; check the identifier") from error
        reason = str(unreachable(error, "drive.google.com"))
        raise DataError(
            f"{shown}: {reason}; check the network, or fetch it on a machine that has one and give its path here"
        ) from error
    with disk_errors(path):
        found = file_sha256(path, progress)
        check_sha256(shown, found, sha256)
        return Downloaded(path, path.stat().st_size, found, None)
