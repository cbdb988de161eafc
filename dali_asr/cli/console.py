"""Output of the command line: results on standard output, errors on standard error, progress on the terminal."""

from __future__ import annotations

import os
import re
import textwrap
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.cells import cell_len
from rich.console import Console
from rich.filesize import decimal
from rich.progress import BarColumn, Progress, ProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Column
from rich.text import Text

from dali_asr.fetching.transfer import BYTE_STAGES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rich.console import ConsoleOptions, RenderableType, RenderResult
    from rich.progress import Task

    from dali_asr.corpus.packing import Progress as Report
    from dali_asr.errors import DaliAsrError


_COMMAND = re.compile(
    r"dali-asr (align|prepare|train|sweep|predict|evaluate|report|compare|audit|features|profile|export|handin|data|"
    r"cache|config|bench) .*$"
)
_MIN_BAR = 10  # characters of a progress bar
_MARGINS = 2  # before and after it
_ECHO = 5  # columns to the right of bars for ^C^C, which the terminal shows there: it would wrap a full line for good
_NO_BREAK = "\0"  # stands in no text that is printed


class _Output(Console):
    """Standard output.

    Attributes:
        lost: whether something could not be printed, for another reason than that nobody reads it.
    """

    lost = False

    def on_broken_pipe(self) -> None:
        """Raise the error, where rich would end the process."""
        raise


_SETTING = re.compile(r"\((data\.\w+=\w+)\)")
_OPTIONS = {
    "overwrite=True": "--force",
    "run=FOLDER": "--run-folder",
    "output=FOLDER": "--output",
    "resume='auto'": "--resume auto",
    "checkpoint='last'": "--checkpoint last",
    "decode='median:5'": "--decode median:5",
    "partition=NAME": "--partition",
    "source=FOLDER": "--corpus",
    "corpus=FOLDER": "--corpus",
    "max_parameters=N": "--max-parameters",
    "name=NAME": "--name",
    "recordings=FOLDER": "--recordings",
    "dictionary=FILE": "--dictionary FILE",
    "alignments=FOLDER": "--alignments FOLDER",
    "folds=N": "--folds",
    "speaker_pattern ": "--speaker-pattern ",
    "(fold=": "(data.fold, or data pack --fold: ",
    "keep_going=True": "--keep-going",
    "tier=NAME": "--tier NAME",
    "by fold=FILE": "by --fold FILE",
    "by inventory=FILE": "by --inventory FILE",
    "speakers=FILE": "--speakers FILE",
    "speakers=WAY": "--speakers WAY",
    "split=0.8,0.1,0.1": "--split 0.8,0.1,0.1",
    "silence=SYMBOL": "--silence SYMBOL",
    "zero_nonfinite=True": "data.zero_nonfinite, or data pack --zero-nonfinite",
    "(train=NAME": "(data.train, or data pack --train",
    "raise memory_budget": "raise loader.memory_budget",
    "lower memory_budget": "lower loader.memory_budget",
    "set memory_budget": "set loader.memory_budget",
    "lower batch_size": "lower loader.batch_size",
    "or subset": "or loader.subset",
    "set drop_last": "set loader.drop_last",
    "set graph to": "set loader.graph to",
    "(limits.files=N)": "(data fetch --max-files)",
    "(limits.size=BYTES)": "(data fetch --max-size)",
    "(limits.ratio=N)": "(data fetch --max-ratio)",
}
_COPIES: list[Callable[[str], None]] = []  # receive the lines that are printed
stdout = _Output(highlight=False, emoji=False)
stderr = Console(stderr=True, highlight=False, emoji=False)


@contextmanager
def printing() -> Iterator[None]:
    """Go on without standard output if the block cannot write to it: nobody reads it (`| head`), or a full disk."""
    try:
        yield
    except OSError as error:
        output_lost(error)


def output_lost(error: OSError) -> None:
    """Stop printing to standard output, which cannot be written."""
    stdout.quiet = True
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # for what is still buffered
    if not isinstance(error, BrokenPipeError):
        stdout.lost = True
        warn(f"standard output: {(error.strerror or str(error)).lower()}; what follows is not printed")


def counted(number: int, thing: str) -> str:
    """Return a number of things in words: `1 partition`, `2,000 partitions`."""
    return f"{number:,} {thing}{'' if number == 1 else 's'}"


@contextmanager
def copied_to(receive: Callable[[str], None]) -> Iterator[None]:
    """Pass what `say` and `warn` print within the block to a function as well."""
    _COPIES.append(receive)
    try:
        yield
    finally:
        _COPIES.remove(receive)


def say(text: str = "", end: str = "\n", *, wrap: bool = True) -> None:
    """Print a text of the result, as it is; on a terminal, wrapped between words unless it is a path."""
    _copy(f"{text}{end}")
    with printing():
        if wrap:
            _print(stdout, text, end=end)
        else:
            stdout.print(text, markup=False, soft_wrap=True, end=end)


def _print(console: Console, text: str, style: str = "", end: str = "\n") -> None:
    """Print a text as it is; on a terminal, wrapped between words, which are never broken."""
    if console.is_terminal:
        text = "\n".join(_wrapped(line, console.width) for line in text.split("\n"))
    console.print(text, style=style, markup=False, soft_wrap=True, end=end)


