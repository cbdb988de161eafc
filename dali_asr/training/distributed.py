"""The processes that train together: torchrun starts them, torch.distributed joins them.

A rank is one process with one device and one DALI pipeline.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import distributed
from torch.distributed.rendezvous import rendezvous

from dali_asr.device import resolve_device
from dali_asr.errors import DeviceError, UsageError
from dali_asr.training.rendezvous import meet

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import nn

Value = TypeVar("Value")


@dataclass(frozen=True)
class World:
    """This process among all that train together.

    Attributes:
        device: of this process.
        rank: which of them it is, from 0.
        size: how many there are.
    """

    device: torch.device
    rank: int = 0
    size: int = 1

    @property
    def leads(self) -> bool:
        """Whether this is the rank that writes."""
        return self.rank == 0

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        """Return the sum over all ranks, in place; it waits for nobody on a GPU."""
        if self.size > 1:
            distributed.all_reduce(values)
        return values

    def smallest(self, value: int) -> int:
        """Return the smallest of all ranks' values."""
        if self.size == 1:
            return value
        values = torch.tensor(value, device=self.device)
        distributed.all_reduce(values, distributed.ReduceOp.MIN)
        return int(values)

    def gather(self, values: torch.Tensor) -> list[torch.Tensor]:
        """Return the tensors of all ranks, which are of one shape, by rank, on the CPU."""
        if self.size == 1:
            return [values.cpu()]
        found = [torch.empty_like(values, device=self.device) for _ in range(self.size)]
        distributed.all_gather(found, values.to(self.device))
        return [tensor.cpu() for tensor in found]

    def share(self, value: Value) -> Value:
        """Return the value of rank 0, on every rank."""
        if self.size == 1:
            return value
        shared = [value]
        distributed.broadcast_object_list(shared, device=self.device)
        return shared[0]

    def share_buffers(self, model: nn.Module) -> None:
        """Give every rank the buffers of rank 0: the statistics of batch norm, where they are not synchronized."""
        if self.size > 1:
            for buffer in model.buffers():
                distributed.broadcast(buffer, 0)


@contextmanager
def joined(device_name: str) -> Iterator[World]:
    """Join the processes that torchrun started; a process that it did not start is alone.

    Args:
        device_name: `auto`, `cpu`, `cuda` or, for a process alone, `cuda:N`; beside others, `cuda` is the GPU of this
            process's local rank.

    Raises:
        DeviceError: no such device, or fewer GPUs than processes.
        UsageError: one GPU for several processes.
        TrainingError: not all processes came.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    device = resolve_device(device_name)
    if size == 1:
        yield World(device)
        return
    if device_name.startswith("cuda:"):
        raise UsageError(f"loader.device: {device_name} beside {size} processes, each of which takes its own; set cuda")
    if device.type == "cuda":
        local = int(os.environ["LOCAL_RANK"])
        if local >= torch.cuda.device_count():
            raise DeviceError(
                f"{torch.cuda.device_count()} GPUs are fewer than the processes of this node; "
                "lower torchrun's --nproc-per-node"
            )
        device = torch.device("cuda", local)
        torch.cuda.set_device(device)
    shared, rank, size = next(rendezvous("env://"))
    backend = "nccl" if device.type == "cuda" else "gloo"
    distributed.init_process_group(backend, store=meet(shared, rank, size), rank=rank, world_size=size)
    try:
        yield World(device, rank, size)
    finally:
        distributed.destroy_process_group()
