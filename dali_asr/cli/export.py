"""`dali-asr data export`: a corpus in a layout that other tools read."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated, Literal

import typer

from dali_asr.cli.console import counted, counting, say


def export(
    form: Annotated[
        Literal["npz", "kaldi", "course"],
        typer.Argument(
            help="`npz`: PARTITION.npz; `kaldi`: PARTITION/feats.scp and ali.txt, phones.txt; `course`: "
            "PARTITION/{mfcc,transcript}/*.npy.",
            metavar="npz|kaldi|course",
            show_default=False,
        ),
    ],
    corpus: Annotated[str, typer.Argument(help="A packed corpus, or `demo`.")],
    dest: Annotated[Path, typer.Argument(help="The folder to write.", readable=False)],
    force: Annotated[bool, typer.Option("--force", help="Overwrite a folder of the same layout.")] = False,
) -> None:
    """Write a corpus in another layout, with its frames as they are stored."""
    from dali_asr.config import DEMO
    from dali_asr.corpus import Corpus, PackSettings
    from dali_asr.corpus.export import export_corpus
    from dali_asr.corpus.packed import is_packed
    from dali_asr.demo import DEMO_CORPUS

    path = DEMO_CORPUS if corpus == DEMO else Path(corpus)
    with counting() as report:
        settings = None if is_packed(path) else PackSettings(normalization="none")
        opened = Corpus.open(path, settings, progress=report)
        export_corpus(opened, dest, form, overwrite=force, progress=report)
    frames = sum(p.frame_count for p in opened.partitions.values())
    say(
        f"Exported {frames:,} frames of {counted(len(opened.partitions), 'partition')} to {dest}, "
        f"normalized: {opened.normalization.kind}"
    )
    say(f"Pack it again with: {shlex.join(['dali-asr', 'data', 'pack', str(dest), 'CORPUS'])}")
