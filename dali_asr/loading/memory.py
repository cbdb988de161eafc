"""How much memory there is, and what of a partition lies in it at a time."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from dali_asr.errors import UsageError
from dali_asr.plan.groups import Chunks
from dali_asr.plan.planner import MOST_ROWS

if TYPE_CHECKING:
    from dali_asr.corpus import Partition

_SHARE = {"cpu": 0.5, "cuda": 0.8}  # of what is free, for frames, where no budget is set
_CGROUP = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class Memory:
    """What a loader holds on its device, in bytes.

    Attributes:
        frames: rows of features, gaps included; of two groups where the partition is streamed.
        labels: one a row.
        tables: offsets of utterances, where the device needs them.
        batches: windows of all iterations in flight, with their copies.
    """

    frames: int
    labels: int
    tables: int
    batches: int

    @property
    def total(self) -> int:
        """Bytes in all."""
        return self.frames + self.labels + self.tables + self.batches


def free_memory(device: torch.device) -> int:
    """Return the bytes of a device that can be had, on the CPU those of the process's control group."""
    if device.type == "cuda":
        torch.cuda.empty_cache()  # what torch keeps and does not use is free
        return int(torch.cuda.mem_get_info(device)[0])
    lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    available = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    return min(available, _free_in_cgroup())


def row_bytes(partition: Partition) -> int:
    """Return the bytes of a row: its features and its label."""
    label = partition.inventory.signed_dtype.itemsize if partition.labelled else 0
    return partition.feature_dim * partition.dtype.itemsize + label


def frame_budget(device: torch.device, budget: int | None, batches: int) -> int:
    """Return the bytes of a device for frames and labels: the budget, or a share of what is free beside batches."""
    if budget is not None:
        return budget
    return max(0, int((free_memory(device) - batches) * _SHARE[device.type]))


def choose_chunks(
    partition: Partition, gap: int, device: torch.device, *, budget: int | None, batches: int, alone: bool
) -> Chunks | None:
    """Decide how a partition is read: None where it fits as a whole, else in chunks.

    Args:
        partition: which.
        gap: rows of zeros between utterances.
        device: where its rows will lie.
        budget: bytes for them; None for a share of what is free beside the batches.
        batches: bytes of these.
        alone: whether this is the only rank; several must agree, and each sees other free memory.

    Raises:
        UsageError: the budget is smaller than two chunks; or none is set, several ranks are to agree, and the
            partition does not fit.
    """
    size = row_bytes(partition)
    rows = min(frame_budget(device, budget, batches) // size, MOST_ROWS - 1)
    if Chunks.whole(partition.offsets).group_rows(gap) <= rows:
        return None
    if budget is None and not alone:
        raise UsageError(
            f"{partition.name}: its frames exceed the memory that is free on {device}; set loader.memory_budget, the "
            "same on every rank, and they are streamed"
        )
    return Chunks.fit(partition.offsets, gap, rows, size)


def _free_in_cgroup() -> int:
    """Return what the control group (version 2) has left; page cache that can be dropped counts as free."""
    try:
        limit = (_CGROUP / "memory.max").read_text(encoding="ascii").strip()
        used = int((_CGROUP / "memory.current").read_text(encoding="ascii"))
        stat = dict(line.split() for line in (_CGROUP / "memory.stat").read_text(encoding="ascii").splitlines())
    except (OSError, ValueError):
        return 1 << 62
    return 1 << 62 if limit == "max" else int(limit) - used + int(stat.get("inactive_file", 0))
