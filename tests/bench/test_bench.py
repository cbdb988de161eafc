"""Benchmarks time only loaders that deliver the right windows."""

from __future__ import annotations

import itertools
import json
import statistics
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from dali_asr import Corpus
from dali_asr.bench import bench_loader, synthetic_corpus
from dali_asr.bench.contenders import Case, Contender, contenders
from dali_asr.bench.loader import _worker_counts
from dali_asr.bench.measure import check, measure
from dali_asr.errors import BenchError, UsageError
from dali_asr.plan import Masking
from tests.judge import judge_windows, same_bits
from tests.makers import make_features, make_partition

CPU = torch.device("cpu")

pytestmark = pytest.mark.usefixtures("small_roofs")


@pytest.mark.parametrize("masking", [None, Masking(), Masking(scope="batch")])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_every_contender_gives_the_judges_windows(masking: Masking | None, dtype: str) -> None:
    partition = make_partition([1] + [9, 8, 7, 8] * 8, dim=6, dtype=dtype)
    case = Case(partition, (4, 3), 8, masking)
    utterances = list(partition.frames())
    entered = contenders(case, (0, 1), CPU)
    assert [c.name for c in entered if c.loader] == ["dali stock", "dali streamed"]
    for contender in entered:
        planner = contender.loader.planner if contender.loader else case.planner
        for number in range(2 * planner.steps.count):  # into the second epoch
            windows, labels = next(contender.batches)
            plan = planner.plan(*divmod(number, planner.steps.count))
            assert same_bits(windows.numpy(), judge_windows(utterances, 4, 3, plan, dtype)), contender.name
            truth = partition.labels()
            assert truth is not None
            assert labels.tolist() == truth[plan.frame_ids].tolist()


def fixed(name: str, value: float) -> Contender:
    """Return a contender that always gives the same windows."""
    windows = torch.full((4, 3, 2), value)
    return Contender(name, CPU, 4, itertools.repeat((windows, torch.zeros(4, dtype=torch.int64))), 0)


def test_a_contender_that_differs_in_one_bit_is_refused() -> None:
    check([fixed("a", 0.0), fixed("b", 0.0)])
    with pytest.raises(BenchError, match="b on cpu: batch 0 differs from that of a; nothing was timed"):
        check([fixed("a", 0.0), fixed("b", -0.0)])
    own = replace(fixed("b", 1.0), expected=fixed("b", 1.0).batches)
    check([fixed("a", 0.0), own])
    with pytest.raises(BenchError, match="b on cpu: batch 0 differs from that of its plan"):
        check([fixed("a", 0.0), replace(own, expected=fixed("b", 2.0).batches)])


def test_all_repeats_are_kept() -> None:
    results = measure([fixed("a", 0.0), fixed("b", 1.0)], repeats=3, seconds=0.01, progress=lambda *_: None)
    assert [r.name for r in results] == ["a", "b"]
    for result in results:
        assert len(result.windows_per_second) == 3
        assert min(result.windows_per_second) <= result.median <= max(result.windows_per_second)
        assert result.bytes_per_window == 24
        assert result.gigabytes_per_second == pytest.approx(result.median * 24e-9)
        assert result.share(result.median * 480) == pytest.approx(0.1), "each value is read and written"


def test_worker_counts_depend_on_the_cores() -> None:
    assert _worker_counts(1) == (0, 2, 4)
    assert _worker_counts(2) == (0, 2, 4)
    assert _worker_counts(16) == (0, 2, 4, 8, 16)


def test_synthetic_utterances_are_as_long_as_those_of_train_clean_100() -> None:
    partition = synthetic_corpus(3000).partition("all")
    assert partition.frame_count == 3000
    assert partition.lengths.tolist() == [1265, 1265, 470]


