"""Running the scripts of `benchmarks/` in this process."""

from __future__ import annotations

import importlib
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def run_script(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """Return a function that runs a script by name and returns what it printed."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))

    def run(name: str, *arguments: object) -> str:
        script: Any = importlib.import_module(name)
        if hasattr(script, "ProcessPoolExecutor"):  # a process of its own would import torch again
            monkeypatch.setattr(script, "ProcessPoolExecutor", lambda jobs, **_: ThreadPoolExecutor(jobs))
        monkeypatch.setattr(sys, "argv", [f"{name}.py", *map(str, arguments)])
        script.main()
        return capsys.readouterr().out

    return run
