"""What all commands share: how their options are shown and completed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


class Commands(TyperGroup):
    """Commands whose flags are shown without the type `bool`."""

    def get_params(self, ctx: Any) -> list[Any]:
        """Return the parameters, as the base class does."""
        return _plain_flags(super().get_params(ctx))

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Return a command by its name, as the base class does."""
        command = super().get_command(ctx, cmd_name)
        if command and not isinstance(command, TyperGroup):
            _plain_flags([*command.params, command.get_help_option(ctx)])
        return command


def complete_recipe(incomplete: str) -> list[str]:
    """Return the recipes and the YAML files here whose names begin like this."""
    from pathlib import Path

    from dali_asr.config import recipe_names

    files = (path.name for pattern in ("*.yaml", "*.yml") for path in Path().glob(pattern))
    return [name for name in (*recipe_names(), *sorted(files)) if name.startswith(incomplete)]


def complete_setting(incomplete: str) -> list[str]:
    """Return the keys of a configuration that begin like this, as `section.key=`."""
    from dali_asr.config import Config

    return [f"{key}=" for key in setting_keys(Config.model_json_schema()) if key.startswith(incomplete)]


def setting_keys(schema: dict[str, Any]) -> list[str]:
    """Return the keys of a JSON Schema's values, as `section.key`."""
    definitions = schema.get("$defs", {})

    def keys(properties: dict[str, Any], prefix: str) -> Iterator[str]:
        for name, value in properties.items():
            inner = next((definitions[ref] for ref in _references(value) if "properties" in definitions[ref]), None)
            if inner:
                yield from keys(inner["properties"], f"{prefix}{name}.")
            else:
                yield prefix + name

    return list(keys(schema["properties"], ""))


def _references(value: dict[str, Any]) -> Iterable[str]:
    """Return the definitions that a property refers to."""
    return [choice["$ref"].rpartition("/")[2] for choice in (value, *value.get("anyOf", ())) if "$ref" in choice]


def _plain_flags(parameters: list[Any]) -> list[Any]:
    for parameter in parameters:
        if getattr(parameter, "is_flag", False):
            parameter.metavar = ""
    return parameters


Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="SECTION.KEY=VALUE",
        help="Override a setting; repeat for more.",
        autocompletion=complete_setting,
    ),
]
