"""`dali-asr prepare`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.table import Table

from dali_asr.cli.commands import Overrides
from dali_asr.cli.console import complain, counting, say, show, warn, with_flags
from dali_asr.errors import printable

if TYPE_CHECKING:
    from dali_asr.corpus import Corpus

_MAX_REMARKS = 20


def prepare(
    source: Annotated[Path, typer.Argument(help="Folder of recordings with their alignments.", readable=False)],
    dest: Annotated[Path, typer.Argument(help="The packed corpus to write.", readable=False)],
    preset: Annotated[
        Literal["course", "kaldi", "librosa"] | None,
        typer.Option(
            help="Features: 28 MFCC as in CMU 11-785 data, 13 of Kaldi, or 20 of librosa. By default `course`.",
            show_default=False,
        ),
    ] = None,
    overrides: Overrides = None,
    alignments: Annotated[
        Path | None,
        typer.Option(
            help="A further folder of alignments, at the same places or in one folder.",
            show_default=False,
            readable=False,
        ),
    ] = None,
    tier: Annotated[
        str | None,
        typer.Option(
            help="Tier of the TextGrids, a name or a pattern such as `* - phones`. By default the one that is called "
            "phones, or like it.",
            show_default=False,
        ),
    ] = None,
    inventory: Annotated[
        str | None,
        typer.Option(
            help="`arpabet` (the course's 42 symbols), a file with one symbol per line, or `found` for the symbols "
            "that the alignments hold. By default `arpabet`.",
            show_default=False,
        ),
    ] = None,
    fold: Annotated[
        str | None,
        typer.Option(
            help="Fold the symbols: `arpabet` drops stress digits, `timit61`, `mfa`, or a file of lines "
            "`SYMBOL TARGET`. By default the one that fits.",
            show_default=False,
        ),
    ] = None,
    silence: Annotated[
        str | None,
        typer.Option(
            help="Symbol of gaps. By default the first of [SIL], SIL, sil, silence, sp that there is.",
            show_default=False,
        ),
    ] = None,
    speakers: Annotated[
        str | None,
        typer.Option(
            help="Tell speakers by `folder`, by `prefix` of the name up to - or _, by a regular expression with one "
            "group, around the speaker, by a file of lines NAME, tab, SPEAKER, or not at all (`none`). By default as "
            "the layout has them.",
            show_default=False,
        ),
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(
            metavar="TRAIN,DEV,TEST",
            help="Shares of train, dev and test, split by speaker. By default train, dev and test folders, or else "
            "0.8,0.1,0.1.",
            show_default=False,
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the split.")] = 0,
    normalization: Annotated[
        Literal["utterance", "none"], typer.Option(help="Take mean and variance over each utterance.")
    ] = "utterance",
    dtype: Annotated[Literal["float32", "float16"], typer.Option(help="Dtype of the stored frames.")] = "float32",
    device: Annotated[str, typer.Option(help="`auto` (a GPU if there is one), `cpu`, `cuda` or `cuda:N`.")] = "auto",
    keep_going: Annotated[
        bool,
        typer.Option("--keep-going", help="Leave out what cannot be used; the exit code is then 1."),
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Overwrite a packed corpus.")] = False,
) -> None:
    """Make a corpus of recordings and alignments, ready to train on.

    Alignments are Praat TextGrids, TIMIT's .phn, CTM files, HTK's .lab or Audacity's label tracks.

    Examples:

        dali-asr prepare recordings corpus

        dali-asr prepare LibriSpeech corpus --alignments librispeech-textgrids

        dali-asr train --set data.root=corpus
    """  # noqa: D412
    with counting() as report:
        report("starting", 0, 1)
        from dali_asr.audio.devices import gpu_number
        from dali_asr.audio.preparing.prepare import prepare as make
        from dali_asr.audio.preparing.settings import PrepareSettings
        from dali_asr.audio.preparing.split import parse_split
        from dali_asr.config import Config
        from dali_asr.corpus import Corpus as Packed
        from dali_asr.pretrained import pretrained_for

        report("starting", 1, 1)
        settings = PrepareSettings(
            Config.load(None, [*([f"features.preset={preset}"] if preset else []), *(overrides or ())]).features,
            alignments=alignments,
            tier=tier,
            inventory=inventory,
            fold=fold,
            silence=silence,
            speakers=speakers,
            split=parse_split(split) if split else None,
            seed=seed,
            normalization=normalization,
            dtype=dtype,
            gpu=gpu_number(device),
            keep_going=keep_going,
        )
        prepared = make(
            source,
            dest,
            settings,
            overwrite=force,
            progress=report,
            complain=lambda line: complain(f"error: {printable(line)}"),
        )
    for remark in prepared.remarks[:_MAX_REMARKS]:
        warn(printable(remark))
    if len(prepared.remarks) > _MAX_REMARKS:
        warn(f"and {len(prepared.remarks) - _MAX_REMARKS:,} more remarks")
    for fact in prepared.facts:
        say(printable(with_flags(fact)))
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("partition", "utterances", "speakers", "minutes"):
        table.add_column(name, justify="left" if name == "partition" else "right")
    for part in prepared.partitions:
        speakers_in = "–" if part.speakers is None else f"{part.speakers:,}"
        table.add_row(part.name, f"{part.utterances:,}", speakers_in, f"{part.seconds / 60:,.1f}")
    show(table)
    written = [part.name for part in prepared.partitions]
    values = [f"data.root={dest}", *(f"data.{name}=null" for name in ("dev", "test") if name not in written)]
    command = ["dali-asr", "train", *(part for value in values for part in ("--set", value))]
    corpus = Packed.open(dest)
    known = pretrained_for(corpus.inventory.symbols, corpus.features or {})
    for name in known:
        started = shlex.join([*command[:2], "--init", name, *command[2:], *_fitting(name, corpus)])
        say(f"Packed into {dest}; next, from the weights of {name}, which knows these symbols: {started}")
    say(f"{'Or from random weights' if known else f'Packed into {dest}; next'}: {shlex.join(command)}")
    if prepared.left_out:
        files = "1 file was" if prepared.left_out == 1 else f"{prepared.left_out:,} files were"
        warn(f"{files} left out, for the reasons above")
        raise typer.Exit(1)


def _fitting(recipe: str, corpus: Corpus) -> list[str]:
    """Return the options that fit a recipe to a small corpus: a smaller batch, a shorter warm-up."""
    from dali_asr.config import Config

    config = Config.load(recipe)
    frames = sum(corpus.partition(name).frame_count for name in config.data.train if name in corpus.partitions)
    batch, schedule = config.loader.batch_size, config.training.schedule
    settings = {}
    if frames < batch:
        batch = settings["loader.batch_size"] = max(1, frames // 4)
    fitting = schedule.warmup_for(config.training.epochs * (frames // batch))
    if fitting != schedule.warmup_steps:
        settings["training.schedule.warmup_steps"] = fitting
    return [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
