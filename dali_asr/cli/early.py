"""What is checked before PyTorch and DALI are imported, which takes seconds: whether what is named is there."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def check_run(run: Path) -> None:
    """Check that a run, or a model in the package, is there.

    Raises:
        CheckpointError, DataError: as `check_run_folder`.
    """
    from dali_asr.pretrained import find_pretrained
    from dali_asr.runs.run_path import CHECKPOINTS, check_run_folder

    run = run.expanduser()
    if run.parent.name != CHECKPOINTS:
        check_run_folder(find_pretrained(run) or run, pretrained=True)


def check_there(*paths: Path) -> None:
    """Check that files or folders exist.

    Raises:
        DataError: one does not, or its folder cannot be read.
    """
    from dali_asr.corpus.regular import reading

    for path in paths:
        with reading(path):
            path.expanduser().stat()


def check_source(source: str, partition: str | None = None) -> None:
    """Check that recordings or a corpus are there, and that a packed corpus has a partition.

    What is elsewhere is not fetched, and other corpora are not read.

    Raises:
        DataError, UsageError: they are not, or the source is of no known kind.
    """
    from dali_asr.config import DEMO
    from dali_asr.corpus import Corpus
    from dali_asr.corpus.packed import is_packed
    from dali_asr.demo import DEMO_CORPUS, DEMO_RECORDING, recording_path
    from dali_asr.fetching.sources import Source

    named = Source.parse(source)
    if not named.local or recording_path(source) == DEMO_RECORDING:
        return
    path = DEMO_CORPUS if source == DEMO else named.path
    check_there(path)
    if partition and is_packed(path):
        Corpus.open(path).partition(partition)
