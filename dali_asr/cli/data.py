"""`dali-asr data`: pack corpora, show what is in them and verify them; `fetch` is in a file of its own."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.table import Table
from rich.text import Text

from dali_asr.cli.commands import Commands
from dali_asr.cli.console import counting, say, show
from dali_asr.errors import printable

if TYPE_CHECKING:
    from dali_asr.corpus import Corpus, Partition
    from dali_asr.corpus.packing import Progress as Report

app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    rich_markup_mode="markdown",
    help="Fetch, pack and verify corpora, and show what is in them.",
)

_HISTOGRAM_WIDTH = 32  # characters
_MAX_SYMBOLS = 50  # in a histogram
_MAX_LISTED = 100  # symbols of an inventory


@app.command()
def pack(
    source: Annotated[
        str, typer.Argument(help="A folder of PARTITION/{mfcc,transcript}/*.npy, an archive, or a link (`data fetch`).")
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
        str, typer.Option(help="`arpabet` (the course's 42 symbols), or a file with one symbol per line.")
    ] = "arpabet",
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
    """Pack a course folder: normalized, in a few large files, opened in milliseconds."""
    from dali_asr.corpus import Corpus, PackSettings, pack_course
    from dali_asr.corpus.remote import local_corpus
    from dali_asr.inventory import resolve_inventory

    settings = PackSettings(
        partitions=tuple(partition or ()),
        normalization=normalization,
        train=tuple(train or ()),
        dtype=dtype,
        inventory=resolve_inventory(inventory),
        zero_nonfinite=zero_nonfinite,
        fold=fold,
    )
    with counting() as report:
        pack_course(local_corpus(source, report), dest, settings, overwrite=force, progress=report)
    partitions = Corpus.open(dest).partitions.values()
    say(f"Packed {sum(p.frame_count for p in partitions):,} frames of {len(partitions)} partitions into {dest}")
    say(f"Next: {shlex.join(['dali-asr', 'data', 'info', str(dest)])}")


@app.command()
def info(
    corpus: Annotated[
        str, typer.Argument(help="A packed corpus, a course folder, an archive or link (`data fetch`), or `demo`.")
    ],
) -> None:
    """Show hours, utterances, frames and labels of each partition."""
    from dali_asr.corpus import Corpus

    with counting() as report:
        opened = Corpus.open(_folder_of(corpus, report), progress=report)
    say(
        f"{printable(corpus)}: {opened.feature_dim} features per frame, {opened.dtype}, "
        f"normalized: {opened.normalization.kind}, {len(opened.inventory)} symbols"
    )
    symbols = " ".join(map(printable, opened.inventory.symbols[:_MAX_LISTED]))
    more = len(opened.inventory) - _MAX_LISTED
    say(f"inventory, in label order: {symbols}" + (f" and {more:,} more" if more > 0 else ""))
    show(_partition_table(opened))
    for partition in opened.partitions.values():
        if partition.labelled:
            _histogram(partition)


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
    say(f"{printable(corpus)}: whole, all checksums are right")


def _folder_of(corpus: str, report: Report) -> Path:
    """Return the folder of a corpus; one that is elsewhere is fetched into the cache."""
    from dali_asr.config import DEMO
    from dali_asr.corpus.remote import local_corpus
    from dali_asr.demo import DEMO_CORPUS

    return DEMO_CORPUS if corpus == DEMO else local_corpus(corpus, report)


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
