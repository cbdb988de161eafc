"""A comparison in sentences, which the terminal and the page share."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dali_asr.errors import printable

if TYPE_CHECKING:
    from dali_asr.reports.bootstrap import Difference
    from dali_asr.reports.compare import Comparison, Pair

METHOD = "Paired bootstrap over utterances, 10,000 resamples; each p-value is of its pair alone"


def verdicts(comparison: Comparison) -> list[str]:
    """Return what can be said about whether the runs differ."""
    lines = [f"No significance: {printable(obstacle)}" for obstacle in dict.fromkeys(comparison.obstacles)]
    lines += [_pair(pair) for pair in comparison.pairs]
    return lines + (_seeds(comparison) if comparison.pairs else [])


def interval(difference: Difference) -> str:
    """Return a difference of fractions in points with its interval and p-value."""
    return (
        f"{_points(difference.difference)} points (95% interval {_points(difference.low)} to "
        f"{_points(difference.high)}, {_p_value(difference.p_value)})"
    )


def _pair(pair: Pair) -> str:
    shown = interval(pair.accuracy)
    if not pair.accuracy.significant:
        return f"{pair.second} and {pair.first} do not differ measurably in frame accuracy: {shown}"
    better = "better" if pair.accuracy.difference > 0 else "worse"
    return f"{pair.second} is {better} than {pair.first} in frame accuracy: {shown}"


def _seeds(comparison: Comparison) -> list[str]:
    """Return what seeds explain."""
    lines = []
    for group in comparison.groups:
        lines.append(
            f"{_listed(group.letters)} differ in the seed alone: mean frame accuracy {group.mean:.2%}, standard "
            f"deviation {100 * group.spread:.2f} points; differences between them are of seeds"
        )
    others = [pair for pair in comparison.pairs if not pair.seeds_only]
    if comparison.groups:
        spread = max(group.spread for group in comparison.groups)
        return lines + [_beside_seeds(pair, spread) for pair in others]
    if others:
        lines.append(
            "How much the seed alone changes is not known, as no configuration was trained with two seeds; train again "
            "with another training.seed and compare all of them"
        )
    return lines


def _beside_seeds(pair: Pair, spread: float) -> str:
    within = abs(pair.accuracy.difference) <= 2 * spread
    return (
        f"{pair.second} and {pair.first} differ by {'no more' if within else 'more'} than two standard deviations of "
        f"seeds ({200 * spread:.2f} points): {'it may be the seed' if within else 'not by the seed alone'}"
    )


def _listed(letters: tuple[str, ...]) -> str:
    return f"{', '.join(letters[:-1])} and {letters[-1]}"


def _points(fraction: float) -> str:
    return f"{100 * fraction:+.2f}"


def _p_value(value: float) -> str:
    return f"p = {value:.4f}" if value >= 0.001 else "p < 0.001"
