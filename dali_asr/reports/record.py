"""What a run's folder records of its training, as reports show it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dali_asr.build import SUPPLIED
from dali_asr.config import Config, recipe_names
from dali_asr.corpus.regular import reading
from dali_asr.errors import CheckpointError
from dali_asr.pretrained import is_pretrained
from dali_asr.runs.changes import Change, read_changes
from dali_asr.runs.checkpoint import list_checkpoints, run_of, step_of
from dali_asr.runs.curves import best_epoch
from dali_asr.runs.folder import METRICS, TIMINGS, read_stall
from dali_asr.runs.run_path import CONFIG, check_run_folder

if TYPE_CHECKING:
    from collections.abc import Iterator

ABSENT = "–"  # stands for the value of a key that a configuration does not have
_ABOUT = "environment.json"
_TIMING = ("epoch", "train_seconds", "frames_per_second", "data_stall")
# Keys that do not change what is learnt.
_LABELS = ("run.", "tracking", "wandb.", "training.log_every", "training.save_every", "training.keep_checkpoints")


@dataclass(frozen=True)
class Record:
    """What a run's folder records of its training.

    Attributes:
        path: the run's folder.
        config: the resolved configuration.
        recipe: name of the recipe that the run began with; empty if it is not known.
        environment: versions and machine; empty if they are not known.
        lines: the lines of `metrics.jsonl`.
        timings: the lines of `timings.jsonl`, the last one of each epoch: a resumed run times an epoch again.
        changes: what changed in the configuration when the run was resumed.
        data_stall: fraction of the training time that the run waited for data; None if no epoch was timed.
    """

    path: Path
    config: Config
    recipe: str
    environment: dict[str, Any]
    lines: list[dict[str, Any]]
    timings: list[dict[str, Any]]
    changes: list[Change]
    data_stall: float | None

    @property
    def name(self) -> str:
        """Name of the run's folder."""
        return self.path.absolute().name

    @property
    def shown(self) -> str:
        """The run's folder as it is shown; a model of the package has its name alone."""
        return self.name if is_pretrained(self.path) else str(self.path)

    @property
    def epochs(self) -> list[dict[str, Any]]:
        """The lines of epochs; one that was cut short and went on in a resumed run has two."""
        return [line for line in self.lines if line["kind"] == "epoch"]

    @property
    def by_number(self) -> list[dict[str, Any]]:
        """The last line of each epoch."""
        return list({line["epoch"]: line for line in self.epochs}.values())

    @property
    def completed(self) -> int:
        """The number of complete epochs."""
        return sum(line["complete"] for line in self.epochs)

    @property
    def extent(self) -> str:
        """How many of the configured epochs were trained, the last one perhaps in part; a dash if it is not known."""
        if not self.lines:
            return ABSENT
        cut = bool(self.epochs) and not self.epochs[-1]["complete"]
        return f"{self.completed + cut} of {self.config.training.epochs}{', cut short' if cut else ''}"

    @property
    def decisive_changes(self) -> list[Change]:
        """The changes of keys that affect the result."""
        return [change for change in self.changes if not change.key.startswith(_LABELS)]

    @property
    def resumptions(self) -> list[str]:
        """A line for each resumption that changed keys that affect the result."""
        return [
            f"Resumed with other settings from step {step + 1:,} on: {', '.join(map(str, changes))}"
            for step, changes in groupby(self.decisive_changes, lambda change: change.step)
        ]

    @property
    def best(self) -> dict[str, Any] | None:
        """The line of the first epoch with the best dev accuracy; None if none was evaluated."""
        return best_epoch(self.epochs)

    @property
    def frames_per_second(self) -> float | None:
        """Frames trained per second over all timed epochs; None if no epoch was timed."""
        seconds = sum(line["train_seconds"] for line in self.timings)
        frames = sum(line["frames_per_second"] * line["train_seconds"] for line in self.timings)
        return frames / seconds if seconds else None

    @property
    def unfinished(self) -> str | None:
        """What is missing of the configured training; None if it is complete, or was stopped by its own settings."""
        training = self.config.training
        if not self.lines and is_pretrained(self.path):
            return "A model of the package; how its training went is not recorded here."
        saved = [step_of(path) for path in list_checkpoints(run_of(self.path))]  # some steps after the last line
        done, last = self.completed, max((*(line["step"] for line in self.lines), *saved), default=0)
        if done >= training.epochs or training.early_stopping or (training.max_steps and last >= training.max_steps):
            return None
        return f"The run was cut short: {done} of {training.epochs} epochs are complete, the last step is {last:,}."


