"""Pages in headless Chromium."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def dump(page: Path, script: str, folder: Path, *options: str) -> str:
    """Run a script in a page that has been loaded, without a network, and return what it returns as text."""
    if not CHROMIUM:
        pytest.skip("Chromium is not installed; the tests of pages in a browser cannot run")
    tested = folder / "tested.html"
    end = f"<script>document.title = String((() => {{ {script} }})());</script></body>"
    tested.write_text(page.read_text(encoding="utf-8").replace("</body>", end), encoding="utf-8")
    command = [
        CHROMIUM,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--host-resolver-rules=MAP * ~NOTFOUND",
        f"--user-data-dir={folder / 'profile'}",
        *options,
        "--dump-dom",
        tested.as_uri(),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    return done.stdout.partition("<title>")[2].partition("</title>")[0]
