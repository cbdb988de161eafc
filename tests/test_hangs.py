"""A hang is a failure that shows all stacks, also one that holds the interpreter lock."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

HANGS = """
import ctypes

class Hangs:
    def __del__(self):
        ctypes.PyDLL(None).sleep(60)  # without giving the interpreter lock away

def test_a_hang_in_a_finalizer():
    Hangs()
"""


def test_a_hang_ends_pytest_with_all_stacks(tmp_path: Path) -> None:
    (tmp_path / "test_hangs.py").write_text(HANGS)
    root = Path(__file__).parents[1]
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-c",
        str(root / "pyproject.toml"),
        "--rootdir",
        str(tmp_path),
        "-n",
        "0",
    ]
    command += ["-o", "faulthandler_timeout=2", "-p", "no:cacheprovider", str(tmp_path / "test_hangs.py")]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=50)
    assert done.returncode != 0
    assert "in __del__" in done.stderr
