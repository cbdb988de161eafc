"""Choosing where to run."""

from __future__ import annotations

import torch

from dali_asr.errors import DeviceError, UsageError


def resolve_device(name: str) -> torch.device:
    """Return the device of a name: `auto` (CUDA where there is one, else the CPU), `cpu`, `cuda` or `cuda:N`.

    Raises:
        UsageError: another name.
        DeviceError: a CUDA device that is not there.
    """
    available = torch.cuda.is_available()
    if name == "auto":
        name = "cuda" if available else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UsageError(f"device {name!r}; expected auto, cpu, cuda or cuda:N") from error
    if device.type == "cpu":
        return torch.device("cpu")
    if device.type != "cuda":
        raise UsageError(f"device {name!r}; expected auto, cpu, cuda or cuda:N")
    if not available:
        raise DeviceError(f"device {name}: no CUDA device was found; use cpu, or see dali-asr doctor")
    index = torch.cuda.current_device() if device.index is None else device.index
    if index >= torch.cuda.device_count():
        raise DeviceError(f"device {name}: there are {torch.cuda.device_count()} CUDA devices, from cuda:0 on")
    return torch.device("cuda", index)


def describe_device(device: torch.device) -> str:
    """Return a device as a person would name it."""
    if device.type == "cuda":
        return f"{device} ({torch.cuda.get_device_name(device)})"
    threads = torch.get_num_threads()
    return f"CPU ({threads} thread{'s' if threads > 1 else ''})"
