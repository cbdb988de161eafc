"""Which runs a sweep has, and which sweeps are refused before anything trains."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from dali_asr.errors import ConfigError, UsageError
from dali_asr.sweeps.combinations import SweepPlan, plan_sweep

RATES = "training.optimizer.learning_rate=1e-3,3e-3"
HIDDEN = "model.hidden=[64,64],[128]"


def values(plan: SweepPlan) -> list[tuple[Any, ...]]:
    return [tuple(run.values.values()) for run in plan.runs]


def test_a_grid_has_every_combination_with_the_same_seeds() -> None:
    plan = plan_sweep("demo", [RATES, HIDDEN], seeds=3, overrides=["training.seed=5"])
    expected = itertools.product(["1e-3", "3e-3"], [[64, 64], [128]], [5, 6, 7])
    found = [
        (run.values["training.optimizer.learning_rate"], run.values["model.hidden"], run.seed) for run in plan.runs
    ]
    assert found == list(expected)
    for run in plan.runs:
        assert run.config.training.optimizer.learning_rate == float(run.values["training.optimizer.learning_rate"])
        assert run.config.model.hidden == tuple(run.values["model.hidden"])
        assert run.config.model.preset is None, "a list of widths replaces the recipe's preset"
        assert run.config.training.seed == run.seed
    assert len({run.name for run in plan.runs}) == 12
    assert plan.runs[0].name == "1-learning_rate-1e-3-hidden--64-64-seed-5"


def test_values_are_yaml() -> None:
    plan = plan_sweep("demo", ["loader.masking=null,{}", "model.norm=batch,'none'"])
    assert values(plan) == [(None, "batch"), (None, "none"), ({}, "batch"), ({}, "none")]
    assert [run.config.loader.masking is None for run in plan.runs] == [True, True, False, False]


def test_random_combinations_are_distinct_and_the_same_for_a_seed() -> None:
    vary = ["training.label_smoothing=0,0.1,0.2,0.3", "loader.context=1,2,3,4,5"]
    drawn = [plan_sweep("demo", vary, random=7, overrides=[f"training.seed={seed}"]) for seed in (0, 0, 1)]
    assert len(set(values(drawn[0]))) == 7
    assert values(drawn[0]) == values(drawn[1]) != values(drawn[2])
    assert set(values(drawn[2])) <= set(values(plan_sweep("demo", vary)))
    assert values(plan_sweep("demo", vary, random=20)) == values(plan_sweep("demo", vary))


@pytest.mark.parametrize(
    ("vary", "options", "message"),
    [
        (["training.optimizer.lr=1,2"], {}, r"combination training\.optimizer\.lr=1: .*unknown key; did you mean"),
        (
            [RATES, "model.hidden=[8],[0]"],
            {},
            r"combination training\.optimizer\.learning_rate=1e-3 model\.hidden=\[0\]: model\.hidden\[0\]: received 0",
        ),
        (
            ["model.hidden=32,64"],
            {},
            r"combination model\.hidden=32: .*; write lists as 'model\.hidden=\[32\],\[64\]'$",
        ),
        (["model.hidden=0,64"], {}, r"combination model\.hidden=0: .* a list such as \[0, 0\]$"),
        ([RATES, RATES], {}, r"learning_rate is varied twice; give all its values at once$"),
        (["training.seed=1,2"], {"seeds": 2}, r"training\.seed is varied by --seeds too"),
        (["training.epochs="], {}, r"--vary training\.epochs=: no values"),
        (["training.epochs"], {}, r"--vary training\.epochs: not a list of settings"),
        (["model.hidden=[1,2"], {}, r"--vary .*: the values are not YAML \(line 1"),
        ([RATES], {"random": 3}, r"--random 3: there are 2 combinations; give 1 to 2$"),
        (["training.epochs=3,3"], {}, r"combinations training\.epochs=3 and training\.epochs=3 are the same"),
        (["run.name=a,b"], {}, r"names the folders of its runs itself"),
        (["data.dev=dev,null"], {}, r"data\.dev: null, but a sweep compares dev accuracy"),
        ([], {}, r"nothing varies"),
        ([], {"seeds": 1}, r"nothing varies"),
        ([RATES], {"seeds": 0}, r"--seeds 0: expected 1 or more"),
    ],
)
def test_an_invalid_sweep_is_refused_in_one_line(vary: list[str], options: dict[str, int], message: str) -> None:
    with pytest.raises(UsageError, match=message) as refused:
        plan_sweep("demo", vary, seeds=options.get("seeds"), random=options.get("random"))
    assert "\n" not in str(refused.value)


def test_a_mistake_outside_the_combinations_is_reported_as_by_train() -> None:
    with pytest.raises(ConfigError, match=r"^--set: 1 mistake\n  training\.epoch: unknown key"):
        plan_sweep("demo", [RATES], overrides=["training.epoch=3"])
