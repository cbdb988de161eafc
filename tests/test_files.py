"""Output appears whole or not at all, and what a killed process left is swept."""

from __future__ import annotations

import ctypes
import errno
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dali_asr import files
from dali_asr.errors import DataError
from dali_asr.files import disk_errors, file_name, new_file, new_folder, remove_folder, sweep, write_file


def test_a_file_appears_when_the_block_ends(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with new_file(path) as file:
        file.write(b"new")
        assert not path.exists()
    assert path.read_bytes() == b"new"
    write_file(path, b"newer")
    assert path.read_bytes() == b"newer"
    assert list(tmp_path.iterdir()) == [path]


def test_an_error_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with pytest.raises(RuntimeError), new_file(path) as file:
        file.write(b"half")
        raise RuntimeError
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_link_is_kept_and_its_target_replaced(tmp_path: Path) -> None:
    (tmp_path / "target").write_bytes(b"old")
    (tmp_path / "link").symlink_to(tmp_path / "target")
    write_file(tmp_path / "link", b"new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "target").read_bytes() == b"new"


def test_a_folder_replaces_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "folder"
    for content in ("first", "second"):
        with new_folder(path) as partial:
            (partial / "file").write_text(content)
    assert (path / "file").read_text() == "second"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_system_that_cannot_exchange_names_renames_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unsupported(*_: object) -> int:
        ctypes.set_errno(errno.EINVAL)
        return -1

    monkeypatch.setattr(files, "_LIBC", SimpleNamespace(renameat2=unsupported))
    test_a_folder_replaces_the_old_one(tmp_path)


def test_an_error_keeps_the_old_folder(tmp_path: Path) -> None:
    path = tmp_path / "folder"
    path.mkdir()
    with pytest.raises(RuntimeError), new_folder(path) as partial:
        (partial / "file").write_text("half")
        raise RuntimeError
    assert list(path.iterdir()) == []
    assert list(tmp_path.iterdir()) == [path]


WRITER = """
import sys, time
from pathlib import Path
from types import SimpleNamespace
from dali_asr.files import new_file, new_folder
with new_folder(Path(sys.argv[1]) / "folder") as partial, new_file(Path(sys.argv[1]) / "file"):
    (partial / "part").write_text("half")
    print("writing", flush=True)
    time.sleep(60)
"""


def test_a_sweep_spares_what_a_live_process_writes(tmp_path: Path) -> None:
    """And removes it once the process was killed."""
    command = [sys.executable, "-c", WRITER, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        process.stdout.readline()
        sweep(tmp_path)
        assert len(list(tmp_path.glob(".*.partial"))) == 2
        process.send_signal(signal.SIGKILL)
    assert len(list(tmp_path.glob(".*.partial"))) == 2
    sweep(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_removal_that_was_killed_half_way_is_swept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "file").write_text("")
    with monkeypatch.context() as patch:
        patch.setattr("shutil.rmtree", lambda *_: None)
        remove_folder(folder)
    assert not folder.exists()
    assert list(tmp_path.iterdir()) != []
    sweep(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_disk_error_is_one_line_with_a_remedy(tmp_path: Path) -> None:
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(tmp_path / "file"))
    with (
        pytest.raises(
            DataError, match=r"file: No space left on device while writing; free some space, or choose another folder$"
        ),
        disk_errors(tmp_path, "choose another folder"),
    ):
        raise full
    with (
        pytest.raises(DataError, match=r"Read-only file system while writing; choose another place$"),
        disk_errors(tmp_path),
    ):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("fcntl.flock", refuse)
    write_file(tmp_path / "file", b"new")
    with new_folder(tmp_path / "folder") as partial:
        (partial / "file").write_text("new")
    sweep(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]


def test_an_error_of_a_lock_is_raised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr("fcntl.flock", fail)
    with pytest.raises(OSError, match="Input/output error"), new_folder(tmp_path / "folder"):
        pass


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=300), unique=True, max_size=6))
def test_every_name_has_a_file_of_its_own_in_its_folder(names: list[str]) -> None:
    for suffix in ("", ".TextGrid"):
        found = [file_name(name, suffix) for name in names if name + suffix]
        assert len(set(found)) == len(found)
        for name in found:
            assert not set(name) & set("/\0")
            assert name not in (".", "..")
            assert len(name.encode()) <= 230
