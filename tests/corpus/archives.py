"""Archives made of folders, for the tests of packing them."""

from __future__ import annotations

import io
import tarfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

import zstandard

KINDS = ("tar", "tar.gz", "tar.bz2", "tar.xz", "tar.zst", "zip")


def files_of(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


def make_archive(path: Path, root: Path, names: Sequence[str] | None = None, top: str = "") -> Path:
    """Write files of a folder into an archive, in the order given, below the folder `top`."""
    entries = [(f"{top}{name}", (root / name).read_bytes()) for name in names or files_of(root)]
    return write_archive(path, entries)


def write_archive(path: Path, entries: Sequence[tuple[str, bytes]]) -> Path:
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as zipped:
            for name, content in entries:
                zipped.writestr(name, content)
        return path
    buffer = io.BytesIO()
    suffix = path.suffix.removeprefix(".")
    with tarfile.open(fileobj=buffer, mode="w" if suffix in ("tar", "zst") else f"w:{suffix}") as tar:  # type: ignore[call-overload]
        for name, content in entries:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    content = buffer.getvalue()
    path.write_bytes(zstandard.compress(content) if suffix == "zst" else content)
    return path
