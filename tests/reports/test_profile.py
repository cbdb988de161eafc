"""Where the time of a step goes, read back from what is written."""

from __future__ import annotations

import json
import shutil
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dali_asr.reports import profile as profiling
from dali_asr.reports.flame import draw_flame, read_folded

OPTIONS = ("--set", "model.hidden=[8]", "--set", "loader.device=cpu", "--steps", "4")
SVG = "{http://www.w3.org/2000/svg}"


def titles(svg: str) -> dict[str, str]:
    """Return what the boxes of a flame graph say, by name."""
    found = [title.text or "" for title in ET.fromstring(svg).iter(f"{SVG}title")]
    return dict(text.rsplit(": ", 1) for text in found)


def widths(svg: str) -> dict[str, float]:
    boxes = ET.fromstring(svg).iter(f"{SVG}g")
    return {(box[0].text or "").rsplit(": ", 1)[0]: float(box[1].get("width", 0)) + 0.4 for box in boxes}


def test_boxes_are_as_wide_as_their_share() -> None:
    stacks = {("a", "b"): 30, ("a", "c<d>"): 10, ("a",): 20, ("e",): 40}
    svg = draw_flame(stacks, "A & B")
    assert titles(svg) == {"all": "100.0%", "a": "60.0%", "b": "30.0%", "c<d>": "10.0%", "e": "40.0%"}
    wide = widths(svg)
    assert {name: wide[name] / wide["all"] for name in wide} == pytest.approx(
        {"all": 1, "a": 0.6, "b": 0.3, "c<d>": 0.1, "e": 0.4}, abs=1e-3
    )


def test_no_samples_are_an_empty_picture() -> None:
    assert titles(draw_flame({}, "nothing")) == {}


def test_folded_stacks_are_cut_to_what_is_inside_a_frame() -> None:
    text = "main;run (x.py:1);f (y.py:2) 3\nmain;import 9\nmain;run (x.py:1);f (y.py:2) 2\nmain;run (x.py:1) 1\n"
    assert read_folded(text, "run ") == {("run (x.py:1)", "f (y.py:2)"): 5, ("run (x.py:1)",): 1}
    assert read_folded("") == {}


@pytest.mark.parametrize("sampler", ["py-spy", "a thread"])
def test_the_command_says_shares_and_writes_trace_and_flame_graph(
    sampler: str, run_cli: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if sampler == "a thread":
        monkeypatch.setattr(profiling, "_PROGRAMS", str(tmp_path))
    elif not shutil.which("py-spy", path=profiling._PROGRAMS):
        pytest.skip("py-spy is not installed")
    monkeypatch.setattr(profiling, "_LOADING_SECONDS", 0.3)
    folder = tmp_path / "profile"
    done = run_cli("profile", "demo", *OPTIONS, "-o", folder)
    assert done.exit_code == 0, done.output
    first, verdict, *lines = done.stdout.splitlines()
    assert first.startswith("4 steps on the CPU (")
    assert verdict.startswith("A step waits for data during ")
    shares = {line.split()[0]: float(line.split()[3].rstrip("%")) for line in lines[:4]}
    assert list(shares) == ["data", "forward", "backward", "optimizer"]
    assert sum(shares.values()) == pytest.approx(100, abs=0.3)
    assert f"by {sampler}: {folder}/loader.svg" in lines[-1]
    traced = json.loads((folder / "trace.json").read_text())["traceEvents"]
    assert {"data", "forward", "backward", "optimizer"} <= {event.get("name") for event in traced}
    names = " ".join(titles((folder / "loader.svg").read_text()))
    assert "_iterate" in names
    assert "__iter__ (dali_asr/loading/loader.py:" in names
    if sampler == "py-spy":
        assert "StepSource" in names
    again = run_cli("profile", "demo", *OPTIONS, "-o", folder)
    assert (again.exit_code, "exists; choose another folder" in again.stderr) == (2, True)
    if sampler == "a thread":  # which is quicker
        assert run_cli("profile", "demo", *OPTIONS, "-o", folder, "--force").exit_code == 0


def test_a_folder_that_is_no_profile_is_kept(run_cli: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("kept")
    done = run_cli("profile", "demo", *OPTIONS, "-o", tmp_path, "--force")
    assert done.exit_code == 2
    assert "is not a profile, so it is not overwritten" in done.stderr
    assert (tmp_path / "mine").read_text() == "kept"
