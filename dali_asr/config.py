"""Configuration: pydantic sections, read from YAML and overrides.

Every mistake of a file is reported at once, each with its path, what was received and what is allowed.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
)

from dali_asr.errors import ConfigError, UsageError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pydantic_core import ErrorDetails

DEMO = "demo"  # a root, and the name of its recipe

NonNegative = Annotated[int, Field(ge=0)]
Positive = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0, lt=1)]
_MOST_CONTEXT = 1000  # ten seconds
_PAIR = {"type": "array", "items": {"type": "integer", "minimum": 0}, "minItems": 2, "maxItems": 2}


def _two(value: Any) -> Any:
    if isinstance(value, (list, tuple)) and len(value) == 2:
        return value
    raise ValueError(f"received {value!r}; expected two numbers, [low, high], both inclusive")


def _both_sides(value: Any) -> Any:
    if isinstance(value, (list, tuple)) and len(value) == 2:
        return value
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _MOST_CONTEXT:
        return [value, value]
    raise ValueError(f"received {value!r}; expected one number of frames, 0 to {_MOST_CONTEXT}, or [left, right]")


def _ordered(value: tuple[int, int]) -> tuple[int, int]:
    if value[0] > value[1]:
        raise ValueError(f"received {list(value)}; the first must not exceed the second")
    return value


def _unique(value: str | tuple[str, ...]) -> str | tuple[str, ...]:
    if not value:
        raise ValueError("received nothing; expected arpabet, a file, or a list of symbols")
    if not isinstance(value, str) and len(set(value)) < len(value):
        twice = next(symbol for at, symbol in enumerate(value) if symbol in value[:at])
        raise ValueError(f"received {twice!r} twice; every symbol must be unique")
    return value


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


def _device_name(value: str) -> str:
    if re.fullmatch(r"auto|cpu|cuda(:\d+)?", value):
        return value
    raise ValueError(f"received {value!r}; allowed are auto, cpu, cuda, cuda:N")


def _file_name(value: str | None) -> str | None:
    if value is None or re.fullmatch(r"\w[\w.-]*", value):
        return value
    raise ValueError(f"received {value!r}; allowed are letters, digits, '_', '.' and '-'")


CountRange = Annotated[
    tuple[NonNegative, NonNegative], BeforeValidator(_two), AfterValidator(_ordered), WithJsonSchema(_PAIR)
]
WidthRange = Annotated[
    tuple[Positive, Positive], BeforeValidator(_two), AfterValidator(_ordered), WithJsonSchema(_PAIR)
]
_Side = Annotated[int, Field(ge=0, le=_MOST_CONTEXT)]
Context = Annotated[
    tuple[_Side, _Side],
    BeforeValidator(_both_sides),
    WithJsonSchema({"anyOf": [{"type": "integer", "minimum": 0, "maximum": _MOST_CONTEXT}, _PAIR]}),
]
Names = Annotated[
    tuple[str, ...],
    BeforeValidator(_as_list),
    Field(min_length=1),
    WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}, "minItems": 1}]}),
]


class Section(BaseModel):
    """A part of the configuration: frozen, and strict about its keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)


class DataConfig(Section):
    """Which corpus, and how its frames are stored."""

    root: str = DEMO
    """Folder of a packed corpus or of course data; `demo` is the embedded demo corpus."""
    train: Names = ("train",)
    """Partitions to train on, joined in this order."""
    dev: str | None = "dev"
    """Partition that is evaluated during training; null for none."""
    test: str | None = "test"
    """Partition to predict by default; null for none."""
    inventory: Annotated[str | tuple[str, ...], AfterValidator(_unique)] = "arpabet"
    """Label set: `arpabet` (the course's 42 symbols), a text file of one symbol a line, or a list of symbols."""
    normalization: Literal["utterance", "global", "none"] = "utterance"
    """Mean and variance normalization, over each utterance or over the training partitions."""
    dtype: Literal["float32", "float16"] = "float32"
    """Of the stored frames, which are rounded to it once."""
    zero_nonfinite: bool = False
    """Whether NaN and infinity in features become zeros instead of an error."""

    @property
    def partitions(self) -> tuple[str, ...]:
        """All partitions that are named, none twice."""
        named = (*self.train, *(name for name in (self.dev, self.test) if name))
        return tuple(dict.fromkeys(named))


class FrequencyConfig(Section):
    """Bands of features that are zeroed."""

    count: CountRange = (0, 2)
    """Fewest and most bands of a window, inclusive."""
    width: WidthRange = (3, 3)
    """Narrowest and widest band, in features, inclusive."""


