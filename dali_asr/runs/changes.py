"""What changed in a run's configuration when it was resumed, `changes.jsonl`: one line per key.

    {"step": 204, "key": "training.optimizer.learning_rate", "old": 0.001, "new": 0.0005}

says that the steps after 204 were trained with the new value. `config.yaml` holds the latest values.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, ValidationError

from dali_asr.config import Config
from dali_asr.config.reading import read_yaml
from dali_asr.errors import UsageError
from dali_asr.files import write_file
from dali_asr.runs.run_path import CONFIG

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CHANGES = "changes.jsonl"


class Change(BaseModel):
    """A key whose value changed after a step."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")

    step: int
    key: str
    old: Any
    new: Any

    def __str__(self) -> str:
        return f"{self.key} {json.dumps(self.new)} (was {json.dumps(self.old)})"


def record_changes(run: Path, config: Config, step: int) -> list[Change]:
    """Compare a configuration with the run's own at a step, and record what changes there.

    Changes that were recorded at the step or later are dropped: the run continues from before them.

    Returns:
        The changes; none if the run's own configuration cannot be read.
    """
    try:
        before = Config.check(read_yaml(run / CONFIG)).model_dump(mode="json")
    except UsageError:
        return []
    earlier = read_changes(run)
    kept = [change for change in earlier if change.step < step]
    for change in reversed(earlier[len(kept) :]):
        _put(before, change.key, change.old)
    after = config.model_dump(mode="json")
    changes = [Change(step=step, key=key, old=old, new=new) for key, old, new in _differences(before, after)]
    if kept + changes != earlier:
        write_file(run / CHANGES, "".join(f"{c.model_dump_json()}\n" for c in (*kept, *changes)).encode())
    return changes


def read_changes(run: Path) -> list[Change]:
    """Return the recorded changes of a run; of a damaged file, those before the damage."""
    path = run / CHANGES
    found: list[Change] = []
    for line in path.read_bytes().splitlines() if path.is_file() else ():
        try:
            found.append(Change.model_validate_json(line))
        except ValidationError:
            break
    return found


def _differences(old: Any, new: Any, key: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Yield the keys whose values differ, with both values."""
    if isinstance(old, dict) and isinstance(new, dict):
        for name in new:
            yield from _differences(old.get(name), new[name], f"{key}.{name}".lstrip("."))
    elif old != new:
        yield key, old, new


def _put(values: dict[str, Any], key: str, value: Any) -> None:
    """Set the value of a key, if there is such a section."""
    *parents, last = key.split(".")
    at: Any = values
    for name in parents:
        at = at.get(name) if isinstance(at, dict) else None
    if isinstance(at, dict):
        at[last] = value
