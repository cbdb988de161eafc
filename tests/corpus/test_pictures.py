"""The picture of a corpus, read back from the drawn axes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text

from dali_asr import Corpus
from dali_asr.corpus.pictures import draw_corpus
from dali_asr.corpus.survey import Survey, survey
from tests.makers import make_features


def surveyed(
    partitions: int = 2, classes: int = 5, dim: int = 6, prefix: str = "s", labelled: bool = True
) -> list[Survey]:
    rng = np.random.default_rng(0)
    names = [f"part-{at}" for at in range(partitions)]
    lengths = {name: rng.integers(20, 400, 9).tolist() for name in names}
    frames = {name: [make_features(length, dim) for length in lengths[name]] for name in names}
    labels = {name: [rng.integers(0, classes, length) for length in lengths[name]] for name in names}
    symbols = [f"{prefix}{at}" for at in range(classes)]
    made = Corpus.from_arrays(frames, labels if labelled else None, symbols)
    return [survey(partition) for partition in made.partitions.values()]


def is_whole(figure: Figure) -> bool:
    """Return whether everything drawn is within the picture."""
    drawn, (width, height) = figure.get_tightbbox(), figure.get_size_inches()
    return bool(drawn.x0 >= 0 and drawn.y0 >= 0 and drawn.x1 <= width and drawn.y1 <= height)


def test_labels_lengths_and_features_are_those_of_the_partitions(drawn: list[Figure]) -> None:
    found = surveyed()
    assert draw_corpus(found, "speech", "png")[:4] == b"\x89PNG"
    labels, lengths, means, spreads = drawn[0].axes
    shares = [partition.counts / partition.counts.sum() for partition in found]
    order = np.argsort(-(shares[0] + shares[1]), kind="stable")
    assert [text.get_text() for text in labels.get_xticklabels()] == [f"s{label}" for label in order]
    heights = [bar.get_height() for bar in labels.patches]  # type: ignore[attr-defined]
    assert heights == pytest.approx([*shares[0][order], *shares[1][order]])
    for stairs, partition in zip(lengths.patches, found, strict=True):
        values, edges, _ = stairs.get_data()  # type: ignore[attr-defined]
        assert values == pytest.approx(np.histogram(partition.lengths / 100, edges)[0] / 9)
        assert values.sum() == pytest.approx(1)
    for axes, values in ((means, [f.mean for f in found]), (spreads, [f.deviation for f in found])):
        assert [line.get_ydata() for line in axes.lines] == [pytest.approx(some) for some in values]
    assert [text.get_text() for text in drawn[0].legends[0].texts] == ["part-0", "part-1"]
    assert is_whole(drawn[0])


@pytest.mark.parametrize(
    "options",
    [
        {"partitions": 1, "classes": 2, "prefix": "speech-or-not-"},
        {"partitions": 9, "classes": 85, "prefix": "$\x1b[31m_a-long-symbol-"},
        {"partitions": 1, "dim": 1},
        {"partitions": 3, "dim": 90, "labelled": False},
    ],
)
def test_nothing_is_cut_off(options: dict[str, Any], drawn: list[Figure]) -> None:
    found = surveyed(**options)
    draw_corpus(found, "a title of some length: 28 features per frame, normalized: utterance", "png")
    assert is_whole(drawn[0])
    for axes in drawn[0].axes[2:]:
        low, high = axes.get_ylim()
        assert all(low < value < high for line in axes.lines for value in np.asarray(line.get_ydata()))
    texts = {text.get_text() for text in drawn[0].findobj(Text)}
    assert ("no labels" in texts) == (options.get("labelled") is False)
    assert ("labels: the 80 most frequent of 85 that occur" in texts) == (options.get("classes") == 85)
    assert any(text.endswith("the first 8 of 9 partitions") for text in texts) == (options["partitions"] == 9)
    assert not any("\x1b" in text for text in texts)


def test_info_draws_and_warns(run_cli: Callable[..., Any], tmp_path: Path, course: Path) -> None:
    picture = tmp_path / "new/corpus.svg"
    shown = run_cli("data", "info", course, "--plot", picture)
    assert shown.exit_code == 0, shown.output
    assert shown.stdout.endswith(f"Picture: {picture}\n")
    assert picture.read_bytes().startswith(b"<?xml")
    assert "warning: train: labels that occur in no other partition: " in shown.stderr
    again = run_cli("data", "info", course, "--plot", picture)
    assert again.exit_code == 2
    assert "exists; choose another file, or overwrite it (--force)" in again.output
    other = run_cli("data", "info", course, "--plot", tmp_path / "corpus.bmp")
    assert other.exit_code == 2
    assert "corpus.bmp: no format for a picture; name a file that ends in .png, .svg or .pdf" in other.output
    assert run_cli("data", "info", course, "--silence", "pau").exit_code == 2
