"""WindowLoader against the judge, to the bit, and what a PyTorch user expects of an iterable."""

from __future__ import annotations

import gc
import json
import time
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dali_asr import Bands, Batch, Corpus, Masking, WindowLoader
from dali_asr.errors import DaliAsrWarning, DeviceError, LoadingError, UsageError
from dali_asr.plan.spec import as_bytes
from tests.judge import as_arrays, assert_judged, judge_windows, same_batch, same_bits
from tests.makers import make_partition
from tests.strategies import loaders

few = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@few
@given(loaders())
def test_windows_equal_the_judges_to_the_bit(case: tuple[Any, dict[str, Any]]) -> None:
    partition, arguments = case
    assert_judged(partition, WindowLoader(partition, **arguments), arguments)


@settings(max_examples=12, deadline=None)
@given(loaders())
def test_resume_after_every_step_gives_the_same_tail(case: tuple[Any, dict[str, Any]]) -> None:
    """Over the end of an epoch too; the state goes through JSON, as in a file."""
    partition, arguments = case
    arguments = arguments | {"batch_size": max(arguments["batch_size"], partition.frame_count // 6 + 1)}
    straight = WindowLoader(partition, **arguments)
    states, batches = [json.dumps(straight.state_dict())], []
    for _ in range(2):
        for batch in straight:
            batches.append(batch)
            states.append(json.dumps(straight.state_dict()))
    resumed = WindowLoader(partition, **arguments)
    for at, state in enumerate(states):
        resumed.load_state_dict(json.loads(state))
        tail: list[Batch] = []
        while len(tail) < len(batches) - at:
            tail += list(resumed)
        assert all(same_batch(a, b) for a, b in zip(batches[at:], tail, strict=False))


def test_epochs_differ_and_seeds_differ() -> None:
    partition = make_partition([40, 30])
    loader = WindowLoader(partition, context=1, batch_size=70, seed=1)
    orders = [next(iter(loader)).frame_ids.tolist() for _ in range(3)]
    orders.append(next(iter(WindowLoader(partition, context=1, batch_size=70, seed=2))).frame_ids.tolist())
    assert len({tuple(order) for order in orders}) == 4
    assert loader.epoch == 2


def test_a_loop_after_break_is_the_next_epoch_from_its_first_batch() -> None:
    partition = make_partition([50, 30])
    loader = WindowLoader(
        partition, context=2, batch_size=8, masking=Masking(Bands((0, 1), (1, 2)), Bands((0, 1), (1, 2)))
    )
    for at, _ in enumerate(loader):
        if at == 2:
            break
    whole = WindowLoader(partition, context=2, batch_size=8, masking=loader.spec.masking)
    first, second = list(whole), list(whole)
    assert len(first) == len(second) == len(loader) == 10
    assert all(same_batch(a, b) for a, b in zip(loader, second, strict=True))


def test_kept_batches_are_not_overwritten() -> None:
    loader = WindowLoader(make_partition([60]), context=3, batch_size=4)
    kept = list(loader)
    copies = [as_arrays(batch)[0].copy() for batch in kept]
    for _ in loader:
        pass
    gc.collect()
    assert all(same_bits(as_arrays(batch)[0], copy) for batch, copy in zip(kept, copies, strict=True))


def test_two_loops_at_once_are_refused() -> None:
    loader = WindowLoader(make_partition([20]), context=1, batch_size=4)
    first = iter(loader)
    next(first)
    next(iter(loader))
    with pytest.raises(UsageError, match="another loop"):
        next(first)


def test_the_last_two_batches_share_what_is_left() -> None:
    loader = WindowLoader(make_partition([9]), context=1, batch_size=4)
    assert [len(batch.frame_ids) for batch in loader] == [4, 3, 2]
    assert len(loader) == 3


@settings(max_examples=20, deadline=None)
@given(loaders(), st.integers(1, 3))
def test_batches_do_not_depend_on_batches_per_iteration(case: tuple[Any, dict[str, Any]], many: int) -> None:
    partition, arguments = case
    arguments |= {"batch_size": max(1, arguments["batch_size"] // 4)}
    one = WindowLoader(partition, **(arguments | {"batches_per_iteration": 1}))
    several = WindowLoader(partition, **(arguments | {"batches_per_iteration": 1 + many, "prefetch": 1}))
    for _ in range(2):
        assert all(same_batch(a, b) for a, b in zip(one, several, strict=True))


def test_labels_of_unlabelled_frames_and_partitions() -> None:
    frames = [np.ones((3, 2), np.float32)]
    some = Corpus.from_arrays(frames, [np.array([5, -100, 7])]).partition("all")
    none = Corpus.from_arrays(frames).partition("all")
    arguments: dict[str, Any] = {"context": 1, "batch_size": 3, "shuffle": False}
    for partition, expected in ((some, [5, -100, 7]), (none, [-100] * 3)):
        labels = next(iter(WindowLoader(partition, **arguments))).labels
        assert labels.dtype == torch.int64
        assert labels.tolist() == expected


def test_a_state_of_another_loader_is_refused() -> None:
    partition = make_partition([30])
    state = WindowLoader(partition, context=1, batch_size=4, seed=1).state_dict()
    with pytest.raises(UsageError, match=r"seed 1 \(here 2\)"):
        WindowLoader(partition, context=1, batch_size=4, seed=2).load_state_dict(state)
    narrow = Masking(Bands((0, 1), (1, 2)), Bands((0, 1), (1, 2)))
    masked = WindowLoader(partition, context=1, batch_size=4, seed=1, masking=narrow)
    masked.load_state_dict(state)  # because masks do not change the order


def test_batches_are_tensors_on_the_device() -> None:
    loader = WindowLoader(make_partition([10]), context=2, batch_size=10, dtype="float16", device="cpu")
    batch = next(iter(loader))
    assert batch.windows.dtype == torch.float16
    assert batch.windows.device == loader.device == torch.device("cpu")
    assert batch.windows.shape == (10, 5, 5)


def test_joined_partitions_read_as_one(course: Any) -> None:
    corpus = Corpus.open(course)
    joined = corpus.partition("train", "dev")
    loader = WindowLoader(joined, context=2, batch_size=7, shuffle=False)
    utterances = [*corpus.partition("train").frames(), *corpus.partition("dev").frames()]
    for step, batch in enumerate(loader):
        expected = judge_windows(utterances, 2, 2, loader.planner.plan(0, step), "float32")
        assert same_bits(batch.windows.cpu().numpy(), expected)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"context": -1}, "context -1"),
        ({"dtype": "float64"}, "dtype 'float64'; expected float32, float16, bfloat16"),
        ({"graph": "fast"}, "graph 'fast'; expected auto, stock or fused"),
        ({"memory_budget": 0}, "memory_budget 0; expected 1 or more"),
        ({"batches_per_iteration": 0}, "batches_per_iteration 0"),
        ({"rank": 2, "world_size": 2, "batch_size": 4}, "rank 2 of world size 2"),
        ({"world_size": 2}, "batch_size 2 on 2 ranks; expected at least 4 per rank"),
        ({"world_size": 3, "batch_size": 4}, "5 windows for 3 ranks"),
        ({"prefetch": 0}, "prefetch 0"),
        ({"device": "tpu"}, "device 'tpu'"),
        ({"batch_size": 0}, "batch_size 0"),
        ({"shuffle": "no"}, "shuffle 'no'; expected True or False"),
        ({"drop_last": 1}, "drop_last 1; expected True or False"),
    ],
)
def test_invalid_arguments_are_refused(changed: dict[str, Any], message: str) -> None:
    arguments = {"context": 1, "batch_size": 2} | changed
    with pytest.raises(UsageError, match=message):
        WindowLoader(make_partition([5]), **arguments)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device, so asking for one is no error")
