"""Streaming: every frame once an epoch, from a corpus that changes under nobody's feet."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dali_asr import Corpus, PackedWriter, Partition, WindowLoader
from dali_asr.errors import DataError, UsageError
from dali_asr.inventory import ARPABET
from dali_asr.plan.groups import EpochGroups, Layout
from tests.judge import as_arrays, assert_judged, same_batch
from tests.makers import make_course, make_partition
from tests.processes import ForkServer
from tests.strategies import budget_of, streamed


@settings(max_examples=40, deadline=None)
@given(streamed())
def test_windows_equal_the_judges_to_the_bit(case: tuple[Partition, dict[str, Any]]) -> None:
    partition, arguments = case
    loader = WindowLoader(partition, **arguments)
    assert loader.streamed
    assert loader.memory.frames + loader.memory.labels <= arguments["memory_budget"]
    assert_judged(partition, loader, arguments)


@settings(max_examples=15, deadline=None)
@given(streamed())
def test_resume_after_every_step_gives_the_same_tail(case: tuple[Partition, dict[str, Any]]) -> None:
    partition, arguments = case
    straight = WindowLoader(partition, **arguments)
    states, batches = [json.dumps(straight.state_dict())], []
    for _ in range(2):
        for batch in straight:
            batches.append(batch)
            states.append(json.dumps(straight.state_dict()))
    resumed = WindowLoader(partition, **arguments)
    for at in range(0, len(states), max(1, len(states) // 5)):
        resumed.load_state_dict(json.loads(states[at]))
        tail: list[Any] = []
        while len(tail) < len(batches) - at:
            tail += list(resumed)
        assert all(same_batch(a, b) for a, b in zip(batches[at:], tail, strict=False))


def test_a_loop_after_an_early_break_is_the_next_epoch() -> None:
    partition = make_partition([8] * 20)
    arguments: dict[str, Any] = {"context": 2, "batch_size": 5, "device": "cpu"}
    loader = WindowLoader(partition, memory_budget=budget_of(3, 8, 2), **arguments)
    whole = WindowLoader(partition, memory_budget=budget_of(3, 8, 2), **arguments)
    second = [list(whole), list(whole)][1]
    for stop in (1, 7, 20):
        loader = WindowLoader(partition, memory_budget=budget_of(3, 8, 2), **arguments)
        for at, _ in enumerate(loader):
            if at == stop:
                break
        assert all(same_batch(a, b) for a, b in zip(loader, second, strict=True))


def test_unlabelled_frames_are_streamed_too() -> None:
    frames = [np.full((6, 5), at, np.float32) for at in range(1, 13)]
    partition = Corpus.from_arrays(frames).partition("all")
    loader = WindowLoader(partition, context=0, batch_size=4, memory_budget=budget_of(2, 6, 1))
    batches = list(loader)
    assert loader.streamed
    assert all((batch.labels == -100).all() for batch in batches)
    seen = np.concatenate([batch.windows.numpy()[:, 0, 0] for batch in batches])
    assert np.array_equal(np.bincount(seen.astype(int))[1:], np.full(12, 6))


@given(st.lists(st.integers(1, 30), min_size=1, max_size=40), st.integers(1, 60), st.integers(1, 7), st.integers(1, 4))
def test_groups_hold_every_frame_once(lengths: list[int], target: int, most: int, subset: int) -> None:
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    chunks = Layout.split(offsets, target, most)
    assert np.isin(chunks.frames, offsets).all(), "whole utterances"
    assert np.array_equal(chunks.frames, offsets[chunks.utterances])
    assert (np.diff(chunks.utterances) > 0).all()
    for epoch in range(2):
        groups = EpochGroups.of(chunks, 7, epoch, shuffle=True, subset=subset)
        assert sorted(groups.chunks.tolist()) == list(range(len(chunks)))
        sizes = np.diff(groups.bounds)
        assert sizes.max() <= most
        assert sizes.max() - sizes.min() <= 1, "no small group at the end"
        assert groups.positions[-1] == -(-offsets[-1] // subset)
        rows = [int(chunks.rows(3)[groups.chunks[groups.members(g)]].sum()) + 3 for g in range(len(sizes))]
        assert max(rows) <= chunks.group_rows(3)
        positions = np.diff(groups.positions)
        assert positions.min() >= chunks.min_group_positions(subset)


@pytest.mark.parametrize(
    ("budget", "batch_size", "message"),
    [
        (
            300,
            4,
            r"^loader: memory_budget 300 bytes, but two chunks of utterances may take 504; raise memory_budget",
        ),
        (budget_of(3, 8, 2), 17, r"half of it holds 16 windows, but a global batch has 17; raise memory_budget"),
    ],
)
def test_a_memory_budget_that_is_too_small_is_refused(budget: int, batch_size: int, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        WindowLoader(make_partition([8] * 20), context=2, batch_size=batch_size, memory_budget=budget)


def test_the_groups_of_a_state_are_kept_whatever_memory_is_free() -> None:
    partition = make_partition([8] * 24)
    arguments: dict[str, Any] = {"context": 2, "batch_size": 5, "device": "cpu"}
    small = WindowLoader(partition, memory_budget=budget_of(3, 8, 2), **arguments)
    batches = list(small)
    state = WindowLoader(partition, memory_budget=budget_of(3, 8, 2), **arguments).state_dict()
    assert state["groups"] is not None
    for budget in (budget_of(5, 8, 2), None):
        larger = WindowLoader(partition, memory_budget=budget, **arguments)
        assert larger.state_dict()["groups"] != state["groups"]
        larger.load_state_dict(state)
        assert larger.state_dict()["groups"] == state["groups"]
        assert all(same_batch(a, b) for a, b in zip(larger, batches, strict=True))
    resident = WindowLoader(partition, **arguments).state_dict()
    with pytest.raises(
        UsageError, match=r"frames of the state were resident, which takes .*, but the memory budget is"
    ):
        small.load_state_dict(resident)
    assert len(list(small)) == len(batches), "the loader is usable after"


def changed(folder: Path, how: str) -> None:
    """Change a packed corpus under the loader's feet."""
    frames = folder / "frames.npy"
    if how == "truncated":
        os.truncate(frames, 200)
    elif how == "replaced":
        content = frames.read_bytes()
        frames.unlink()
        frames.write_bytes(content)
    elif how == "written":
        os.utime(frames)
    else:
        frames.unlink()


