"""The keys of a configuration: those of a section, and where one is that stands in the wrong section."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from typing import TYPE_CHECKING, Any, get_args, get_type_hints

from pydantic import BaseModel

from dali_asr.errors import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Iterator

_OTHER_NAMES = {  # what other projects call a key
    "adam": "optimizer",
    "amp": "precision",
    "batch": "batch_size",
    "batchsize": "batch_size",
    "bs": "batch_size",
    "clip": "max_gradient_norm",
    "data_dir": "root",
    "dataset": "root",
    "grad_clip": "max_gradient_norm",
    "hidden_dim": "hidden",
    "hidden_size": "hidden",
    "hidden_sizes": "hidden",
    "layers": "hidden",
    "lr": "learning_rate",
    "max_grad_norm": "max_gradient_norm",
    "momentum": "betas",
    "n_epochs": "epochs",
    "num_epochs": "epochs",
    "num_steps": "max_steps",
    "random_seed": "seed",
    "scheduler": "schedule",
    "steps": "max_steps",
    "val": "dev",
    "valid": "dev",
    "validation": "dev",
    "warmup": "warmup_steps",
    "wd": "weight_decay",
}


def keys_of(section: type) -> dict[str, Any]:
    """Return the annotations of a section's keys; a section is a pydantic model or a dataclass."""
    if issubclass(section, BaseModel):
        return {name: field.annotation for name, field in section.model_fields.items()}
    if not is_dataclass(section):
        return {}
    hints = get_type_hints(section)
    return {field.name: hints[field.name] for field in fields(section)}


def keys_beside(location: tuple[int | str, ...], root: type[BaseModel]) -> list[str]:
    """Return the valid keys of the section that contains an unknown key."""
    section: type = root
    for part in location[:-1]:
        section = _section(keys_of(section).get(str(part))) or section
    return list(keys_of(section))


def keys_named(name: str, root: type[BaseModel]) -> list[str]:
    """Return the paths of the keys with a name, or with the name for which other projects use it.

    Sections of the root itself are left out.
    """
    name = name.lower()
    name = _OTHER_NAMES.get(name, name)
    return [path for path in _paths(root) if path.endswith(f".{name}")]


def hint(name: str, siblings: list[str], root: type[BaseModel]) -> str:
    """Return what follows `unknown key`: where the key is, or else the keys that are allowed in its place."""
    elsewhere = keys_named(name, root)
    if elsewhere:
        return f"; did you mean {' or '.join(elsewhere)}?"
    return f"; allowed are {', '.join(siblings)}{did_you_mean(name, siblings)}"


def _paths(section: type, parent: str = "") -> Iterator[str]:
    """Yield the paths of all keys in a section, sections before what they contain."""
    for name, annotation in keys_of(section).items():
        yield f"{parent}{name}"
        inner = _section(annotation)
        if inner:
            yield from _paths(inner, f"{parent}{name}.")


def _section(annotation: Any) -> type | None:
    """Return the section that a key holds, if it holds one."""
    kinds = (annotation, *get_args(annotation))
    return next((kind for kind in kinds if isinstance(kind, type) and keys_of(kind)), None)