class TimeConfig(Section):
    """Spans of frames that are zeroed."""

    count: CountRange = (0, 2)
    """Fewest and most spans of a window, inclusive."""
    width: WidthRange = (3, 7)
    """Shortest and longest span, in frames, inclusive."""


class MaskingConfig(Section):
    """Masks in frequency and time, drawn anew for every window."""

    scope: Literal["window", "batch"] = "window"
    """`window`: masks of its own for every window; `batch`: one set for a whole batch."""
    frequency: FrequencyConfig = FrequencyConfig()
    """Bands of features."""
    time: TimeConfig = TimeConfig()
    """Spans of frames."""


class LoaderConfig(Section):
    """How batches are cut."""

    context: Context = (30, 30)
    """Frames on either side of a window's own: one number, or [left, right]."""
    batch_size: Positive = 512
    """Windows of a batch."""
    dtype: Literal["float32", "float16"] = "float32"
    """Of the windows."""
    shuffle: bool = True
    """Whether each epoch is a new random permutation of the training frames."""
    subset: Positive = 1
    """Every n-th training frame is read."""
    drop_last: bool = True
    """Whether a last training batch of fewer windows is dropped."""
    prefetch: Positive = 2
    """Batches that are cut ahead."""
    device: Annotated[str, AfterValidator(_device_name)] = "auto"
    """`auto` (CUDA where there is one, else the CPU), `cpu`, `cuda` or `cuda:N`."""
    graph: Literal["auto", "stock"] = "auto"
    """The DALI graph: `stock` is made of DALI's own operators; `auto` chooses."""
    masking: MaskingConfig | None = None
    """Masks of training batches; null for none, {} for the defaults."""


class ModelConfig(Section):
    """The multilayer perceptron."""

    preset: Literal["tiny", "full"] | None = None
    """`tiny` (3 x 512) or `full` (4 x 2048, 1024, 512, 256), `tiny` unless `hidden` is given."""
    hidden: Annotated[tuple[Positive, ...], Field(min_length=1)] | None = None
    """Units of each hidden layer, instead of a preset."""
    dropout: Share | tuple[Share, ...] | None = None
    """Dropout of all hidden layers, or of each; the preset's, or 0."""
    batch_norm: bool | tuple[bool, ...] | None = None
    """Batch norm in all hidden layers, or in each; the preset's, or none."""
    activation: Literal["gelu", "relu", "silu", "tanh"] = "gelu"
    """Between the layers."""

    @field_validator("hidden")
    @classmethod
    def _not_both(cls, hidden: tuple[int, ...] | None, info: ValidationInfo) -> tuple[int, ...] | None:
        if hidden and info.data.get("preset"):
            raise ValueError(f"received {list(hidden)} beside preset {info.data['preset']}; give one of them")
        return hidden

    @field_validator("dropout", "batch_norm")
    @classmethod
    def _one_a_layer(cls, value: Any, info: ValidationInfo) -> Any:
        hidden, preset = info.data.get("hidden"), info.data.get("preset")
        depth = len(hidden) if hidden else {"full": 7}.get(preset or "tiny", 3)
        if isinstance(value, tuple) and len(value) != depth:
            raise ValueError(f"received {list(value)} for {depth} hidden layers; give one value, or one a layer")
        return value


class OptimizerConfig(Section):
    """AdamW (Loshchilov and Hutter 2019)."""

    learning_rate: Annotated[float, Field(gt=0)] = 1e-3
    """Step size."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    """Decoupled weight decay, a step and unit of learning rate."""
    betas: tuple[Share, Share] = (0.9, 0.999)
    """Decay of the averages of gradient and squared gradient."""
    eps: Annotated[float, Field(gt=0)] = 1e-8
    """Added to the denominator."""


class TrainingConfig(Section):
    """How long and how."""

    epochs: Positive = 5
    """Passes over the training partitions."""
    max_steps: Positive | None = None
    """Stop after this many steps; null for no limit."""
    optimizer: OptimizerConfig = OptimizerConfig()
    """AdamW's settings."""
    seed: Annotated[int, Field(ge=0, lt=1 << 63)] = 0
    """Of weights, order, masks and dropout."""
    eval_every: Positive = 1
    """Epochs between evaluations on the dev partition; the last epoch is always evaluated."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Of the matrix multiplications; weights are float32 always."""


class RunConfig(Section):
    """Where results go."""

    folder: str = "runs"
    """Folder of the runs."""
    name: Annotated[str | None, AfterValidator(_file_name)] = None
    """Of the run's folder; recipe, date and time by default."""


