"""From settings to vary to the runs of a sweep: a grid of combinations, or some of them drawn at random."""

from __future__ import annotations

import json
import math
import random
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dali_asr.config import DEMO, Config, find_config
from dali_asr.config.reading import apply_overrides, read_choices, read_yaml
from dali_asr.errors import ConfigError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

_SEED = "training.seed"
_MAX_NAME = 80  # characters of a run's name


@dataclass(frozen=True)
class SweepRun:
    """A run of a sweep.

    Attributes:
        name: the name of its folder.
        values: the varied keys with their values.
        seed: `training.seed`.
        config: the whole configuration.
    """

    name: str
    values: dict[str, Any]
    seed: int
    config: Config


@dataclass(frozen=True)
class SweepPlan:
    """The runs of a sweep, all of them valid.

    Attributes:
        recipe: the name of the recipe.
        base: the configuration before anything is varied.
        vary: the keys with the values to combine.
        seeds: the number of seeds of every combination.
        random: the number of combinations that were drawn; None for all.
        runs: the runs, those of one combination in succession.
    """

    recipe: str
    base: Config
    vary: dict[str, list[Any]]
    seeds: int
    random: int | None
    runs: tuple[SweepRun, ...]

    def identity(self) -> dict[str, Any]:
        """Return what two sweeps have to share for one to continue the other, as JSON values."""
        config = self.base.model_dump(mode="json", exclude={"run"})
        return {"config": config, "vary": self.vary, "seeds": self.seeds, "random": self.random}


def plan_sweep(
    source: str | None,
    vary: Sequence[str],
    *,
    overrides: Sequence[str] = (),
    seeds: int | None = None,
    random: int | None = None,
    recipe: str = DEMO,
) -> SweepPlan:
    """Combine settings, and check every combination.

    Args:
        source: a recipe or a YAML file, as for `Config.load`.
        vary: the keys with their values, as `section.key=A,B,C`, the values in YAML.
        overrides: settings of all runs.
        seeds: the number of seeds, the same for every combination: `training.seed` and those that follow it.
        random: the number of combinations to draw, without repetition; the same ones for the same `training.seed`.
        recipe: the name of the recipe.

    Raises:
        ConfigError: the configuration is invalid before anything is varied.
        UsageError: an invalid combination; a key varied twice or without values; more random combinations than there
            are; nothing that varies.
    """
    base = Config.load(source, overrides)
    _check_base(base, seeds)
    choices = _read_vary(vary, varies_seed=seeds is not None)
    if not choices and (seeds or 1) < 2:
        raise UsageError("sweep: nothing varies; vary a setting (--vary SECTION.KEY=A,B,C), or give several seeds")
    total = math.prod(len(values) for values in choices.values())
    if random is not None and not 1 <= random <= total:
        raise UsageError(f"--random {random}: there are {total:,} combinations; give 1 to {total:,}")
    numbers = range(total) if random is None else sorted(_generator(base).sample(range(total), random))
    values = read_yaml(find_config(str(source or DEMO)))
    runs: list[SweepRun] = []
    known: dict[Config, str] = {}
    for number in numbers:
        chosen = _combination(choices, number)
        config = _checked(values, overrides, chosen, choices)
        if config in known:
            raise UsageError(f"combinations {known[config]} and {label(chosen)} are the same; leave one out")
        known[config] = label(chosen)
        name = f"{number + 1:0{len(str(total))}d}"
        runs.extend(_seeded(name, chosen, config, seeds))
    return SweepPlan(recipe, base, choices, seeds or 1, random, tuple(runs))


def label(values: dict[str, Any]) -> str:
    """Return a combination as it would be set: `section.key=value` and so on."""
    return " ".join(f"{key}={shown(value)}" for key, value in values.items()) or "of no varied key"


def shown(value: Any) -> str:
    """Return a value as text: JSON without quotes and spaces."""
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))


def _check_base(base: Config, seeds: int | None) -> None:
    if base.data.dev is None:
        raise UsageError("data.dev: null, but a sweep compares dev accuracy; name a partition to evaluate on")
    if seeds is not None and seeds < 1:
        raise UsageError(f"--seeds {seeds}: expected 1 or more")


def _read_vary(vary: Sequence[str], *, varies_seed: bool) -> dict[str, list[Any]]:
    """Return the keys with their values."""
    choices: dict[str, list[Any]] = {}
    for setting in vary:
        key, values = read_choices(setting)
        if key in choices:
            raise UsageError(f"--vary {setting}: {key} is varied twice; give all its values at once")
        if key == _SEED and varies_seed:
            raise UsageError(f"--vary {setting}: {key} is varied by --seeds too; give one of them")
        if key.split(".")[0] == "run":
            raise UsageError(f"--vary {setting}: a sweep names the folders of its runs itself; vary something else")
        choices[key] = values
    return choices


def _generator(base: Config) -> random.Random:
    return random.Random(base.training.seed)  # noqa: S311 - draws settings, no secrets


def _combination(choices: dict[str, list[Any]], number: int) -> dict[str, Any]:
    """Return a combination of the grid by its number; the last key varies fastest."""
    chosen: dict[str, Any] = {}
    for key, values in reversed(choices.items()):
        number, at = divmod(number, len(values))
        chosen[key] = values[at]
    return dict(reversed(chosen.items()))


def _checked(
    values: dict[str, Any], overrides: Sequence[str], chosen: dict[str, Any], choices: dict[str, list[Any]]
) -> Config:
    """Return the configuration of a combination.

    Raises:
        UsageError: it is invalid; one line.
    """
    try:
        config = _config(values, overrides, chosen)
    except ConfigError as error:
        lists = next((key for key in chosen if _is_list(key, values, overrides, chosen)), None)
        hint = f"; write lists as '{lists}={','.join(shown([value]) for value in choices[lists])}'" if lists else ""
        raise UsageError(f"combination {label(chosen)}: {'; '.join(error.problems)}{hint}") from error
    _check_base(config, None)
    return config


def _config(values: dict[str, Any], overrides: Sequence[str], chosen: dict[str, Any]) -> Config:
    settings = dict(values)
    apply_overrides(settings, [*overrides, *(f"{key}={json.dumps(value)}" for key, value in chosen.items())])
    return Config.check(settings)


def _is_list(key: str, values: dict[str, Any], overrides: Sequence[str], chosen: dict[str, Any]) -> bool:
    """Return whether an invalid combination becomes valid if a key's value is a list of one."""
    try:
        _config(values, overrides, {**chosen, key: [chosen[key]]})
    except ConfigError:
        return False
    return True


def _seeded(number: str, chosen: dict[str, Any], config: Config, seeds: int | None) -> list[SweepRun]:
    """Return the runs of a combination, one per seed."""
    first = config.training.seed
    parts = [number, *(f"{key.rpartition('.')[2]}-{shown(value)}" for key, value in chosen.items())]
    name = re.sub(r"[^\w.-]+", "-", "-".join(parts))[:_MAX_NAME].strip("-.")
    if seeds is None:
        return [SweepRun(name, chosen, first, config)]
    return [
        SweepRun(f"{name}-seed-{seed}", chosen, seed, _with_seed(config, seed)) for seed in range(first, first + seeds)
    ]


def _with_seed(config: Config, seed: int) -> Config:
    return config.model_copy(update={"training": config.training.model_copy(update={"seed": seed})})
