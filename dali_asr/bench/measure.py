"""The protocol of the loader's benchmark: check the windows, warm up, then repeat all contenders in turn."""

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
    """The measurements of a contender.

    Attributes:
        name: name of the loader.
        device: device of its batches.
        windows_per_second: rate of each repeat.
        bytes_per_window: size of a delivered window.
        memory: bytes of the device that the loader reports; None for other loaders than `WindowLoader`.
    """

    name: str
    device: str
    windows_per_second: list[float]
    bytes_per_window: int
    memory: int | None = None

    @property
    def median(self) -> float:
        """Windows per second."""
        return statistics.median(self.windows_per_second)

    @property
    def spread(self) -> float:
        """Half the range of the repeats, as a fraction of the median."""
        return (max(self.windows_per_second) - min(self.windows_per_second)) / 2 / self.median

    @property
    def gigabytes_per_second(self) -> float:
        """Rate of delivered windows in 10^9 bytes per second."""
        return self.median * self.bytes_per_window / 1e9

    def share(self, roof: float) -> float:
        """Return the fraction of a device's copy bandwidth in use, when each value is read and written once."""
        return 2 * self.gigabytes_per_second * 1e9 / roof


def check(contenders: Sequence[Contender]) -> None:
    """Compare the first batches of all contenders, to the bit, with those of the first one or with those expected.

    Raises:
        BenchError: a batch differs.
    """
    reference: list[tuple[torch.Tensor, torch.Tensor]] = []
    for contender in contenders:
        for number in range(CHECKED_BATCHES):
            windows, labels = (tensor.cpu() for tensor in next(contender.batches))
            if len(reference) == number:
                reference.append((windows, labels))
            right = reference[number] if contender.expected is None else next(contender.expected)
            if not (_same_bits(windows, right[0]) and torch.equal(labels, right[1])):
                other = contenders[0].name if contender.expected is None else "its plan"
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

    Batches that a contender prepared while others ran are taken before the clock starts. Afterwards its workers end, or
    it gets the time to prepare as many batches again, so that it is idle while the next contender is timed.
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
        Result(c.name, str(c.device), rate, size, c.loader.memory.total if c.loader else None)
        for c, rate, size in zip(contenders, rates, sizes, strict=True)
    ]


def copy_bandwidth(device: torch.device, *, repeats: int = 5) -> float:
    """Return the bytes per second, read and written, of a copy within a device; the median of the repeats."""
    size = _COPIED_BYTES[device.type]
    source = torch.ones(size, dtype=torch.uint8, device=device)
    target = torch.zeros_like(source)

    def copy() -> None:
        target.copy_(source)

    return statistics.median(2 * size * _COPIES / _seconds(copy, _COPIES, device) for _ in range(repeats))


def matrix_roof(device: torch.device, precision: str, *, repeats: int = 3) -> float:
    """Return the operations per second of multiplying large square matrices; the best of the repeats."""
    size = _MATRIX_SIZE[device.type]
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))

    def multiply() -> None:
        torch.mm(a, b)

    return max(2 * size**3 * _PRODUCTS / _seconds(multiply, _PRODUCTS, device) for _ in range(repeats))


def _seconds(work: Callable[[], None], times: int, device: torch.device) -> float:
    """Return the time of doing some work several times, after once to warm up."""
    work()
    synchronize(device)
    begun = time.perf_counter()
    for _ in range(times):
        work()
    synchronize(device)
    return time.perf_counter() - begun


def _time(contender: Contender, seconds: float) -> tuple[float, int]:
    """Return windows per second, and bytes per window."""
    for _ in range(contender.ahead + 1):
        windows, _labels = next(contender.batches)
    synchronize(contender.device)
    count = batches = 0
    min_batches = max(2, 2 * contender.ahead)
    begun = time.perf_counter()
    while batches < min_batches or time.perf_counter() - begun < seconds:
        windows, _labels = next(contender.batches)
        count += len(windows)
        batches += 1
    synchronize(contender.device)
    return count / (time.perf_counter() - begun), windows[0].nbytes


def synchronize(device: torch.device) -> None:
    """Wait until a device has finished its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _same_bits(a: torch.Tensor, b: torch.Tensor) -> bool:
    bits = {2: torch.int16, 4: torch.int32}[a.element_size()]
    return a.dtype == b.dtype and torch.equal(a.contiguous().view(bits), b.contiguous().view(bits))
