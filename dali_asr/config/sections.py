"""The sections of a configuration.

All mistakes of a file are reported at once, each with its path, the received value and the allowed values.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    ValidationError,
    ValidationInfo,
    field_validator,
)

from dali_asr.audio.settings import FeatureSettings, with_preset
from dali_asr.config.problems import problem_lines
from dali_asr.config.reading import apply_overrides, find_config, read_yaml, recipe_names
from dali_asr.config.values import (
    Bytes,
    Context,
    Names,
    NonNegative,
    Norm,
    Positive,
    Seed,
    Share,
    Switch,
    Trackers,
    WandbName,
    device_name,
    file_name,
    unique,
    with_default_bands,
)
from dali_asr.errors import ConfigError, UsageError
from dali_asr.plan import Masking  # noqa: TC001 - pydantic evaluates annotations
from dali_asr.plan.spec import Dtype  # noqa: TC001

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

DEMO = "demo"  # the root of the embedded corpus, and the name of its recipe
IN_MEMORY = "(in memory)"  # the root that a run records of a corpus that was made from arrays


class Section(BaseModel):
    """A part of the configuration. Frozen; unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)


class DataConfig(Section):
    """The corpus and how its frames are stored."""

    root: str = DEMO
    """Folder of a packed corpus or of course data; `demo` is the embedded demo corpus. Also an archive of one, a link
    to one (`https://`, `s3://`, `gs://`), `kaggle:COMPETITION` or `gdrive:ID`: fetched once, into the cache."""
    train: Names = ("train",)
    """Training partitions, joined in this order."""
    dev: str | None = "dev"
    """Partition evaluated during training; null for none."""
    test: str | None = "test"
    """Partition predicted by default; null for none."""
    inventory: Annotated[str | tuple[str, ...], AfterValidator(unique)] | None = None
    """Label set: `arpabet` (the course's 42 symbols), a text file with one symbol per line, or a list of symbols. Null:
    that of a packed corpus or of the layout, `arpabet` for a course folder."""
    fold: str | None = None
    """Fold of the symbols that label source files: `arpabet` (drops stress digits, either case), `timit61`, `mfa`,
    or a text file of lines `SYMBOL TARGET`; null for none."""
    silence: str | None = None
    """Symbol of silence, for the scores without it. Null: the first of [SIL], SIL, sil, silence, sp that there is."""
    normalization: Literal["utterance", "global", "none"] | None = None
    """Mean and variance normalization: over each `utterance`, `global` over the training partitions, or `none`. Null:
    that of a packed corpus, `utterance` for source files."""
    dtype: Literal["float32", "float16"] | None = None
    """Dtype of the stored frames. Null: that of a packed corpus, float32 for source files."""
    zero_nonfinite: bool = False
    """Replace NaN and infinity in features by zeros instead of raising an error."""
    drop: str | None = None
    """CSV of utterances and spans whose labels are not trained on: the `findings.csv` of an audit, or one with columns
    `partition`, `utterance` and, for spans, `start_frame` and `end_frame`. Null for none."""

    @property
    def partitions(self) -> tuple[str, ...]:
        """All named partitions, without duplicates."""
        named = (*self.train, *(name for name in (self.dev, self.test) if name))
        return tuple(dict.fromkeys(named))


class LoaderConfig(Section):
    """The loader of context windows."""

    context: Context = (30, 30)
    """Frames before and after a window's own frame: one number, or [left, right]."""
    batch_size: Positive = 512
    """Windows per batch, on each process."""
    dtype: Dtype = "float32"
    """Dtype of the windows."""
    shuffle: bool = True
    """Read the training frames in a new random order in each epoch."""
    seed: Seed | None = None
    """Seed of order and masks; null: `training.seed`."""
    subset: Positive = 1
    """Read every n-th training frame."""
    drop_last: bool = True
    """Drop the last training batch of an epoch if it has fewer windows."""
    prefetch: Positive = 2
    """Number of DALI iterations prepared in advance."""
    batches_per_iteration: Positive | None = None
    """Maximum number of batches per DALI iteration; null: chosen for speed. Does not change order or contents."""
    memory_budget: Bytes | None = None
    """Device memory for the frames of a partition, as bytes or text (`2GiB`); null: a fraction of the free memory. A
    partition that does not fit is streamed."""
    device: Annotated[str, AfterValidator(device_name)] = "auto"
    """`auto` (CUDA if available, otherwise the CPU), `cpu`, `cuda` or `cuda:N`."""
    graph: Literal["auto", "stock", "fused"] = "auto"
    """DALI graph: `stock` uses DALI's own operators, `fused` is one GPU operator; `auto`: `fused` where it works."""
    masking: Annotated[Masking | None, BeforeValidator(with_default_bands)] = None
    """Masks of the training windows; null for none, {} for the defaults."""

    @field_validator("masking")
    @classmethod
    def _fits(cls, masking: Masking | None, info: ValidationInfo) -> Masking | None:
        if masking and "context" in info.data:
            masking.check_fits(window=sum(info.data["context"]) + 1)
        return masking


