"""Pipelines with a Python operator end well, wherever their loader is dropped."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from dali_asr import WindowLoader
from dali_asr.errors import UsageError
from tests.makers import make_partition
from tests.processes import ForkServer

pytest.importorskip("triton")

ROOT = Path(__file__).parents[2]
PATTERNS = [
    {"dropped": 335, "closed": 200, "after_an_error": 100, "inside_an_operator": 50},
    {"one_of_two": 150, "in_a_thread": 150},
    {"at_exit": 15},
]


@pytest.mark.parametrize("patterns", PATTERNS, ids="-".join)
def test_a_loader_ends_without_a_hang(patterns: dict[str, int], fork_server: ForkServer) -> None:
    """A thousand times in all; a watchdog in the process prints its stacks if one hangs."""
    python = sys.executable if "at_exit" in patterns else fork_server.python  # whose processes end without an exit
    command = [python, "-m", "tests.loading.lifecycle_patterns"]
    command += [f"{pattern}={count}" for pattern, count in patterns.items()]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    assert done.returncode == 0, done.stdout[-4000:]
    assert done.stdout == f"done {sum(patterns.values())}\n"


def iterate_in_child(loader: WindowLoader, results: Any) -> None:
    try:
        next(iter(loader))
    except UsageError as error:
        results.put(str(error))


def test_a_loader_in_a_forked_process_says_what_to_do() -> None:
    """Its DALI threads exist only in the parent, so it would wait for ever."""
    loader = WindowLoader(make_partition([20]), context=1, batch_size=4)
    next(iter(loader))
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    child = context.Process(target=iterate_in_child, args=(loader, results))
    child.start()
    message = results.get(timeout=20)
    child.join(20)
    assert child.exitcode == 0
    assert f"made in process {os.getpid()} and iterated in process {child.pid}, which was forked from it" in message
    assert "make the loader in the process that iterates it, and use no DataLoader workers" in message
    assert len(list(loader)) == len(loader), "the parent's loader is usable"


def test_a_loader_cannot_be_pickled() -> None:
    loader = WindowLoader(make_partition([20]), context=1, batch_size=4)
    with pytest.raises(UsageError, match="cannot be copied, pickled or sent to another process; make another"):
        pickle.dumps(loader)