def test_bench_loader_writes_and_prints_all_repeats(run_cli: Callable[..., Any], tmp_path: Path) -> None:
    files = {"--json": tmp_path / "b.json", "--chart": tmp_path / "b.png", "--table": tmp_path / "b.md"}
    arguments = ["bench", "loader", "--frames", 10_000, "--batch-size", 64, "--repeats", 2]
    arguments += ["--seconds", 0.01, "--workers", 0, "--workers", 1]
    arguments += itertools.chain.from_iterable(files.items())
    result = run_cli(*arguments)
    assert result.exit_code == 0, result.output
    values = json.loads(files["--json"].read_text())
    assert {"date", "machine", "packages", "corpus", "settings", "cases"} <= set(values)
    assert [case["masks"] for case in values["cases"]] == [False, True, True]
    assert [case["dtype"] for case in values["cases"]] == ["float32", "float32", "float16"]
    assert values["copy_bandwidth"]["cpu"] > 1e8
    names = [r["name"] for r in values["cases"][0]["results"]]
    assert {"dataloader, 0 workers", "dataloader, 1 workers", "numpy gather", "torch gather", "dali stock"} <= set(
        names
    )
    for entry in values["cases"][1]["results"]:
        assert len(entry["windows_per_second"]) == 2
        assert entry["name"] in result.output
        assert entry["share_of_copy_bandwidth"] > 0
        assert (entry["memory"] is not None) == entry["name"].startswith("dali")
        assert f"| {entry['name']} | cpu | {entry['median']:,.0f} |" in files["--table"].read_text()
    assert files["--chart"].read_bytes()[:4] == b"\x89PNG"
    assert run_cli(*arguments).exit_code == 2


def test_bench_loader_measures_a_recipes_corpus(run_cli: Callable[..., Any]) -> None:
    options = ["--batch-size", 32, "--repeats", 1, "--seconds", 0.01, "--workers", 0, "--dtype", "float32"]
    result = run_cli("bench", "loader", "demo", *options)
    assert result.exit_code == 0, result.output
    assert "52,297 frames of 28 features, windows of 12 + 1 + 12 frames" in result.output


def test_bench_train_writes_and_prints_stall_and_overhead(run_cli: Callable[..., Any], tmp_path: Path) -> None:
    files = {"--json": tmp_path / "b.json", "--chart": tmp_path / "b.svg", "--table": tmp_path / "b.md"}
    arguments = ["bench", "train", "--frames", 10_000, "--batch-size", 16, "--model", "tiny"]
    arguments += ["--repeats", 2, "--seconds", 0.01, *itertools.chain.from_iterable(files.items())]
    result = run_cli(*arguments)
    assert result.exit_code == 0, result.output
    (measured,) = json.loads(files["--json"].read_text())["results"]
    assert (measured["model"], measured["batch_size"], measured["graph"]) == ("tiny", 16, "stock")
    assert len(measured["fed"]) == len(measured["fixed"]) == 2
    stall = 1 - statistics.median(measured["fed"]) / statistics.median(measured["fixed"])
    assert measured["stall"] == pytest.approx(stall)
    trained = statistics.median(measured["trained"])
    assert measured["frames_per_second"] == pytest.approx(16 * trained)
    assert measured["overhead"] == pytest.approx(statistics.median(measured["fixed"]) / trained - 1)
    layers = [(61 * 28, 512), (512, 512), (512, 512), (512, 42)]
    operations = sum(2 * 16 * a * b * (2 if at == 0 else 3) for at, (a, b) in enumerate(layers))
    assert measured["step_operations"] == operations
    assert measured["share_of_roof"] == pytest.approx(trained * operations / measured["roof"])
    assert f"{stall:.1%}" in result.output
    assert f"{stall:.1%}" in files["--table"].read_text()
    assert "<svg" in files["--chart"].read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "--model", "huge"], "--model huge; expected tiny or full"),
        (["loader", "--dtype", "int8"], "--dtype int8; expected float32 or float16"),
        (["train", "--chart", "stall.txt"], "charts are .png or .svg"),
        (["train", "demo", "--batch-size", 60_000], "frames are fewer than a batch of 60000"),
    ],
)
def test_invalid_arguments_are_refused(run_cli: Callable[..., Any], arguments: list[Any], message: str) -> None:
    result = run_cli("bench", *arguments)
    assert result.exit_code == 2, result.output
    assert message in result.output


def test_a_partition_without_labels_is_refused() -> None:
    partition = Corpus.from_arrays([make_features(50)]).partition("all")
    with pytest.raises(UsageError, match="all: has no labels"):
        bench_loader(partition, lambda *_: None, masking=Masking(), batch_sizes=(4,))
