"""The protocol: check, warm up, then repeats of all contenders in turn."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from dali_asr.errors import BenchError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from dali_asr.bench.contenders import Contender

CHECKED_BATCHES = 2
_COPIED_BYTES = {"cpu": 128 << 20, "cuda": 1 << 30}
_COPIES = 4
_MATRIX_SIZE = {"cpu": 2048, "cuda": 8192}
_PRODUCTS = 4


@dataclass(frozen=True)
class Result:
    """What was measured of a contender.

    Attributes:
        name: of the loader.
        device: where its batches lie.
        compared: whether its windows were checked.
        windows_per_second: of each repeat.
        bytes_per_window: of the windows delivered.
        memory: bytes of the device that the loader says it takes; None where it is not ours.
    """

    name: str
    device: str
    compared: bool
    windows_per_second: list[float]
    bytes_per_window: int
    memory: int | None = None

    @property
    def median(self) -> float:
        """Windows per second."""
        return statistics.median(self.windows_per_second)

    @property
    def spread(self) -> float:
        """Half the range of the repeats, as a share of the median."""
        return (max(self.windows_per_second) - min(self.windows_per_second)) / 2 / self.median

    @property
    def gigabytes_per_second(self) -> float:
        """Of windows delivered, 10^9 bytes."""
        return self.median * self.bytes_per_window / 1e9

    def share(self, roof: float) -> float:
        """Return the share of a device's copy bandwidth that is used, where each value is read and written once."""
        return 2 * self.gigabytes_per_second * 1e9 / roof


def check(contenders: Sequence[Contender]) -> None:
    """Compare the first batches of all contenders, to the bit, with each other or with what is expected of one.

    Raises:
        BenchError: two of them differ.
    """
    compared = [c for c in contenders if c.compared]
    reference: list[tuple[torch.Tensor, torch.Tensor]] = []
    for contender in compared:
        for number in range(CHECKED_BATCHES):
            windows, labels = (tensor.cpu() for tensor in next(contender.batches))
            if len(reference) == number:
                reference.append((windows, labels))
            right = reference[number] if contender.expected is None else next(contender.expected)
            if not (_same_bits(windows, right[0]) and torch.equal(labels, right[1])):
                other = compared[0].name if contender.expected is None else "its plan"
                raise BenchError(
                    f"{contender.name} on {contender.device}: batch {number} differs from that of {other}; "
                    "nothing was timed"
                )
        contender.rest()


def measure(
    contenders: Sequence[Contender],
    *,
    repeats: int,
    seconds: float,
    progress: Callable[[int, int], object],
) -> list[Result]:
    """Time all contenders in turn, `repeats` times, at least `seconds` each time.

    Before each time, what a contender prepared while others ran is taken from it and not counted; after it, its
    workers end, or it has the time to prepare as much again, so that it is idle while the next one is timed.
    """
    rates: list[list[float]] = [[] for _ in contenders]
    sizes = [0] * len(contenders)
    done, total = 0, (repeats + 1) * len(contenders)
    for repeat in range(-1, repeats):
        for at, contender in enumerate(contenders):
            rate, sizes[at] = _time(contender, seconds if repeat >= 0 else seconds / 4)
            contender.rest()
            if not contender.workers:
                time.sleep(2 * contender.ahead * contender.batch_size / rate)
            if repeat >= 0:  # the first round warms up
                rates[at].append(rate)
            done += 1
            progress(done, total)
    return [
        Result(c.name, str(c.device), c.compared, rate, size, c.loader.memory.total if c.loader else None)
        for c, rate, size in zip(contenders, rates, sizes, strict=True)
    ]


def copy_bandwidth(device: torch.device, *, repeats: int = 5) -> float:
    """Return the bytes a second, read and written, that a copy within a device reaches; the median of repeats."""
    size = _COPIED_BYTES["cuda" if device.type == "cuda" else "cpu"]
    source = torch.ones(size, dtype=torch.uint8, device=device)
    target = torch.zeros_like(source)
    rates = []
    for _ in range(repeats + 1):
        synchronize(device)
        begun = time.perf_counter()
        for _ in range(_COPIES):
            target.copy_(source)
        synchronize(device)
        rates.append(2 * size * _COPIES / (time.perf_counter() - begun))
    return statistics.median(rates[1:])


def matrix_roof(device: torch.device, precision: str, *, repeats: int = 3) -> float:
    """Return the operations a second that the multiplication of large square matrices reaches; the best of repeats."""
    size = _MATRIX_SIZE["cuda" if device.type == "cuda" else "cpu"]
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    best = 0.0
    for _ in range(repeats + 1):
        synchronize(device)
        begun = time.perf_counter()
        for _ in range(_PRODUCTS):
            torch.mm(a, b)
        synchronize(device)
        best = max(best, 2 * size**3 * _PRODUCTS / (time.perf_counter() - begun))
    return best


def _time(contender: Contender, seconds: float) -> tuple[float, int]:
    """Return windows per second, and bytes of a window."""
    for _ in range(contender.ahead + 1):
        windows, _labels = next(contender.batches)
    synchronize(contender.device)
    count, least = 0, max(2, 2 * contender.ahead)
    batches = 0
    begun = time.perf_counter()
    while batches < least or time.perf_counter() - begun < seconds:
        windows, _labels = next(contender.batches)
        count += len(windows)
        batches += 1
    synchronize(contender.device)
    return count / (time.perf_counter() - begun), windows[0].nbytes


def synchronize(device: torch.device) -> None:
    """Wait for what a device has to do."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _same_bits(a: torch.Tensor, b: torch.Tensor) -> bool:
    bits = {2: torch.int16, 4: torch.int32}[a.element_size()]
    return a.dtype == b.dtype and torch.equal(a.contiguous().view(bits), b.contiguous().view(bits))
