"""Tests here run the fused kernels through Triton's interpreter, which is chosen when Triton is imported.

`tests/loading/test_kernel.py` runs them in a process of their own.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

HERE = Path(__file__).parent
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip all tests of this folder where Triton compiles."""
    if INTERPRETED:
        return
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.skip(reason="TRITON_INTERPRET=1 is not set; test_kernel.py runs them"))


@pytest.fixture(scope="session", autouse=True)
def quick_interpreter() -> None:
    """Patch Triton's language once instead of at every call, and leave out the checks that only debugging reads."""
    if not INTERPRETED:
        return
    from triton.runtime import interpreter

    kept = SimpleNamespace(restore=lambda: None)
    patch, patched = interpreter._patch_lang, set()

    def patch_once(function: Any) -> SimpleNamespace:
        if function.__globals__["__name__"] not in patched:  # patches the modules that the function's module imports
            patch(function)
            patched.add(function.__globals__["__name__"])
        return kept

    interpreter._patch_lang = patch_once
    options = interpreter.interpreter_builder.options
    interpreter.interpreter_builder.options = replace(options, sanitize_overflow=False)