class Config(Section):
    """A whole configuration."""

    data: DataConfig = DataConfig()
    """Which corpus."""
    loader: LoaderConfig = LoaderConfig()
    """How batches are cut."""
    model: ModelConfig = ModelConfig()
    """The network."""
    training: TrainingConfig = TrainingConfig()
    """How long and how."""
    run: RunConfig = RunConfig()
    """Where results go."""

    @classmethod
    def load(cls, source: str | Path | None = None, overrides: Sequence[str] = ()) -> Config:
        """Read a recipe by name or a YAML file, and apply overrides.

        Args:
            source: `course-tiny` or another shipped recipe, or a file; the `demo` recipe when None.
            overrides: `section.key=value` each, the value in YAML.

        Raises:
            ConfigError: mistakes, all of them at once.
            UsageError: no such recipe or file, or an override without `=`.
        """
        path = find_config(str(source or DEMO))
        values = _read_yaml(path)
        for override in overrides:
            _apply_override(values, override)
        return cls.check(values, where=str(source or DEMO))

    @classmethod
    def check(cls, values: Mapping[str, Any], where: str = "configuration") -> Config:
        """Validate plain values.

        Raises:
            ConfigError: mistakes, all of them at once.
        """
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise ConfigError(where, _problems(error.errors())) from error

    def to_yaml(self) -> str:
        """Return the configuration, defaults and all, as YAML."""
        return str(yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False))


def recipes_folder() -> Path:
    """Return where the shipped recipes lie: in the package, or beside it in a checkout."""
    package = Path(__file__).parent
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
                line = node.value[at][0].start_mark.line + 1
                raise yaml.MarkedYAMLError(problem=f"line {line}: key {key!r} stands twice; keep one of them")
        return super().construct_mapping(node, deep)


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), _UniqueKeys)  # noqa: S506 - a SafeLoader
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: cannot be read ({error})") from error
    except yaml.YAMLError as error:
        raise ConfigError(str(path), [" ".join(str(error).split())]) from error
    if not isinstance(values or {}, dict):
        raise ConfigError(str(path), [f"holds {values!r}; expected sections: {', '.join(Config.model_fields)}"])
    return values or {}


def _apply_override(values: dict[str, Any], override: str) -> None:
    path, equals, text = override.partition("=")
    if not equals or not path.strip():
        raise UsageError(f"--set {override}: no value; write section.key=value")
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


def _problems(errors: Sequence[ErrorDetails]) -> list[str]:
    """Turn pydantic's errors into lines; of a union's branches, one line a path."""
    lines: dict[str, str] = {}
    for error in errors:
        path = _path(error)
        lines.setdefault(path, f"{path}: {_explain(error)}" if path else _explain(error))
    # A fault inside a list says more than that the list is no number.
    return [line for path, line in lines.items() if not any(other.startswith(f"{path}[") for other in lines)]


def _path(error: ErrorDetails) -> str:
    """Return where in the YAML; pydantic's names of union branches are left out."""
    parts, fields = [], Config.model_fields
    for part in error["loc"]:
        if isinstance(part, int):
            parts.append(f"[{part}]")
        elif ("[" not in part and part not in _BRANCHES) or part in fields:
            parts.append(f".{part}")
    return "".join(parts).lstrip(".")


_BRANCHES = {"str", "bool", "float", "int", "constrained-str", "constrained-int", "constrained-float"}


def _explain(error: ErrorDetails) -> str:
    kind, received, context = error["type"], error["input"], error.get("ctx", {})
    if kind == "extra_forbidden":
        siblings = _keys_beside(error["loc"])
        return f"unknown key; allowed are {', '.join(siblings)}{did_you_mean(str(error['loc'][-1]), siblings)}"
    if kind == "value_error":
        return str(context["error"])
    if kind == "literal_error":
        allowed = _literals(str(context["expected"]))
        return f"received {received!r}; allowed are {', '.join(allowed)}{did_you_mean(str(received), allowed)}"
    return f"received {received!r}; {error['msg'][:1].lower()}{error['msg'][1:]}"


def _literals(expected: str) -> list[str]:
    return [part.strip().strip("'") for part in expected.replace(" or ", ",").split(",")]


def _keys_beside(location: tuple[int | str, ...]) -> list[str]:
    """Return the keys of the section that an unknown key stands in."""
    section: type[BaseModel] = Config
    for part in location[:-1]:
        found = section.model_fields.get(str(part))
        kinds = [found.annotation, *get_args(found.annotation)] if found else []
        section = next((k for k in kinds if isinstance(k, type) and issubclass(k, BaseModel)), section)
    return list(section.model_fields)
