"""Charts of benchmarks, read back from the drawn axes and compared with the recorded repeats."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import pytest
from matplotlib.figure import Figure

from dali_asr.bench.report import draw_chart

RESULTS = Path(__file__).parents[2] / "benchmarks/results"


def recorded(name: str) -> dict[str, Any]:
    values: dict[str, Any] = json.loads(next(RESULTS.glob(f"{name}_*.json")).read_text())
    return values


def figure_of(values: dict[str, Any], drawn: list[Figure]) -> Figure:
    """Draw a chart and return its figure."""
    assert draw_chart(values, "png")[:4] == b"\x89PNG"
    return drawn[-1]


def ranges(axes: Any) -> list[list[float]]:
    """Return the ends of the error bars, sorted."""
    lines = [collection for collection in axes.collections if hasattr(collection, "get_segments")]
    return sorted([float(end[0]) for end in segment] for line in lines for segment in line.get_segments())


def test_the_loader_chart_has_a_scale_per_row_and_touches_nothing(drawn: list[Figure]) -> None:
    values = recorded("loader")
    figure = figure_of(values, drawn)
    by_title = {axes.get_title(): axes for axes in figure.axes}
    renderer = figure.canvas.get_renderer()  # type: ignore[attr-defined]
    scales: dict[str, set[tuple[float, float]]] = {}
    for case in values["cases"]:
        kind = f"{case['dtype']}, masks {'on' if case['masks'] else 'off'}"
        axes = by_title[f"batch {case['batch_size']:,}, {kind}"]
        scales.setdefault(kind, set()).add(axes.get_xlim())
        repeats = [[rate / 1e3 for rate in r["windows_per_second"]] for r in case["results"]]
        assert [bar.get_width() for bar in axes.patches] == pytest.approx([median(of) for of in repeats])  # type: ignore[attr-defined]
        for found, expected in zip(ranges(axes), sorted([min(of), max(of)] for of in repeats), strict=True):
            assert found == pytest.approx(expected)
        inside = axes.get_window_extent()
        for text in axes.texts:
            assert text.get_window_extent(renderer).x1 < inside.x1
    assert {kind: len(limits) for kind, limits in scales.items()} == dict.fromkeys(scales, 1)
    for row in range(3):
        boxes = [
            label.get_window_extent(renderer)
            for axes in figure.axes[3 * row : 3 * row + 3]
            for tick, label in zip(axes.get_xticks(), axes.get_xticklabels(), strict=True)
            if axes.get_xlim()[0] <= tick <= axes.get_xlim()[1]
        ]
        assert all(left.x1 + 3 < right.x0 for left, right in pairwise(boxes)), "numbers below the bars do not touch"


def test_rates_of_very_different_sizes_are_drawn_on_a_logarithmic_scale(drawn: list[Figure]) -> None:
    values = recorded("loader")
    values["cases"] = values["cases"][:1]
    for result in values["cases"][0]["results"][-2:]:
        result["device"], result["median"] = "cuda", 100 * result["median"]
        result["windows_per_second"] = [100 * rate for rate in result["windows_per_second"]]
    (axes,) = figure_of(values, drawn).axes
    assert axes.get_xscale() == "log"
    assert axes.get_yticklabels()[-1].get_text() == "dali streamed (cuda)"


def test_the_training_chart_shows_the_range_of_the_repeats(drawn: list[Figure]) -> None:
    values = recorded("train")
    (axes,) = figure_of(values, drawn).axes
    expected = []
    for result in values["results"]:
        for side in ("fixed", "fed", "trained"):
            percent = [100 * rate / median(result["fixed"]) for rate in result[side]]
            expected.append([min(percent), max(percent)])
    for found, known in zip(ranges(axes), sorted(expected), strict=True):
        assert found == pytest.approx(known)
    legend = axes.get_legend()
    assert legend
    assert [text.get_text().partition(":")[0] for text in legend.get_texts()] == ["bare", "fed", "train"]
