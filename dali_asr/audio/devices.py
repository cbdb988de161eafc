"""Which GPU computes features, asked of the driver: torch, which takes seconds and memory to import, is not needed."""

from __future__ import annotations

import ctypes
import re

from dali_asr.errors import DeviceError, UsageError, brief


def gpu_number(device: str) -> int | None:
    """Return the number of the GPU that `auto`, `cuda` or `cuda:N` means; None for the CPU.

    Raises:
        DeviceError: there is no such GPU.
        UsageError: it is no device.
    """
    found = re.fullmatch(r"auto|cpu|cuda(?::(\d+))?", device)
    if not found:
        raise UsageError(f"device: received {brief(device)}; allowed are auto, cpu, cuda, cuda:N")
    if device == "cpu":
        return None
    number, count = int(found[1] or 0), _gpu_count()
    if number < count:
        return number
    if device == "auto":
        return None
    raise DeviceError(f"device {device}: there are {count} GPUs; choose another one, or cpu")


def _gpu_count() -> int:
    count = ctypes.c_int(0)
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return 0
    if driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count)):
        return 0
    return count.value
