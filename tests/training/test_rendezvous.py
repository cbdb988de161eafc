"""Ranks meet those of their own start, whatever an earlier start left in the store."""

from __future__ import annotations

import random
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from torch.distributed import TCPStore  # type: ignore[attr-defined]

from dali_asr.training.distributed import meet


@pytest.mark.parametrize("late", [0, 1, 2])
def test_ranks_meet_only_those_of_their_own_start(late: int) -> None:
    draw = random.Random(late)
    kept = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)

    def arrive(rank: int, start: int) -> str:
        if start and rank == late:
            time.sleep(0.5)
        time.sleep(draw.uniform(0, 0.05))
        shared = TCPStore("127.0.0.1", kept.port, is_master=False)
        own = meet(shared, rank, 3)
        own.set(f"rank-{rank}", str(start))
        return ",".join(own.get(f"rank-{other}").decode() for other in range(3))

    for start in range(4):
        with ThreadPoolExecutor(3) as pool:
            assert list(pool.map(arrive, range(3), [start] * 3)) == [f"{start},{start},{start}"] * 3
