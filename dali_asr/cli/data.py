"""`dali-asr data`: pack and export corpora, and show what is in them."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.table import Table
from rich.text import Text

from dali_asr.cli.commands import Commands
from dali_asr.cli.console import counting, say, show
from dali_asr.cli.export import export
from dali_asr.errors import printable

if TYPE_CHECKING:
    from dali_asr.corpus import Corpus, Partition

app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    rich_markup_mode="markdown",
    help="Pack and export corpora, and show what is in them.",
)

app.command()(export)
_HISTOGRAM_WIDTH = 32  # characters
_MAX_SYMBOLS = 50  # in a histogram
_MAX_LISTED = 100  # symbols of an inventory


@app.command()
def pack(
    source: Annotated[
        Path, typer.Argument(help="A folder in any layout, or an archive of a course folder.", readable=False)
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
        pack_corpus(source, dest, settings, overwrite=force, progress=report)
    partitions = Corpus.open(dest).partitions.values()
    say(f"Packed {sum(p.frame_count for p in partitions):,} frames of {len(partitions)} partitions into {dest}")
    say(f"Next: {shlex.join(['dali-asr', 'data', 'info', str(dest)])}")


@app.command()
def info(
    corpus: Annotated[
        str, typer.Argument(help="A packed corpus, a folder in any layout, an archive of a course folder, or `demo`.")
    ],
    verify: Annotated[
        bool, typer.Option("--verify", help="Read everything and compare it with the checksums.")
    ] = False,
) -> None:
    """Show hours, utterances, frames and labels of each partition."""
    from dali_asr.config import DEMO
    from dali_asr.corpus import Corpus
    from dali_asr.corpus import verify as verify_packed
    from dali_asr.corpus.archive import is_archive
    from dali_asr.corpus.layouts import layout_title
    from dali_asr.demo import DEMO_CORPUS

    path = DEMO_CORPUS if corpus == DEMO else Path(corpus)
    with counting() as report:
        opened = Corpus.open(path, progress=report)
        if verify and opened.path:
            verify_packed(opened.path, report)
    title = "archive of a course folder" if is_archive(path) else layout_title(path)
    if title:
        say(f"layout: {title}")
    say(
        f"{printable(corpus)}: {opened.feature_dim} features per frame, {opened.dtype}, "
        f"normalized: {opened.normalization.kind}, {len(opened.inventory)} symbols"
        + (", checksums right" if verify else "")
    )
    symbols = " ".join(map(printable, opened.inventory.symbols[:_MAX_LISTED]))
    more = len(opened.inventory) - _MAX_LISTED
    say(f"inventory, in label order: {symbols}" + (f" and {more:,} more" if more > 0 else ""))
    show(_partition_table(opened))
    for partition in opened.partitions.values():
        if partition.labelled:
            _histogram(partition)


def _partition_table(corpus: Corpus) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("partition", "hours", "utterances", "frames", "labels"):
        table.add_column(name, justify="left" if name == "partition" else "right")
    for partition in corpus.partitions.values():
        table.add_row(
            Text(printable(partition.name)),
            f"{partition.hours:.2f}",
            f"{len(partition.utterances):,}",
            f"{partition.frame_count:,}",
            "yes" if partition.labelled else "no",
        )
    return table


def _histogram(partition: Partition) -> None:
    """Print the count of each label that occurs, most frequent first."""
    import numpy as np

    from dali_asr.corpus.labels import count_labels

    counts = count_labels(partition)
    order = np.argsort(-counts, kind="stable")
    occurring = [int(label) for label in order if counts[label]]
    say(f"\n{printable(partition.name)}: {len(occurring)} of {len(partition.inventory)} symbols occur")
    for label in occurring[:_MAX_SYMBOLS]:
        share = counts[label] / counts.sum()
        bar = "█" * max(1, round(_HISTOGRAM_WIDTH * counts[label] / counts[order[0]]))
        say(f"  {printable(partition.inventory.symbols[label]):<6} {counts[label]:>12,}  {share:6.2%}  {bar}")
    if len(occurring) > _MAX_SYMBOLS:
        say(f"  and {len(occurring) - _MAX_SYMBOLS} more")