class ModelConfig(Section):
    """The multilayer perceptron."""

    preset: Literal["tiny", "full"] | None = None
    """`tiny` (3 x 512) or `full` (4 x 2048, 1024, 512, 256). Null: `tiny`, unless `hidden` is given."""
    hidden: Annotated[tuple[Positive, ...], Field(min_length=1)] | None = None
    """Units of each hidden layer, instead of a preset."""
    dropout: Share | tuple[Share, ...] | None = None
    """Dropout of all hidden layers, or one value per layer. Null: that of the preset, or 0."""
    norm: Norm | tuple[Norm, ...] | None = None
    """Normalization of all hidden layers, or one value per layer. Null: that of the preset, or `none`."""
    activation: Literal["gelu", "relu", "silu", "tanh"] = "gelu"
    """Activation function of the hidden layers."""
    residual: Switch = False
    """Add the input of a hidden layer to its output if both have the same width (He et al. 2016)."""
    states: Annotated[int, Field(ge=1, le=5)] = 1
    """Parts of equal length into which a segment is divided, each with an output of its own, as the states of a hidden
    Markov model. The probability of a label is the sum of those of its states. `align` places boundaries by them."""
    max_parameters: Positive | None = None
    """Maximum number of parameters; training refuses a larger model. Null for no limit."""

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
            return value  # one of them is invalid itself
        hidden, preset = info.data["hidden"], info.data["preset"]
        depth = len(hidden) if hidden else {"full": 7}.get(preset or "tiny", 3)
        if isinstance(value, tuple) and len(value) != depth:
            raise ValueError(f"received {list(value)} for {depth} hidden layers; give one value, or one per layer")
        return value


class OptimizerConfig(Section):
    """AdamW (Loshchilov and Hutter 2019)."""

    learning_rate: Annotated[float, Field(gt=0)] = 1e-3
    """Peak learning rate."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    """Decoupled weight decay. Not applied to normalization layers and biases."""
    betas: tuple[Share, Share] = (0.9, 0.999)
    """Decay rates of the running averages of the gradient and of its square."""
    eps: Annotated[float, Field(gt=0)] = 1e-8
    """Constant added to the denominator for numerical stability."""
    max_gradient_norm: Annotated[float, Field(gt=0)] | None = None
    """Clip gradients to this norm; null for no clipping."""


class ScheduleConfig(Section):
    """The learning rate as a function of the step. Its peak is `optimizer.learning_rate`."""

    kind: Literal["constant", "cosine", "plateau"] = "constant"
    """After the warm-up: `constant`; `cosine`: decay to the floor at the last step (Loshchilov and Hutter 2017);
    `plateau`: reduce whenever the dev accuracy stops improving."""
    warmup_steps: NonNegative = 0
    """Number of steps of linear warm-up."""
    floor: Share = 0.0
    """Minimum learning rate, as a fraction of the peak."""
    factor: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """For `plateau`: factor of each reduction."""
    patience: NonNegative = 1
    """For `plateau`: evaluations without improvement before a reduction."""

    def warmup_for(self, steps: int) -> int:
        """Return the warm-up for a run of so many steps: as set, or a tenth of it if it took more than a quarter."""
        return self.warmup_steps if 4 * self.warmup_steps <= steps else steps // 10


class TeacherConfig(Section):
    """Probabilities of another model in the loss, beside the labels (distillation, Hinton et al. 2015)."""

    folder: str | None = None
    """Folder with a file `NAME.npy` for each training utterance: log probabilities `[T, C·K]`, up to a constant per
    frame; null for none."""
    weight: Share = 0.5
    """Weight of these probabilities in the loss; the labels have the rest."""


class TrainingConfig(Section):
    """Training of the model."""

    epochs: Positive = 5
    """Passes over the training partitions."""
    max_steps: Positive | None = None
    """Stop after this many optimizer steps; null for no limit."""
    optimizer: OptimizerConfig = OptimizerConfig()
    """Settings of AdamW."""
    schedule: ScheduleConfig = ScheduleConfig()
    """The learning rate as a function of the step."""
    label_smoothing: Share = 0.0
    """Fraction of the probability of the true label that is spread over all labels."""
    class_weights: Literal["none", "balanced"] = "none"
    """`balanced`: weight the loss so that every label contributes equally, however rare."""
    teacher: TeacherConfig = TeacherConfig()
    """Probabilities of another model in the loss, beside the labels."""
    ema: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Decay per step of an exponential moving average of the weights, which is evaluated and saved; null for none."""
    early_stopping: Positive | None = None
    """Stop after this many evaluations without a better dev accuracy; null for never."""
    init: str | None = None
    """Run or checkpoint whose weights training starts from; null for random weights. Other labels get a new last layer,
    in which the symbols that both have keep their weights."""
    seed: Seed = 0
    """Seed of weights and dropout, and of order and masks unless `loader.seed` is given."""
    eval_every: Positive = 1
    """Evaluate on the dev partition every this many epochs, and after the last epoch."""
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """Precision of matrix multiplications. Weights are always float32. `fp16` scales the gradients."""
    allow_tf32: Switch = True
    """Allow GPUs to multiply float32 matrices in TF32, which has 10 bits of mantissa."""
    compile: Switch = False
    """Compile the model with torch. Needs a C++ compiler, and about a minute at the start."""
    log_every: Positive = 20
    """Log the mean loss and accuracy over the last steps every this many steps."""
    save_every: Positive | None = None
    """Save a checkpoint every this many optimizer steps, in addition to one per epoch. Null: only after epochs."""
    keep_checkpoints: Positive = 2
    """Number of latest checkpoints to keep, in addition to the best."""
    on_write_error: Literal["warn", "stop"] = "warn"
    """When the disk is full: `warn` and continue training, or `stop`."""