def _wrapped(line: str, width: int) -> str:
    """Wrap a line between words, an indented one with a hanging indent.

    A command stays in one piece, so that it can be copied.
    """
    if len(line) <= width:
        return line
    joined = _COMMAND.sub(lambda found: found[0].replace(" ", _NO_BREAK), line)
    indent = line[: len(line) - len(line.lstrip(" "))]
    hanging = f"{indent}  " if indent else ""
    wrapped = textwrap.fill(joined, width, subsequent_indent=hanging, break_long_words=False, break_on_hyphens=False)
    return wrapped.replace(_NO_BREAK, " ")


def show(table: RenderableType) -> None:
    """Print a table of the result."""
    with printing():
        stdout.print(table, markup=False)


def with_flags(message: str) -> str:
    """Return a message of the library, which names arguments, with the options of the command line that set them."""
    for argument, option in _OPTIONS.items():
        message = message.replace(argument, option)
    return _SETTING.sub(r"(--set \1)", message)


def error_line(error: DaliAsrError) -> str:
    """Return an error as it is printed. Stopping on a signal is not called one."""
    kind = "" if error.exit_code > 128 else "error: "
    return with_flags(f"{kind}{error}")


def warn(text: str) -> None:
    """Print a warning on one line."""
    console = _drawing_console() if stderr.is_terminal else stderr
    line = f"warning: {with_flags(text)}"
    _copy(f"{line}\n")
    _print(console, line, style="yellow")


def complain(text: str) -> None:
    """Print an error on one line."""
    _print(stderr, with_flags(text), style="red")


class _Details(ProgressColumn):
    """What stands behind a bar: how much is done, the task's field `shown`, and the time that is left.

    Of `shown`, whose parts are separated by two spaces, the last ones are left out where the bar would be too narrow.

    Args:
        console: the console that draws the bar.
    """

    def __init__(self, console: Console) -> None:
        super().__init__(Column(no_wrap=True))
        self._console = console

    def render(self, task: Task) -> Text:
        """Return the text of a task."""
        room = self._console.width - _ECHO - cell_len(task.description) - _MIN_BAR - _MARGINS
        parts = [part for part in task.fields["shown"].split("  ") if part]
        amount, left = amount_of(task), _time_left(task)
        while parts and cell_len("  ".join(filter(None, [amount, *parts, left]))) > room:
            parts.pop()
        texts = [(amount, "progress.download"), *((part, "") for part in parts), (left, "progress.remaining")]
        return Text("  ").join([Text(text, style=style) for text, style in texts if text])


def amount_of(task: Task) -> str:
    """Return how much of a task is done: a count, or bytes with their rate; empty if it is not known of how much."""
    if not task.total:
        return ""
    if task.description not in BYTE_STAGES:
        total = f"{int(task.total)}"
        return f"{int(task.completed):{len(total)}}/{total}"
    rate = f"  {decimal(int(task.speed))}/s" if task.speed else ""
    return f"{decimal(int(task.completed))}/{decimal(int(task.total))}{rate}"


def _time_left(task: Task) -> str:
    if task.time_remaining is None:
        return ""
    return f"{TimeRemainingColumn(compact=True).render(task).plain} left"


class _Bars(Progress):
    """Bars that leave room for what the terminal shows of a Ctrl-C, so that they are still where they are erased."""

    def get_renderable(self) -> RenderableType:
        """Return the bars."""
        return _Narrowed(super().get_renderable())


class _Narrowed:
    """Something printable, in less than the width of the terminal."""

    def __init__(self, content: RenderableType) -> None:
        self._content = content

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        return console.render(self._content, options.update_width(max(options.max_width - _ECHO, 1)))


def progress_bar() -> Progress:
    """Return a progress bar, which is shown only on a terminal. Every task has a field `shown`, a text beside it.

    A task without a total moves, without count and time.
    """
    console = _drawing_console()
    return _Bars(
        TextColumn("{task.description}", table_column=Column(no_wrap=True)),
        BarColumn(bar_width=None),
        _Details(console),
        console=console,
        expand=True,
        transient=True,
        redirect_stdout=stdout.is_terminal,  # output in a file or pipe stays there
        disable=not console.is_terminal or stdout.quiet,
    )


def _copy(text: str) -> None:
    for receive in _COPIES:
        receive(text)


def _drawing_console() -> Console:
    """Return the console that draws bars: lines that it prints appear above them, those of another one within them."""
    return stdout if stdout.is_terminal else stderr


@contextmanager
def counting(description: str | None = None) -> Iterator[Report]:
    """Show the progress of stages of work; yields a function of stage, done and total.

    Args:
        description: text shown instead of the stage's name.

    A stage of one piece of work is shown without a count.
    """
    with progress_bar() as bar:
        tasks = {}

        def report(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = bar.add_task(description or stage, total=None, shown="")
            bar.update(tasks[stage], completed=done, total=total if total > 1 else None)
            if done >= total:
                bar.remove_task(tasks.pop(stage))

        yield report
