"""Pydantic's errors as readable lines: path, received value, allowed values."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from typing import TYPE_CHECKING, Any, get_args, get_type_hints

from pydantic import BaseModel

from dali_asr.errors import brief, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pydantic_core import ErrorDetails


def problem_lines(errors: Sequence[ErrorDetails], root: type[BaseModel]) -> list[str]:
    """Turn pydantic's errors about a `root` into one line per path, whatever the number of union branches."""
    lines: dict[str, str] = {}
    for error in errors:
        path, explained = _path(error, root), _explain(error, root)
        lines.setdefault(path, f"{path}: {explained}" if path else explained)
    # A mistake inside a list explains more than "the list is not a number".
    return [line for path, line in lines.items() if not any(other.startswith(f"{path}[") for other in lines)]


def _path(error: ErrorDetails, root: type[BaseModel]) -> str:
    """Return the path in the YAML, without pydantic's names of union branches."""
    parts = []
    for part in error["loc"]:
        if isinstance(part, int):
            parts.append(f"[{part}]")
        elif ("[" not in part and part not in _BRANCHES) or part in root.model_fields:
            parts.append(f".{part}")
    return "".join(parts).lstrip(".")


_BRANCHES = {"str", "bool", "float", "int", "constrained-str", "constrained-int", "constrained-float"}


def _explain(error: ErrorDetails, root: type[BaseModel]) -> str:
    kind, received, context = error["type"], error["input"], error.get("ctx", {})
    if kind in ("extra_forbidden", "unexpected_keyword_argument"):
        siblings = _keys_beside(error["loc"], root)
        return f"unknown key; allowed are {', '.join(siblings)}{did_you_mean(str(error['loc'][-1]), siblings)}"
    if kind == "value_error":
        return str(context["error"])
    if kind == "literal_error":
        allowed = _literals(str(context["expected"]))
        near = did_you_mean(received, allowed) if isinstance(received, str) else ""
        return f"received {brief(received)}; allowed are {', '.join(allowed)}{near}"
    if kind in ("model_type", "dataclass_type"):
        keys = ", ".join(_keys_beside((*error["loc"], ""), root))
        return f"received {brief(received)}; expected a section, {{}} for its defaults, with the keys {keys}"
    return f"received {brief(received)}; {error['msg'][:1].lower()}{error['msg'][1:]}"


def _literals(expected: str) -> list[str]:
    return [part.strip().strip("'") for part in expected.replace(" or ", ",").split(",")]


def _keys_beside(location: tuple[int | str, ...], root: type[BaseModel]) -> list[str]:
    """Return the valid keys of the section that contains an unknown key."""
    section: type = root
    for part in location[:-1]:
        annotation = _fields(section).get(str(part))
        kinds = [annotation, *get_args(annotation)] if annotation else []
        section = next((kind for kind in kinds if isinstance(kind, type) and _fields(kind)), section)
    return list(_fields(section))


def _fields(section: type) -> dict[str, Any]:
    """Return the annotations of a section's keys; a section is a pydantic model or a dataclass."""
    if issubclass(section, BaseModel):
        return {name: field.annotation for name, field in section.model_fields.items()}
    if not is_dataclass(section):
        return {}
    hints = get_type_hints(section)
    return {field.name: hints[field.name] for field in fields(section)}
