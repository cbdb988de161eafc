"""What a source is: a competition, a link, an object in a bucket, a file on Google Drive, or a path."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit, urlunsplit

from dali_asr.errors import UsageError, brief, did_you_mean

_SCHEME = re.compile(r"(kaggle|gdrive|file):|([a-z][a-z0-9+.-]*)://", re.IGNORECASE)
_ARCHIVE = re.compile(r"\.(zip|tar|tgz|tbz2|txz|tzst|tar\.(gz|bz2|xz|zst))$", re.IGNORECASE)
_NAMES = {
    "kaggle": (re.compile(r"[a-z0-9-]+"), "COMPETITION", "the last part of the competition's address"),
    "gdrive": (re.compile(r"[\w-]+"), "ID", "the long part of the file's link"),
}
_EXAMPLES = {
    "kaggle": "kaggle:titanic for https://www.kaggle.com/competitions/titanic",
    "gdrive": "gdrive:1AbC-dEf for https://drive.google.com/file/d/1AbC-dEf/view",
}


@dataclass(frozen=True)
class Source:
    """Where files come from.

    Attributes:
        text: as the user gave it.
        scheme: `kaggle`, `gdrive`, `http`, `https`, `s3`, ...; `file` for a path.
        name: the competition, the identifier on Google Drive, the link or the path.
    """

    text: str
    scheme: str
    name: str

    @classmethod
    def parse(cls, text: str) -> Source:
        """Return the source that a text means.

        Raises:
            UsageError: a scheme that is unknown, or a name that its scheme does not allow.
        """
        found = _SCHEME.match(text)
        if not found:
            return cls(text, "file", str(Path(text).expanduser()))
        scheme = (found[1] or found[2]).lower()
        if scheme in _NAMES:
            name, (pattern, placeholder, meaning) = text[found.end() :], _NAMES[scheme]
            if name in (placeholder, "NAME"):
                raise UsageError(f"{text}: {name} stands for {meaning}; write {_EXAMPLES[scheme]}")
            if not pattern.fullmatch(name):
                raise UsageError(f"{brief(text)}: not a source of data; expected {scheme}:{placeholder}, {meaning}")
            return cls(text, scheme, name)
        if scheme == "file":
            return cls(text, scheme, unquote(urlsplit(text).path))
        _check_scheme(scheme, text)
        return cls(text, scheme, text)

    @property
    def local(self) -> bool:
        """Whether the source is a path."""
        return self.scheme == "file"

    @property
    def path(self) -> Path:
        """The path of a local source."""
        return Path(self.name)

    @property
    def shown(self) -> str:
        """The source without user name and password, for messages and records."""
        if self.scheme in ("file", *_NAMES):
            return self.text
        parts = urlsplit(self.text)
        return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))

    @property
    def names_archive(self) -> bool:
        """Whether the source is an archive by its name."""
        path = self.name if self.local else urlsplit(self.name).path
        return self.scheme in _NAMES or bool(_ARCHIVE.search(path))

    @property
    def key(self) -> str:
        """32 hexadecimal digits that name the source in the cache; those of a local file change with the file."""
        content = self.text
        if self.local:
            stat = self.path.stat()
            content = f"{self.path.resolve()} {stat.st_size} {stat.st_mtime_ns}"
        return hashlib.sha256(content.encode(errors="surrogateescape")).hexdigest()[:32]


def _check_scheme(scheme: str, text: str) -> None:
    """Check that a scheme is known; this imports no implementation of one."""
    if scheme in ("http", "https"):
        if not urlsplit(text).hostname:
            raise UsageError(f"{brief(text)}: names no host; give a whole link")
        return
    from fsspec import available_protocols

    known = set(available_protocols()) | set(_NAMES)
    if scheme not in known:
        raise UsageError(
            f"{brief(text)}: unknown scheme {scheme}:{did_you_mean(scheme, known)}; give https://, s3://, gs://, "
            "kaggle:COMPETITION, gdrive:ID, or the path of a file or folder"
        )
