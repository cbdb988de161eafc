"""Files in buckets and on whatever else fsspec knows: s3://, gs://, sftp://, ..."""

from __future__ import annotations

from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from dali_asr.errors import DataError, UsageError
from dali_asr.fetching.http import unreachable
from dali_asr.fetching.transfer import PATIENCE, Answer, BrokenTransferError, Patience

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dali_asr.fetching.sources import Source

_PART = 8 << 20  # bytes per request
_EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gcs", "gcs": "gcs"}
_VERSIONS = ("ETag", "etag", "md5Hash", "LastModified", "mtime", "last_modified", "updated", "modified")
# A listing that was kept hides that a file changed; an instance, that keys did.
_OPTIONS: dict[str, Any] = {"use_listings_cache": False, "skip_instance_cache": True}


class StoreRemote:
    """A file or folder in a store.

    Attributes:
        files: the file system of fsspec.
        path: in it.
        shown: its name in messages.
    """

    def __init__(self, files: Any, path: str, shown: str) -> None:
        self.files, self.path, self.shown = files, path, shown

    @classmethod
    def of(cls, source: Source, patience: Patience = PATIENCE) -> StoreRemote:
        """Return the file or folder that a source names.

        A bucket is read without signing where there are no credentials, as public buckets allow.

        Raises:
            UsageError: the library for it is not installed, or the link is not valid.
        """
        from fsspec.core import url_to_fs

        try:
            files, path = url_to_fs(source.name, **_OPTIONS, **_options(source.scheme, patience))
        except ImportError as error:
            extra = _EXTRAS.get(source.scheme)
            remedy = f"pip install 'dali-asr[{extra}]'" if extra else f"install what fsspec asks for: {error}"
            raise UsageError(f"{source.shown}: {source.scheme}:// needs another package; {remedy}") from error
        except (ValueError, TypeError) as error:
            raise UsageError(f"{source.shown}: {' '.join(str(error).split())}; check the link") from error
        return cls(files, path, source.shown)

    def child(self, name: str) -> StoreRemote:
        """Return a file in this folder."""
        return StoreRemote(self.files, f"{self.path.rstrip('/')}/{name}", f"{self.shown.rstrip('/')}/{name}")

    @property
    def exists(self) -> bool:
        """Whether there is such a file or folder."""
        with self._errors():
            return bool(self.files.exists(self.path))

    @property
    def is_folder(self) -> bool:
        """Whether this is a folder."""
        with self._errors():
            return not self.files.isfile(self.path) and bool(self.files.isdir(self.path))

    def listing(self) -> list[str]:
        """Return the paths of all files in this folder, relative to it."""
        with self._errors():
            found = self.files.find(self.path)
        prefix = f"{self.path.rstrip('/')}/"
        return [path.removeprefix(prefix) for path in found if path.startswith(prefix) and not path.endswith("/")]

    @contextmanager
    def open(self, start: int = 0, version: str | None = None, end: int | None = None) -> Iterator[Answer]:
        """Ask for the file, or for a part of it if it still has this version.

        Raises:
            BrokenTransferError: the store failed.
            DataError: there is no such file, or access is denied.
        """
        size, current = self._about()
        if start and version != current:
            start = 0
        yield Answer(start, size, current, self._chunks(start, size if end is None else end, current))

    def _about(self) -> tuple[int, str | None]:
        """Return size and version."""
        with self._errors():
            about = self.files.info(self.path)
        if about["type"] != "file":
            raise DataError(f"{self.shown}: is not a file; check the link")
        return int(about["size"]), next((str(about[key]) for key in _VERSIONS if about.get(key)), None)

    def _chunks(self, start: int, end: int, version: str | None) -> Iterator[bytes]:
        while start < end:
            with self._errors():
                data = self.files.cat_file(self.path, start=start, end=min(start + _PART, end))
            if not data:
                return
            start += len(data)
            yield data
        if self._about()[1] != version:
            raise BrokenTransferError("the file changed while it was read", changed=True)

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """Turn the errors of a store into ours."""
        try:
            yield
        except FileNotFoundError as error:
            raise DataError(f"{self.shown}: not found; check the link") from error
        except PermissionError as error:
            raise DataError(f"{self.shown}: access denied; {self._key_remedy()}") from error
        except Exception as error:
            if type(error).__name__ == "NoCredentialsError":
                raise DataError(f"{self.shown}: no credentials; {self._key_remedy()}") from error
            if not isinstance(error, OSError) and not type(error).__module__.startswith(("botocore", "aio", "gcsfs")):
                raise
            raise unreachable(error, self._host(error)) from error

    @cached_property
    def _scheme(self) -> str:
        protocol = self.files.protocol
        return protocol if isinstance(protocol, str) else str(protocol[0])

    def _key_remedy(self) -> str:
        keys = {
            "s3": "give keys by AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or `aws configure`; check the bucket",
            "gs": "log in by `gcloud auth application-default login`, and check the bucket",
        }
        return keys.get(self._scheme, "check the link and your rights to it")

    def _host(self, error: BaseException) -> str:
        endpoint = getattr(error, "kwargs", {}).get("endpoint_url", "")
        return urlsplit(endpoint).hostname or f"of {self.shown}"


def _options(scheme: str, patience: Patience) -> dict[str, Any]:
    if scheme not in ("s3", "s3a"):
        return {}
    from importlib.util import find_spec

    options: dict[str, Any] = {
        "config_kwargs": {
            "connect_timeout": patience.timeout,
            "read_timeout": patience.timeout,
            "retries": {"max_attempts": 1},
        }
    }
    if find_spec("botocore"):
        from botocore.session import Session

        options["anon"] = Session().get_credentials() is None
    return options
