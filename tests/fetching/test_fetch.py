"""Downloads continue where they broke, are verified, and appear whole."""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dali_asr.errors import ArchiveError, DataError, UsageError
from dali_asr.fetching.fetch import Fetched, fetch
from dali_asr.fetching.transfer import Patience
from tests.fetching import server as servers
from tests.fetching.archives import archive, names_beside, tar_of, tree
from tests.fetching.server import HURRIED, FileServer, serving

FILES = {"top/train/mfcc/a.npy": os.urandom(150_000), "top/train/mfcc/b.npy": os.urandom(90_000)}
INSIDE = {name.removeprefix("top/"): content for name, content in FILES.items()}
ARCHIVE = archive(FILES, "tar.gz")


@pytest.fixture
def server() -> Iterator[FileServer]:
    with serving({"/data.tar.gz": ARCHIVE}) as running:
        yield running


def fetched(server: FileServer, tmp_path: Path, path: str = "/data.tar.gz", sha256: str | None = None) -> Fetched:
    return fetch(server.url(path), tmp_path / "out", sha256=sha256, patience=HURRIED)


def refused(server: FileServer, tmp_path: Path, path: str = "/data.tar.gz", sha256: str | None = None) -> str:
    with pytest.raises(DataError) as error:
        fetched(server, tmp_path, path, sha256)
    assert not (tmp_path / "out").exists()
    assert "\n" not in str(error.value)
    assert str(error.value).startswith(server.url(path))
    return str(error.value)


def test_an_archive_becomes_a_folder_with_a_record(server: FileServer, tmp_path: Path) -> None:
    """And the content of its single top folder is what the folder holds."""
    digest = hashlib.sha256(ARCHIVE).hexdigest()
    done = fetched(server, tmp_path, sha256=digest.upper())
    assert not done.before
    assert tree(tmp_path / "out") == INSIDE
    record = json.loads((tmp_path / "out/fetched.json").read_text())
    assert record == {
        "source": server.url("/data.tar.gz"),
        "version": f'"{hashlib.md5(ARCHIVE).hexdigest()}"',
        "size": len(ARCHIVE),
        "sha256": digest,
        "time": record["time"],
    }
    assert names_beside(tmp_path / "out") == {"out"}


