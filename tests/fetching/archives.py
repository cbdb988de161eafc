"""Makers of archives: of a folder's files in every format, and hostile ones."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import stat
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

import zstandard

COMPRESSIONS = {
    "tar": bytes,
    "tar.gz": gzip.compress,
    "tar.bz2": bz2.compress,
    "tar.xz": lzma.compress,
    "tar.zst": zstandard.compress,
}
FORMATS = (*COMPRESSIONS, "zip")


def archive(files: Mapping[str, bytes], form: str) -> bytes:
    """Return an archive of files in one of `FORMATS`."""
    return zip_of(files) if form == "zip" else COMPRESSIONS[form](tar_of(files))  # type: ignore[operator]


def tar_of(files: Mapping[str, bytes], *special: tarfile.TarInfo) -> bytes:
    """Return a tar archive of files, and of headers as they are."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
        for info in special:
            tar.addfile(info)
    return buffer.getvalue()


def zip_of(files: Mapping[str, bytes], modes: Mapping[str, int] | None = None) -> bytes:
    """Return a zip archive of files, some with a mode."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archived:
        for name, content in files.items():
            info = zipfile.ZipInfo(name)
            info.compress_type = zipfile.ZIP_DEFLATED
            info.external_attr = (modes or {}).get(name, stat.S_IFREG | 0o644) << 16
            archived.writestr(info, content)
    return buffer.getvalue()


def header(name: str, kind: bytes, target: str = "", mode: int = 0o644) -> tarfile.TarInfo:
    """Return the header of a tar member without content."""
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.mode = kind, target, mode
    return info


def tree(folder: Path, leave_out: tuple[str, ...] = ("fetched.json",)) -> dict[str, bytes]:
    """Return the content of all files in a folder, by their path in it."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in leave_out
    }


def names_beside(path: Path) -> set[str]:
    """Return the names of all that is in the folder of a path, hidden names included."""
    return {entry.name for entry in path.parent.iterdir()}
