"""Corpora that are elsewhere are fetched once, into a folder or the cache, and opened as if they were here."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dali_asr import Corpus, PackSettings, export_corpus, pack_corpus
from dali_asr.build import check_corpus, open_corpus
from dali_asr.config import DataConfig
from dali_asr.corpus.packing import quiet
from dali_asr.corpus.remote import fetch_corpus, is_at_hand, local_corpus
from dali_asr.errors import DataError, UsageError
from dali_asr.files import cache_folder
from tests.fetching.archives import archive, names_beside, tree
from tests.fetching.server import FileServer, serving


@pytest.fixture
def server(course: Path, tmp_path: Path) -> Iterator[FileServer]:
    """Return a server of an archive of the course folder, and of the packed corpus."""
    pack_corpus(course, tmp_path / "packed")
    served = {f"/packed/{name}": content for name, content in tree(tmp_path / "packed").items()}
    inner = {f"hw/2026/{name}": content for name, content in tree(course).items()}
    with serving(
        served | {"/data.tar.gz": archive(inner, "tar.gz"), "/other.zip": archive({"a": b""}, "zip")}
    ) as running:
        yield running


def test_a_root_may_be_an_archive_behind_a_link(server: FileServer, course: Path, run_cli: Callable[..., Any]) -> None:
    """It is fetched once, from two folders inside each other, and packed once."""
    data = DataConfig(root=server.url("/data.tar.gz"))
    assert data.root == server.url("/data.tar.gz")
    assert not is_at_hand(data.root)
    assert check_corpus(data) is False
    assert not server.requests
    opened = open_corpus(data, quiet)
    here = Corpus.open(course)
    for name in here.partitions:
        for a, b in zip(opened.partition(name).frames(), here.partition(name).frames(), strict=True):
            assert (a == b).all()
    assert is_at_hand(data.root)
    server.requests.clear()
    assert open_corpus(data, quiet).path == opened.path
    assert not server.requests
    kept = local_corpus(data.root)
    assert kept.parent.parent == cache_folder("downloads")
    assert kept.read_bytes() == server.files["/data.tar.gz"], "and is not unpacked"
    place, remedy, *_ = run_cli("data", "info", data.root).stdout.splitlines()
    assert place == f"from the cache: {kept.parent}"
    assert remedy == f"to fetch it again, first run: dali-asr cache clear --source {data.root}"
    assert not server.requests
    cleared = run_cli(*remedy.partition("dali-asr ")[2].split()).stdout
    assert cleared.endswith("Kept 3 entries that a running process uses\n"), "the archive, and what was packed twice"


def test_a_root_may_be_a_packed_corpus_behind_a_link(server: FileServer, tmp_path: Path) -> None:
    folder = local_corpus(server.url("/packed/"))
    assert folder.parent == cache_folder("mirrors")
    assert tree(folder) == tree(tmp_path / "packed")
    server.requests.clear()
    assert open_corpus(DataConfig(root=server.url("/packed/")), quiet).path == folder
    assert not server.requests


def test_a_damaged_packed_corpus_is_not_mirrored(server: FileServer) -> None:
    frames = bytearray(server.files["/packed/frames.npy"])
    frames[-1] ^= 1
    server.files["/packed/frames.npy"] = bytes(frames)
    with pytest.raises(
        DataError, match=r"/packed: what it holds is damaged, or changed while it was fetched \(frames\.npy: utterance"
    ):
        local_corpus(server.url("/packed"))
    assert list(cache_folder("mirrors").iterdir()) == []


def test_a_root_may_be_a_local_archive(server: FileServer, course: Path, tmp_path: Path) -> None:
    """One of course data is read where it is; another is unpacked into the cache, and anew when it changes."""
    path = tmp_path / "data.zip"
    path.write_bytes(archive(tree(course), "zip"))
    assert local_corpus(str(path)) == path
    assert not cache_folder("downloads").exists()
    packed = tree(tmp_path / "packed")
    path.write_bytes(archive(packed, "zip"))
    first = local_corpus(str(path))
    assert {name: content for name, content in tree(first).items() if name in packed} == packed
    assert local_corpus(str(path)) == first
    path.write_bytes(archive(packed, "tar.xz"))
    assert local_corpus(str(path)) != first


def test_a_damaged_archive_of_course_data_does_not_enter_the_cache(server: FileServer) -> None:
    server.files["/data.tar.gz"] = server.files["/data.tar.gz"][:-200]
    with pytest.raises(DataError, match=r"^http://127\.0\.0\.1:\d+/data\.tar\.gz: damaged"):
        open_corpus(DataConfig(root=server.url("/data.tar.gz")), quiet)
    assert [path.name for path in cache_folder("downloads").iterdir() if not path.name.endswith(".fetch")] == []


def test_packed_at_once(server: FileServer, tmp_path: Path) -> None:
    """With the bytes that packing gives."""
    dest = tmp_path / "out"
    assert not fetch_corpus(server.url("/data.tar.gz"), dest, pack=PackSettings()).before
    assert tree(dest) == tree(tmp_path / "packed")
    assert fetch_corpus(server.url("/data.tar.gz"), dest, pack=PackSettings()).before
    assert names_beside(dest) == {"out", "packed", "course"}


def test_what_was_not_packed_is_not_taken_for_packed(server: FileServer, tmp_path: Path) -> None:
    fetch_corpus(server.url("/data.tar.gz"), tmp_path / "out")
    with pytest.raises(UsageError, match=r"out: was fetched before and not packed; choose another place, or"):
        fetch_corpus(server.url("/data.tar.gz"), tmp_path / "out", pack=PackSettings())


def test_an_archive_of_something_else(server: FileServer, tmp_path: Path) -> None:
    """It can be fetched, but neither packed nor trained on."""
    fetch_corpus(server.url("/other.zip"), tmp_path / "out")
    with pytest.raises(DataError, match=r"other\.zip: holds no course data; expected PARTITION/mfcc/\*\.npy in it"):
        fetch_corpus(server.url("/other.zip"), tmp_path / "packed-out", pack=PackSettings())
    assert not (tmp_path / "packed-out").exists()
    with pytest.raises(DataError, match=r"other\.zip: holds no course data"):
        open_corpus(DataConfig(root=server.url("/other.zip")), quiet)
    assert list(cache_folder("downloads").iterdir()) == []


def test_a_packed_corpus_in_an_archive(server: FileServer, tmp_path: Path) -> None:
    server.files["/packed.tar"] = archive({f"x/{k}": v for k, v in tree(tmp_path / "packed").items()}, "tar")
    for number, pack in enumerate((None, PackSettings())):
        fetch_corpus(server.url("/packed.tar"), tmp_path / str(number), pack=pack)
        assert tree(tmp_path / str(number)) == tree(tmp_path / "packed")


@pytest.mark.parametrize("layout", ["npz", "packed"])
def test_a_root_may_be_an_archive_of_another_layout(layout: str, server: FileServer, tmp_path: Path) -> None:
    """Within a folder, as archives are made."""
    expected = Corpus.open(tmp_path / "packed")
    if layout == "npz":
        export_corpus(expected, tmp_path / "exported", "npz")
    inside = tree(tmp_path / ("exported" if layout == "npz" else "packed"))
    server.files["/other.tar.gz"] = archive({f"top/{name}": content for name, content in inside.items()}, "tar.gz")
    for _ in range(2):
        found = Corpus.open(local_corpus(server.url("/other.tar.gz")))
        assert {name: p.frame_count for name, p in found.partitions.items()} == {
            name: p.frame_count for name, p in expected.partitions.items()
        }
        server.requests.clear()


def test_a_folder_has_no_checksum(server: FileServer, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="/packed: is a folder, and a checksum is that of a file; leave it out"):
        fetch_corpus(server.url("/packed"), tmp_path / "out", sha256="0" * 64)


def test_the_cache_is_where_the_environment_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cache_folder("mirrors").parts[-2:] == ("dali-asr", "mirrors")
    monkeypatch.setenv("DALI_ASR_CACHE", str(tmp_path / "elsewhere"))
    assert cache_folder("mirrors") == tmp_path / "elsewhere/mirrors"


def test_a_cache_that_cannot_be_written_is_one_line(
    server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    for name, reason in (("file", "Not a directory"), ("fixed", "Permission denied")):
        monkeypatch.setenv("DALI_ASR_CACHE", str(tmp_path / name))
        monkeypatch.setattr("os.access", lambda *_: False)
        for path in ("/data.tar.gz", "/packed"):
            with pytest.raises(DataError, match=rf"{reason} while writing; set DALI_ASR_CACHE to another folder$"):
                local_corpus(server.url(path))
