"""Find and read configurations: recipes, YAML files and overrides, as plain values."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from dali_asr.errors import ConfigError, UsageError, did_you_mean


def recipes_folder() -> Path:
    """Return the folder of the shipped recipes: in the package, or next to it in a checkout."""
    package = Path(__file__).parents[1]
    inside = package / "configs"
    return inside if inside.is_dir() else package.parent / "configs"


def recipe_names() -> list[str]:
    """Return the names of the shipped recipes."""
    return sorted(path.stem for path in recipes_folder().glob("*.yaml"))


def find_config(source: str) -> Path:
    """Return the file of a recipe, given its name, or of a path.

    Raises:
        UsageError: there is no such recipe or file.
    """
    names = recipe_names()
    if source in names:
        return recipes_folder() / f"{source}.yaml"
    path = Path(source).expanduser()
    if not path.is_file():
        raise UsageError(
            f"{source}: no such file or recipe; recipes are {', '.join(names)}{did_you_mean(source, names)}"
        )
    return path


class _UniqueKeys(yaml.SafeLoader):
    """A safe loader that refuses duplicate keys, of which PyYAML silently keeps the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Build a mapping, as the base class does."""
        keys = [self.construct_object(key) for key, _ in node.value]
        for at, key in enumerate(keys):
            if key in keys[:at]:
                raise yaml.MarkedYAMLError(problem=f"duplicate key {key!r}", problem_mark=node.value[at][0].start_mark)
        return super().construct_mapping(node, deep)


def read_yaml(path: Path) -> dict[str, Any]:
    """Return the values of a YAML file.

    Raises:
        UsageError: the file cannot be read.
        ConfigError: the file is not YAML, repeats a key, or does not contain sections.
    """
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), _UniqueKeys)  # noqa: S506 - a SafeLoader
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: cannot be read ({error})") from error
    except yaml.YAMLError as error:
        raise ConfigError(str(path), [_yaml_problem(error)]) from error
    if not isinstance(values or {}, dict):
        raise ConfigError(str(path), [f"contains {values!r}; expected sections (data, loader, model, training, run)"])
    return values or {}


def _yaml_problem(error: yaml.YAMLError) -> str:
    if not isinstance(error, yaml.MarkedYAMLError) or error.problem_mark is None:
        return " ".join(str(error).split())
    mark = error.problem_mark
    return f"line {mark.line + 1}, column {mark.column + 1}: {error.problem}; correct the YAML"


def apply_override(values: dict[str, Any], override: str) -> None:
    """Set one value, given as `section.key=value` with the value in YAML.

    Raises:
        UsageError: there is no `=`, or the value is not YAML.
    """
    path, equals, text = override.partition("=")
    if not equals or not all(part.strip() for part in path.split(".")):
        raise UsageError(f"--set {override}: not a setting; write section.key=value")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UsageError(f"--set {override}: the value is not YAML; quote it") from error
    *parents, last = path.strip().split(".")
    at = values
    for key in parents:
        inner = at.get(key)
        at[key] = inner = dict(inner) if isinstance(inner, dict) else {}
        at = inner
    at[last] = value
