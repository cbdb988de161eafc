"""`dali-asr data fetch`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from dali_asr.cli.console import counting, say


def fetch(
    source: Annotated[
        str,
        typer.Argument(
            help="`kaggle:COMPETITION`, `gdrive:ID`, a link (`https://`, `s3://`, `gs://`, ...), or the path of an "
            "archive or folder."
        ),
    ],
    to: Annotated[Path, typer.Option("--to", help="The folder to make.", show_default=False)],
    sha256: Annotated[
        str | None, typer.Option(metavar="HEX", help="The checksum that the archive must have.", show_default=False)
    ] = None,
    pack: Annotated[
        bool, typer.Option("--pack", help="Make it a packed corpus, normalized by utterance, in float32.")
    ] = False,
    max_files: Annotated[int, typer.Option(min=1, help="Limit of the files and folders in an archive.")] = 1_000_000,
    max_size: Annotated[
        str, typer.Option(metavar="BYTES", help="Limit of what an archive unpacks to, such as `500GiB`.")
    ] = "200GiB",
    max_ratio: Annotated[
        float, typer.Option(min=1, help="Limit of what an archive unpacks to, as a multiple of its own size.")
    ] = 200,
    force: Annotated[bool, typer.Option("--force", help="Fetch again what is there, or overwrite a folder.")] = False,
) -> None:
    """Fetch course data or a packed corpus, verify it, and unpack it safely.

    What broke off continues where it stopped. What is there already is left alone.

    The source is downloaded as it is now: the copies that `train` and `predict` keep in the cache are not used, because
    they may be older. To keep one copy only, name the folder made here as `data.root` instead of the link.

    Examples:

        dali-asr data fetch kaggle:COMPETITION --to hw1p2

        dali-asr data fetch https://example.com/data.tar.gz --to corpus --pack

        dali-asr data fetch s3://bucket/corpus --to corpus
    """  # noqa: D412
    from dali_asr.corpus import PackSettings
    from dali_asr.corpus.remote import fetch_corpus, is_corpus
    from dali_asr.fetching.unpacking import Limits

    limits = Limits(max_files, _bytes("--max-size", max_size), max_ratio)
    settings = PackSettings() if pack else None
    with counting() as report:
        fetched = fetch_corpus(
            source, to, sha256=sha256, overwrite=force, limits=limits, pack=settings, progress=report
        )
    record = fetched.record
    checksum = f", SHA-256 {record.sha256}" if record.sha256 else ""
    if fetched.before:
        say(f"Nothing to do: {to} holds {record.source} since {record.time}{checksum}")
    else:
        size = f" ({record.size:,} bytes{checksum})" if record.size else ""
        say(f"Fetched {record.source}{size} into {to}")
    if is_corpus(to):
        say(f"Next: {shlex.join(['dali-asr', 'data', 'info', str(to)])}")
    else:
        say(f"{to} holds no corpus in a known layout: neither corpus.json nor PARTITION/mfcc/*.npy")


def _bytes(option: str, text: str) -> int:
    """Return the number of bytes that an option means."""
    from dali_asr.errors import UsageError, brief
    from dali_asr.plan.spec import as_bytes

    try:
        return as_bytes(option, text)
    except UsageError as error:
        raise UsageError(f"{option}: received {brief(text)}; {str(error).partition('; ')[2]}") from error
