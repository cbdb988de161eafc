"""The contents of a checkpoint as strict models: a value of the wrong kind is refused when it is read."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Any, Literal

import torch
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from dali_asr.audio.settings import FeatureSettings
from dali_asr.errors import CheckpointError

if TYPE_CHECKING:
    from collections.abc import Mapping

CHECKPOINT_NAME = r"^epoch-\d{4,}-step-\d{8,}$"
Count = Annotated[int, Field(ge=0)]
Positive = Annotated[int, Field(gt=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Tensors = dict[str, torch.Tensor]


class _Stored(BaseModel):
    model_config = ConfigDict(
        strict=True, frozen=True, extra="forbid", allow_inf_nan=False, arbitrary_types_allowed=True
    )


class Measurement(_Stored):
    """Mean loss and accuracy; None if no frame was labelled or the loss was not finite."""

    loss: float | None
    accuracy: Fraction | None


class EpochLine(_Stored):
    """The line of `metrics.jsonl` that ends an epoch, or the run within it.

    An epoch that `training.max_steps` cut short is not `complete`. If the run is resumed with more steps, it goes on,
    and has another line at its end, with the means over all of it.
    """

    kind: Literal["epoch"]
    epoch: Positive
    step: Positive
    complete: bool = True
    train: Measurement
    dev: Measurement | None


class StoredLayer(_Stored):
    """A hidden layer."""

    width: Positive
    dropout: Fraction
    norm: str


class StoredNormalization(_Stored):
    """How the features are normalized; statistics only if the kind is `global`."""

    kind: str
    mean: list[float] = []
    deviation: list[Annotated[float, Field(ge=0)]] = []
    partitions: list[str] = []


def _features(values: Any) -> Any:
    """Check settings of features as JSON, in which `timing` follows from the others."""
    if not isinstance(values, dict):
        return values
    return TypeAdapter(FeatureSettings).validate_python({k: v for k, v in values.items() if k != "timing"})


class StoredModel(_Stored):
    """A model description."""

    context: Annotated[list[Count], Field(min_length=2, max_length=2)]
    feature_dim: Positive
    hidden: list[StoredLayer]
    activation: str
    residual: bool
    inventory: list[str]
    normalization: StoredNormalization
    features: Annotated[FeatureSettings | None, BeforeValidator(_features)] = None
    states: Positive = 1
    label_shift: float = 0.0


class BestCheckpoint(_Stored):
    """The name of a run's best checkpoint and its dev accuracy."""

    name: Annotated[str, Field(pattern=CHECKPOINT_NAME)]
    accuracy: Fraction | None


class StoredCheckpoint(_Stored):
    """The content of `checkpoint.json`."""

    version: int
    epoch: Count
    step: Count
    metrics: EpochLine | None
    best: Annotated[list[Any], Field(min_length=2, max_length=2)] | None
    metrics_bytes: Count
    metrics_sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    model: StoredModel

    @model_validator(mode="after")
    def _best_is_a_checkpoint(self) -> StoredCheckpoint:
        if self.best is not None:
            BestCheckpoint(name=self.best[0], accuracy=self.best[1])
        return self


class ScheduleState(_Stored):
    """The state of the learning rate schedule beyond the number of steps."""

    scale: Annotated[float, Field(gt=0, le=1)]
    best: Fraction | None
    waited: Count


class MetricsState(_Stored):
    """Sums of losses, labelled and correct frames, over the epoch under way and since the last reading."""

    loss: torch.Tensor
    counts: torch.Tensor

    @model_validator(mode="after")
    def _fits(self) -> MetricsState:
        _expect("loss", self.loss, torch.zeros(2, dtype=torch.float64))
        _expect("counts", self.counts, torch.zeros(2, 2, dtype=torch.int64))
        for labelled, correct in self.counts.tolist():
            if not 0 <= correct <= labelled:
                raise ValueError(f"counts: {correct} correct frames of {labelled}")
        return self


class ScalerState(_Stored):
    """The state of the gradient scaler of fp16."""

    scale: Annotated[float, Field(gt=0)]
    growth_factor: Annotated[float, Field(gt=1)]
    backoff_factor: Annotated[float, Field(gt=0, lt=1)]
    growth_interval: Positive
    growth_tracker: Annotated[int, Field(ge=0, alias="_growth_tracker")]


