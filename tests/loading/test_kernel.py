"""The fused kernels where there is no GPU: interpreted in a process of their own, and compiled for real ones."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from dali_asr.plan import Bands, LoaderSpec, Masking

triton: Any = pytest.importorskip("triton")

ROOT = Path(__file__).parents[2]


def test_the_kernels_pass_through_the_interpreter() -> None:
    """The interpreter is chosen when Triton is imported, so it needs a process of its own."""
    environment = os.environ | {"TRITON_INTERPRET": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-n", "0", "-p", "no:cacheprovider", "tests/interpreted"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-4000:]
    assert re.search(r"^\d+ passed", done.stdout.splitlines()[-1]), done.stdout[-400:]


def compiled(kernel: Any, types: dict[str, str], constants: dict[str, Any], *, capability: int, warps: int) -> Any:
    """Compile a kernel, which needs no GPU."""
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    names = kernel.arg_names
    signature = {name: types.get(name, "constexpr") for name in names}
    aligned = {(names.index(name),): [["tt.divisibility", 16]] for name, kind in types.items() if kind[0] == "*"}
    source = ASTSource(kernel, signature, {(names.index(name),): value for name, value in constants.items()}, aligned)
    target = GPUTarget("cuda", capability, 32)
    return triton.compile(source, target=target, options={"num_warps": warps})


compiles = pytest.mark.skipif(
    tuple(map(int, triton.__version__.split(".")[:2])) < (3, 3), reason="ASTSource changed with Triton 3.3"
)


@compiles
@pytest.mark.parametrize("capability", [80, 90])
@pytest.mark.parametrize(("stored", "width"), [("fp32", 4), ("fp16", 2)])
def test_windows_are_copied_sixteen_bytes_at_a_time(capability: int, stored: str, width: int) -> None:
    from dali_asr.loading.kernel import cut_windows

    pointers = {"plan": "*i64", "rows": f"*{stored}", "first_rows": "*i64", "edges": "*i32", "windows": "*fp32"}
    constants = {"FRAMES": 61, "FEATURES": 28, "TIME_BANDS": 2, "FREQUENCY_BANDS": 2, "BLOCK": 2048}
    ptx = compiled(cut_windows, pointers, constants, capability=capability, warps=8).asm["ptx"]
    assert f"ld.global.v{width}.b32" in ptx
    assert "st.global.v4.b32" in ptx
    assert ptx.count("st.global") == 2, "every value is written once"


@compiles
@pytest.mark.parametrize("capability", [80, 90])
@pytest.mark.parametrize("masking", [None, Masking(time=Bands((1, 3), (3, 7)))])
def test_the_plan_is_computed_in_unsigned_arithmetic(capability: int, masking: Masking | None) -> None:
    """It compiles, which the interpreter does not prove."""
    from dali_asr.loading.fused import mask_constants
    from dali_asr.loading.kernel import plan_windows

    names = ("plan", "offsets", "frame_ids", "labels", "first_rows")
    pointers = dict.fromkeys(names, "*i64") | {"row_labels": "*i8", "edges": "*i32"}
    numbers = ("subset", "chunks", "utterances", "gap", "left", "scope")
    constants: dict[str, Any] = {"SHUFFLE": True, "LABELLED": True, "MASKED": masking is not None, "BY_STEP": False}
    constants |= {
        "CHUNK_DEPTH": 6,
        "UTTERANCE_DEPTH": 15,
        "BLOCK": 256,
        **mask_constants(LoaderSpec(9, 28, (30, 30), 2, masking=masking)),
    }
    signature = pointers | dict.fromkeys(numbers, "i32")
    ttir = compiled(plan_windows, signature, constants, capability=capability, warps=4).asm["ttir"]
    for signed in ("arith.shrsi", "arith.mulsi_extended", "arith.maxsi"):
        assert not [line for line in ttir.splitlines() if signed in line and "i32>" in line], signed
