"""Files and folders that may not be read or written are one line, without a traceback."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import soundfile

from dali_asr import Config, train
from tests.makers import make_course
from tests.training_runs import SMALL, Forker


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a course folder, a run, and what may not be read or written."""
    path = tmp_path_factory.mktemp("permissions")
    make_course(path / "tree", {"train": [60, 50], "dev": [40], "test": [30]})
    options = [f"data.root={path / 'tree'}", "training.max_steps=1", "loader.batch_size=8"]
    train(Config.load("demo", [*SMALL, *options]), run=path / "run")
    for copy in ("closed", "closed-partition"):
        shutil.copytree(path / "tree", path / copy)
    for copy in ("closed-run", "closed-checkpoints", "fixed-run"):
        shutil.copytree(path / "run", path / copy)
    soundfile.write(path / "closed.wav", [0.0] * 800, 16_000)
    shutil.copytree(path / "closed", path / "sounds/closed")
    (path / "closed.wav").chmod(0)
    (path / "sounds/closed").chmod(0)
    (path / "dangling").symlink_to("nowhere")
    (path / "fixed").mkdir(mode=0o555)
    (path / "closed.yaml").touch(mode=0)
    (path / "closed-partition/dev/mfcc").chmod(0)
    (path / "closed-checkpoints/checkpoints").chmod(0)
    (path / "fixed-run").chmod(0o555)
    (path / "closed").chmod(0)
    (path / "closed-run").chmod(0)
    return path


CASES = {
    "data info closed": "closed: permission denied; check the path and its permissions",
    "data pack closed packed": "closed: permission denied",
    "data info closed-partition": "closed-partition/dev/mfcc: permission denied",
    "data info dangling": "dangling: no such folder",
    "data fetch tree --to fixed/out": "Permission denied while writing; choose another place",
    "data fetch closed.yaml --to out": "closed.yaml: Permission denied",
    "train --set data.root=dangling": "data.root: dangling: no such folder",
    "train --set data.root=closed": "closed/corpus.json: permission denied",
    "train --run-folder fixed/run": "fixed/run: Permission denied while writing; choose another folder (--run-folder)",
    "train closed.yaml": "closed.yaml: permission denied; check the path and its permissions",
    "train --resume closed-run": "closed-run/config.yaml: permission denied",
    "train --resume closed-checkpoints": "closed-checkpoints/checkpoints: permission denied",
    "predict closed-run tree": "closed-run/checkpoints: permission denied",
    "predict closed-checkpoints tree": "closed-checkpoints/checkpoints: permission denied",
    "evaluate closed-run": "closed-run/config.yaml: permission denied",
    "evaluate fixed-run": "Permission denied while writing; choose another place",
    "predict run tree -o fixed/x.csv": "fixed is not a writable folder; choose another place",
    "predict english-small closed.wav": "closed.wav: permission denied; check the path and its permissions",
    "predict english-small sounds": "sounds/closed: Permission denied; make it readable, or move it away; --keep-going",
    "features closed.wav packed": "closed.wav: Permission denied; make it readable, or remove it",
    "align english-small demo closed.yaml -o aligned": "closed.yaml: permission denied; check the path",
    "handin run -o fixed/h.zip": "fixed is not a writable folder; choose another place",
    "handin closed-run -o h.zip": "closed-run/checkpoints: permission denied",
    "data info tree --plot fixed/x.png": "fixed is not a writable folder; choose another place",
    "data submit run --competition c -m m --dry-run --sample closed.yaml": "closed.yaml: permission denied; check",
    "config copy demo fixed/x.yaml": "fixed is not a writable folder; choose another place",
}


def errors_of(forker: Forker, command: str, folder: Path, errors: Path, **environment: str) -> str:
    """Return what a command that fails prints to standard error, without root's rights."""
    errors.unlink(missing_ok=True)
    forker.command(*command.split(), errors=errors, FOLDER=str(folder), **environment)
    assert forker.wait() in (1, 2), command
    return errors.read_text()


@pytest.mark.parametrize(("command", "message"), CASES.items(), ids=CASES)
def test_what_may_not_be_read_or_written_is_one_line(
    command: str, message: str, folder: Path, forker: Forker, tmp_path: Path
) -> None:
    printed = errors_of(forker, command, folder, tmp_path / "errors")
    last = printed.splitlines()[-1]
    assert last.startswith("error: "), printed
    assert message in last, printed
    assert "unexpected" not in printed


def test_a_cache_that_may_not_be_written_is_one_line(folder: Path, forker: Forker, tmp_path: Path) -> None:
    fixed = errors_of(forker, "data info tree", folder, tmp_path / "errors", XDG_CACHE_HOME=str(folder / "fixed"))
    assert fixed == (
        f"error: {folder}/fixed/dali-asr: Permission denied while writing; set DALI_ASR_CACHE to another folder\n"
    )
    closed = errors_of(forker, "cache list", folder, tmp_path / "errors", DALI_ASR_CACHE=str(folder / "closed"))
    assert closed == f"error: {folder}/closed/corpora: permission denied; check the permissions of the cache\n"
