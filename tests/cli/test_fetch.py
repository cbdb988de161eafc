"""`dali-asr data fetch` and `data verify`: what they print and what they refuse."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from rich.progress import Progress

from dali_asr.cli.console import amount_of
from tests.fetching.archives import archive, tree
from tests.fetching.server import FileServer, serving


@pytest.fixture
def server(course: Path) -> Iterator[FileServer]:
    with serving({"/data.tar.gz": archive(tree(course), "tar.gz"), "/text": b"text"}) as running:
        yield running


def test_fetch_says_what_it_did_and_what_comes_next(
    run_cli: Callable[..., Any], server: FileServer, course: Path, tmp_path: Path
) -> None:
    source, out = server.url("/data.tar.gz"), tmp_path / "out"
    done = run_cli("data", "fetch", source, "--to", out)
    assert done.exit_code == 0, done.output
    assert done.output.startswith(f"Fetched {source} ({len(server.files['/data.tar.gz']):,} bytes, SHA-256 ")
    assert done.output.endswith(f" into {out}\nNext: dali-asr data info {out}\n")
    assert tree(out) == tree(course)
    again = run_cli("data", "fetch", source, "--to", out)
    assert again.exit_code == 0
    assert again.output.startswith(f"Nothing to do: {out} holds {source} since 20")
    other = run_cli("data", "fetch", server.url("/text"), "--to", out)
    assert other.exit_code == 2
    assert other.output == f"error: {out}: exists; choose another place, or overwrite it (--force)\n"


def test_packed_and_verified(run_cli: Callable[..., Any], server: FileServer, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert run_cli("data", "fetch", server.url("/data.tar.gz"), "--to", out, "--pack").exit_code == 0
    assert run_cli("data", "verify", out).output == f"{out}: intact, all checksums match\n"
    assert run_cli("data", "verify", "demo").exit_code == 0
    refused = run_cli("data", "verify", tmp_path / "course")
    assert refused.exit_code == 1
    assert "is not a packed corpus; pack it, or give a folder with corpus.json" in refused.output


def test_commands_that_read_a_corpus_take_a_source(
    run_cli: Callable[..., Any], server: FileServer, tmp_path: Path
) -> None:
    source = server.url("/data.tar.gz")
    shown = run_cli("data", "info", source)
    assert shown.exit_code == 0, shown.output
    assert f"{source}: 5 features per frame" in shown.output
    packed = run_cli("data", "pack", source, tmp_path / "packed")
    assert packed.exit_code == 0, packed.output
    server.files.clear()
    assert run_cli("data", "info", source).exit_code == 0


REFUSED = {
    "/none": "not found (HTTP 404); check the link",
    "/text": "is not an archive; give a .zip, .tar",
}


@pytest.mark.parametrize("path", REFUSED)
def test_refusals_are_one_line(path: str, run_cli: Callable[..., Any], server: FileServer, tmp_path: Path) -> None:
    refused = run_cli("data", "fetch", server.url(path), "--to", tmp_path / "new/out")
    assert refused.exit_code == 1
    assert refused.output.startswith(f"error: {server.url(path)}: {REFUSED[path]}")
    assert refused.output.count("\n") == 1
    assert list((tmp_path / "new").iterdir()) == []


def test_limits_are_options(run_cli: Callable[..., Any], server: FileServer, tmp_path: Path) -> None:
    for option, value, told in (("files", 3, "3 files"), ("size", "1000", "1,000 bytes")):
        refused = run_cli(
            "data", "fetch", server.url("/data.tar.gz"), "--to", tmp_path / "out", f"--max-{option}", value
        )
        assert refused.exit_code == 1
        assert f"unpacks to more than {told}" in refused.output
        assert f"raise the limit if you trust it (data fetch --max-{option})" in refused.output
    wrong = run_cli("data", "fetch", server.url("/data.tar.gz"), "--to", tmp_path / "out", "--max-size", "much")
    assert wrong.exit_code == 2
    assert "--max-size: received 'much'" in wrong.output


def test_an_interrupted_download_says_that_it_goes_on(
    run_cli: Callable[..., Any], server: FileServer, tmp_path: Path
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    messages = {
        "download": "interrupted; no partial files are left\n",
        "unpack_into": "interrupted; what was fetched is kept, and the same command continues it\n",
    }
    for stage, message in messages.items():
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(f"dali_asr.fetching.fetch.{stage}", interrupt)
            stopped = run_cli("data", "fetch", server.url("/data.tar.gz"), "--to", tmp_path / "new/out")
        assert stopped.exit_code == 130
        assert stopped.output == message
        assert [path.name for path in (tmp_path / "new").iterdir()] == ([".out.fetch"] if "kept" in message else [])


def test_bytes_are_shown_with_their_rate() -> None:
    now = 0.0
    progress = Progress(console=Console(file=io.StringIO()), get_time=lambda: now)
    task = progress.add_task("fetching", total=4_000_000)
    for now in (1.0, 2.0, 3.0):  # noqa: B007 - read by the clock
        progress.advance(task, 500_000)
    assert amount_of(progress.tasks[0]) == "1.5/4.0 MB  500.0 kB/s".replace("1.5/", "1.5 MB/")
    other = progress.add_task("packing", total=10, completed=3)
    assert amount_of(progress.tasks[other]) == " 3/10"
