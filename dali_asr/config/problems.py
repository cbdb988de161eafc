"""Pydantic's errors as readable lines: path, received value, allowed values."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dali_asr.config.keys import hint, keys_beside
from dali_asr.errors import brief, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pydantic import BaseModel
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
    shown = "nothing" if received is None else brief(received)
    if kind in ("extra_forbidden", "unexpected_keyword_argument"):
        return f"unknown key{hint(str(error['loc'][-1]), keys_beside(error['loc'], root), root)}"
    if kind == "value_error":
        return str(context["error"])
    if kind == "literal_error":
        allowed = _literals(str(context["expected"]))
        near = did_you_mean(received, allowed) if isinstance(received, str) else ""
        return f"received {shown}; allowed are {', '.join(allowed)}{near}"
    if kind in ("model_type", "dataclass_type"):
        keys = ", ".join(keys_beside((*error["loc"], ""), root))
        return f"received {shown}; expected a section, {{}} for its defaults, with the keys {keys}"
    if kind == "tuple_type":
        example = f"[{received}, {received}]" if isinstance(received, (int, float)) else "[512, 512]"
        return f"received {shown}; expected a list such as {example}"
    message = error["msg"].replace("Tuple", "List").replace("tuple", "list")  # as YAML calls it
    return f"received {shown}; {message[:1].lower()}{message[1:]}"


def _literals(expected: str) -> list[str]:
    return [part.strip().strip("'") for part in expected.replace(" or ", ",").split(",")]
