"""Run one pass over an utterance in one form of a model, and print the peak memory of this process in MiB.

    python benchmarks/one_pass.py windows|convolution|onnx RUN FRAMES

It imports only what the form needs: `onnx` needs no torch. See `export.py`.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

CONTEXT, FEATURES, CHUNK = 30, 28, 4096
FORMS = ("windows", "convolution", "onnx")


def make_utterance(frames: int) -> NDArray[np.float32]:
    """Return random frames `[T, D]`."""
    return np.random.default_rng(0).standard_normal((frames, FEATURES), dtype=np.float32)


def open_form(form: str, run: Path) -> Callable[[NDArray[np.float32]], NDArray[np.int64]]:
    """Return a function from the frames of an utterance to its labels."""
    if form == "onnx":
        import onnxruntime

        session: Any = onnxruntime.InferenceSession(run / "model.onnx", providers=["CPUExecutionProvider"])
        return lambda frames: session.run(None, {"frames": frames})[0].argmax(axis=1)
    from dali_asr import load_model

    model = load_model(run, checkpoint="last", device="cpu")
    if form == "convolution":
        return model.classify
    import torch

    @torch.inference_mode()
    def classify(frames: NDArray[np.float32]) -> NDArray[np.int64]:
        stored = model.normalization.apply(frames).astype(model.frame_dtype).astype(np.float32)
        rows = torch.from_numpy(np.pad(stored, ((CONTEXT, CONTEXT), (0, 0))))
        windows = rows.unfold(0, 2 * CONTEXT + 1, 1).transpose(1, 2)
        return np.concatenate([model(batch).argmax(dim=1).numpy() for batch in torch.split(windows, CHUNK)])

    return classify


def peak_memory() -> float:
    """Return the peak of this process's resident memory in MiB.

    `getrusage` would count that of the process that started this one.
    """
    status = Path("/proc/self/status").read_text(encoding="ascii")
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    assert found
    return int(found[1]) / 1024


if __name__ == "__main__":
    form, run, frames = sys.argv[1:]
    open_form(form, Path(run))(make_utterance(int(frames)))
    print(peak_memory())
