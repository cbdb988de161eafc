"""The peak memory of a pass over an utterance."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import onnx

SCRIPT = Path(__file__).parents[2] / "benchmarks/one_pass.py"


def test_the_peak_counts_what_the_pass_holds_and_no_torch(tmp_path: Path) -> None:
    """Two arrays of 100 MB, the frames and a copy."""
    text = '<ir_version: 8, opset_import: ["" : 18]> g (float[T, 28] frames) => (float[T, 28] y) { y = Neg (frames) }'
    onnx.save(onnx.parser.parse_model(text), tmp_path / "model.onnx")

    def peak(frames: int) -> float:
        command = [sys.executable, str(SCRIPT), "onnx", str(tmp_path), str(frames)]
        return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)

    mebibytes = 100 * 2**20 // (28 * 4)
    assert peak(1) < 150
    assert 190 < peak(mebibytes) - peak(1) < 260
