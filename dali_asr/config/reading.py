"""Find and read configurations: recipes, YAML files and overrides, as plain values."""

from __future__ import annotations

from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from dali_asr.errors import ConfigError, UsageError, brief, did_you_mean
from dali_asr.inventory import is_text

if TYPE_CHECKING:
    from collections.abc import Sequence

_MAX_VALUES = 100_000  # in a configuration, its aliases expanded


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
    if (path / "config.yaml").is_file():
        raise UsageError(
            f"{source}: is the folder of a run; name its configuration, {path / 'config.yaml'}, or continue it by "
            f"dali-asr train --resume {source}"
        )
    if not path.is_file():
        other = path.with_suffix({".yml": ".yaml", ".yaml": ".yml"}.get(path.suffix, path.suffix))
        near = f"; did you mean {other}?" if other.is_file() else did_you_mean(source, names)
        raise UsageError(f"{source}: no such file or recipe; recipes are {', '.join(names)}{near}")
    return path


class _Loader(yaml.SafeLoader):
    """A safe loader that refuses what has no place in a configuration, with its line and column."""

    def get_single_node(self) -> yaml.Node | None:
        """Compose the document, as the base class does, and check its texts and its size."""
        node: yaml.Node | None = super().get_single_node()
        if node is not None and _expanded_size(node, {}) > _MAX_VALUES:
            raise _refusal("its aliases expand to more values than a configuration has", node)
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Build a mapping, as the base class does, but refuse duplicate keys, of which it silently keeps the last."""
        keys = [self.construct_object(key) for key, _ in node.value]
        for at, key in enumerate(keys):
            if key in keys[:at]:
                raise _refusal(f"duplicate key {key!r}", node.value[at][0])
        return super().construct_mapping(node, deep)


def _expanded_size(node: yaml.Node, known: dict[int, int]) -> int:
    """Return the number of values in a document after its aliases are expanded; `known` holds those of nodes seen."""
    if isinstance(node, yaml.ScalarNode):
        if "\0" in node.value or not is_text(node.value):
            raise _refusal("text with characters that no name can have", node)
        return 1
    if id(node) not in known:
        known[id(node)] = _MAX_VALUES + 1  # a node within itself has no end
        children = node.value if isinstance(node, yaml.SequenceNode) else chain.from_iterable(node.value)
        known[id(node)] = 1 + sum(_expanded_size(child, known) for child in children)
    return known[id(node)]


def _refusal(problem: str, node: yaml.Node) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark)


def _parse(text: str) -> Any:
    """Return the value of a YAML document.

    Raises:
        ValueError: it is not YAML, or not of the kind that a configuration is; says where.
    """
    try:
        return yaml.load(text, _Loader)  # noqa: S506 - a SafeLoader
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise ValueError(f"{where}{error.problem}; correct the YAML") from error
    except RecursionError as error:
        raise ValueError("nested too deeply; correct the YAML") from error
    except Exception as error:  # PyYAML's constructors of numbers, dates and characters raise what Python raises
        raise ValueError(f"{' '.join(str(error).split())[:200]}; correct the YAML") from error


def read_yaml(path: Path) -> dict[str, Any]:
    """Return the values of a YAML file.

    Raises:
        UsageError: the file cannot be read.
        ConfigError: the file is not YAML, repeats a key, or does not contain sections.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise UsageError(
            f"{path}: {(error.strerror or str(error)).lower()}; check the path and its permissions"
        ) from error
    except UnicodeDecodeError as error:
        raise UsageError(
            f"{path}: is not UTF-8 text ({error.reason} at byte {error.start}); save it as UTF-8"
        ) from error
    try:
        values = _parse(text)
    except ValueError as error:
        raise ConfigError(str(path), [str(error)]) from error
    if not isinstance(values or {}, dict):
        raise ConfigError(
            str(path), [f"contains {brief(values)}; expected sections (data, loader, model, training, run)"]
        )
    return values or {}


def apply_overrides(values: dict[str, Any], overrides: Sequence[str]) -> None:
    """Set values, given as `section.key=value` with the value in YAML.

    An override of `model.hidden` replaces a `model.preset` in `values`, and the reverse.

    Raises:
        UsageError: there is no `=`, or a value is not YAML.
    """
    given: dict[str, Any] = {}
    for override in overrides:
        _apply_override(given, override)
        _apply_override(values, override)
    model, chosen = values.get("model"), given.get("model")
    if isinstance(model, dict) and isinstance(chosen, dict):
        for key, rival in (("hidden", "preset"), ("preset", "hidden")):
            if chosen.get(key) is not None and rival not in chosen:
                model.pop(rival, None)


def read_choices(setting: str) -> tuple[str, list[Any]]:
    """Return key and values of `section.key=A,B,C`, the values in YAML as in a flow sequence.

    Raises:
        UsageError: there is no `=` or no value, or the values are not YAML.
    """
    key, equals, text = setting.partition("=")
    if not equals or not all(part.strip() for part in key.split(".")):
        raise UsageError(f"--vary {setting}: not a list of settings; write section.key=A,B,C")
    try:
        values = _parse(f"[{text}]")
    except ValueError as error:
        raise UsageError(f"--vary {brief(setting)}: the values are not YAML ({error}); quote them") from error
    if not isinstance(values, list) or not values:
        raise UsageError(f"--vary {setting}: no values; write section.key=A,B,C")
    return key.strip(), values


def _apply_override(values: dict[str, Any], override: str) -> None:
    path, equals, text = override.partition("=")
    if not equals or not all(part.strip() for part in path.split(".")):
        raise UsageError(f"--set {override}: not a setting; write section.key=value")
    try:
        value = _parse(text)
    except ValueError as error:
        raise UsageError(f"--set {brief(override)}: the value is not YAML ({error}); quote it") from error
    *parents, last = path.strip().split(".")
    at = values
    for key in parents:
        inner = at.get(key)
        at[key] = inner = dict(inner) if isinstance(inner, dict) else {}
        at = inner
    at[last] = value