class StepperState(_Stored):
    """The state of a `Stepper` beyond the weights that are evaluated."""

    steps: Count
    unaveraged: tuple[Tensors, Count] | None
    optimizer: dict[Count, Tensors]
    schedule: ScheduleState
    scaler: ScalerState | None
    metrics: MetricsState


class TrainingState(_Stored):
    """The content of `training.pt`: everything that training continues from, apart from the weights."""

    stepper: StepperState
    loader: dict[str, Any]
    global_batch: Positive
    generators: dict[Literal["cpu", "cuda"], list[torch.Tensor]]
    epochs: list[EpochLine]
    epoch_is_over: bool

    @property
    def completed(self) -> int:
        """The number of complete epochs."""
        return sum(line.complete for line in self.epochs)

    @model_validator(mode="after")
    def _is_consistent(self) -> TrainingState:
        complete = [line.complete for line in self.epochs]
        numbers = [1 + sum(complete[:at]) for at in range(len(complete))]
        if [line.epoch for line in self.epochs] != numbers:
            raise ValueError("epochs: not numbered from 1")
        steps = [line.step for line in self.epochs]
        if steps != sorted(set(steps)) or (steps and steps[-1] > self.stepper.steps):
            raise ValueError(f"epochs: end at steps {steps}, of {self.stepper.steps}")
        if "cpu" not in self.generators:
            raise ValueError("generators: none of the CPU")
        for tensor in (tensor for states in self.generators.values() for tensor in states):
            if tensor.dtype != torch.uint8 or tensor.ndim != 1:
                raise ValueError(f"generators: {_kind(tensor)}, expected bytes")
        return self


def check_weights(found: Mapping[str, torch.Tensor], expected: Mapping[str, torch.Tensor]) -> None:
    """Check that weights have the names, shapes and dtypes of a model's, and are finite.

    Raises:
        ValueError: they do not.
    """
    if found.keys() != expected.keys():
        names = sorted(found.keys() ^ expected.keys())
        raise ValueError(f"weights {', '.join(names[:3])} are missing or unknown")
    for name, tensor in found.items():
        _expect(name, tensor, expected[name])
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise ValueError(f"{name}: has values that are not finite")


def check_moments(found: Mapping[int, Tensors], parameters: list[torch.Tensor]) -> None:
    """Check that the state of AdamW fits the parameters, in their order; it is empty before the first update.

    Raises:
        ValueError: it does not.
    """
    if found and found.keys() != set(range(len(parameters))):
        raise ValueError(f"optimizer: state of {len(found)} parameters, expected {len(parameters)}")
    for at, moments in found.items():
        parameter = parameters[at]
        expected = {"step": torch.zeros(()), "exp_avg": parameter, "exp_avg_sq": parameter}
        if moments.keys() != expected.keys():
            raise ValueError(f"optimizer: parameter {at} has {', '.join(sorted(moments)) or 'no state'}")
        for name, tensor in moments.items():
            _expect(f"optimizer: {name} of parameter {at}", tensor, expected[name])
            if tensor.isnan().any() or (name != "exp_avg" and (tensor < 0).any()):
                raise ValueError(f"optimizer: {name} of parameter {at} has NaN or negative values")
        if not math.isfinite(moments["step"].item()):
            raise ValueError(f"optimizer: step of parameter {at} is not finite")


def one_line(error: ValidationError) -> str:
    """Return the first mistake that a model found, with its path."""
    first = error.errors(include_url=False, include_input=False)[0]
    path = ".".join(str(part) for part in first["loc"])
    return f"{path}: {first['msg']}" if path else first["msg"]


def parse_training(values: object, where: str, remedy: str) -> TrainingState:
    """Validate the content of `training.pt`.

    Raises:
        CheckpointError: a value is missing or of the wrong kind.
    """
    try:
        return TrainingState.model_validate(values)
    except ValidationError as error:
        raise CheckpointError(f"{where}: invalid ({one_line(error)}); {remedy}") from error


def _expect(name: str, found: torch.Tensor, expected: torch.Tensor) -> None:
    plain = found.layout == torch.strided and not found.is_meta
    if not plain or found.shape != expected.shape or found.dtype != expected.dtype:
        raise ValueError(f"{name}: {_kind(found)}, expected {_kind(expected)}")


def _kind(tensor: torch.Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}"
