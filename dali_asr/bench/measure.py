"""The protocol: check, warm up, then repeats of all contenders in turn."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from dali_asr.errors import DaliAsrError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from dali_asr.bench.contenders import Contender

CHECKED_BATCHES = 2


class BenchError(DaliAsrError):
    """A contender whose windows are not those of the plan."""


@dataclass(frozen=True)
class Result:
    """What was measured of a contender.

    Attributes:
        name: of the loader.
        device: where its batches lie.
        compared: whether its windows were checked.
        windows_per_second: of each repeat.
        bytes_per_window: of the windows delivered.
    """

    name: str
    device: str
    compared: bool
    windows_per_second: list[float]
    bytes_per_window: int

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


def check(contenders: Sequence[Contender]) -> None:
    """Compare the first batches of all contenders that follow the plan, to the bit.

    Raises:
        BenchError: two of them differ.
    """
    compared = [c for c in contenders if c.compared]
    for number in range(CHECKED_BATCHES):
        reference: tuple[torch.Tensor, torch.Tensor] | None = None
        for contender in compared:
            windows, labels = (tensor.cpu() for tensor in next(contender.batches))
            reference = reference or (windows, labels)
            if not (_same_bits(windows, reference[0]) and torch.equal(labels, reference[1])):
                raise BenchError(
                    f"{contender.name} on {contender.device}: batch {number} differs from that of "
                    f"{compared[0].name}; nothing was timed"
                )


def measure(
    contenders: Sequence[Contender],
    *,
    repeats: int,
    seconds: float,
    progress: Callable[[int, int], object],
) -> list[Result]:
    """Time all contenders in turn, `repeats` times, at least `seconds` each time.

    Before each time, what a contender prepared while others ran is taken from it and not counted; after it, it has
    the time to prepare as much again, so that its workers are idle while the next one is timed.
    """
    rates: list[list[float]] = [[] for _ in contenders]
    sizes = [0] * len(contenders)
    done, total = 0, (repeats + 1) * len(contenders)
    for repeat in range(-1, repeats):
        for at, contender in enumerate(contenders):
            rate, sizes[at] = _time(contender, seconds if repeat >= 0 else seconds / 4)
            time.sleep(2 * contender.ahead * contender.batch_size / rate)
            if repeat >= 0:  # the first round warms up
                rates[at].append(rate)
            done += 1
            progress(done, total)
    return [
        Result(c.name, str(c.device), c.compared, rate, size)
        for c, rate, size in zip(contenders, rates, sizes, strict=True)
    ]


def _time(contender: Contender, seconds: float) -> tuple[float, int]:
    """Return windows per second, and bytes of a window."""
    for _ in range(contender.ahead + 1):
        windows, _labels = next(contender.batches)
    _synchronize(contender.device)
    count, least = 0, max(2, 2 * contender.ahead)
    batches = 0
    begun = time.perf_counter()
    while batches < least or time.perf_counter() - begun < seconds:
        windows, _labels = next(contender.batches)
        count += len(windows)
        batches += 1
    _synchronize(contender.device)
    return count / (time.perf_counter() - begun), windows[0].nbytes


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _same_bits(a: torch.Tensor, b: torch.Tensor) -> bool:
    bits = {2: torch.int16, 4: torch.int32}[a.element_size()]
    return a.dtype == b.dtype and torch.equal(a.contiguous().view(bits), b.contiguous().view(bits))
