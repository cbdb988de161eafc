"""The scripts that measure the loader's start and the order of a streamed partition, on a small corpus."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from dali_asr import PackedWriter
from dali_asr.errors import DataError
from dali_asr.inventory import ARPABET

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a packed corpus of 200 utterances of 60 frames."""
    path = tmp_path_factory.mktemp("packed") / "corpus"
    with PackedWriter(path, inventory=ARPABET) as writer:
        for at in range(200):
            writer.add("train", f"u{at}", np.full((60, 28), at, np.float32), np.zeros(60, np.int64))
    return path


def test_start_times_both_sides_equally_often(run_script: Callable[..., str], corpus: Path, tmp_path: Path) -> None:
    output = tmp_path / "start.json"
    printed = run_script("start", corpus, "train", "--repeats", 2, "--device", "cpu", "--json", output)
    values = json.loads(output.read_text())
    assert (len(values["copy"]), len(values["start"])) == (2, 2)
    assert values["bytes"] == (corpus / "frames.npy").stat().st_size
    assert f"to the first batch {min(values['start']):.2f} s" in printed
    assert {"benchmark", "date", "machine", "packages"} <= set(values)


def test_smaller_groups_mix_fewer_utterances(run_script: Callable[..., str], corpus: Path, tmp_path: Path) -> None:
    """The 60 frames of an utterance are in one group: the smaller the groups, the larger its share of a batch."""
    output = tmp_path / "shuffle.json"
    run_script("shuffle", corpus, "train", "--batch-size", 120, "--budgets", 0.5, 0.1, "--json", output)
    full, half, tenth = json.loads(output.read_text())["results"]
    assert (full["groups"], full["budget"]) == (1, 1)
    assert full["groups"] < half["groups"] < tenth["groups"]
    assert full["largest_share"] < half["largest_share"] < tenth["largest_share"]
    assert 120 >= full["utterances"] > half["utterances"] > tenth["utterances"]


def test_sides_run_in_turn_and_in_both_orders(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import harness

    order: list[str] = []

    def side(name: str) -> Callable[[], int]:
        return lambda: order.append(name) or len(order)  # type: ignore[func-returns-value]

    assert harness.in_turn(3, side("a"), side("b")) == [[1, 4, 5], [2, 3, 6]]
    assert "".join(order) == "abbaab"


def test_an_output_that_cannot_be_written_is_refused_first(run_script: Callable[..., str], corpus: Path) -> None:
    with pytest.raises(DataError, match="is not a writable folder"):
        run_script("shuffle", corpus, "train", "--json", "/etc/passwd/x.json")


def test_a_script_shows_its_help(run_script: Callable[..., str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        run_script("shuffle", "--help")
    assert "--json" in capsys.readouterr().out
