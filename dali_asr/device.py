"""The device that work runs on: its name, and how much of its memory is free."""

from __future__ import annotations

from pathlib import Path

import torch

from dali_asr.errors import DeviceError, UsageError

_CGROUP = Path("/sys/fs/cgroup")
_UNLIMITED = 1 << 62


def resolve_device(name: str) -> torch.device:
    """Return the device with a name: `auto` (CUDA if available, else the CPU), `cpu`, `cuda` or `cuda:N`.

    Raises:
        UsageError: any other name.
        DeviceError: the CUDA device does not exist.
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
        raise DeviceError(f"device {name}: there are {torch.cuda.device_count()} CUDA devices, starting at cuda:0")
    return torch.device("cuda", index)


def describe_device(device: torch.device) -> str:
    """Return the name of a device for people."""
    if device.type == "cuda":
        return f"{device} ({torch.cuda.get_device_name(device)})"
    threads = torch.get_num_threads()
    return f"CPU ({threads} thread{'s' if threads > 1 else ''})"


def free_memory(device: torch.device) -> int:
    """Return the number of bytes that can still be allocated; on the CPU, within the process's control group."""
    if device.type == "cuda":
        torch.cuda.empty_cache()  # torch's cached blocks count as free
        return int(torch.cuda.mem_get_info(device)[0])
    lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    available = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    return min(available, _free_in_cgroup())


def _free_in_cgroup() -> int:
    """Return what is left in the control group (version 2); page cache that can be dropped counts as free."""
    try:
        limit = (_CGROUP / "memory.max").read_text(encoding="ascii").strip()
        used = int((_CGROUP / "memory.current").read_text(encoding="ascii"))
        stat = dict(line.split() for line in (_CGROUP / "memory.stat").read_text(encoding="ascii").splitlines())
    except (OSError, ValueError):
        return _UNLIMITED
    return _UNLIMITED if limit == "max" else int(limit) - used + int(stat.get("inactive_file", 0))
