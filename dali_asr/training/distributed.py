"""The processes that train together: torchrun starts them, torch.distributed joins them.

A rank is one process with one device and one DALI pipeline.

torchrun keeps its store when it restarts processes, and with it the addresses of dead ones, which gloo and NCCL would
wait for. So the ranks of every start first agree on a new name, and meet in the part of the store below it (`meet`).
"""

from __future__ import annotations

import os
import time
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Literal, TypeVar, cast
from uuid import uuid4

import torch
from torch import distributed, nn
from torch.distributed import DistStoreError, PrefixStore  # type: ignore[attr-defined]
from torch.distributed.rendezvous import rendezvous

from dali_asr.device import resolve_device
from dali_asr.errors import CheckpointError, DaliAsrError, DeviceError, TrainingError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch.distributed import Store  # type: ignore[attr-defined]

Value = TypeVar("Value")
GeneratorStates = dict[Literal["cpu", "cuda"], list[torch.Tensor]]  # by kind of device, then by rank
_PATIENCE = 600.0  # seconds, until all ranks are there
_RETRY = timedelta(seconds=1)
_LEAD = "dali-asr/start"
# Groups that have ended, which are freed when the process exits. Freeing one right after its last collective can
# deadlock: it waits, with the GIL, for gloo's thread, which needs the GIL to free the tensors of that collective
# (pytorch/pytorch#56297).
_ended: list[object] = []


@dataclass(frozen=True)
class World:
    """This process among all that train together.

    Attributes:
        device: the device of this process.
        rank: its number, from 0.
        size: the number of processes.
    """

    device: torch.device
    rank: int = 0
    size: int = 1

    @property
    def leads(self) -> bool:
        """Whether this is rank 0, which writes and reports."""
        return self.rank == 0

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        """Return the sum over all ranks, in place; on a GPU the call does not wait."""
        if self.size > 1:
            distributed.all_reduce(values)
        return values

    def min(self, value: int) -> int:
        """Return the smallest value of all ranks."""
        if self.size == 1:
            return value
        values = torch.tensor(value, device=self.device)
        distributed.all_reduce(values, distributed.ReduceOp.MIN)
        return int(values)

    def gather(self, values: torch.Tensor) -> list[torch.Tensor]:
        """Return the tensors of all ranks, which have one shape, by rank, on the CPU."""
        if self.size == 1:
            return [values.cpu()]
        found = [torch.empty_like(values, device=self.device) for _ in range(self.size)]
        distributed.all_gather(found, values.to(self.device))
        return [tensor.cpu() for tensor in found]

    def share(self, value: Value, source: int = 0) -> Value:
        """Return the value of one rank on every rank."""
        if self.size == 1:
            return value
        shared = [value]
        distributed.broadcast_object_list(shared, src=source, device=self.device)
        return shared[0]

    def share_buffers(self, model: nn.Module) -> None:
        """Copy the buffers of rank 0 to every rank: batch norm statistics that are not synchronized."""
        if self.size > 1:
            for buffer in model.buffers():
                distributed.broadcast(buffer, 0)

    @contextmanager
    def together(self) -> Iterator[None]:
        """Raise on every rank an error that the block raises on any of them.

        The first rank with an error raises it as it is. The others raise one of the same type and message with
        `reported` set. The block must not communicate between ranks.
        """
        error: Exception | None = None
        try:
            yield
        except Exception as raised:
            if self.size == 1:
                raise
            error = raised
        first = self.size if self.size == 1 else self.min(self.size if error is None else self.rank)
        if first == self.size:
            return
        told = self.share(None if error is None else _describe(error), first)
        if error is not None and self.rank == first:
            raise error
        raise _rebuild(*told)  # type: ignore[misc]

    def on_rank_0(self, action: Callable[[], Value]) -> Value:
        """Run an action on rank 0, and return its result, or raise its error, on every rank."""
        value = None
        with self.together():
            if self.leads:
                value = action()
        return cast("Value", self.share(value))


