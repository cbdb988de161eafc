"""How the processes of one start find each other.

torchrun keeps its store when it starts processes again, and with it the addresses of those that died, which gloo and
NCCL would then wait for. So the ranks of a start first agree on a name that none had before, and meet below it.
"""

from __future__ import annotations

import time
from datetime import timedelta
from typing import TYPE_CHECKING
from uuid import uuid4

from torch.distributed import DistStoreError, PrefixStore  # type: ignore[attr-defined]

from dali_asr.errors import TrainingError

if TYPE_CHECKING:
    from torch.distributed import Store  # type: ignore[attr-defined]

_PATIENCE = 600.0  # seconds, until all ranks are there
_RETRY = timedelta(seconds=1)
_LEAD = "dali-asr/start"


def meet(store: Store, rank: int, size: int) -> Store:
    """Return a store that the ranks of this start share, and no others.

    Args:
        store: that all starts share.
        rank: of this process.
        size: how many processes there are.

    Raises:
        TrainingError: not all came.
    """
    try:
        start = _lead(store, size) if rank == 0 else _follow(store, rank)
    except DistStoreError as error:
        raise TrainingError(f"rank {rank}: not all processes came; start them all again") from error
    return PrefixStore(f"{start}/store", store)


def _lead(store: Store, size: int) -> str:
    """Name this start, and answer every other rank that has heard of it."""
    start = f"dali-asr/{uuid4().hex}"
    store.set(_LEAD, start)
    for rank in range(1, size):
        caller = store.get(f"{start}/rank-{rank}").decode()
        store.set(f"{start}/{caller}", "welcome")
    return start


def _follow(store: Store, rank: int) -> str:
    """Ask until rank 0 answers; that of an earlier start answers nobody."""
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
