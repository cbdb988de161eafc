"""What results record about the machine, and that asking git runs no program of the repository."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from dali_asr.environment import PACKAGES, environment, git_commit, installed_version

Git = Callable[..., str]


@pytest.fixture
def git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Git:
    """Return a function that runs git in a new repository of one file, the current folder."""
    folder = tmp_path / "repository"
    folder.mkdir()
    monkeypatch.chdir(folder)

    def run(*arguments: str) -> str:
        named = ("-c", "user.name=a", "-c", "user.email=a@b")
        return subprocess.run(["git", *named, *arguments], check=True, capture_output=True, text=True).stdout.strip()

    run("init", "-q")
    Path("file").write_text("one")
    Path(".gitattributes").write_text("file filter=evil\n")
    run("add", ".")
    run("commit", "-qm", "one")
    return run


def test_the_commit_is_marked_when_files_are_changed(git: Git) -> None:
    commit = git("rev-parse", "HEAD")
    assert git_commit() == commit
    Path("untracked").write_text("x")
    assert git_commit() == commit
    Path("file").write_text("two")
    assert git_commit() == f"{commit}+"


def test_there_is_no_commit_outside_of_git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert git_commit() is None


@pytest.mark.parametrize("key", ["core.fsmonitor", "filter.evil.clean", "filter.evil.process"])
def test_a_program_named_by_the_repository_is_not_run(git: Git, tmp_path: Path, key: str) -> None:
    ran = tmp_path / "ran"
    program = tmp_path / "program"
    program.write_text(f"#!/bin/sh\ntouch {ran}\n")
    program.chmod(0o755)
    git("config", key, str(program))
    Path("file").touch()  # so that git compares the content
    subprocess.run(["git", "status"], capture_output=True, check=False)
    assert ran.exists(), "plain git runs it"
    ran.unlink()
    Path("file").touch()
    assert git_commit() is not None
    assert not ran.exists()


def test_versions_and_machine() -> None:
    values = environment(torch.device("cpu"))
    assert values["machine"]["cores"] >= 1
    assert values["machine"]["gpu"] is None
    assert set(values["packages"]) == set(PACKAGES)
    assert values["packages"]["torch"] == installed_version("torch")
    assert installed_version("no-such-package-at-all") == "not installed"