def test_a_missing_cuda_device_is_an_error() -> None:
    with pytest.raises(DeviceError, match="no CUDA device was found; use cpu"):
        WindowLoader(make_partition([5]), context=1, batch_size=2, device="cuda")


def test_an_interrupt_in_a_loop_leaves_later_epochs_unchanged(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever it strikes: the next loop is the next epoch, whole."""
    from dali_asr.loading.stock import StockGraph

    partition = make_partition([30, 20])
    arguments: dict[str, Any] = {"context": 2, "batch_size": 8, "batches_per_iteration": 1}
    undisturbed = WindowLoader(partition, **arguments)
    expected = [list(undisturbed) for _ in range(4)]
    arrays = StockGraph.arrays
    for strike in range(1, 9):
        calls = iter(range(1, 1000))

        def broken(self: Any, iteration: Any, strike: int = strike, calls: Any = calls) -> Any:
            if next(calls) == strike:
                raise KeyboardInterrupt
            return arrays(self, iteration)

        loader = WindowLoader(partition, **arguments)
        monkeypatch.setattr(StockGraph, "arrays", broken)
        with pytest.raises(KeyboardInterrupt):
            for _ in range(2):
                list(loader)
        monkeypatch.undo()
        following = expected[loader.epoch + 1]
        assert all(same_batch(a, b) for a, b in zip(loader, following, strict=True))


def test_a_loop_ends_when_a_state_is_loaded_or_the_loader_closed() -> None:
    loader = WindowLoader(make_partition([50]), context=1, batch_size=4)
    state = loader.state_dict()
    running = iter(loader)
    next(running)
    loader.load_state_dict(state)
    with pytest.raises(UsageError, match="a state was loaded"):
        next(running)
    running = iter(loader)
    next(running)
    loader.close()
    loader.close()
    with pytest.raises(UsageError, match="it was closed"):
        next(running)
    with pytest.raises(UsageError, match="it was closed; make another"):
        next(iter(loader))


@pytest.mark.parametrize(
    "state",
    [{}, None, {"epoch": -5}, {"delivered": -1}, {"delivered": 99}, {"epoch": 1.5}, {"epoch": "1"}],
)
def test_invalid_states_are_refused(state: dict[str, Any] | None) -> None:
    loader = WindowLoader(make_partition([50]), context=1, batch_size=8)
    bad = loader.state_dict() | state if state else state
    with pytest.raises(UsageError, match="loader: not a loader state"):
        loader.load_state_dict(bad)  # type: ignore[arg-type]
    assert (loader.epoch, len(list(loader))) == (0, 7)


def test_numpy_integers_are_accepted() -> None:
    one = np.int64(1)
    loader = WindowLoader(make_partition([9]), context=one, batch_size=one, seed=one, subset=one)
    assert json.loads(json.dumps(loader.state_dict())) == loader.state_dict()


def test_more_rows_than_dali_can_number_are_streamed(monkeypatch: pytest.MonkeyPatch) -> None:
    from dali_asr.loading import frames

    monkeypatch.setattr(frames, "MAX_ROWS", 150)
    lengths = [8] * 15
    assert not WindowLoader(make_partition(lengths), context=1, batch_size=4).streamed
    partition, arguments = (
        make_partition(lengths),
        {"context": (2, 2), "dtype": "float32", "drop_last": False, "subset": 1},
    )
    loader = WindowLoader(partition, context=2, batch_size=4)
    assert loader.streamed
    assert_judged(partition, loader, arguments)


def test_processes_that_would_all_read_everything_are_warned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    with pytest.warns(DaliAsrWarning, match="2 processes train together, and each reads the whole partition; give the"):
        next(iter(WindowLoader(make_partition([9]), context=1, batch_size=4)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        next(iter(WindowLoader(make_partition([9]), context=1, batch_size=4, rank=1, world_size=2)))


def test_an_epoch_without_a_batch_is_refused() -> None:
    remedy = "lower batch_size, or set drop_last to false"
    with pytest.raises(UsageError, match=f"all: 1,005 frames are fewer than a batch of 2,000; {remedy}"):
        WindowLoader(make_partition([1003, 2]), context=1, batch_size=2000, drop_last=True)
    with pytest.raises(UsageError, match=f"all: 5 frames are fewer than a global batch of 8; {remedy}"):
        WindowLoader(make_partition([3, 2]), context=1, batch_size=4, drop_last=True, rank=0, world_size=2)


@pytest.mark.parametrize(
    ("given", "masking"),
    [
        ({}, Masking()),
        (True, Masking()),
        (False, None),
        ({"time": {"count": (1, 1)}, "scope": "batch"}, Masking(time=Bands((1, 1), (3, 7)), scope="batch")),
        ({"frequency": Bands(width=(1, 2))}, Masking(frequency=Bands(width=(1, 2)))),
    ],
)
def test_masks_are_given_as_in_a_configuration_too(given: Any, masking: Masking | None) -> None:
    loader = WindowLoader(make_partition([9]), context=5, batch_size=9, masking=given)
    assert loader.spec.masking == masking


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"freq": {}},
            r"masking: unknown key 'freq'; allowed are frequency, time, scope; did you mean frequency\?",
        ),
        (
            {"time": {"cnt": 3}},
            r"loader: masking\.time: unknown key 'cnt'; allowed are count, width; did you mean count\?",
        ),
        ({3: {}}, "masking: unknown key 3; allowed are"),
        ({"time": 3}, r"masking: time 3; expected Bands\("),
        ({"scope": "all"}, "masking: scope 'all'; expected window or batch"),
        ({"scope": {}}, "masking: scope {}; expected window or batch"),
        ("yes", "masking 'yes'; expected None, True, a Masking"),
        (1, "masking 1; expected None"),
    ],
)
def test_other_masks_are_refused(given: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        WindowLoader(make_partition([9]), context=5, batch_size=9, masking=given)


@pytest.mark.parametrize("graph", ["stock", "auto"])
def test_an_error_inside_the_pipeline_arrives_with_its_cause(graph: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from dali_asr.loading.stock import StockGraph

    def broken(*_: Any) -> Any:
        raise ValueError("a wrong number")

    loader = WindowLoader(make_partition([30]), context=1, batch_size=4, graph=graph, device="cpu")
    with monkeypatch.context() as patch:
        patch.setattr(StockGraph, "arrays", broken)
        with pytest.raises(LoadingError, match="a wrong number") as error:
            list(loader)
        assert "a wrong number" in str(error.value.__cause__)
    assert len(list(loader)) == len(loader), "the loader is usable after"


def test_fused_without_a_gpu_is_an_error() -> None:
    """Never a silent fall back."""
    with pytest.raises(UsageError, match=r"graph fused on cpu: needs a CUDA device; set graph to stock"):
        WindowLoader(make_partition([5]), context=1, batch_size=2, graph="fused", device="cpu")


def test_auto_warns_when_it_falls_back_to_stock(monkeypatch: pytest.MonkeyPatch) -> None:
    from dali_asr.loading import loader

    gpu = torch.device("cuda", 0)
    monkeypatch.setattr(loader, "fused_problem", lambda _: None)
    assert loader.choose_graph("auto", gpu) == "fused"
    monkeypatch.setattr(loader, "fused_problem", lambda _: "Triton cannot launch kernels (no C compiler)")
    with pytest.warns(DaliAsrWarning, match=r"graph stock instead of fused.*cannot launch kernels \(no C compiler\)"):
        assert loader.choose_graph("auto", gpu) == "stock"


def test_repr_says_what_the_loader_reads() -> None:
    loader = WindowLoader(make_partition([9]), context=(2, 1), batch_size=4, device="cpu")
    assert repr(loader) == (
        "WindowLoader('all', context=(2, 1), batch_size=4: 3 batches [4, 4, 5] float32 per epoch, on cpu by stock)"
    )


def test_a_batch_unpacks_and_its_windows_belong_to_its_frame_ids() -> None:
    partition = make_partition([9])
    windows, labels, frame_ids = next(iter(WindowLoader(partition, context=0, batch_size=9)))
    truth = partition.labels()
    assert truth is not None
    assert labels.tolist() == truth[frame_ids].tolist()
    assert windows.shape == (9, 1, 5)


def test_a_state_of_windows_of_another_dtype_is_refused() -> None:
    partition = make_partition([9])
    state = WindowLoader(partition, context=1, batch_size=4).state_dict()
    with pytest.raises(UsageError, match=r"dtype float32 \(here float16\)"):
        WindowLoader(partition, context=1, batch_size=4, dtype="float16").load_state_dict(state)


def test_memory_counts_frames_labels_and_batches() -> None:
    loader = WindowLoader(make_partition([100, 50], dim=8), context=(3, 2), batch_size=16, prefetch=2)
    rows = 150 + 3 * 3
    assert (loader.memory.frames, loader.memory.labels) == (rows * 8 * 4, rows)
    assert loader.memory.total >= loader.memory.frames + 16 * 6 * 8 * 4


def test_an_interrupt_during_a_shutdown_does_not_mix_two_pipelines(monkeypatch: pytest.MonkeyPatch) -> None:
    """The old pipeline still drains while the new one delivers."""
    from dali_asr.loading.lifecycle import RunningPipeline

    partition = make_partition([40, 30])
    arguments: dict[str, Any] = {"context": 1, "batch_size": 5, "batches_per_iteration": 1}
    whole = WindowLoader(partition, **arguments)
    expected = [list(whole) for _ in range(3)]
    loader = WindowLoader(partition, **arguments)
    batches = iter(loader)
    next(batches)
    drain, wait = RunningPipeline._drain, RunningPipeline.wait

    def slow(self: RunningPipeline) -> None:
        time.sleep(0.3)
        drain(self)

    def interrupted(_: RunningPipeline) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(RunningPipeline, "_drain", slow)
    monkeypatch.setattr(RunningPipeline, "wait", interrupted)
    assert loader._feed is not None
    with pytest.raises(KeyboardInterrupt):
        loader._feed.stop()
    monkeypatch.setattr(RunningPipeline, "wait", wait)
    for epoch in (1, 2):
        assert all(same_batch(a, b) for a, b in zip(loader, expected[epoch], strict=True))


def test_a_refused_state_leaves_the_loader_usable() -> None:
    loader = WindowLoader(make_partition([8] * 20), context=2, batch_size=30, memory_budget=3300)
    assert loader.streamed
    state = loader.state_dict()
    assert state["groups"] is not None
    tiny: Any = {**state, "groups": {"chunk_frames": 8, "chunks": 1}}
    with pytest.raises(UsageError, match="but a global batch has 30"):
        loader.load_state_dict(tiny)
    assert len(list(loader)) == len(loader)


def test_bfloat16_windows_are_the_float32_windows_rounded() -> None:
    partition = make_partition([40, 9])
    arguments: dict[str, Any] = {"context": 4, "batch_size": 8, "masking": Masking(), "device": "cpu"}
    exact = WindowLoader(partition, **arguments)
    for rounded, batch in zip(WindowLoader(partition, dtype="bfloat16", **arguments), exact, strict=True):
        assert rounded.windows.dtype == torch.bfloat16
        assert torch.equal(rounded.windows.view(torch.int16), batch.windows.bfloat16().view(torch.int16))
        assert torch.equal(rounded.frame_ids, batch.frame_ids)


@pytest.mark.parametrize("dtype", [torch.float16, np.float16, np.dtype("float16"), "float16", "torch.float16"])
def test_a_dtype_is_named_or_an_object_of_torch_or_numpy(dtype: Any) -> None:
    loader = WindowLoader(make_partition([9]), context=1, batch_size=9, dtype=dtype)
    assert loader.spec.dtype == "float16"
    assert next(iter(loader)).windows.dtype == torch.float16


@pytest.mark.parametrize(
    ("budget", "size"),
    [
        ("2GiB", 2 << 30),
        (3e6, 3_000_000),
        ("1.5 MB", 1_500_000),
        (10**9, 10**9),
        ("400", 400),
        ("100kB", 100_000),
        ("2 gb", 2 * 10**9),
        ("1mib", 1 << 20),
    ],
)
def test_a_memory_budget_is_a_number_of_bytes_or_a_text(budget: Any, size: int) -> None:
    assert as_bytes("memory_budget", budget) == size


@pytest.mark.parametrize("budget", ["2 bytes", "GiB", "-1GB", "0", 0, 1.5, True, "1e9"])
def test_another_memory_budget_is_refused(budget: Any) -> None:
    with pytest.raises(UsageError, match="loader: memory_budget"):
        WindowLoader(make_partition([9]), context=1, batch_size=9, memory_budget=budget)
