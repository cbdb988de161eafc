"""`dali-asr doctor`."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING, Literal

import typer

from dali_asr.cli.console import say

if TYPE_CHECKING:
    import torch


def doctor() -> None:
    """Show the installed versions and what runs where, and check that training works; exit 1 if it does not."""
    from dali_asr.environment import PACKAGES, installed_version

    for package in PACKAGES:
        say(f"{package:<22} {installed_version(package)}")
    problem = _check_imports() or _report_devices()
    if problem:
        say(f"\nNot ready: {problem}")
        raise typer.Exit(1)
    say("\nReady: dali-asr train")


def _check_imports() -> str | None:
    for package, remedy in (
        ("torch", "pip install 'torch>=2.6,<2.14'"),
        ("nvidia.dali", "pip install 'nvidia-dali-cuda120>=2.4'"),
    ):
        try:
            __import__(package)
        except (ImportError, OSError) as error:
            return f"{package} cannot be imported ({error}); {remedy}"
    return None


def _report_devices() -> str | None:
    """Print a line per device; return the problem of the device that `auto` stands for."""
    import torch

    from dali_asr.device import describe_device, resolve_device

    say(f"{'NVIDIA driver':<22} {_driver()}")
    say(f"{'CUDA of torch':<22} {torch.version.cuda or 'none (a build for the CPU)'}")
    chosen = resolve_device("auto")
    found = None
    for device in (torch.device("cpu"), *(torch.device("cuda", at) for at in range(torch.cuda.device_count()))):
        state, problem = _check_device(device)
        say(f"{device!s:<22} {describe_device(device)}: {state}")
        if problem and device == chosen:
            found = f"{device}: {problem}"
    if not found:
        say(f"{'device: auto':<22} {describe_device(chosen)}")
    return found


def _check_device(device: torch.device) -> tuple[str, str | None]:
    """Run every graph that a device can use; return the state of the device, and its problem."""
    from dali_asr.loading import fused_problem

    unusable = fused_problem(device)
    graphs: list[Literal["stock", "fused"]] = ["stock"] if unusable else ["stock", "fused"]
    problems = [f"graph {graph}: {problem}" for graph in graphs if (problem := _check_windows(device, graph))]
    if problems:
        return "; ".join(problems), "; ".join(problems)
    state = f"windows cut by DALI equal NumPy's (graph {' and '.join(graphs)})"
    return state + (f"; graph fused cannot be used: {unusable}" if unusable and device.type == "cuda" else ""), None


def _driver() -> str:
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        found = subprocess.run(query, capture_output=True, text=True, check=True, timeout=20).stdout.split()
    except (OSError, subprocess.SubprocessError):
        return "not found"
    return found[0] if found else "not found"


def _check_windows(device: torch.device, graph: Literal["stock", "fused"]) -> str | None:
    """Compare windows of two short utterances, cut by DALI and by NumPy; return what went wrong."""
    import numpy as np

    from dali_asr.corpus import Corpus
    from dali_asr.loading import WindowLoader

    utterances = [np.arange(12, dtype=np.float32).reshape(4, 3) + 1, np.ones((2, 3), np.float32)]
    padded = [np.pad(frames, ((1, 1), (0, 0))) for frames in utterances]
    expected = np.stack([p[t : t + 3] for p in padded for t in range(len(p) - 2)])
    partition = Corpus.from_arrays(utterances).partition("all")
    try:
        loader = WindowLoader(partition, context=1, batch_size=8, shuffle=False, device=device, graph=graph)
        windows = next(iter(loader)).windows.cpu().numpy()
    except Exception as error:  # noqa: BLE001 - any failure is what the user needs to know
        return f"DALI failed: {str(error).splitlines()[0]}"
    return None if np.array_equal(windows, expected) else "windows differ from NumPy's"