def read_record(run: str | Path) -> Record:
    """Read what a run's folder, or that of one of its checkpoints, records.

    Raises:
        CheckpointError: it is not a run, or a line of its metrics or timings is damaged or of an older format.
        ConfigError: its configuration is invalid.
        DataError: a file cannot be read.
    """
    path = run_of(Path(run).expanduser())
    check_run_folder(path, pretrained=True)
    if not (path / CONFIG).is_file():
        raise CheckpointError(f"{path}: not a run, it has no {CONFIG}; give the folder that dali-asr train prints")
    about = _read_about(path / _ABOUT)
    recipe = about.get("recipe")
    return Record(
        path,
        Config.load(path / CONFIG),
        recipe if isinstance(recipe, str) else "",
        about,
        _read_lines(path / METRICS),
        list({line["epoch"]: line for line in _read_lines(path / TIMINGS)}.values()),
        read_changes(path),
        read_stall(path),
    )


def compare_recipe(record: Record) -> tuple[str, dict[str, tuple[str, ...]]]:
    """Return what a run's configuration is compared with, and the keys that differ, with the values there and here.

    It is the recipe if this version ships it, otherwise the defaults. What these leave to the corpus does not differ.
    """
    known = record.recipe in recipe_names()
    base = Config.load(record.recipe) if known else Config()
    name = f"the recipe {record.recipe}" if known else "the defaults"
    differing = config_differences(base, record.config)
    return name, {key: values for key, values in differing.items() if key not in SUPPLIED or values[0] != "null"}


def config_differences(*configs: Config) -> dict[str, tuple[str, ...]]:
    """Return the keys that differ between configurations, with the value in each, as `settings` gives it.

    Left out are keys that name the run and keys that say what is logged and saved.
    """
    each = [settings(config) for config in configs]
    keys = dict.fromkeys(key for values in each for key in values if not key.startswith(_LABELS))
    found = {key: tuple(values.get(key, ABSENT) for values in each) for key in keys}
    return {key: values for key, values in found.items() if len(set(values)) > 1}


def fold_sections(differing: dict[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
    """Return differences with one key for a section that some configurations leave out and the others have alike."""
    folded = dict(differing)
    for key, values in differing.items():
        inside = {name: of for name, of in differing.items() if name.startswith(f"{key}.")}
        having = [at for at, value in enumerate(values) if value == ABSENT]
        if not inside or any(len({of[at] for at in having}) > 1 for of in inside.values()):
            continue
        text = ", ".join(f"{name.removeprefix(f'{key}.')}: {of[having[0]]}" for name, of in inside.items())
        folded[key] = tuple(f"{{{text}}}" if at in having else value for at, value in enumerate(values))
        for name in inside:
            del folded[name]
    return folded


def settings(config: Config) -> dict[str, str]:
    """Return the values of a configuration as JSON, by key, as `section.key`."""
    return dict(_settings(config.model_dump(mode="json")))


def _settings(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _settings(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", json.dumps(value, ensure_ascii=False)


def _read_about(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return values if isinstance(values, dict) else {}


def _read_lines(path: Path) -> list[dict[str, Any]]:
    """Return the lines of a file that a run appends to; none if there is no file."""
    with reading(path):
        text = path.read_bytes().decode("utf-8", errors="replace") if path.is_file() else ""
    lines = text.splitlines()
    found = []
    for number, line in enumerate(lines, 1):
        try:
            found.append(_checked(json.loads(line), timing=path.name == TIMINGS))
        except (ValueError, KeyError, TypeError) as error:
            if number == len(lines) and not text.endswith("\n"):
                break  # a kill cut the last line short
            raise CheckpointError(
                f"{path}: line {number} is damaged or of another version ({type(error).__name__}: {error}); "
                "copy the run again, or use the version that trained it"
            ) from error
    return found


def _checked(values: dict[str, Any], *, timing: bool) -> dict[str, Any]:
    """Return a line after looking for its numbers."""
    if timing:
        _check_numbers(values, *_TIMING, *(["from_step"] if "from_step" in values else []))
        return values
    _check_numbers(values, "step", "epoch")
    if values["kind"] == "step":
        _check_metrics(values)
        return values
    if values["kind"] != "epoch":
        raise ValueError(f"kind {values['kind']!r}")
    for partition in ("train", "dev"):
        if values[partition] is not None:
            _check_metrics(values[partition])
    return {"complete": True} | values


def _check_metrics(values: dict[str, Any]) -> None:
    for name in ("loss", "accuracy"):
        if values[name] is not None:
            _check_numbers(values, name)


def _check_numbers(values: dict[str, Any], *names: str) -> None:
    for name in names:
        if not isinstance(values[name], (int, float)):
            raise TypeError(f"{name} {values[name]!r}")
