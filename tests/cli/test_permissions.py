"""Files and folders that may not be read or written are one line, without a traceback."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from dali_asr import Config, train
from tests.makers import make_course
from tests.training_runs import SMALL

# Runs commands one after the other, each in a child, without root's right to read and write everything.
SCRIPT = """
import json, os, sys
import dali_asr.inference.predict, dali_asr.training, matplotlib.figure, torch._dynamo
from dali_asr.cli import main

for arguments in json.loads(sys.argv[1]):
    if not os.fork():
        sys.argv = ["dali-asr", *arguments]
        os.dup2(1, 2)
        try:
            main()
        finally:
            sys.stdout.flush()
            os._exit(0)
    os.wait()
    print("---", flush=True)
"""
WITHOUT_RIGHTS = ["setpriv", "--bounding-set", "-dac_override,-dac_read_search"] if os.geteuid() == 0 else []


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
    "handin run -o fixed/h.zip": "fixed is not a writable folder; choose another place",
    "handin closed-run -o h.zip": "closed-run/checkpoints: permission denied",
    "data info tree --plot fixed/x.png": "fixed is not a writable folder; choose another place",
    "data submit run --competition c -m m --dry-run --sample closed.yaml": "closed.yaml: permission denied; check",
    "config copy demo fixed/x.yaml": "fixed is not a writable folder; choose another place",
}


@pytest.mark.skipif(bool(WITHOUT_RIGHTS) and not shutil.which("setpriv"), reason="setpriv is not installed")
def test_what_may_not_be_read_or_written_is_one_line(folder: Path) -> None:
    commands = json.dumps([command.split() for command in CASES])
    done = subprocess.run(
        [*WITHOUT_RIGHTS, sys.executable, "-c", SCRIPT, commands],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    printed = done.stdout.removesuffix("---\n").split("---\n")
    for (command, message), output in zip(CASES.items(), printed, strict=True):
        last = output.splitlines()[-1] if output else ""
        assert last.startswith("error: "), f"{command}: {output}"
        assert message in last, f"{command}: {output}"
        assert "unexpected" not in output


@pytest.mark.skipif(bool(WITHOUT_RIGHTS) and not shutil.which("setpriv"), reason="setpriv is not installed")
def test_a_cache_that_may_not_be_written_is_one_line(folder: Path) -> None:
    done = subprocess.run(
        [*WITHOUT_RIGHTS, sys.executable, "-m", "dali_asr", "data", "info", str(folder / "tree")],
        env=os.environ | {"XDG_CACHE_HOME": str(folder / "fixed")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr == (
        f"error: {folder}/fixed/dali-asr: Permission denied while writing; set DALI_ASR_CACHE to another folder\n"
    )
    done = subprocess.run(
        [*WITHOUT_RIGHTS, sys.executable, "-m", "dali_asr", "cache", "list"],
        env=os.environ | {"DALI_ASR_CACHE": str(folder / "closed")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == f"error: {folder}/closed/corpora: permission denied; check the permissions of the cache\n"