class RunConfig(Section):
    """Where runs are written."""

    folder: str = "runs"
    """Folder that contains the runs."""
    name: Annotated[str | None, AfterValidator(file_name)] = None
    """Name of the run's folder; null: recipe, date and time."""


class WandbConfig(Section):
    """Where W&B keeps the run, if `tracking` names `wandb`."""

    project: WandbName = "dali-asr"
    """W&B project. The environment variable WANDB_PROJECT takes precedence."""
    entity: WandbName | None = None
    """User or team that owns the project; null: the account's default. WANDB_ENTITY takes precedence."""


class Config(Section):
    """A complete configuration."""

    data: DataConfig = DataConfig()
    """The corpus and how its frames are stored."""
    features: Annotated[FeatureSettings, BeforeValidator(with_preset)] = FeatureSettings()
    """How `dali-asr features` computes features from recordings. Training does not read it."""
    loader: LoaderConfig = LoaderConfig()
    """The loader of context windows."""
    model: ModelConfig = ModelConfig()
    """The multilayer perceptron."""
    training: TrainingConfig = TrainingConfig()
    """Training of the model."""
    run: RunConfig = RunConfig()
    """Where runs are written."""
    tracking: Trackers = ()
    """Additional destinations of the metrics: `tensorboard`, `wandb`."""
    wandb: WandbConfig = WandbConfig()
    """Where W&B keeps the run, if `tracking` names `wandb`."""
    _recipe: str = PrivateAttr("run")

    def __eq__(self, other: object) -> bool:
        """Return whether all settings are equal, wherever they were read from."""
        if not isinstance(other, Config):
            return NotImplemented
        return all(getattr(self, name) == getattr(other, name) for name in Config.model_fields)

    @field_validator("training")
    @classmethod
    def _evaluates(cls, training: TrainingConfig, info: ValidationInfo) -> TrainingConfig:
        if "data" in info.data and info.data["data"].dev is None:
            if training.early_stopping is not None:
                raise ValueError("received early_stopping without data.dev; name a partition to evaluate on")
            if training.schedule.kind == "plateau":
                raise ValueError("received schedule.kind plateau without data.dev; name a partition to evaluate on")
        return training

    @property
    def recipe(self) -> str:
        """The name of the recipe or the YAML file that it was read from, without suffix; `run` if it was not read."""
        return self._recipe

    @property
    def order_seed(self) -> int:
        """The seed of order and masks."""
        return self.training.seed if self.loader.seed is None else self.loader.seed

    @classmethod
    def load(cls, source: str | Path | None = None, overrides: Sequence[str] = ()) -> Config:
        """Read a recipe or a YAML file, and apply overrides.

        Args:
            source: name of a shipped recipe, such as `course-tiny`, or path of a file; by default the `demo` recipe.
            overrides: settings as `section.key=value`, with the value in YAML. One of `model.hidden` replaces the
                recipe's `model.preset`, and the reverse.

        Raises:
            ConfigError: the configuration is invalid; reports all mistakes at once, and says if the overrides alone
                made them.
            UsageError: no such recipe or file, or an override without `=`.
        """
        if isinstance(overrides, str):
            raise UsageError(f"Config.load: overrides {overrides!r}; give a list of them: [{overrides!r}]")
        where = str(source or DEMO)
        path = find_config(where)
        values = read_yaml(path)
        apply_overrides(values, overrides)
        try:
            config = cls.check(values, where)
        except ConfigError as error:
            if overrides and cls._is_valid(read_yaml(path)):
                remark = "" if where in recipe_names() else f" ({where} itself is valid)"  # nobody doubts a recipe
                raise ConfigError(f"--set{remark}", error.problems) from error
            raise
        config._recipe = path.stem
        return config

    @classmethod
    def _is_valid(cls, values: Mapping[str, Any]) -> bool:
        try:
            cls.check(values)
        except ConfigError:
            return False
        return True

    @classmethod
    def check(cls, values: Mapping[str, Any], where: str = "configuration") -> Config:
        """Validate plain values.

        Raises:
            ConfigError: the configuration is invalid; reports all mistakes at once.
        """
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise ConfigError(where, problem_lines(error.errors(), cls)) from error

    def to_yaml(self) -> str:
        """Return the configuration as YAML, including defaults."""
        return str(yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False))
