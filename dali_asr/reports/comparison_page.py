"""The page of a comparison of runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from dali_asr.errors import printable
from dali_asr.reports.run_pages import write_page
from dali_asr.reports.svg import SERIES, figure_style, inline_svg
from dali_asr.reports.verdicts import METHOD, interval, verdicts

if TYPE_CHECKING:
    from pathlib import Path

    from markupsafe import Markup

    from dali_asr.reports.compare import Comparison, Scored


def write_comparison(comparison: Comparison, path: Path, *, overwrite: bool = False) -> None:
    """Write a comparison as a page that opens without a network.

    Raises:
        UsageError: the file exists.
        DataError: the disk is full or cannot be written.
    """
    write_page(
        path,
        "compare.html",
        overwrite=overwrite,
        title=f"{len(comparison.runs)} runs compared",
        partitions=printable(", ".join(dict.fromkeys(run.evaluation.partition for run in comparison.runs))),
        runs=comparison.runs,
        curves=[_draw_overlay(name, comparison.runs) for name in ("accuracy", "loss")],
        pairs=[(pair, interval(pair.accuracy), interval(pair.error_rate)) for pair in comparison.pairs],
        verdicts=verdicts(comparison),
        method=METHOD,
        differing=comparison.differing,
    )


def _draw_overlay(name: Literal["loss", "accuracy"], runs: tuple[Scored, ...]) -> Markup:
    """Draw a metric on the dev partition of all runs over epochs."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator, PercentFormatter

    with figure_style():
        figure = Figure(figsize=(4.6, 3.7), layout="constrained")
        axes = figure.subplots()
        for at, run in enumerate(runs):
            points = [
                (e["epoch"], e["dev"][name]) for e in run.record.by_number if (e["dev"] or {}).get(name) is not None
            ]
            if points:
                x, y = zip(*points, strict=True)
                style = ("o-", "s--", "^:", "d-.")[at // len(SERIES) % 4]
                label = f"{run.letter}: {printable(run.record.name)[:24]}".replace("$", r"\$")
                axes.plot(x, y, style, color=SERIES[at % len(SERIES)], markersize=4, label=label)
        axes.set_xlabel("epoch")
        axes.set_ylabel("dev frame accuracy" if name == "accuracy" else "dev cross-entropy (nats)")
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        if name == "accuracy":
            axes.yaxis.set_major_formatter(PercentFormatter(1.0))
        axes.grid(alpha=0.25)
        if axes.get_legend_handles_labels()[0]:
            figure.legend(loc="outside lower center", ncols=2, frameon=False, fontsize=8)
        return inline_svg(figure, f"Curves of {name} on the dev partition over epochs, one per run")
