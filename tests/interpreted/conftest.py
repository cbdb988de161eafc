"""Tests here run the fused kernels through Triton's interpreter, which is chosen when Triton is imported.

`tests/loading/test_kernel.py` runs them in a process of their own.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip all tests of this folder where Triton compiles."""
    if os.environ.get("TRITON_INTERPRET") == "1":
        return
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.skip(reason="TRITON_INTERPRET=1 is not set; test_kernel.py runs them"))
