"""`dali-asr audit`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from dali_asr.cli.console import counting, say, warn
from dali_asr.cli.usage import unexpected_arguments
from dali_asr.errors import UsageError, printable


class AuditCommand(TyperCommand):
    """Says of a run that is given before the corpus that audit takes none."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the arguments, as the base class does."""
        given = list(args)
        try:
            return super().parse_args(ctx, args)
        except Exception as error:
            corpus = unexpected_arguments(error)
            run = next((argument for argument in given if _is_run(argument)), None) if corpus else None
            if run is not None:
                raise _takes_no_run(run, str(corpus)) from error
            raise


def _is_run(name: str) -> bool:
    from dali_asr.pretrained import find_pretrained

    path = Path(name).expanduser()
    return (path / "checkpoints").is_dir() or find_pretrained(path) is not None


def _takes_no_run(run: str, corpus: str) -> UsageError:
    return UsageError(
        f"{run}: is a run, and audit takes a corpus alone, on which it trains models of its own; write dali-asr audit "
        f"{corpus}"
    )


def audit(
    corpus: Annotated[str, typer.Argument(help="A packed corpus, a course folder, or `demo`.")],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Folder to write. By default audit-CORPUS.", show_default=False),
    ] = None,
    partition: Annotated[
        list[str] | None,
        typer.Option(help="Audit this partition; repeat for more. By default all labelled ones.", show_default=False),
    ] = None,
    folds: Annotated[int, typer.Option(help="Number of folds.")] = 5,
    speaker_pattern: Annotated[
        str | None,
        typer.Option(
            metavar="REGEX",
            help="Finds the speaker in an utterance's name by its one group, so that no speaker is in two folds. By "
            "default the corpus names the speakers, or else LibriSpeech's names do; others are folded by utterance.",
            show_default=False,
        ),
    ] = None,
    budget: Annotated[
        float, typer.Option(help="List at most this fraction of the segments, boundaries and utterances.")
    ] = 0.05,
    recordings: Annotated[
        Path | None,
        typer.Option(
            help="Folder of the corpus's recordings, if they are no longer where it was prepared from them.",
            show_default=False,
        ),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    force: Annotated[bool, typer.Option("--force", help="Overwrite an earlier audit.")] = False,
) -> None:
    """Find where the labels of a corpus are wrong: as a page, CSV and TextGrids.

    Small models are trained on all folds but one and judge the labels of that one. The page has sound if the corpus was
    made by `prepare`.

    Examples:

        dali-asr audit demo

        dali-asr audit hw1p2 --partition dev-clean

        dali-asr train --set data.drop=audit-demo/findings.csv
    """  # noqa: D412
    if _is_run(corpus):
        raise _takes_no_run(corpus, "CORPUS")
    with counting() as report:
        report("starting", 0, 1)
        from dali_asr.build import corpus_path
        from dali_asr.corpus import Corpus
        from dali_asr.reports.audit import KINDS
        from dali_asr.reports.audit import audit as find
        from dali_asr.reports.audit.writing import check_audit_folder, write_audit
        from dali_asr.reports.sounds import check_recordings

        report("starting", 1, 1)
        path = corpus_path(corpus)
        name = path.resolve().name if corpus != "demo" else corpus
        folder = output or Path(f"audit-{name}")
        check_audit_folder(folder, overwrite=force)
        opened = Corpus.open(path, progress=report)
        check_recordings(recordings, opened.partitions.values())
        found = find(
            opened,
            partitions=partition or (),
            folds=folds,
            speaker_pattern=speaker_pattern,
            budget=budget,
            device=device,
            progress=report,
        )
        remark = write_audit(found, folder, name, overwrite=force, recordings=recordings, progress=report)
    if remark:
        warn(remark)
    say(
        f"{printable(name)}: {len(found.partition.utterances):,} utterances, {len(found.segments):,} segments; "
        f"cross-validated by {found.folds} folds by {found.grouped_by}, {found.accuracy:.1%} of the frames get their "
        "given label"
    )
    for kind, meaning in KINDS.items():
        if found.findings[kind]:
            say(f"  {kind:<10} {len(found.findings[kind]):>6,}  {meaning}")
    say(f"Page: {folder / 'index.html'}")
    say(f"Findings: {folder / 'findings.csv'}")
