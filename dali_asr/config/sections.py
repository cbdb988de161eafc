"""The sections of a configuration.

Every mistake of a file is reported at once, each with its path, what was received and what is allowed.
"""

from __future__ import annotations

import re
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any, Literal

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ByteSize,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
)

from dali_asr.config.problems import problem_lines
from dali_asr.config.reading import apply_override, find_config, read_yaml
from dali_asr.errors import ConfigError
from dali_asr.plan import Masking

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

DEMO = "demo"  # a root, and the name of its recipe

# Strict: `true` is no number.
NonNegative = Annotated[int, Field(ge=0, strict=True)]
Positive = Annotated[int, Field(ge=1, strict=True)]
Switch = Annotated[bool, Field(strict=True)]
Share = Annotated[float, Field(ge=0, lt=1)]
Norm = Literal["none", "batch", "layer"]
_MOST_CONTEXT = 1000  # ten seconds
_PAIR = {"type": "array", "items": {"type": "integer", "minimum": 0}, "minItems": 2, "maxItems": 2}


def _both_sides(value: Any) -> Any:
    if isinstance(value, (list, tuple)) and len(value) == 2:
        return value
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _MOST_CONTEXT:
        return [value, value]
    raise ValueError(f"received {value!r}; expected one number of frames, 0 to {_MOST_CONTEXT}, or [left, right]")


def _unique(value: str | tuple[str, ...]) -> str | tuple[str, ...]:
    if not value:
        raise ValueError("received nothing; give at least one name")
    if not isinstance(value, str) and len(set(value)) < len(value):
        twice = next(symbol for at, symbol in enumerate(value) if symbol in value[:at])
        raise ValueError(f"received {twice!r} twice; name each once")
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


_Side = Annotated[int, Field(ge=0, le=_MOST_CONTEXT, strict=True)]
Context = Annotated[
    tuple[_Side, _Side],
    BeforeValidator(_both_sides),
    WithJsonSchema({"anyOf": [{"type": "integer", "minimum": 0, "maximum": _MOST_CONTEXT}, _PAIR]}),
]
Names = Annotated[
    tuple[str, ...],
    BeforeValidator(_as_list),
    AfterValidator(_unique),
    Field(min_length=1),
    WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}, "minItems": 1}]}),
]


def _some_bytes(value: Any) -> Any:
    if isinstance(value, bool) or not (isinstance(value, int) or re.fullmatch(_BYTES, str(value))):
        raise ValueError(f"received {value!r}; allowed are bytes, or a number with KB, MB, GB, KiB, MiB or GiB")
    return value


def _not_zero(value: ByteSize) -> ByteSize:
    if value <= 0:
        raise ValueError(f"received {int(value)} bytes; give more")
    return value


_BYTES = r"\d+(\.\d+)? ?([KMG]i?B)?"
Bytes = Annotated[
    ByteSize,
    BeforeValidator(_some_bytes),
    AfterValidator(_not_zero),
    WithJsonSchema({"anyOf": [{"type": "integer", "minimum": 1}, {"type": "string", "pattern": f"^{_BYTES}$"}]}),
]


def _with_default_bands(value: Any) -> Any:
    """Complete bands that give only a count or only a width by the defaults of their kind."""
    if not isinstance(value, dict):
        return value
    defaults = asdict(Masking())
    return {
        key: {**defaults[key], **given} if isinstance(given, dict) and isinstance(defaults.get(key), dict) else given
        for key, given in value.items()
    }


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
    """Iterations of DALI that are cut ahead."""
    batches_per_iteration: Positive | None = None
    """Batches that DALI cuts at once, at most; null for as many as pay. Order and contents do not depend on it."""
    memory_budget: Bytes | None = None
    """Of the device, for the frames of a partition: bytes, or `2GiB`; null for a share of what is free. A larger
    partition is streamed."""
    device: Annotated[str, AfterValidator(_device_name)] = "auto"
    """`auto` (CUDA where there is one, else the CPU), `cpu`, `cuda` or `cuda:N`."""
    graph: Literal["auto", "stock", "fused"] = "auto"
    """The DALI graph: `stock` is made of DALI's own operators, `fused` is one GPU operator; `auto` chooses."""
    masking: Annotated[Masking | None, BeforeValidator(_with_default_bands)] = None
    """Masks of training batches; null for none, {} for the defaults."""

    @field_validator("masking")
    @classmethod
    def _fits(cls, masking: Masking | None, info: ValidationInfo) -> Masking | None:
        if masking and masking.time.count[1] and "context" in info.data:
            width, frames = masking.time.width[1], sum(info.data["context"]) + 1
            if width > frames:
                raise ValueError(f"received time.width up to {width}, a window has {frames} frames; make it narrower")
        return masking