def test_a_second_time_nothing_is_done(server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also without a network, and without the right to write."""
    fetched(server, tmp_path)
    server.requests.clear()
    with monkeypatch.context() as patch:
        patch.setattr("dali_asr.fetching.fetch.work_folder", lambda *_: pytest.fail("written"))
        assert fetched(server, tmp_path).before
    assert not server.requests
    with pytest.raises(DataError, match=r"with SHA-256 .*, expected 0{64}; fetch it again \(overwrite=True\)$"):
        fetched(server, tmp_path, sha256="0" * 64)
    server.files["/data.tar.gz"] = archive({"new": b"1"}, "zip")
    assert not fetch(server.url("/data.tar.gz"), tmp_path / "out", overwrite=True).before
    assert tree(tmp_path / "out") == {"new": b"1"}
    with pytest.raises(UsageError, match=r"out: exists; choose another place, or overwrite it \(overwrite=True\)$"):
        fetch(server.url("/other.zip"), tmp_path / "out")
    assert names_beside(tmp_path / "out") == {"out"}


@pytest.mark.parametrize("mischief", [servers.breaks(70_000), servers.stalls(70_000)], ids=["breaks", "stalls"])
def test_a_broken_download_goes_on_where_it_broke(
    mischief: servers.Mischief, server: FileServer, tmp_path: Path
) -> None:
    server.mischief += [mischief, mischief]
    fetched(server, tmp_path)
    assert tree(tmp_path / "out") == INSIDE
    assert [asked for _, asked in server.requests] == [None, "bytes=70000-", "bytes=140000-"]


def test_another_process_goes_on(server: FileServer, tmp_path: Path) -> None:
    """Here another call, after the first one gave up; `test_kills` ends processes."""
    server.mischief += [servers.breaks(100_000), *[servers.answers(503)] * 2]
    message = refused(server, tmp_path)
    assert message.endswith("(HTTP 503); start again to continue after 100,000 bytes")
    assert names_beside(tmp_path / "out") == {".out.fetch"}
    server.requests.clear()
    fetched(server, tmp_path)
    assert [asked for _, asked in server.requests] == ["bytes=100000-"]
    assert tree(tmp_path / "out") == INSIDE
    assert names_beside(tmp_path / "out") == {"out"}


@settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(cuts=st.lists(st.integers(0, len(ARCHIVE) // 3), max_size=3), etags=st.booleans(), ranges=st.booleans())
def test_wherever_it_breaks_the_bytes_are_right(
    cuts: list[int], etags: bool, ranges: bool, server: FileServer, tmp_path_factory: pytest.TempPathFactory
) -> None:
    server.etags, server.ranges = etags, ranges
    server.mischief[:] = [servers.breaks(cut) for cut in cuts]
    folder = tmp_path_factory.mktemp("any")
    fetch(server.url("/data.tar.gz"), folder / "out", patience=Patience(attempts=5, wait=0, timeout=2))
    assert tree(folder / "out") == INSIDE


def test_a_file_that_changes_between_two_parts_is_fetched_anew(server: FileServer, tmp_path: Path) -> None:
    other = archive({"top/x": os.urandom(200_000)}, "tar.gz")
    server.mischief += [servers.breaks(100_000), servers.changes("/data.tar.gz", other)]
    fetched(server, tmp_path)
    assert tree(tmp_path / "out") == {"x": tar_content(other)}


def test_a_file_that_becomes_shorter_is_fetched_anew(server: FileServer, tmp_path: Path) -> None:
    short = archive({"x": b"1"}, "zip")

    def shorter(handler: servers.Handler) -> bool:
        server.files["/data.tar.gz"] = short
        handler.refuse(416)
        return True

    server.mischief += [servers.breaks(100_000), shorter]
    fetched(server, tmp_path)
    assert tree(tmp_path / "out") == {"x": b"1"}


def tar_content(content: bytes) -> bytes:
    import io
    import tarfile

    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        file = tar.extractfile(tar.getmembers()[0])
        assert file
        return file.read()


def test_a_server_that_lies_about_the_length_is_found_out(server: FileServer, tmp_path: Path) -> None:
    server.mischief += [servers.announces(len(ARCHIVE) + 1000)] * 10
    assert "shorter than announced" in refused(server, tmp_path)
    server.mischief[:] = [servers.announces(len(ARCHIVE) - 1000)]
    assert "damaged or cut off" in refused(server, tmp_path / "short")


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (404, "not found (HTTP 404); check the link"),
        (403, "access denied (HTTP 403); check the link and its permissions, or download the file with a browser"),
        (418, "the server answered HTTP 418; check the link"),
    ],
)
def test_a_refusal_is_said_at_once(status: int, message: str, server: FileServer, tmp_path: Path) -> None:
    server.mischief += [servers.answers(status)]
    assert message in refused(server, tmp_path)
    assert len(server.requests) == 1
    assert names_beside(tmp_path / "out") == set()


@pytest.mark.parametrize("status", [429, 503])
def test_a_busy_server_is_asked_again_when_it_says(
    status: int, server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []
    monkeypatch.setattr("dali_asr.fetching.transfer.time.sleep", waits.append)
    server.mischief += [servers.answers(status, Retry_After="7"), servers.answers(status)]
    fetched(server, tmp_path)
    assert waits[0] == 7
    assert 0.01 < waits[1] < 0.03
    server.mischief += [servers.answers(status, Retry_After="Fri, 31 Dec 2100 23:59:59 GMT")]
    assert "minutes; try again later" in refused(server, tmp_path / "later")
    server.mischief[:] = [servers.answers(status)] * 3
    assert f"(HTTP {status}); check the link and the network" in refused(server, tmp_path / "never")


def test_a_login_page_is_named(server: FileServer, tmp_path: Path) -> None:
    """Behind a redirection, or sent as if it were an archive."""
    server.mischief += [servers.answers(302, Location="/login"), servers.shows_page]
    assert "received a web page (HTML) of 127.0.0.1 instead of a file, perhaps its login" in refused(server, tmp_path)
    server.files["/page.zip"] = b"<!DOCTYPE html><title>Log in</title>"
    assert "is a web page (HTML), perhaps a login" in refused(server, tmp_path, "/page.zip")
    server.mischief += [servers.answers(302, Location="/data.tar.gz")] * 25
    assert "redirects without end" in refused(server, tmp_path)
    assert names_beside(tmp_path / "out") == set()


def test_a_wrong_checksum_keeps_nothing(server: FileServer, tmp_path: Path) -> None:
    message = refused(server, tmp_path, sha256="0" * 64)
    assert f"has SHA-256 {hashlib.sha256(ARCHIVE).hexdigest()}, expected {'0' * 64}" in message
    assert names_beside(tmp_path / "out") == set()
    with pytest.raises(UsageError, match="sha256: received 'abc'; expected 64 hexadecimal digits"):
        fetched(server, tmp_path, sha256="abc")


def test_a_hostile_archive_leaves_nothing_behind(server: FileServer, tmp_path: Path) -> None:
    server.files["/bad.tar"] = tar_of({"a": b"1", "../b": b"2"})
    assert "leads out of the folder" in refused(server, tmp_path, "/bad.tar")
    assert names_beside(tmp_path / "out") == set()


def test_processes_that_fetch_at_once_do_it_once(server: FileServer, tmp_path: Path) -> None:
    server.pause = 0.15
    done: list[Fetched] = []
    seen: list[set[str]] = []

    def run() -> None:
        stages: set[str] = set()
        seen.append(stages)
        url = server.url("/data.tar.gz")
        done.append(fetch(url, tmp_path / "out", patience=HURRIED, progress=lambda stage, *_: stages.add(stage)))

    threads = [threading.Thread(target=run) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(one.before for one in done) == [False, True, True]
    assert len(server.requests) == 1
    assert all("fetching" in stages for stages in seen), "those that wait show how far it is"
    assert sum("waiting for another process" in stages for stages in seen) == 2
    assert names_beside(tmp_path / "out") == {"out"}


def test_an_unknown_host_is_named_at_once(tmp_path: Path) -> None:
    with pytest.raises(DataError) as error:
        fetch("https://no-such-host.invalid/data.zip", tmp_path / "out")
    assert "the host no-such-host.invalid is unknown" in str(error.value)
    assert str(error.value).endswith("or fetch it on a machine that has one and give its path here")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("https:///data.zip", "names no host"),
        ("htpps://host/data.zip", "unknown scheme htpps:; did you mean https?"),
        ("kaggle:Name With Spaces", "expected kaggle:COMPETITION, the last part of the competition's address"),
        ("kaggle:COMPETITION", "COMPETITION stands for the last part of the competition's address; write kaggle:tit"),
        ("gdrive:ID", "ID stands for the long part of the file's link; write gdrive:1AbC-dEf for https://drive"),
        ("gdrive:https://drive", "expected gdrive:ID"),
        ("http://host:port/x.zip", "give a whole link"),
    ],
)
def test_a_source_that_is_none_is_refused(source: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as error:
        fetch(source, tmp_path / "out")
    assert message in str(error.value)
    assert names_beside(tmp_path / "out") == set()


def test_a_password_is_neither_shown_nor_recorded(server: FileServer, tmp_path: Path) -> None:
    url = server.url("/data.tar.gz").replace("//", "//user:secret@")
    fetch(url, tmp_path / "out")
    assert "secret" not in (tmp_path / "out/fetched.json").read_text()
    with pytest.raises(DataError) as error:
        fetch(url.replace("data", "none"), tmp_path / "other")
    assert "secret" not in str(error.value)


def test_local_archives_and_folders(tmp_path: Path) -> None:
    path = tmp_path / "data.zip"
    path.write_bytes(archive(FILES, "zip"))
    for number, source in enumerate((str(path), f"file://{path}")):
        assert not fetch(source, tmp_path / str(number), sha256=hashlib.sha256(path.read_bytes()).hexdigest()).before
        assert fetch(source, tmp_path / str(number)).before
        assert tree(tmp_path / str(number)) == INSIDE
    copy = fetch(str(tmp_path / "0"), tmp_path / "copy")
    assert tree(copy.folder) == INSIDE
    path.write_bytes(archive({"other": b"1"}, "zip"))
    with pytest.raises(UsageError, match="0: exists"):
        fetch(str(path), tmp_path / "0")
    with pytest.raises(DataError, match=r"none\.zip: no such file or directory; give an archive, a folder or a link"):
        fetch(str(tmp_path / "none.zip"), tmp_path / "none")
    with pytest.raises(ArchiveError, match=r"fetched\.json: is not an archive; give a \.zip, \.tar"):
        fetch(str(tmp_path / "copy/fetched.json"), tmp_path / "none")
    os.mkfifo(tmp_path / "pipe.tar")
    with pytest.raises(DataError, match="is not a regular file"):
        fetch(str(tmp_path / "pipe.tar"), tmp_path / "none")
    with pytest.raises(UsageError, match=r"0/inside: is inside .*, from which it is made; choose another place"):
        fetch(str(tmp_path / "0"), tmp_path / "0/inside")
    with pytest.raises(UsageError, match="is a folder, and a checksum is that of a file"):
        fetch(str(tmp_path / "copy"), tmp_path / "none", sha256="0" * 64)


def test_what_was_not_fetched_is_not_overwritten(server: FileServer, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    assert not fetched(server, tmp_path).before  # an empty folder is as good as none
    (tmp_path / "out/fetched.json").unlink()
    with pytest.raises(UsageError, match="exists and was not fetched, so it is not overwritten"):
        fetch(server.url("/data.tar.gz"), tmp_path / "out", overwrite=True)
    assert tree(tmp_path / "out") == INSIDE


def test_a_single_folder_inside_itself_is_raised(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(tar_of({"a/a/a/x": b"1", "a/a/y": b"2"}))
    fetch(str(tmp_path / "a.tar"), tmp_path / "out")
    assert tree(tmp_path / "out") == {"a/x": b"1", "y": b"2"} or tree(tmp_path / "out") == {"a/a/x": b"1", "a/y": b"2"}


def test_a_full_disk_is_said_before_the_download(
    server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from types import SimpleNamespace

    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=1000))
    with pytest.raises(DataError, match=rf"{len(ARCHIVE):,} bytes are needed, 1,000 are free; free some space, or"):
        fetched(server, tmp_path)
    assert names_beside(tmp_path / "out") == set()


def test_a_disk_that_gets_full_is_one_line_and_the_download_goes_on(server: FileServer, tmp_path: Path) -> None:
    if os.geteuid() or os.system(f"mount -t tmpfs -o size=400k none {tmp_path} 2>/dev/null"):
        pytest.skip("a small file system cannot be mounted here")
    try:
        with pytest.raises(DataError, match=r"No space left on device while writing; free some space, or"):
            fetched(server, tmp_path)
        assert names_beside(tmp_path / "out") == {".out.fetch"}
        os.system(f"mount -o remount,size=2m {tmp_path}")
        server.requests.clear()
        fetched(server, tmp_path)
        assert not server.requests
        assert tree(tmp_path / "out") == INSIDE
        assert names_beside(tmp_path / "out") == {"out"}
    finally:
        os.system(f"umount {tmp_path}")
