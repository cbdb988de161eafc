"""The types of values in a configuration, each with the message for a value that it refuses."""

from __future__ import annotations

import re
from dataclasses import asdict
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema

from dali_asr.errors import UsageError, brief
from dali_asr.plan import Masking
from dali_asr.plan.spec import BYTES, as_bytes

# Strict, because pydantic otherwise accepts `true` as 1.
NonNegative = Annotated[int, Field(ge=0, strict=True)]
Positive = Annotated[int, Field(ge=1, strict=True)]
Switch = Annotated[bool, Field(strict=True)]
Seed = Annotated[int, Field(ge=0, lt=1 << 63)]
Share = Annotated[float, Field(ge=0, lt=1)]
Norm = Literal["none", "batch", "layer"]
_MAX_CONTEXT = 1000  # frames, ten seconds
_PAIR = {"type": "array", "items": {"type": "integer", "minimum": 0}, "minItems": 2, "maxItems": 2}


def _both_sides(value: Any) -> Any:
    if isinstance(value, (list, tuple)) and len(value) == 2:
        return value
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _MAX_CONTEXT:
        return [value, value]
    raise ValueError(f"received {brief(value)}; expected one number of frames, 0 to {_MAX_CONTEXT}, or [left, right]")


def unique(value: str | tuple[str, ...]) -> str | tuple[str, ...]:
    """Check that names are given and none twice.

    Raises:
        ValueError: it is not valid.
    """
    if not value:
        raise ValueError("received nothing; give at least one name")
    if not isinstance(value, str) and len(set(value)) < len(value):
        twice = next(symbol for at, symbol in enumerate(value) if symbol in value[:at])
        raise ValueError(f"received {brief(twice)} twice; name each once")
    return value


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


def device_name(value: str) -> str:
    """Check the name of a device.

    Raises:
        ValueError: it is not valid.
    """
    if re.fullmatch(r"auto|cpu|cuda(:\d+)?", value):
        return value
    raise ValueError(f"received {brief(value)}; allowed are auto, cpu, cuda, cuda:N")


def file_name(value: str | None) -> str | None:
    """Check the name of a file or folder.

    Raises:
        ValueError: it is not valid.
    """
    if value is None or re.fullmatch(r"\w[\w.-]*", value):
        return value
    raise ValueError(f"received {brief(value)}; allowed are letters, digits, '_', '.' and '-'")


def _wandb_name(value: str) -> str:
    if re.search(r"[/\\#?%:]", value):
        raise ValueError(f"received {brief(value)}; allowed are all characters but / \\ # ? % :")
    return value


def _bytes(value: Any) -> int:
    try:
        return as_bytes("bytes", value)
    except UsageError as error:
        expected = str(error).partition("; ")[2]
        raise ValueError(f"received {brief(value)}; {expected}") from error


_Side = Annotated[int, Field(ge=0, le=_MAX_CONTEXT, strict=True)]
Context = Annotated[
    tuple[_Side, _Side],
    BeforeValidator(_both_sides),
    WithJsonSchema({"anyOf": [{"type": "integer", "minimum": 0, "maximum": _MAX_CONTEXT}, _PAIR]}),
]
Names = Annotated[
    tuple[str, ...],
    BeforeValidator(_as_list),
    AfterValidator(unique),
    Field(min_length=1),
    WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}, "minItems": 1}]}),
]


Bytes = Annotated[
    int,
    BeforeValidator(_bytes),
    WithJsonSchema({"anyOf": [{"type": "integer", "minimum": 1}, {"type": "string", "pattern": f"^{BYTES}$"}]}),
]


def with_default_bands(value: Any) -> Any:
    """Complete bands that give only a count or only a width by the defaults of their kind."""
    if not isinstance(value, dict):
        return value
    defaults = asdict(Masking())
    return {
        key: {**defaults[key], **given} if isinstance(given, dict) and isinstance(defaults.get(key), dict) else given
        for key, given in value.items()
    }


Trackers = Annotated[
    tuple[Literal["tensorboard", "wandb"], ...],
    BeforeValidator(_as_list),
    AfterValidator(lambda names: tuple(dict.fromkeys(names))),
]


WandbName = Annotated[str, Field(min_length=1, max_length=128), AfterValidator(_wandb_name)]
