"""`dali-asr data`: packing corpora and looking at them."""

from __future__ import annotations

import shlex
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from dali_asr.cli.console import counting, say, stdout

if TYPE_CHECKING:
    from dali_asr.corpus import Partition

app = typer.Typer(no_args_is_help=True, rich_markup_mode="markdown", help="Pack corpora, and look at them.")

HISTOGRAM_WIDTH = 32


class NormalizationKind(str, Enum):
    """What frames are normalized over."""

    utterance = "utterance"
    global_ = "global"
    none = "none"


class StoredDtype(str, Enum):
    """How frames are stored."""

    float32 = "float32"
    float16 = "float16"


@app.command()
def pack(
    source: Annotated[Path, typer.Argument(help="A folder of PARTITION/{mfcc,transcript}/*.npy.")],
    dest: Annotated[Path, typer.Argument(help="The packed corpus to write.")],
    partition: Annotated[
        list[str] | None,
        typer.Option(help="Pack this one; repeat for more. By default all.", show_default=False),
    ] = None,
    normalization: Annotated[
        NormalizationKind,
        typer.Option(help="Mean and variance, over each utterance or the training partitions."),
    ] = NormalizationKind.utterance,
    train: Annotated[
        list[str] | None,
        typer.Option(help="A training partition, for global normalization; repeat for more.", show_default=False),
    ] = None,
    dtype: Annotated[StoredDtype, typer.Option(help="Of the stored frames.")] = StoredDtype.float32,
    inventory: Annotated[
        str, typer.Option(help="`arpabet` (the course's 42 symbols), or a file of one symbol a line.")
    ] = "arpabet",
    zero_nonfinite: Annotated[bool, typer.Option("--zero-nonfinite", help="Turn NaN and infinity into zeros.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Overwrite a packed corpus.")] = False,
) -> None:
    """Pack a course folder: normalized, in one file, opened in milliseconds."""
    from dali_asr.corpus import Corpus, PackSettings, pack_course
    from dali_asr.inventory import resolve_inventory

    settings = PackSettings(
        partitions=tuple(partition or ()),
        normalization=normalization.value,
        train=tuple(train or ()),
        dtype=dtype.value,
        inventory=resolve_inventory(inventory),
        zero_nonfinite=zero_nonfinite,
    )
    with counting() as report:
        pack_course(source, dest, settings, overwrite=force, progress=report)
    partitions = Corpus.open(dest).partitions.values()
    say(f"Packed {sum(p.frame_count for p in partitions):,} frames of {len(partitions)} partitions into {dest}")
    say(f"Next: {shlex.join(['dali-asr', 'data', 'info', str(dest)])}")


@app.command()
def info(
    corpus: Annotated[str, typer.Argument(help="A packed corpus, a course folder, or `demo`.")],
    verify: Annotated[bool, typer.Option("--verify", help="Read it whole and check its SHA-256.")] = False,
) -> None:
    """Show hours, utterances, frames and labels of each partition."""
    from dali_asr.config import DEMO
    from dali_asr.corpus import Corpus
    from dali_asr.corpus import verify as verify_packed
    from dali_asr.demo import DEMO_CORPUS

    path = DEMO_CORPUS if corpus == DEMO else Path(corpus)
    with counting() as report:
        opened = Corpus.open(path, progress=report)
        if verify and opened.path:
            verify_packed(opened.path, report)
    say(
        f"{corpus}: {opened.feature_dim} features a frame, {opened.dtype}, "
        f"normalized: {opened.normalization.kind}, {len(opened.inventory)} symbols"
        + (", checksums right" if verify else "")
    )
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("partition", "hours", "utterances", "frames", "labels"):
        table.add_column(name, justify="left" if name == "partition" else "right")
    for partition in opened.partitions.values():
        table.add_row(
            partition.name,
            f"{partition.hours:.2f}",
            f"{len(partition.utterances):,}",
            f"{partition.frame_count:,}",
            "yes" if partition.labelled else "no",
        )
    stdout.print(table)
    for partition in opened.partitions.values():
        _histogram(partition)


def _histogram(partition: Partition) -> None:
    """Print how often each label occurs, most frequent first."""
    import numpy as np

    labels = partition.labels()
    if labels is None:
        return
    counts = np.bincount(labels[labels >= 0], minlength=len(partition.inventory))
    order = np.argsort(-counts, kind="stable")
    occurring = [int(label) for label in order if counts[label]]
    say(f"\n{partition.name}: {len(occurring)} of {len(partition.inventory)} symbols occur")
    for label in occurring[:50]:
        share = counts[label] / counts.sum()
        bar = "█" * max(1, round(HISTOGRAM_WIDTH * counts[label] / counts[order[0]]))
        say(f"  {partition.inventory.symbols[label]:<6} {counts[label]:>12,}  {share:6.2%}  {bar}")
    if len(occurring) > 50:
        say(f"  and {len(occurring) - 50} more")
