"""Configuration: pydantic sections, read from YAML and overrides, and the shipped recipes."""

from dali_asr.config.keys import keys_named
from dali_asr.config.reading import find_config, recipe_names, recipes_folder
from dali_asr.config.sections import (
    DEMO,
    IN_MEMORY,
    Config,
    DataConfig,
    LoaderConfig,
    ModelConfig,
    OptimizerConfig,
    RunConfig,
    ScheduleConfig,
    TrainingConfig,
)

__all__ = [
    "DEMO",
    "IN_MEMORY",
    "Config",
    "DataConfig",
    "LoaderConfig",
    "ModelConfig",
    "OptimizerConfig",
    "RunConfig",
    "ScheduleConfig",
    "TrainingConfig",
    "find_config",
    "keys_named",
    "recipe_names",
    "recipes_folder",
]