@pytest.fixture
def packed(tmp_path: Path, run_cli: Callable[..., Any]) -> Path:
    """A packed corpus of 40 utterances."""
    make_course(tmp_path / "course", {"train": [20] * 40})
    assert run_cli("data", "pack", tmp_path / "course", tmp_path / "packed").exit_code == 0
    return tmp_path / "packed"


@pytest.mark.parametrize("how", ["truncated", "replaced", "written", "deleted"])
def test_a_changed_corpus_is_an_error_that_names_the_file(packed: Path, how: str) -> None:
    partition = Corpus.open(packed).partition("train")
    loader = WindowLoader(partition, context=2, batch_size=10, memory_budget=budget_of(4, 20, 2), device="cpu")
    assert loader.streamed
    state = loader.state_dict()
    batches = iter(loader)
    next(batches)
    changed(packed, how)
    with pytest.raises(DataError, match=r"frames\.npy"):
        list(batches)
    with pytest.raises(DataError, match=r"frames\.npy"):
        loader.load_state_dict(state)
    with pytest.raises(DataError, match=r"frames\.npy"):
        WindowLoader(partition, context=2, batch_size=10)


def test_a_flipped_byte_is_found_when_a_state_is_resumed(packed: Path) -> None:
    """Another modification time alone is no error: every frame is verified as it is read."""

    def loader() -> WindowLoader:
        return WindowLoader(Corpus.open(packed).partition("train"), context=1, batch_size=8, device="cpu")

    state = json.loads(json.dumps(loader().state_dict()))
    frames = packed / "frames.npy"
    os.utime(frames, (1, 1))
    loader().load_state_dict(state)
    content = bytearray(frames.read_bytes())
    before = frames.stat()
    content[-3] ^= 1
    frames.write_bytes(content)
    os.utime(frames, ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(DataError, match=r"frames\.npy: utterance u39 is damaged .*; pack the corpus again"):
        loader().load_state_dict(state)


def test_a_flipped_bit_is_found_as_frames_are_streamed(packed: Path) -> None:
    frames = packed / "frames.npy"
    before, content = frames.stat(), bytearray(frames.read_bytes())
    content[-3] ^= 1
    frames.write_bytes(content)
    os.utime(frames, ns=(before.st_atime_ns, before.st_mtime_ns))
    partition = Corpus.open(packed).partition("train")
    loader = WindowLoader(partition, context=2, batch_size=10, memory_budget=budget_of(4, 20, 2), device="cpu")
    assert loader.streamed
    with pytest.raises(DataError, match=r"frames\.npy: utterance u39 is damaged"):
        list(loader)


def test_a_state_of_another_corpus_is_refused(packed: Path, tmp_path: Path, run_cli: Callable[..., Any]) -> None:
    make_course(tmp_path / "other", {"train": [20] * 39 + [19]})
    assert run_cli("data", "pack", tmp_path / "other", tmp_path / "repacked").exit_code == 0
    loaders = [
        WindowLoader(Corpus.open(folder).partition("train"), context=2, batch_size=10)
        for folder in (packed, tmp_path / "repacked")
    ]
    with pytest.raises(UsageError, match=r"another loader: corpus [0-9a-f]{12} \(here [0-9a-f]{12}\)"):
        loaders[1].load_state_dict(loaders[0].state_dict())


def test_an_error_of_the_reading_thread_is_raised_in_the_loop() -> None:
    """The error of the thread that reads ahead."""
    labels = np.zeros(160, np.uint8)
    labels[-1] = 99
    names, lengths = tuple(map(str, range(20))), np.full(20, 8)
    partition = Partition.from_memory("all", ARPABET, names, lengths, np.ones((160, 5), np.float32), labels)
    loader = WindowLoader(partition, context=2, batch_size=5, shuffle=False, memory_budget=budget_of(3, 8, 2))
    with pytest.raises(DataError, match="label 99 in a corpus whose inventory has 42 symbols"):
        list(loader)


MEMORY_SCRIPT = """
import resource, sys, threading, time
from pathlib import Path
from dali_asr import Corpus, Masking, WindowLoader
from nvidia.dali.plugin.pytorch import DALIGenericIterator

def anonymous():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon"))

partition = Corpus.open(sys.argv[1]).partition("train")
before = peak = anonymous()
for size in map(int, sys.argv[3:]):
    loader = WindowLoader(partition, context=30, batch_size=size, masking=True, memory_budget=int(sys.argv[2]))
    assert loader.streamed
    for number, batch in enumerate(loader):
        peak = max(peak, anonymous())
        if number * batch.windows.shape[0] > 500_000:
            break
    print(loader.memory.total)
    loader.close()
print(peak - before)
"""


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """A packed corpus of 570 MB, five million frames."""
    folder = tmp_path / "packed"
    rng = np.random.default_rng(0)
    frames, labels = rng.normal(size=(2000, 28)).astype(np.float32), rng.integers(0, 40, 2000)
    with PackedWriter(folder, inventory=ARPABET) as writer:
        for at in range(2500):
            writer.add("train", f"u{at}", frames, labels)
    return folder


def test_host_memory_stays_under_the_budget(large: Path, fork_server: ForkServer) -> None:
    """At most the budget of 100 MB and 300 MiB above the imports."""
    budget = 100_000_000
    command = [fork_server.python, "-c", MEMORY_SCRIPT, str(large), str(budget), "512", "4096"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    *predicted, risen = map(int, done.stdout.split())
    assert len(predicted) == 2
    assert max(*predicted, risen) <= budget + (300 << 20)


INTERRUPT_SCRIPT = """
import sys
from dali_asr import Corpus, WindowLoader
partition = Corpus.open(sys.argv[1]).partition("train")
loader = WindowLoader(partition, context=2, batch_size=10, memory_budget=int(sys.argv[2]))
at = 0
while True:
    for batch in loader:
        at += 1
        if at == 100:
            print("running", flush=True)
"""


def test_an_interrupt_while_frames_are_read_ends_the_process(packed: Path) -> None:
    command = [sys.executable, "-c", INTERRUPT_SCRIPT, str(packed), str(budget_of(4, 20, 2))]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "running\n"
            process.send_signal(signal.SIGINT)
            process.wait(timeout=60)
            assert process.stderr is not None
            assert "KeyboardInterrupt" in process.stderr.read()
        finally:
            process.kill()


def test_an_interrupt_is_never_lost(fork_server: ForkServer) -> None:
    """C code that asks a Python object for an attribute may clear the exception that it gets; so it is noted."""
    command = [fork_server.python, "-m", "tests.loading.interrupted"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2])
    assert done.returncode == 0, done.stderr
    caught, delivered, whole = map(int, done.stdout.split())
    assert caught == 30
    assert delivered == whole, "the loader is usable after"


def test_several_ranks_need_a_memory_budget_to_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    from dali_asr.loading import frames

    monkeypatch.setattr(frames, "free_memory", lambda _: 10_000)
    arguments: dict[str, Any] = {"context": 2, "batch_size": 5, "batches_per_iteration": 1, "device": "cpu"}
    assert WindowLoader(make_partition([8] * 30), **arguments).streamed
    with pytest.raises(UsageError, match=r"all: its frames exceed the memory that is free on cpu; set memory"):
        WindowLoader(make_partition([8] * 30), rank=1, world_size=2, **arguments)


@pytest.mark.parametrize(
    "groups", [{}, {"chunk_frames": 0, "chunks": 2}, {"chunk_frames": 4, "chunks": -1}, {"chunk_frames": 4}, 7, "x"]
)
def test_states_with_invalid_groups_are_refused(groups: Any) -> None:
    loader = WindowLoader(make_partition([8] * 20), context=2, batch_size=5, memory_budget=budget_of(3, 8, 2))
    state = loader.state_dict() | {"groups": groups}
    with pytest.raises(UsageError, match=r"loader: not a loader state"):
        loader.load_state_dict(state)
    assert len(list(loader)) == len(loader), "the loader is usable after"


FREED_SCRIPT = """
import gc, sys
from pathlib import Path
from dali_asr import Corpus, WindowLoader
from dali_asr.loading.lifecycle import wait_for_shutdowns
gc.disable()

def anonymous():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon"))

partition = Corpus.open(sys.argv[1]).partition("train")
for at in range(12):
    budget = None if at < 6 else 50_000_000
    loader = WindowLoader(partition, context=2, batch_size=64, batches_per_iteration=1, memory_budget=budget)
    batches = iter(loader)
    next(batches)
    if at % 2:
        loader.close()
    del loader, batches
    wait_for_shutdowns()
    print(anonymous())
"""


def test_closed_and_dropped_loaders_free_their_frames(tmp_path: Path, fork_server: ForkServer) -> None:
    """Though DALI's operators hold each other until Python collects garbage; the frames are 57 MB, or 50 streamed."""
    with PackedWriter(tmp_path / "packed", inventory=ARPABET) as writer:
        for at in range(250):
            writer.add("train", f"u{at}", np.ones((2000, 28), np.float32), np.zeros(2000, np.int64))
    command = [fork_server.python, "-c", FREED_SCRIPT, str(tmp_path / "packed")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    taken = [int(line) for line in done.stdout.split()]
    for resident_or_streamed in (taken[:6], taken[6:]):
        assert max(resident_or_streamed) - resident_or_streamed[0] < 15e6


def test_streamed_windows_are_shuffled() -> None:
    """Utterances mix within a group: a batch has many of them, and no two epochs are alike."""
    partition = make_partition([10] * 120)
    loader = WindowLoader(partition, context=1, batch_size=60, memory_budget=budget_of(30, 10, 1))
    epochs = [[as_arrays(batch)[2] // 10 for batch in loader] for _ in range(2)]
    for utterances in epochs[0]:
        assert len(np.unique(utterances)) >= 15
    assert any(not np.array_equal(a, b) for a, b in zip(*epochs, strict=True))
