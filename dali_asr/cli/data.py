"""`dali-asr data`: fetch, pack, export and verify corpora, and show what is in them."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.table import Table
from rich.text import Text

from dali_asr.cli.commands import Commands
from dali_asr.cli.console import counted, counting, say, show, warn
from dali_asr.cli.export import export
from dali_asr.errors import UsageError, printable

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from dali_asr.corpus import Corpus, Partition
    from dali_asr.corpus.packing import Progress as Report
    from dali_asr.corpus.survey import Survey


class _DataCommands(Commands):
    """Says what checks a corpus, which several commands do."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Find the command, as the base class does."""
        if args[0] == "check":
            raise UsageError(
                "data check: no such command; dali-asr data info warns of what is odd, dali-asr data verify compares "
                "checksums"
            )
        return super().resolve_command(ctx, args)


app = typer.Typer(
    cls=_DataCommands,
    no_args_is_help=True,
    rich_markup_mode="markdown",
    help="Fetch, pack, export and verify corpora, and show what is in them.",
)

app.command()(export)
_HISTOGRAM_WIDTH = 32  # characters
_MAX_SYMBOLS = 50  # in a histogram
_MAX_LISTED = 100  # symbols of an inventory
_MAX_SPEAKERS = 10  # that are named
_MAX_MEASURED = 256  # utterances of a partition whose features are measured when nothing is drawn


@app.command()
def pack(
    source: Annotated[
        str,
        typer.Argument(help="A folder in any layout, an archive of a course folder, or a link (`data fetch`)."),
    ],
    dest: Annotated[Path, typer.Argument(help="The packed corpus to write.", readable=False)],
    partition: Annotated[
        list[str] | None,
        typer.Option(help="Pack this partition; repeat for more. By default all.", show_default=False),
    ] = None,
    normalization: Annotated[
        Literal["utterance", "global", "none"],
        typer.Option(help="Take mean and variance over each utterance or over the training partitions."),
    ] = "utterance",
    train: Annotated[
        list[str] | None,
        typer.Option(help="A training partition, for global normalization; repeat for more.", show_default=False),
    ] = None,
    dtype: Annotated[Literal["float32", "float16"], typer.Option(help="Dtype of the stored frames.")] = "float32",
    inventory: Annotated[
        str | None,
        typer.Option(
            help="`arpabet` (the course's 42 symbols), or a file with one symbol per line. By default that of "
            "the layout, which is `arpabet` where it has none of its own.",
            show_default=False,
        ),
    ] = None,
    fold: Annotated[
        str | None,
        typer.Option(
            help="Fold the symbols in transcripts: `arpabet` drops stress digits, `timit61`, `mfa`, or a file of lines "
            "`SYMBOL TARGET`.",
            show_default=False,
        ),
    ] = None,
    zero_nonfinite: Annotated[bool, typer.Option("--zero-nonfinite", help="Turn NaN and infinity into zeros.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Overwrite a packed corpus.")] = False,
) -> None:
    """Pack a corpus: normalized, in a few large files, opened in milliseconds."""
    from dali_asr.corpus import Corpus, PackSettings, pack_corpus
    from dali_asr.corpus.remote import local_corpus
    from dali_asr.inventory import resolve_inventory

    settings = PackSettings(
        partitions=tuple(partition or ()),
        normalization=normalization,
        train=tuple(train or ()),
        dtype=dtype,
        inventory=resolve_inventory(inventory) if inventory else None,
        zero_nonfinite=zero_nonfinite,
        fold=fold,
    )
    with counting() as report:
        pack_corpus(local_corpus(source, report), dest, settings, overwrite=force, progress=report)
    partitions = Corpus.open(dest).partitions.values()
    frames, count = sum(p.frame_count for p in partitions), counted(len(partitions), "partition")
    say(f"Packed {frames:,} frames of {count} into {dest}")
    say(f"Next: {shlex.join(['dali-asr', 'data', 'info', str(dest)])}")


