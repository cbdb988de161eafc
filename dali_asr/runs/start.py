"""Where a run begins: in a new folder, or after a checkpoint of an old one."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from dali_asr.corpus.regular import reading
from dali_asr.errors import CheckpointError, UsageError
from dali_asr.pretrained import is_pretrained
from dali_asr.runs.checkpoint import find_checkpoint, is_checkpoint, list_checkpoints, run_of
from dali_asr.runs.folder import check_folder, is_run
from dali_asr.runs.run_path import CONFIG, check_run_folder

if TYPE_CHECKING:
    from dali_asr.config import RunConfig


@dataclass(frozen=True)
class Start:
    """Where a run begins.

    Attributes:
        run: its folder.
        dated: whether that is named by recipe, date and time, so that a number is added if it exists by now.
        resumed: whether the folder may already hold a run.
        checkpoint: the folder of the checkpoint that training continues from; None for a new run.
        from_last: whether that is the run's last checkpoint, or None because it has none.
        recipe: the name of the recipe.
        note: why a run begins where one was to be continued; None otherwise.
    """

    run: Path
    dated: bool = False
    resumed: bool = False
    checkpoint: Path | None = None
    from_last: bool = False
    recipe: str = "run"
    note: str | None = None


def find_start(config: RunConfig, run: str | Path | None, recipe: str, resume: str | Path | None) -> Start:
    """Decide where to begin. Processes that torchrun restarts continue from the last checkpoint.

    Args:
        config: the folder and name of runs.
        run: the run's folder; by default named by the configuration, or by recipe, date and time.
        recipe: names the folder.
        resume: None for a new run; `auto` for the run in that folder, else the recipe's latest, else a new one; or the
            folder of a run or of a checkpoint.

    Raises:
        CheckpointError: the folder is not a run, or has no checkpoint.
        UsageError: `run` and `resume` name different runs, or the run cannot begin in its folder.
    """
    start = replace(_find(config, run, recipe, resume), recipe=recipe)
    if not start.dated:
        check_folder(start.run, resumed=start.resumed)
    return start


def config_of(resume: str | Path) -> Path | None:
    """Return a run's configuration file, given its folder or one of its checkpoints; None if there is none.

    Raises:
        DataError: the folder cannot be read.
    """
    path = run_of(Path(resume).expanduser()) / CONFIG
    with reading(path):
        return path if path.is_file() else None


def _find(config: RunConfig, run: str | Path | None, recipe: str, resume: str | Path | None) -> Start:
    named = Path(run).expanduser() if run is not None else _named(config)
    again = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") != "0"
    if resume == "auto" or (resume is None and again):
        known = named or _latest(config, recipe)
        start = _continue_or_begin(known) if known else _new(config, recipe)
        return start if start.checkpoint or again else replace(start, note=_nothing_to_resume(config, start, recipe))
    if resume is None:
        return Start(named) if named else _new(config, recipe)
    given = Path(resume).expanduser()
    if is_pretrained(run_of(given)):
        raise UsageError(f"resume {resume}: a pretrained model is not a run; start from it (training.init={resume})")
    of_checkpoint = is_checkpoint(given) and not again
    path = run_of(given)
    check_run_folder(path, pretrained=False)
    if run is not None and Path(run).expanduser().absolute() != path.absolute():
        raise UsageError(
            f"run {run} with resume {resume}: a run continues in its own folder; leave out the former (run=FOLDER)"
        )
    if of_checkpoint and given not in list_checkpoints(path):
        raise CheckpointError(f"{given}: not a checkpoint; give the folder of a run, or one in its checkpoints/")
    if of_checkpoint:
        return Start(path, resumed=True, checkpoint=given)
    return Start(path, resumed=True, checkpoint=find_checkpoint(path, "last"), from_last=True)


def _nothing_to_resume(config: RunConfig, start: Start, recipe: str) -> str:
    """Say that no run was found to continue, or one without a checkpoint."""
    if start.dated:
        return f"No run of recipe {recipe} in {Path(config.folder)}/ to resume; starting a new one"
    if is_run(start.run):
        return f"The run in {start.run} has no checkpoint to resume from; starting it again"
    return f"No run in {start.run} to resume; starting a new one"


def _continue_or_begin(path: Path) -> Start:
    if not path.is_dir() or not [entry for entry in path.iterdir() if not entry.name.startswith(".")]:
        return Start(path, resumed=True, from_last=True)
    if not is_run(path):
        raise CheckpointError(f"{path}: not a run, and not empty; give the folder of a run, or a new one (run=FOLDER)")
    found = list_checkpoints(path)
    return Start(path, resumed=True, checkpoint=found[-1] if found else None, from_last=True)


def _named(config: RunConfig) -> Path | None:
    return Path(config.folder).expanduser() / config.name if config.name else None


def _new(config: RunConfig, recipe: str) -> Start:
    name = f"{recipe}-{datetime.now().astimezone():%Y%m%d-%H%M%S}"
    return Start(Path(config.folder).expanduser() / name, dated=True)


def _latest(config: RunConfig, recipe: str) -> Path | None:
    folder = Path(config.folder).expanduser()
    dated = re.compile(re.escape(recipe) + r"-\d{8}-\d{6}(-\d+)?")
    entries = folder.iterdir() if folder.is_dir() else ()
    runs = [path for path in entries if dated.fullmatch(path.name) and (path / CONFIG).is_file()]
    return max(runs, key=lambda path: (path / CONFIG).stat().st_mtime, default=None)
