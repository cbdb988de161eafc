"""What all commands share: how their options are shown and completed."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from dali_asr.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


class Commands(TyperGroup):
    """Commands whose flags are shown without the type `bool`, and whose settings are written with a `=`."""

    def get_params(self, ctx: Any) -> list[Any]:
        """Return the parameters, as the base class does."""
        return _plain_flags(super().get_params(ctx))

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Find the command, as the base class does."""
        name, command, rest = super().resolve_command(ctx, args)
        _check_settings(rest)
        return name, command, rest

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Return a command by its name, as the base class does."""
        command = super().get_command(ctx, cmd_name)
        if command and not isinstance(command, TyperGroup):
            _plain_flags([*command.params, command.get_help_option(ctx)])
        return command


def _check_settings(arguments: list[str]) -> None:
    """Check that no value follows a setting as a word of its own, which the parser takes for an argument."""
    end = arguments.index("--") if "--" in arguments else len(arguments)
    for option, key, value in zip(arguments[:end], arguments[1:end], arguments[2:end], strict=False):
        if option == "--set" and is_valid_setting(key, value):
            raise UsageError(
                f"{option} {key} {value}: the value stands apart; write {shlex.join([option, f'{key}={value}'])}"
            )


def is_valid_setting(key: str, value: str) -> bool:
    """Return whether a key of a configuration can have a value."""
    from dali_asr.config import Config

    if "=" in key:
        return False
    try:
        Config.load("demo", [f"{key}={value}"])
    except UsageError:
        return False
    return True


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
