"""`dali-asr cache`: show and clear what is kept for the next time."""

from __future__ import annotations

import re
import time
from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from dali_asr.cli.commands import Commands
from dali_asr.cli.console import counting, say, show
from dali_asr.errors import UsageError, brief, printable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dali_asr.cache import Entry

app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    rich_markup_mode="markdown",
    help="Show and clear the cache of packed corpora and downloads.",
    epilog="The variable DALI_ASR_CACHE moves the cache to another folder.",
)

_SECONDS = {"m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
_AGE = re.compile(rf"([0-9]{{1,6}})([{''.join(_SECONDS)}])")
_UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB")


@app.command("list")
def list_cache() -> None:
    """List what is in the cache: what it was made from, its size, and when it was used last."""
    from dali_asr.cache import list_entries

    entries = list_entries()
    _say_place(entries)
    _say_entries(entries)


@app.command()
def size() -> None:
    """Show the size of the cache, by kind."""
    from dali_asr.cache import KINDS, list_entries

    entries = list_entries()
    _say_place(entries)
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("kind")
    for name in ("entries", "size"):
        table.add_column(name, justify="right")
    partial = [entry for entry in entries if entry.partial]
    kinds = {kind: [e for e in entries if e.kind == kind and not e.partial] for kind in KINDS}
    for name, some in (kinds | {"incomplete": partial, "total": entries}).items():
        table.add_row(name, f"{len(some):,}", _bytes(sum(entry.size for entry in some)))
    show(table)


@app.command()
def clear(
    older_than: Annotated[
        str | None,
        typer.Option(
            metavar="AGE",
            help="Keep what was used more recently: `90m`, `12h`, `30d` or `4w`. By default all goes.",
            show_default=False,
        ),
    ] = None,
    source: Annotated[
        str | None,
        typer.Option(
            help="Clear only what was made from this source, as `list` shows it: the next use fetches it anew.",
            show_default=False,
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be removed, and remove nothing.")] = False,
) -> None:
    """Clear the cache. What a running process uses stays; what killed processes left half done goes.

    Examples:

        dali-asr cache clear --older-than 30d --dry-run

        dali-asr cache clear --source https://example.com/data.tar.gz

        dali-asr cache clear
    """  # noqa: D412
    from dali_asr.cache import clear as clear_entries
    from dali_asr.cache import list_entries, unused_since

    age = _seconds(older_than) if older_than is not None else 0.0
    entries = [entry for entry in list_entries() if source in (None, _source(entry))]
    if source is not None and not entries:
        raise UsageError(f"--source {brief(source)}: nothing in the cache is from there; see dali-asr cache list")
    chosen = unused_since(entries, age)
    kept = [entry for entry in chosen if entry.in_use]
    chosen = [entry for entry in chosen if not entry.in_use]
    if dry_run:
        _say_entries(chosen)
        say(f"Would free {_bytes(sum(entry.size for entry in chosen))} of {_count(chosen)}")
    else:
        with counting() as report:
            removed = clear_entries(chosen, report)
        kept += [entry for entry in chosen if entry not in removed]
        say(f"Freed {_bytes(sum(entry.size for entry in removed))} of {_count(removed)}")
    if kept:
        say(f"Kept {_count(kept)} that a running process uses")
    if recent := len(entries) - len(unused_since(entries, age)):
        say(f"Kept {recent:,} used within {older_than}")


def _say_place(entries: Sequence[Entry]) -> None:
    from dali_asr.files import cache_folder

    total = f"{_count(entries)}, {_bytes(sum(entry.size for entry in entries))}" if entries else "empty"
    say(f"{printable(str(cache_folder('corpora').parent))}: {total}")


def _say_entries(entries: Sequence[Entry]) -> None:
    """Print the source of each entry on a line of its own, which is never broken, and the rest below it."""
    for entry in entries:
        used = datetime.fromtimestamp(entry.used).astimezone()
        about = [entry.kind, _bytes(entry.size), "in use" if entry.in_use else f"used {used:%Y-%m-%d %H:%M}"]
        if kind := entry.about.get("normalization"):
            about.append(f"normalized: {printable(str(kind))}")
        named = entry.about.get("partitions")
        if isinstance(named, list) and named:
            about.append(" ".join(printable(str(name)) for name in named))
        say(printable(_source(entry)), wrap=False)
        say(f"  {', '.join(about)}")


def _source(entry: Entry) -> str:
    if entry.partial:
        return f"incomplete: {entry.path.name}"
    return str(entry.about.get("source") or f"unknown: {entry.path.name}")


def _count(entries: Sequence[Entry]) -> str:
    return "1 entry" if len(entries) == 1 else f"{len(entries):,} entries"


def _bytes(count: int) -> str:
    """Return a size in the largest unit of which there is at least one."""
    power = next(n for n in reversed(range(len(_UNITS))) if count >= 1024**n or not n)
    return f"{count / 1024**power:,.{min(power, 1)}f} {_UNITS[power]}"


def _seconds(age: str) -> float:
    found = _AGE.fullmatch(age)
    if not found:
        raise UsageError(f"--older-than {brief(age)}: expected a number and a unit: 90m, 12h, 30d or 4w")
    return min(float(found[1]) * _SECONDS[found[2]], time.time())