class ModelConfig(Section):
    """The multilayer perceptron."""

    preset: Literal["tiny", "full"] | None = None
    """`tiny` (3 x 512) or `full` (4 x 2048, 1024, 512, 256), `tiny` unless `hidden` is given."""
    hidden: Annotated[tuple[Positive, ...], Field(min_length=1)] | None = None
    """Units of each hidden layer, instead of a preset."""
    dropout: Share | tuple[Share, ...] | None = None
    """Dropout of all hidden layers, or of each; the preset's, or 0."""
    norm: Norm | tuple[Norm, ...] | None = None
    """Normalization in all hidden layers, or in each: `batch`, `layer` or `none`; the preset's, or none."""
    activation: Literal["gelu", "relu", "silu", "tanh"] = "gelu"
    """Between the layers."""
    residual: Switch = False
    """Whether a hidden layer as wide as the one before adds its input to its output."""
    max_parameters: Positive | None = None
    """Most parameters that the model may have, above which it is refused; null for no limit."""

    @field_validator("hidden")
    @classmethod
    def _not_both(cls, hidden: tuple[int, ...] | None, info: ValidationInfo) -> tuple[int, ...] | None:
        if hidden and info.data.get("preset"):
            raise ValueError(f"received {list(hidden)} beside preset {info.data['preset']}; give one of them")
        return hidden

    @field_validator("dropout", "norm")
    @classmethod
    def _one_a_layer(cls, value: Any, info: ValidationInfo) -> Any:
        if not {"hidden", "preset"} <= set(info.data):
            return value  # one of them has a mistake of its own
        hidden, preset = info.data["hidden"], info.data["preset"]
        depth = len(hidden) if hidden else {"full": 7}.get(preset or "tiny", 3)
        if isinstance(value, tuple) and len(value) != depth:
            raise ValueError(f"received {list(value)} for {depth} hidden layers; give one value, or one a layer")
        return value


class OptimizerConfig(Section):
    """AdamW (Loshchilov and Hutter 2019)."""

    learning_rate: Annotated[float, Field(gt=0)] = 1e-3
    """Step size."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    """Decoupled weight decay, a step and unit of learning rate; norms and biases do not decay."""
    betas: tuple[Share, Share] = (0.9, 0.999)
    """Decay of the averages of gradient and squared gradient."""
    eps: Annotated[float, Field(gt=0)] = 1e-8
    """Added to the denominator."""
    max_gradient_norm: Annotated[float, Field(gt=0)] | None = None
    """Gradients of a larger norm are scaled down to it; null for no limit."""


class ScheduleConfig(Section):
    """The learning rate over the steps; the optimizer's is its peak."""

    kind: Literal["constant", "cosine", "plateau"] = "constant"
    """After the warm-up: `constant`; `cosine`, falling to the floor at the last step; `plateau`, lowered where the
    dev accuracy does not rise."""
    warmup_steps: NonNegative = 0
    """Steps over which it rises to its peak."""
    floor: Share = 0.0
    """The lowest rate, as a share of the peak."""
    factor: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """Of `plateau`: what the rate is multiplied by."""
    patience: NonNegative = 1
    """Of `plateau`: evaluations without a rise that are waited for."""


class TrainingConfig(Section):
    """How long and how."""

    epochs: Positive = 5
    """Passes over the training partitions."""
    max_steps: Positive | None = None
    """Stop after this many steps; null for no limit."""
    optimizer: OptimizerConfig = OptimizerConfig()
    """AdamW's settings."""
    schedule: ScheduleConfig = ScheduleConfig()
    """The learning rate over the steps."""
    label_smoothing: Share = 0.0
    """Share of a label's probability that is spread over all labels."""
    class_weights: Literal["none", "balanced"] = "none"
    """`balanced`: all labels count the same in the loss, however rare."""
    ema: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Decay a step of an exponential moving average of the weights, which is evaluated and saved; null for none."""
    early_stopping: Positive | None = None
    """Stop after so many evaluations without a better dev accuracy; null for never."""
    seed: Annotated[int, Field(ge=0, lt=1 << 63)] = 0
    """Of weights, order, masks and dropout."""
    eval_every: Positive = 1
    """Epochs between evaluations on the dev partition; the last epoch is always evaluated."""
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """Of the matrix multiplications; weights are float32 always, and gradients are scaled for fp16."""
    allow_tf32: Switch = True
    """Whether GPUs may multiply float32 matrices in TF32, of ten bits of mantissa."""
    compile: Switch = False
    """Whether torch compiles the model, which takes a minute or so and a C++ compiler."""
    log_every: Positive = 20
    """Steps between two readings of the metrics."""
    save_every: Positive | None = None
    """Steps between two checkpoints, beside the one of each epoch; null for none."""
    keep_checkpoints: Positive = 2
    """Last checkpoints that are kept, beside the best."""
    on_write_error: Literal["warn", "stop"] = "warn"
    """When the disk is full: `warn` and go on with the old checkpoint, or `stop`."""


class RunConfig(Section):
    """Where results go."""

    folder: str = "runs"
    """Folder of the runs."""
    name: Annotated[str | None, AfterValidator(_file_name)] = None
    """Of the run's folder; recipe, date and time by default."""


Trackers = Annotated[
    tuple[Literal["tensorboard", "wandb"], ...],
    BeforeValidator(_as_list),
    AfterValidator(lambda names: tuple(dict.fromkeys(names))),
]


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
    tracking: Trackers = ()
    """Where metrics go, beside the run's folder: `tensorboard`, `wandb`."""

    @field_validator("training")
    @classmethod
    def _evaluates(cls, training: TrainingConfig, info: ValidationInfo) -> TrainingConfig:
        if "data" in info.data and info.data["data"].dev is None:
            if training.early_stopping is not None:
                raise ValueError("received early_stopping without data.dev; name a partition to evaluate on")
            if training.schedule.kind == "plateau":
                raise ValueError("received schedule.kind plateau without data.dev; name a partition to evaluate on")
        return training

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
        values = read_yaml(path)
        for override in overrides:
            apply_override(values, override)
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
            raise ConfigError(where, problem_lines(error.errors(), cls)) from error

    def to_yaml(self) -> str:
        """Return the configuration, defaults and all, as YAML."""
        return str(yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False))
