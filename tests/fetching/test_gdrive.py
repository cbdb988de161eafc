"""gdown, with the requests to Google Drive sent to a server on loopback."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from dali_asr.errors import DataError, UsageError
from dali_asr.fetching.fetch import fetch
from tests.fetching import server as servers
from tests.fetching.archives import archive, names_beside, tree
from tests.fetching.server import HURRIED, FileServer, serving

FILES = {"train/mfcc/a.npy": os.urandom(120_000), "sample_submission.csv": b"id,label\n"}


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    """Return a server that stands for drive.google.com: the address is in gdown's source, so requests are rewritten."""
    send = requests.adapters.HTTPAdapter.send
    with serving({"/uc": archive(FILES, "zip")}) as running:
        running.headers["Content-Disposition"] = 'attachment; filename="data.zip"'

        def rewritten(adapter: Any, request: Any, **named: Any) -> Any:
            request.url = request.url.replace("https://drive.google.com", running.url(""))
            return send(adapter, request, **named)

        monkeypatch.setattr(requests.adapters.HTTPAdapter, "send", rewritten)
        yield running


def refused(tmp_path: Path) -> str:
    with pytest.raises(DataError) as error:
        fetch("gdrive:1AbC-d_e", tmp_path / "data/out", patience=HURRIED)
    assert names_beside(tmp_path / "data/out") == set()
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_shared_file_becomes_a_folder(server: FileServer, tmp_path: Path) -> None:
    fetch("gdrive:1AbC-d_e", tmp_path / "out", patience=HURRIED)
    assert tree(tmp_path / "out") == FILES
    assert server.requests[0][0] == "/uc?id=1AbC-d_e"


def test_a_broken_download_goes_on_where_it_broke(server: FileServer, tmp_path: Path) -> None:
    files = FILES | {"large": os.urandom(1_200_000)}
    server.files["/uc"] = archive(files, "zip")
    server.mischief += [servers.breaks(900_000), servers.answers(503)]
    fetch("gdrive:1AbC-d_e", tmp_path / "out", patience=HURRIED)
    assert tree(tmp_path / "out") == files
    assert f"bytes={512 << 10}-" in [asked for _, asked in server.requests]  # gdown writes 512 KiB at a time


def test_what_is_left_of_another_file_is_not_continued(server: FileServer, tmp_path: Path) -> None:
    server.mischief += [servers.breaks(60_000)] + [servers.answers(503)] * 3
    server.files["/x.zip"] = bytes(100_000)
    with pytest.raises(DataError):
        fetch(server.url("/x.zip"), tmp_path / "out", patience=HURRIED)
    assert names_beside(tmp_path / "out") == {".out.fetch"}
    fetch("gdrive:1AbC-d_e", tmp_path / "out", patience=HURRIED)
    assert tree(tmp_path / "out") == FILES
    assert names_beside(tmp_path / "out") == {"out"}


def test_a_wrong_checksum_keeps_nothing(server: FileServer, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gdrive:1AbC-d_e: has SHA-256 \w+, expected 0{64}"):
        fetch("gdrive:1AbC-d_e", tmp_path / "data/out", sha256="0" * 64, patience=HURRIED)
    assert names_beside(tmp_path / "data/out") == set()


def test_a_file_that_is_not_shared(server: FileServer, tmp_path: Path) -> None:
    server.mischief += [servers.shows_page] * 2
    assert "Cannot retrieve the public link of the file" in (message := refused(tmp_path))
    assert message.endswith(
        "share the file with anyone who has the link, or download it with a browser and give its path"
    )


def test_no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr("socket.getaddrinfo", unknown)
    assert "gdrive:1AbC-d_e: the host drive.google.com is unknown" in refused(tmp_path)


def test_gdown_is_an_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gdown", None)
    with pytest.raises(UsageError, match=r"needs gdown; pip install 'dali-asr\[gdrive\]'"):
        fetch("gdrive:1AbC-d_e", tmp_path / "out")
