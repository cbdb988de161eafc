"""Remote folders are copied in parts, checked as a whole, and continued."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from dali_asr.errors import ArchiveError, DataError
from dali_asr.fetching import mirror as mirroring
from dali_asr.fetching.fetch import Fetched
from dali_asr.fetching.http import HttpRemote
from dali_asr.fetching.mirror import mirror
from dali_asr.fetching.sources import Source
from tests.fetching import server as servers
from tests.fetching.archives import names_beside, tree
from tests.fetching.server import HURRIED, FileServer, serving

FILES = {"large.npy": os.urandom(400_000), "deep/small": b"1", "empty": b""}


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mirroring, "_PART", 50_000)


@pytest.fixture
def server() -> Iterator[FileServer]:
    with serving({f"/corpus/{name}": content for name, content in FILES.items()}) as running:
        yield running


def mirrored(server: FileServer, tmp_path: Path, **named: object) -> Fetched:
    source = Source.parse(server.url("/corpus"))
    folder = HttpRemote(source.name, source.shown, HURRIED)
    remotes = {name: folder.child(name) for name in FILES}
    return mirror(source, remotes, tmp_path / "out", patience=HURRIED, **named)  # type: ignore[arg-type]


def test_a_folder_is_copied_in_parts(server: FileServer, tmp_path: Path) -> None:
    checked = []
    assert not mirrored(server, tmp_path, check=lambda folder: checked.append(tree(folder))).before
    assert checked == [FILES]
    assert tree(tmp_path / "out") == FILES
    assert names_beside(tmp_path / "out") == {"out"}
    asked = {part for path, part in server.requests if path.endswith("large.npy") and part}
    assert asked == {f"bytes={at}-{at + 49_999}" for at in range(0, 400_000, 50_000)}
    server.requests.clear()
    assert mirrored(server, tmp_path).before
    assert not server.requests


@pytest.mark.parametrize("lacking", ["etags", "ranges"])
def test_a_server_without_parts_sends_whole_files(lacking: str, server: FileServer, tmp_path: Path) -> None:
    setattr(server, lacking, False)
    mirrored(server, tmp_path)
    assert tree(tmp_path / "out") == FILES


def parts_of_large(server: FileServer) -> set[int]:
    """Return the first bytes of the parts that were asked for since the last call."""
    ranges = [part for path, part in server.requests if path.endswith("large.npy") and part]
    server.requests.clear()
    return {int(part.removeprefix("bytes=").partition("-")[0]) for part in ranges}


def test_what_is_there_is_not_fetched_again(
    server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mirroring, "_WORKERS", 1)
    server.mischief += [servers.as_usual] * 6 + [servers.answers(503)] * 3
    with pytest.raises(DataError, match="HTTP 503"):
        mirrored(server, tmp_path)
    assert not (tmp_path / "out").exists()
    server.mischief.clear()
    before = parts_of_large(server)
    mirrored(server, tmp_path)
    assert tree(tmp_path / "out") == FILES
    after = parts_of_large(server)
    assert len(before | after) == 8
    assert len(before & after) <= 3 < len(before), "those that were refused"
    assert names_beside(tmp_path / "out") == {"out"}


def test_broken_connections_go_on(server: FileServer, tmp_path: Path) -> None:
    server.mischief += [servers.as_usual] * 3 + [servers.breaks(20_000)] * 4
    mirrored(server, tmp_path)
    assert tree(tmp_path / "out") == FILES


def test_a_file_that_changes_meanwhile_is_noticed(
    server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mirroring, "_WORKERS", 1)
    other = os.urandom(400_000)
    server.mischief += [servers.as_usual] * 5 + [servers.changes("/corpus/large.npy", other)]
    with pytest.raises(DataError, match=r"large\.npy changed while it was fetched; fetch it again"):
        mirrored(server, tmp_path)
    assert not (tmp_path / "out").exists()
    mirrored(server, tmp_path)
    assert tree(tmp_path / "out") == FILES | {"large.npy": other}


def test_a_damaged_copy_is_not_kept(server: FileServer, tmp_path: Path) -> None:
    def find_damage(folder: Path) -> None:
        raise DataError(f"{folder / 'large.npy'}: is damaged; pack it again")

    with pytest.raises(
        DataError,
        match=r"/corpus: what it holds is damaged, or changed while it was fetched \(large\.npy: is damaged\)",
    ):
        mirrored(server, tmp_path, check=find_damage)
    assert names_beside(tmp_path / "out") == set()


def test_names_stay_in_the_folder(tmp_path: Path) -> None:
    source = Source.parse("http://127.0.0.1:1")
    with pytest.raises(ArchiveError, match="leads out of the folder"):
        mirror(source, {"../a": HttpRemote("http://127.0.0.1:1/a", "a")}, tmp_path / "out")
    assert names_beside(tmp_path / "out") == set()
