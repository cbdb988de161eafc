"""Runs side by side, read back from the terminal and the page; the bootstrap beside SciPy's."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import bootstrap

from dali_asr.config import Config
from dali_asr.errors import CheckpointError, DataError
from dali_asr.reports.bootstrap import paired_bootstrap
from dali_asr.reports.compare import compare
from dali_asr.reports.plot import SHARED, plot_text
from dali_asr.reports.record import config_differences, fold_sections
from dali_asr.reports.verdicts import verdicts
from dali_asr.training import train
from tests.makers import make_course
from tests.reports.browser import dump
from tests.training_runs import SMALL


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Return a run, the same with another seed, and one that learns nothing."""
    folder = tmp_path_factory.mktemp("compared")
    settings_ = {
        "one": [],
        "two": ["training.seed=1", "run.name=two", "training.log_every=7"],
        "bad": ["training.optimizer.learning_rate=1e-9"],
    }
    for name, own in settings_.items():
        train(Config.load("demo", [*SMALL, "training.epochs=2", *own]), run=folder / name)
    return [folder / name for name in settings_]


def test_the_bootstrap_agrees_with_scipy() -> None:
    rng = np.random.default_rng(3)
    size = rng.integers(20, 400, 80)
    first, second = rng.binomial(size, 0.70), rng.binomial(size, 0.715)

    def difference(a: Any, b: Any, n: Any, axis: int) -> Any:
        return b.sum(axis=axis) / n.sum(axis=axis) - a.sum(axis=axis) / n.sum(axis=axis)

    theirs = bootstrap(
        (first, second, size), difference, paired=True, n_resamples=10_000, method="percentile", random_state=1
    )
    ours = paired_bootstrap(first, second, size)
    assert ours.difference == pytest.approx((second.sum() - first.sum()) / size.sum())
    tolerance = 0.05 * (ours.high - ours.low)
    assert (ours.low, ours.high) == pytest.approx(tuple(theirs.confidence_interval), abs=tolerance)
    drawn = theirs.bootstrap_distribution
    assert ours.p_value == pytest.approx(2 * min((drawn <= 0).mean(), (drawn >= 0).mean()), abs=0.02)


@given(st.integers(2, 30), st.integers(0, 5), st.integers(0, 2**31))
@settings(max_examples=30, deadline=None)
def test_the_bootstrap_is_plain_resampling(count: int, empty: int, seed: int) -> None:
    """Utterances without frames change nothing, and exchanging the models turns the signs."""
    rng = np.random.default_rng(seed)
    size = rng.integers(1, 50, count)
    first, second = rng.binomial(size, 0.5), rng.binomial(size, 0.6)
    nothing = np.zeros(empty, np.int64)
    padded = (np.concatenate([values, nothing]) for values in (first, second, size))
    ours = paired_bootstrap(*padded, resamples=200, seed=seed)
    chosen = np.random.default_rng(seed).integers(0, count, (200, count), dtype=np.int32)
    drawn = np.array([(second[row].sum() - first[row].sum()) / size[row].sum() for row in chosen])
    assert (ours.low, ours.high) == pytest.approx(tuple(np.percentile(drawn, [2.5, 97.5])))
    back = paired_bootstrap(second, first, size, resamples=200, seed=seed)
    assert (back.difference, back.low, back.high) == pytest.approx((-ours.difference, -ours.high, -ours.low))
    assert back.p_value == ours.p_value