@app.command()
def info(
    corpus: Annotated[
        str,
        typer.Argument(
            help="A packed corpus, a folder in any layout, an archive of a course folder, a link (`data fetch`), or "
            "`demo`."
        ),
    ],
    labels: Annotated[bool, typer.Option("--labels", help="Show how often each symbol occurs.")] = False,
    plot: Annotated[
        Path | None,
        typer.Option(
            help="Draw labels, lengths and features into this file (.png, .svg or .pdf).",
            show_default=False,
            readable=False,
        ),
    ] = None,
    silence: Annotated[
        str | None,
        typer.Option(
            help="Symbol of silence. By default the first of [SIL], SIL, sil, silence, sp.", show_default=False
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite the picture.")] = False,
) -> None:
    """Show duration, speakers, utterances, frames and labels of each partition, and warn of what is odd.

    Odd are features ten times as large as in training, labels of one partition alone, and utterances without speech.
    Features are measured in 256 utterances of each partition, with `--plot` in all of them.
    """
    from dali_asr.config import DEMO
    from dali_asr.corpus import Corpus
    from dali_asr.corpus.archive import is_archive
    from dali_asr.corpus.layouts import layout_title
    from dali_asr.corpus.pictures import draw_corpus, picture_format
    from dali_asr.corpus.remote import cached_copy
    from dali_asr.corpus.survey import find_oddities, survey, training_partition
    from dali_asr.fetching.sources import Source
    from dali_asr.files import check_output, disk_errors, write_file

    if plot:
        check_output(plot, overwrite=force)
        form = picture_format(plot)
    kept = None if corpus == DEMO else cached_copy(corpus)
    with counting() as report:
        path = _folder_of(corpus, report)
        title = "archive of a course folder" if is_archive(path) else layout_title(path)
        opened = Corpus.open(path, progress=report)
        silent = opened.inventory.silence(silence)
        surveys = [
            survey(partition, silent, max_utterances=None if plot else _MAX_MEASURED, progress=report)
            for partition in opened.partitions.values()
        ]
    if kept:
        source = printable(Source.parse(corpus).shown)
        say(f"from the cache: {printable(str(kept))}")
        say(f"to fetch it again, first run: {shlex.join(['dali-asr', 'cache', 'clear', '--source', source])}")
    if title:
        say(f"layout: {title}")
    as_packed = " (as packed; the files are not changed)" if title else ""
    normalized = f"normalized: {opened.normalization.kind}{as_packed}"
    say(
        f"{printable(corpus)}: {opened.feature_dim} features per frame, {opened.dtype}, {normalized}, "
        f"{len(opened.inventory)} symbols"
    )
    for line in _about(opened):
        say(printable(line))
    for found in surveys if labels else ():
        if found.labelled:
            say()
            _histogram(found)
    say()
    show(_partition_table(opened, surveys))
    for line in _named_speakers(opened):
        say(printable(line))
    for line in find_oddities(surveys, training_partition(opened), silent):
        warn(line)
    if plot:
        name = DEMO if corpus == DEMO else path.absolute().name
        title = f"{name}: {opened.feature_dim} features per frame, {normalized}"
        with disk_errors(plot):
            plot.parent.mkdir(parents=True, exist_ok=True)
            write_file(plot, draw_corpus(surveys, title, form))
        say(f"Picture: {plot}")


@app.command()
def verify(corpus: Annotated[str, typer.Argument(help="A packed corpus, or `demo`.")]) -> None:
    """Read a whole packed corpus and compare it with its checksums."""
    from dali_asr.corpus import verify as verify_packed
    from dali_asr.corpus.packed import is_packed
    from dali_asr.errors import DataError

    with counting() as report:
        folder = _folder_of(corpus, report)
        if not is_packed(folder):
            raise DataError(f"{corpus}: is not a packed corpus; pack it, or give a folder with corpus.json")
        verify_packed(folder, report)
    say(f"{printable(corpus)}: intact, all checksums match")


def _folder_of(corpus: str, report: Report) -> Path:
    """Return the folder of a corpus; one that is elsewhere is fetched into the cache."""
    from dali_asr.config import DEMO
    from dali_asr.corpus.remote import local_corpus
    from dali_asr.demo import DEMO_CORPUS

    return DEMO_CORPUS if corpus == DEMO else local_corpus(corpus, report)


def _about(corpus: Corpus) -> Iterator[str]:
    """Yield the inventory, and if it is known, how features were computed and where the recordings were then."""
    from dali_asr.audio.settings import FeatureSettings

    symbols = corpus.inventory.symbols
    more = f" and {len(symbols) - _MAX_LISTED:,} more" if len(symbols) > _MAX_LISTED else ""
    yield f"inventory, in label order: {' '.join(symbols[:_MAX_LISTED])}{more}"
    known = []
    if corpus.features:
        timing = corpus.timing
        shown = f"{1000 * timing.window / timing.sample_rate:g} ms every {1000 * timing.period:g} ms"
        try:
            settings = FeatureSettings.from_json(corpus.features)
            shown = f"{settings.kind} of {shown} ({settings.options()})"
        except (TypeError, UsageError):  # of a program of the user's, or of another version
            shown = f"frames of {shown}"
        known.append(f"features: {shown}")
    folders = {str(p.origins.folder) for p in corpus.partitions.values() if p.origins.recordings and p.origins.folder}
    known += [f"recordings: {folder}{'' if Path(folder).is_dir() else ', which is not there'}" for folder in folders]
    if known:
        yield "; ".join(known)


def _named_speakers(corpus: Corpus) -> Iterator[str]:
    """Yield the speakers of each partition that has few."""
    for partition in corpus.partitions.values():
        names = sorted(set(partition.origins.speakers))
        if 0 < len(names) <= _MAX_SPEAKERS:
            yield f"speakers of {partition.name}: {', '.join(names)}"


def _partition_table(corpus: Corpus, surveys: Sequence[Survey]) -> Table:
    import numpy as np

    table = Table(box=None, pad_edge=False, header_style="bold")
    speakers_known = any(partition.origins.speakers for partition in corpus.partitions.values())
    columns = ("partition", "duration", *(("speakers",) if speakers_known else ()), "utterances", "frames", "labels")
    for name in (*columns, "symbols"):
        table.add_column(name, justify="left" if name == "partition" else "right")
    for partition, found in zip(corpus.partitions.values(), surveys, strict=True):
        occurring = f"{np.count_nonzero(found.counts)} of {len(found.counts):,}" if found.labelled else "–"
        table.add_row(
            Text(printable(partition.name)),
            _duration(partition.hours),
            *((_speaker_count(partition),) if speakers_known else ()),
            f"{len(partition.utterances):,}",
            f"{partition.frame_count:,}",
            "yes" if partition.labelled else "no",
            occurring,
        )
    return table


def _speaker_count(partition: Partition) -> str:
    return f"{len(set(partition.origins.speakers)):,}" if partition.origins.speakers else "–"


def _duration(hours: float) -> str:
    seconds = 3600 * hours
    if seconds < 60:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if hours < 1 else f"{hours:,.2f} h"


def _histogram(found: Survey) -> None:
    """Print the count of each label that occurs, most frequent first."""
    import numpy as np

    counts, symbols = found.counts, found.inventory.symbols
    order = np.argsort(-counts, kind="stable")
    occurring = [int(label) for label in order if counts[label]]
    say(f"{printable(found.name)}: {len(occurring)} of {len(symbols)} symbols occur")
    for label in occurring[:_MAX_SYMBOLS]:
        share = counts[label] / counts.sum()
        bar = "█" * max(1, round(_HISTOGRAM_WIDTH * counts[label] / counts[order[0]]))
        say(f"  {printable(symbols[label]):<6} {counts[label]:>12,}  {share:6.2%}  {bar}")
    if len(occurring) > _MAX_SYMBOLS:
        say(f"  and {len(occurring) - _MAX_SYMBOLS} more")