@contextmanager
def joined(device_name: str) -> Iterator[World]:
    """Join the processes that torchrun started. Without torchrun, the world is this one process.

    Args:
        device_name: `auto`, `cpu`, `cuda` or, for a process alone, `cuda:N`. With several processes, `cuda` is the GPU
            of the process's local rank.

    Raises:
        DeviceError: no such device, or fewer GPUs than processes.
        UsageError: one GPU for several processes.
        TrainingError: a process is missing.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    device = resolve_device(device_name)
    if size == 1:
        yield World(device)
        return
    if device_name.startswith("cuda:"):
        raise UsageError(f"loader.device: {device_name} with {size} processes, one GPU each; set loader.device: cuda")
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
        _ended.append(distributed.group.WORLD)
        distributed.destroy_process_group()


def synchronized(model: nn.Module, world: World) -> nn.Module:
    """Return the model with batch norm over all ranks, which torch implements for CUDA only."""
    if world.size > 1 and world.device.type == "cuda":
        converted: nn.Module = nn.SyncBatchNorm.convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]
        return converted
    return model


def generator_states(world: World) -> GeneratorStates:
    """Return the states of torch's random generators on all ranks."""
    states: GeneratorStates = {"cpu": world.gather(torch.get_rng_state())}
    if world.device.type == "cuda":
        states["cuda"] = world.gather(torch.cuda.get_rng_state(world.device))
    return states


def restore_generators(states: GeneratorStates, world: World, remedy: str) -> None:
    """Restore the random generators of this rank; a rank that is new keeps its own.

    Raises:
        CheckpointError: a state is invalid; the message ends in `remedy`.
    """
    try:
        if world.rank < len(states["cpu"]):
            torch.set_rng_state(states["cpu"][world.rank])
        if world.device.type == "cuda" and world.rank < len(states.get("cuda", [])):
            torch.cuda.set_rng_state(states["cuda"][world.rank], world.device)
    except (RuntimeError, TypeError) as error:
        raise CheckpointError(f"the checkpoint's random generators are invalid ({error}); {remedy}") from error


def meet(store: Store, rank: int, size: int) -> Store:
    """Return a store that only the ranks of this start share.

    Args:
        store: the store of all starts.
        rank: the rank of this process.
        size: the number of processes.

    Raises:
        TrainingError: a process is missing.
    """
    try:
        start = _lead(store, size) if rank == 0 else _follow(store, rank)
    except DistStoreError as error:
        raise TrainingError(f"rank {rank}: a process is missing; start all processes again") from error
    return PrefixStore(f"{start}/store", store)


def _lead(store: Store, size: int) -> str:
    """Name this start, and answer every other rank that has read the name."""
    start = f"dali-asr/{uuid4().hex}"
    store.set(_LEAD, start)
    for rank in range(1, size):
        caller = store.get(f"{start}/rank-{rank}").decode()
        store.set(f"{start}/{caller}", "welcome")
    return start


def _follow(store: Store, rank: int) -> str:
    """Ask until rank 0 answers; the rank 0 of an earlier start never does."""
    caller = uuid4().hex
    deadline = time.monotonic() + _PATIENCE
    while time.monotonic() < deadline:
        start = store.get(_LEAD).decode()
        store.set(f"{start}/rank-{rank}", caller)
        try:
            store.wait([f"{start}/{caller}"], _RETRY)
        except DistStoreError:
            continue
        return start
    raise TrainingError(f"rank {rank}: rank 0 did not answer for {_PATIENCE:.0f} s; start all processes again")


def _describe(error: Exception) -> tuple[type[Exception], str, int]:
    if isinstance(error, DaliAsrError):
        return type(error), str(error), error.exit_code
    return DaliAsrError, f"{type(error).__name__}: {error}", DaliAsrError.exit_code


def _rebuild(kind: type[DaliAsrError], message: str, exit_code: int) -> DaliAsrError:
    error = kind.__new__(kind)
    Exception.__init__(error, message)
    error.exit_code, error.reported = exit_code, True
    return error