def test_equal_models_do_not_differ_and_one_utterance_says_nothing() -> None:
    size = np.array([10, 20, 30])
    same = paired_bootstrap(size // 2, size // 2, size)
    assert (same.difference, same.low, same.high, same.p_value, same.significant) == (0, 0, 0, 1, False)
    with pytest.raises(DataError, match="1 labelled utterances: significance needs two or more"):
        paired_bootstrap(np.array([1, 0]), np.array([2, 0]), np.array([5, 0]))


def test_the_bootstrap_rarely_sees_what_is_not_there() -> None:
    """Of models that are equally good, about one in twenty differs at p < 0.05."""
    rng = np.random.default_rng(0)
    size = np.full(60, 100)
    found = [
        paired_bootstrap(rng.binomial(size, 0.7), rng.binomial(size, 0.7), size, resamples=300).significant
        for _ in range(200)
    ]
    assert 0.01 < np.mean(found) < 0.11


def test_the_command_tells_seeds_from_settings(runs: list[Path], run_cli: Callable[..., Any], tmp_path: Path) -> None:
    page = tmp_path / "compared.html"
    done = run_cli("compare", *runs, "--html", page, "--device", "cpu")
    assert done.exit_code == 0, done.output
    assert "A and B differ in the seed alone: mean frame accuracy" in done.stdout
    assert "C is worse than A in frame accuracy: -" in done.stdout
    assert "C and A differ by more than two standard deviations of seeds" in done.stdout
    assert "training.seed: A 0, B 1, C 0" in done.stdout
    assert "log_every" not in done.stdout
    plotted = [line for line in done.stdout.splitlines() if "┤" in line or "│" in line]
    assert len(plotted) == 14
    assert {"A", "C"} <= set("".join(plotted))
    assert max(map(len, plotted)) <= 80
    html = page.read_text(encoding="utf-8")
    assert "differ in the seed alone" in html
    script = """
      document.querySelector("table.sortable th:nth-child(4) button").click();
      const rows = document.querySelector("table.sortable").tBodies[0].rows;
      const page = document.documentElement;
      return [rows[2].cells[0].textContent[0], page.scrollWidth <= page.clientWidth].join(" ");
    """
    assert dump(page, script, tmp_path, "--window-size=390,800") == "C true"
    again = run_cli("compare", *runs, "--html", page)
    assert (again.exit_code, "exists; choose another file, or overwrite it (--force)" in again.stderr) == (2, True)


def test_what_was_changed_on_the_way_is_shown_and_is_a_difference(
    runs: list[Path], run_cli: Callable[..., Any], tmp_path: Path
) -> None:
    """Both end with the same configuration, which one of them did not have from the beginning."""
    resumed = shutil.copytree(runs[0], tmp_path / "resumed")
    changes = [("training.optimizer.learning_rate", 0.01, 0.001), ("training.log_every", 1, 20)]
    lines = [json.dumps({"step": 30, "key": key, "old": old, "new": new}) for key, old, new in changes]
    (resumed / "changes.jsonl").write_text("\n".join(lines))
    metrics = (resumed / "metrics.jsonl").read_text().splitlines()
    last = json.loads(metrics[-1]) | {"complete": False}
    (resumed / "metrics.jsonl").write_text("\n".join([*metrics[:-1], json.dumps(last), ""]))
    done = run_cli("compare", runs[1], resumed, "--html", tmp_path / "page.html", "--device", "cpu")
    assert done.exit_code == 0, done.output
    said = "Resumed with other settings from step 31 on: training.optimizer.learning_rate 0.001 (was 0.01)"
    assert f"\n   {said}\n" in done.stdout
    assert "2 of 2" in done.stdout
    assert "2 of 2, cut short" in done.stdout
    assert "in the seed alone" not in done.stdout
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert f"B: {said}." in page
    assert "2 of 2, cut short" in page


def test_the_table_fits_a_terminal(
    runs: list[Path], run_cli: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from dali_asr.cli.console import stdout

    monkeypatch.setattr(stdout, "width", 80)
    done = run_cli("compare", runs[0], runs[2], "--device", "cpu")
    assert done.exit_code == 0, done.output
    header = next(line for line in done.stdout.splitlines() if "params" in line)
    assert header.split() == ["params", "accuracy", "PER", "frames/s", "stall", "epochs"]
    assert "PER: phoneme error rate; stall: share of the training time" in done.stdout
    monkeypatch.setattr(stdout, "width", 120)
    other = run_cli("compare", runs[0], runs[2], "--device", "cpu", "--partition", "test").stdout
    assert "best dev: the best dev accuracy in training; accuracy: of this evaluation" in other
    assert "How much the seed alone changes is not known" in done.stdout


def test_runs_of_other_corpora_are_shown_without_significance(runs: list[Path], tmp_path: Path) -> None:
    make_course(tmp_path / "c", {"train": [300, 200], "dev": [60, 40]}, dim=28)
    small = [*SMALL, "loader.batch_size=16", "training.max_steps=2", f"data.root={tmp_path / 'c'}", "data.test=null"]
    other = train(Config.load("demo", small), run=tmp_path / "other").run
    found = compare([runs[0], runs[1], other], device="cpu")
    assert [(pair.first, pair.second) for pair in found.pairs] == [("A", "B")]
    assert verdicts(found)[0].startswith(
        "No significance: A and C were scored on different utterances or labels, dev of demo and dev of"
    )
    assert not compare([runs[0], other], device="cpu").pairs
    assert compare([runs[0], other], corpus="demo", partition="test", device="cpu").pairs
    (tmp_path / "c").rename(tmp_path / "gone")
    with pytest.raises(DataError, match=r"its corpus .* is missing; name a corpus for all runs \(corpus=FOLDER\)"):
        compare([runs[0], other], device="cpu")


def test_other_inventories_and_single_utterances_are_shown_without_significance(tmp_path: Path) -> None:
    make_course(tmp_path / "c", {"train": [300, 200], "dev": [60]}, dim=28)
    root = [*SMALL, "loader.batch_size=16", "training.max_steps=2", f"data.root={tmp_path / 'c'}", "data.test=null"]
    (tmp_path / "symbols.txt").write_text("\n".join([*_symbols(), "extra"]))
    for name, own in {"a": [], "b": ["training.seed=1"], "d": [f"data.inventory={tmp_path / 'symbols.txt'}"]}.items():
        train(Config.load("demo", [*root, *own]), run=tmp_path / name)
    (line,) = verdicts(compare([tmp_path / "a", tmp_path / "b"], device="cpu"))
    assert line == "No significance: dev has fewer than two labelled utterances"
    (line,) = verdicts(compare([tmp_path / "a", tmp_path / "d"], device="cpu"))
    assert "A and B have different inventories (42 and 43 symbols)" in line


def _symbols() -> list[str]:
    from dali_asr.inventory import ARPABET_SYMBOLS

    return list(ARPABET_SYMBOLS)


def test_wrong_runs_are_refused_in_one_line(runs: list[Path], run_cli: Callable[..., Any], tmp_path: Path) -> None:
    def refused(code: int, *arguments: object) -> str:
        done = run_cli("compare", *arguments)
        assert (done.exit_code, done.stderr.count("\n")) == (code, 1), done.output
        return str(done.stderr)

    assert "compare: 1 run; give 2 to 26" in refused(2, runs[0])
    assert refused(1, runs[0], "nowhere").startswith("error: nowhere: no such folder; give the folder of a run")
    with pytest.raises(CheckpointError, match="nowhere: no such folder"):
        compare([runs[0], "nowhere"])
    assert "given twice" in refused(2, runs[0], runs[1], runs[0])
    assert "not a run" in refused(1, runs[0], tmp_path)
    copy = tmp_path / "old"
    shutil.copytree(runs[0], copy)
    last = max((copy / "checkpoints").iterdir())
    about = (last / "checkpoint.json").read_bytes().replace(b'"version": 3', b'"version": 2')
    (last / "checkpoint.json").write_bytes(about)
    (last / "SHA256SUMS").write_text(f"{hashlib.sha256(about).hexdigest()}  checkpoint.json\n")
    assert "checkpoint format 2, this dali-asr reads 3" in refused(1, runs[0], copy)
    assert "nowhere" in refused(2, runs[0], runs[1], "--partition", "nowhere")


def test_masks_that_one_configuration_lacks_are_a_difference() -> None:
    plain = Config.load("demo", ["loader.masking=null"])
    masked = Config.load("demo", ["loader.masking={}"])
    found = config_differences(plain, masked)
    assert found["loader.masking"] == ("null", "–")
    assert found["loader.masking.time.count"][0] == "–"
    assert config_differences(plain, plain) == {}
    folded = fold_sections(found)
    assert list(folded) == ["loader.masking"]
    null, values = folded["loader.masking"]
    assert null == "null"
    for name, of in found.items():
        assert name == "loader.masking" or f"{name.removeprefix('loader.masking.')}: {of[1]}" in values
    other = Config.load("demo", ["loader.masking={time: {count: [0, 7]}}"])
    different = config_differences(plain, masked, other)
    assert fold_sections(different) == different, "what differs between the others would not be seen"


def test_the_plot_puts_letters_where_the_values_are() -> None:
    plot = plot_text({"A": [(1, 0.0), (3, 1.0)], "B": [(1, 1.0), (3, 0.0)]}, width=29, height=21).splitlines()
    assert plot[0] == "100.0% ┤B" + " " * 19 + "A"
    assert plot[10][18] == SHARED
    assert plot[20] == "  0.0% ┤A" + " " * 19 + "B"
    assert plot[22].split() == ["1", "epoch", "3"]
    assert plot_text({}) == plot_text({"A": []}) == ""
    single = plot_text({"A": [(1, 0.5)]}, width=29, height=5)
    assert single.count("A") == 1


@given(st.dictionaries(st.sampled_from("ABC"), st.lists(st.floats(0, 1), min_size=1, max_size=40), min_size=1))
@settings(max_examples=50, deadline=None)
def test_every_curve_fits_the_plot(values: dict[str, list[float]]) -> None:
    curves = {letter: [(float(at + 1), y) for at, y in enumerate(curve)] for letter, curve in values.items()}
    lines = plot_text(curves).splitlines()
    assert len(lines) == 16
    assert max(map(len, lines)) <= 78
