"""What is killed at any moment and started again ends with the same bytes; readers see all or nothing."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.fetching.archives import archive, names_beside, tree
from tests.fetching.server import serving

KILLS = int(os.environ.get("DALI_ASR_TEST_KILLS", "2"))  # twenty, run by hand
FILES = {f"d{i % 7}/{i}.npy": os.urandom(3000) for i in range(700)}
MIRRORED = {name: os.urandom(500_000 + at) for at, name in enumerate("abc")}


def look(dest: Path, whole: dict[str, bytes]) -> None:
    """A reader finds everything or nothing."""
    if dest.exists():
        assert tree(dest) == whole


@pytest.mark.parametrize("what", ["fetch", "unpack", "mirror"])
def test_a_killed_process_leaves_what_can_be_continued(what: str, tmp_path: Path) -> None:
    packed = archive(FILES, "tar.gz")
    (tmp_path / "data.tar.gz").write_bytes(packed)
    served = {"/data.tar.gz": packed} | {f"/corpus/{name}": content for name, content in MIRRORED.items()}
    whole = MIRRORED if what == "mirror" else FILES
    dest = tmp_path / "here/out"
    dest.parent.mkdir()
    with serving(served) as server:
        server.pause = 0.01
        source = {"fetch": server.url("/data.tar.gz"), "mirror": server.url("/corpus")}
        command = [sys.executable, "-m", "tests.fetching.victim", what, source.get(what, f"{tmp_path}/data.tar.gz")]
        seconds = 0.05 if what == "unpack" else 0.4  # about as long as it takes
        kills = 0
        while kills < KILLS:
            if dest.exists():  # complete before a kill
                shutil.rmtree(dest)
            with subprocess.Popen([*command, str(dest)], stdout=subprocess.PIPE, text=True) as process:
                assert process.stdout
                assert process.stdout.readline() == "begun\n"
                end = time.monotonic() + random.uniform(0, seconds)
                while time.monotonic() < end:
                    look(dest, whole)
                process.kill()
            kills += process.returncode < 0
            look(dest, whole)
        if dest.exists():
            shutil.rmtree(dest)
        subprocess.run([*command, str(dest)], check=True, capture_output=True)
    assert tree(dest) == whole
    assert names_beside(dest) == {"out"}
