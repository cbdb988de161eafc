"""`dali-asr sweep`."""

from __future__ import annotations

import shlex
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.markup import escape
from rich.table import Table

from dali_asr.cli.commands import Overrides, complete_recipe, complete_setting
from dali_asr.cli.console import progress_bar, say, show, warn
from dali_asr.errors import TrainingError, TrainingInterrupted
from dali_asr.sweeps import SweepReporter

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from dali_asr.sweeps.results import RunOutcome

_MAX_ROWS = 30  # of the printed table
_MOVE_SECONDS = 0.1  # between movements of the bar


def sweep(
    config: Annotated[
        str,
        typer.Argument(help="A recipe (`dali-asr config list`) or a YAML file.", autocompletion=complete_recipe),
    ] = "demo",
    vary: Annotated[
        list[str] | None,
        typer.Option(
            "--vary",
            metavar="SECTION.KEY=A,B,C",
            help="A setting with the values to try; repeat to combine several.",
            autocompletion=complete_setting,
        ),
    ] = None,
    overrides: Overrides = None,
    seeds: Annotated[
        int | None, typer.Option(min=1, help="Train every combination with this many seeds.", show_default=False)
    ] = None,
    random: Annotated[
        int | None, typer.Option(min=1, help="Train this many combinations, drawn at random.", show_default="all")
    ] = None,
    together: Annotated[
        Literal["auto", "on", "off"],
        typer.Option(help="Train models of one shape that read the same batches at once; `auto`: on a GPU."),
    ] = "auto",
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="The folder of the sweep. By default `sweep-CONFIG`.", show_default=False),
    ] = None,
) -> None:
    """Train many models that differ in some settings, and compare them by their best dev accuracy.

    A sweep that was stopped continues when it is started again. Each run is a folder in `runs/` of the sweep, as
    `train` leaves it. Models can only train together in one order of the frames, which seeds share by `loader.seed`.

    Examples:

        dali-asr sweep demo --vary training.optimizer.learning_rate=1e-3,3e-3 --vary 'model.hidden=[64,64],[128]'

        dali-asr sweep course-tiny --set data.root=hw1p2 --set loader.seed=0 --seeds 5

        dali-asr sweep demo --vary training.label_smoothing=0,0.1 --vary loader.context=6,12,24 --random 4
    """  # noqa: D412
    folder = output or Path(f"sweep-{Path(config).stem}")
    with progress_bar() as bar:
        starting = bar.add_task("loading PyTorch and DALI", total=None, shown="")
        from dali_asr.sweeps.combinations import plan_sweep
        from dali_asr.sweeps.sweep import sweep as run_sweep

        bar.remove_task(starting)
        plan = plan_sweep(
            config,
            vary or (),
            overrides=overrides or (),
            seeds=seeds,
            random=random,
            recipe=Path(config).stem,
        )
        try:
            found = run_sweep(plan, folder, together=together, reporter=_Terminal(bar))
        except TrainingInterrupted as error:
            numbers: dict[str, object] = {"--seeds": seeds, "--random": random, "--together": together, "-o": folder}
            again = _command(config, {"--vary": vary, "--set": overrides}, numbers)
            raise TrainingInterrupted(f"{error}: {again}", error.exit_code) from error
    _show(found)
    say(f"Runs, results.csv, results.json and results.png are in {folder}")
    failed = [run.name for run in found if run.status == "failed"]
    if failed:
        count = "1 run" if len(failed) == 1 else f"{len(failed)} runs"
        raise TrainingError(
            f"{folder}: {count} of {len(found)} failed: {', '.join(failed[:3])}{', ...' if failed[3:] else ''}; "
            "results.csv says why, and the same command tries them again"
        )
    say(f"Next: {shlex.join(['dali-asr', 'evaluate', str(folder / 'runs' / _best(found))])}")


class _Terminal(SweepReporter):
    """Shows a bar of the present runs, and prints a line for each finished one."""

    def __init__(self, bar: Progress) -> None:
        self._bar = bar
        self._task: TaskID | None = None
        self._moved = 0.0

    def packing(self, stage: str, done: int, total: int) -> None:
        self._show(stage, done, total)

    def began(self, names: Sequence[str], done: int, total: int) -> None:
        number = f"run {done + 1}" if len(names) == 1 else f"runs {done + 1}-{done + len(names)}"
        self._show(f"{number} of {total}", 0, None)

    def advanced(self, step: int, steps: int) -> None:
        now = time.monotonic()
        if self._task is not None and now - self._moved > _MOVE_SECONDS:
            self._moved = now
            self._bar.update(self._task, completed=step, total=steps)

    def finished(self, run: RunOutcome, done: int, total: int) -> None:
        if run.error is not None:
            warn(f"{run.name}: {run.error}; the sweep continues")
        else:
            say(f"{done}/{total}  {run.name}  dev accuracy {_percent(run.accuracy)}, epoch {run.epoch}")

    def warned(self, message: str) -> None:
        warn(message)

    def _show(self, text: str, done: int, total: int | None) -> None:
        if self._task is None:
            self._task = self._bar.add_task(text, total=total, shown="")
        self._bar.update(self._task, description=text, completed=done, total=total)


def _show(found: Sequence[RunOutcome]) -> None:
    """Print the combinations, the best first."""
    from dali_asr.sweeps.combinations import shown
    from dali_asr.sweeps.results import combine, short_names

    rows = combine(found)
    names = short_names(list(rows[0].values))
    table = Table(box=None, header_style="bold")
    for name in names.values():
        table.add_column(escape(name))
    for name in ("dev accuracy", "± s.d.", "runs"):
        table.add_column(name, justify="right")
    for row in rows[:_MAX_ROWS]:
        runs = str(row.runs) + (f", {row.failed} failed" if row.failed else "")
        deviation = "" if row.deviation is None else f"{row.deviation:.2%}"
        table.add_row(*(escape(shown(row.values[key])) for key in names), _percent(row.mean), deviation, runs)
    show(table)
    if len(rows) > _MAX_ROWS:
        say(f"and {len(rows) - _MAX_ROWS} more combinations")


def _percent(accuracy: float | None) -> str:
    return "none" if accuracy is None else f"{accuracy:.2%}"


def _best(found: Sequence[RunOutcome]) -> str:
    return max(found, key=lambda run: run.accuracy or 0.0).name


def _command(
    config: str,
    options: dict[str, Sequence[str] | None],
    numbers: dict[str, object],
) -> str:
    """Return the command with its arguments."""
    words = ["dali-asr", "sweep", config]
    words += [word for name, values in options.items() for value in values or () for word in (name, value)]
    words += [word for name, value in numbers.items() if value is not None for word in (name, str(value))]
    return shlex.join(words)
