"""Output of the command line: results on standard output, errors on standard error, progress on the terminal."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.progress import ProgressColumn

    from dali_asr.corpus.packing import Progress as Report

stdout = Console(highlight=False)
stderr = Console(stderr=True, highlight=False)


def say(text: str = "") -> None:
    """Print a line of the result."""
    stdout.print(text, markup=False, soft_wrap=True)


def warn(text: str) -> None:
    """Print a warning on one line."""
    console = _drawing_console() if stderr.is_terminal else stderr
    console.print(f"warning: {text}", style="yellow", markup=False, soft_wrap=True)


def progress_bar(*columns: ProgressColumn) -> Progress:
    """Return a progress bar, which is shown only on a terminal."""
    console = _drawing_console()
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=16),
        MofNCompleteColumn(),
        *columns,
        TimeRemainingColumn(compact=True),
        console=console,
        transient=True,
        redirect_stdout=stdout.is_terminal,  # output in a file or pipe stays there
        disable=not console.is_terminal or stdout.quiet,
    )


def _drawing_console() -> Console:
    """Return the console that draws bars: lines that it prints appear above them, those of another one within them."""
    return stdout if stdout.is_terminal else stderr


@contextmanager
def counting(description: str | None = None) -> Iterator[Report]:
    """Show the progress of stages of work; yields a function of stage, done and total.

    Args:
        description: text shown instead of the stage's name.
    """
    with progress_bar() as bar:
        tasks = {}

        def report(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = bar.add_task(description or stage, total=total)
            bar.update(tasks[stage], completed=done, total=total)

        yield report
