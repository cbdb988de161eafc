"""Finding and reading configurations: recipes, YAML files and overrides, as plain values."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from dali_asr.errors import ConfigError, UsageError, did_you_mean


def recipes_folder() -> Path:
    """Return where the shipped recipes lie: in the package, or beside it in a checkout."""
    package = Path(__file__).parents[1]
    inside = package / "configs"
    return inside if inside.is_dir() else package.parent / "configs"


def recipe_names() -> list[str]:
    """Return the names of the shipped recipes."""
    return sorted(path.stem for path in recipes_folder().glob("*.yaml"))


def find_config(source: str) -> Path:
    """Return the file of a recipe's name, or of a path.

    Raises:
        UsageError: neither.
    """
    names = recipe_names()
    if source in names:
        return recipes_folder() / f"{source}.yaml"
    path = Path(source).expanduser()
    if not path.is_file():
        raise UsageError(
            f"{source}: no such file, and no recipe; recipes are {', '.join(names)}{did_you_mean(source, names)}"
        )
    return path


class _UniqueKeys(yaml.SafeLoader):
    """PyYAML's loader takes the last of two equal keys without a word; this one refuses them."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Build a mapping, as the base class does."""
        keys = [self.construct_object(key) for key, _ in node.value]
        for at, key in enumerate(keys):
            if key in keys[:at]:
                raise yaml.MarkedYAMLError(
                    problem=f"key {key!r} stands twice", problem_mark=node.value[at][0].start_mark
                )
        return super().construct_mapping(node, deep)


def read_yaml(path: Path) -> dict[str, Any]:
    """Return the values of a YAML file.

    Raises:
        UsageError: it cannot be read.
        ConfigError: it is no YAML, repeats a key, or holds no sections.
    """
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), _UniqueKeys)  # noqa: S506 - a SafeLoader
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: cannot be read ({error})") from error
    except yaml.YAMLError as error:
        raise ConfigError(str(path), [_yaml_problem(error)]) from error
    if not isinstance(values or {}, dict):
        raise ConfigError(str(path), [f"holds {values!r}; expected sections (data, loader, model, training, run)"])
    return values or {}


def _yaml_problem(error: yaml.YAMLError) -> str:
    if not isinstance(error, yaml.MarkedYAMLError) or error.problem_mark is None:
        return " ".join(str(error).split())
    mark = error.problem_mark
    return f"line {mark.line + 1}, column {mark.column + 1}: {error.problem}; mend the YAML"


def apply_override(values: dict[str, Any], override: str) -> None:
    """Set one value: `section.key=value`, the value in YAML.

    Raises:
        UsageError: no `=`, or no YAML.
    """
    path, equals, text = override.partition("=")
    if not equals or not all(part.strip() for part in path.split(".")):
        raise UsageError(f"--set {override}: no setting; write section.key=value")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UsageError(f"--set {override}: the value is not YAML") from error
    *parents, last = path.strip().split(".")
    at = values
    for key in parents:
        inner = at.get(key)
        at[key] = inner = dict(inner) if isinstance(inner, dict) else {}
        at = inner
    at[last] = value
