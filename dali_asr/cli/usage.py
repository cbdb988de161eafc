"""Mistakes in the arguments of a command, which its parser finds, as errors of one line."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from dali_asr.errors import UsageError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Iterator

_EXTRA = re.compile(r"Got unexpected extra arguments?(?:\(s\))? \((.*)\)")
_UNKNOWN = re.compile(r"No such command '(.*?)'\.")
_PREFIX = "Value error, "  # pydantic's, by which typer checks options; it says nothing


def is_parser_error(error: Exception) -> bool:
    """Return whether an exception is one of typer, about what was given."""
    return type(error).__module__.partition(".")[0] in ("typer", "click") and hasattr(error, "format_message")


def usage_error(error: Any, ctx: Any) -> UsageError | None:
    """Return the error of one line that stands for a parser's; None for one that is no mistake but shows the help.

    Args:
        error: the parser's.
        ctx: context of the command, if the error has none.
    """
    ctx = getattr(error, "ctx", None) or ctx
    kind, message = type(error).__name__, str(error.message).removeprefix(_PREFIX)
    if kind == "NoArgsIsHelpError":
        return None
    command = " ".join(_names(ctx))
    where = f"{command}: " if command else ""
    if kind == "MissingParameter" and error.param is not None:
        return UsageError(f"{where}{_name(error.param)} is missing; usage: {usage_of(ctx)}")
    if kind == "NoSuchOption":
        near = did_you_mean(error.option_name, error.possibilities or ())
        return UsageError(f"{where}{error.option_name}: no such option{near or f'; see {_call(ctx)} --help'}")
    if kind == "BadOptionUsage":
        return UsageError(f"{where}{message[:1].lower()}{message[1:].rstrip('.')}")  # it has no context
    if found := _UNKNOWN.match(message):
        near = did_you_mean(found[1], getattr(ctx.command, "commands", ()))
        return UsageError(f"{where}{found[1]}: no such command{near or f'; see {_call(ctx)} --help'}")
    if extra := unexpected_arguments(error):
        return UsageError(f"{where}unexpected argument {extra}; usage: {usage_of(ctx)}")
    named = f"{_name(error.param)}: " if getattr(error, "param", None) is not None else ""
    return UsageError(f"{where}{named}{message.rstrip('.')}")


def unexpected_arguments(error: Any) -> str | None:
    """Return the surplus arguments that a parser's error is about; None if it is about something else."""
    found = _EXTRA.match(str(getattr(error, "message", "")))
    return found[1] if found else None


def usage_of(ctx: Any) -> str:
    """Return how a command is called: with its arguments and the options that it needs."""
    return " ".join([_call(ctx), *_needed(ctx.command)])


def _needed(command: Any) -> Iterator[str]:
    for parameter in command.params:
        if parameter.param_type_name == "argument":
            name = _name(parameter) + ("..." if parameter.nargs == -1 else "")
            yield name if parameter.required else f"[{name}]"
    for parameter in command.params:
        if parameter.param_type_name == "option" and parameter.required:
            yield f"{_name(parameter)} {parameter.name.upper()}"


def _name(parameter: Any) -> str:
    """Return an argument's name, or the longest of an option."""
    if parameter.param_type_name == "argument":
        return str(parameter.name).upper()
    return str(max(parameter.opts, key=len))


def _call(ctx: Any) -> str:
    return " ".join(["dali-asr", *_names(ctx)])


def _names(ctx: Any) -> list[str]:
    """Return the names of a command and the groups that it is in."""
    return [] if ctx.parent is None else [*_names(ctx.parent), str(ctx.info_name)]
