"""Configuration: recipes, overrides, and all mistakes at once."""

from __future__ import annotations

import os
import tracemalloc
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError as SchemaError
from pydantic import BaseModel

from dali_asr.config import Config, keys, keys_named, recipe_names, recipes_folder
from dali_asr.errors import ConfigError, DaliAsrError, UsageError
from tests import config_table

RECIPES = ["course-best", "course-full", "course-tiny", "demo", "english-small", "so762-mini"]

BAD = """
data: {normalization: utternce, trian: x, train: []}
loader:
  context: [3]
  masking: {scope: windows, time: {count: [2, 1], width: [0, 3]}, frequncy: 3}
  batch_size: 0
  device: gpu
model: {dropout: 2, preset: tiny, hidden: [3]}
training: {optimizer: {lr: 3, betas: [0.9, 1.5]}, precision: fp8, epochs: many}
run: {name: ../up}
modle: 3
"""

PROBLEMS = {
    "data.normalization": "'utternce'; allowed are utterance, global, none; did you mean utterance?",
    "data.trian": "did you mean train?",
    "data.train": "received nothing",
    "loader.context": "received [3]; expected one number of frames, 0 to 1000, or [left, right]",
    "loader.masking.scope": "did you mean window?",
    "loader.masking.time.count": "[2, 1]; the first must not exceed the second",
    "loader.masking.time.width": "received [0, 3]; expected 1 or more",
    "loader.masking.frequncy": "did you mean frequency?",
    "loader.batch_size": "received 0",
    "loader.device": "received 'gpu'; allowed are auto, cpu, cuda, cuda:N",
    "model.dropout": "received 2",
    "model.hidden": "received [3] beside preset tiny",
    "training.optimizer.lr": "unknown key; did you mean training.optimizer.learning_rate?",
    "training.optimizer.betas[1]": "received 1.5",
    "training.precision": "'fp8'; allowed are fp32, bf16",
    "training.epochs": "received 'many'",
    "run.name": "received '../up'",
    "modle": "did you mean model?",
}


def test_mistakes_of_overrides_are_not_called_those_of_the_file(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text("loader: {context: 2}")
    with pytest.raises(ConfigError, match=rf"^--set \({file} itself is valid\): 1 mistake\n  loader.context: "):
        Config.load(file, ["loader.context=wide"])
    file.write_text("loader: {context: far}")
    with pytest.raises(ConfigError, match=rf"^{file}: 2 mistakes"):
        Config.load(file, ["training.epochs=x"])


def test_all_mistakes_are_reported_at_once_each_with_its_path(tmp_path: Path) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text(BAD)
    with pytest.raises(ConfigError) as error:
        Config.load(file)
    found = dict(problem.split(": ", 1) for problem in error.value.problems)
    assert set(found) == set(PROBLEMS)
    for path, part in PROBLEMS.items():
        assert part in found[path]


def test_the_shipped_recipes_are_the_known_ones() -> None:
    assert recipe_names() == RECIPES


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_opens_with_a_summary_and_its_commands(name: str) -> None:
    text = (recipes_folder() / f"{name}.yaml").read_text()
    assert text.startswith("# ")
    assert text.splitlines()[1] == "#"
    commands = [line.lstrip("# ") for line in text.splitlines() if "dali-asr train" in line]
    assert len(commands) == 2
    assert commands[0].startswith("dali-asr train" if name == "demo" else f"dali-asr train {name}")
    Config.load(name)


def test_course_recipes_have_the_notebooks_parameters() -> None:
    for name in ("course-tiny", "course-full"):
        config = Config.load(name)
        assert config.loader.context == (30, 30)
        assert config.loader.batch_size == 512
        assert config.training.epochs == 5
        assert config.loader.drop_last
        assert config.loader.masking is None
    default = Config.load("course-tiny", ["loader.masking={}"]).loader.masking
    assert default is not None
    assert (default.frequency.width, default.time.width, default.time.count) == ((3, 3), (3, 7), (0, 2))


def test_overrides_set_values_of_sections() -> None:
    config = Config.load(
        None, ["loader.context=[3, 1]", "training.optimizer.learning_rate=1e-4", "data.train=[a, b]", "data.dev=null"]
    )
    assert config.loader.context == (3, 1)
    assert config.training.optimizer.learning_rate == 1e-4
    assert config.data.partitions == ("a", "b", "test")
    assert Config.load(None, ["loader.context=7"]).loader.context == (7, 7)
    with pytest.raises(UsageError, match=r"section\.key=value"):
        Config.load(None, ["training.epochs"])
    with pytest.raises(ConfigError, match=r"training\.epoch: unknown key.*did you mean epochs"):
        Config.load(None, ["training.epoch=1"])


def test_an_override_of_the_layers_replaces_the_recipes(tmp_path: Path) -> None:
    """But two that were typed at one place stay a mistake."""
    model = Config.load("demo", ["model.hidden=[64,64]"]).model
    assert (model.preset, model.hidden) == (None, (64, 64))
    model = Config.load("demo", ["model.hidden=[64]", "model.preset=null"]).model
    assert (model.preset, model.hidden) == (None, (64,))
    file = tmp_path / "mine.yaml"
    file.write_text("model: {hidden: [8, 8], norm: [batch, none]}")
    assert Config.load(file, ["model.preset=full", "model.norm=none"]).model.hidden is None
    with pytest.raises(ConfigError, match=r"model\.norm: received \['batch', 'none'\] for 1 hidden layers"):
        Config.load(file, ["model.hidden=[64]"])
    for overrides in (["model.hidden=[64]", "model.preset=full"], ["model={hidden: [64], preset: full}"]):
        with pytest.raises(ConfigError, match=r"model\.hidden: received \[64\] beside preset full"):
            Config.load("demo", overrides)
    file.write_text("model: {hidden: [8], preset: tiny}")
    with pytest.raises(ConfigError, match=r"received \[8\] beside preset tiny"):
        Config.load(file, ["model.norm=none"])


@pytest.mark.parametrize(
    ("key", "meant"),
    [
        ("training.lr", "training.optimizer.learning_rate"),
        ("learning_rate", "training.optimizer.learning_rate"),
        ("model.batch_size", "loader.batch_size"),
        ("epochs", "training.epochs"),
        ("model.Dtype", "data.dtype or loader.dtype"),
        ("training.optimizer.momentum", "training.optimizer.betas"),
        ("loader.masking.width", "loader.masking.frequency.width or loader.masking.time.width"),
        ("training.scheduler", "training.schedule"),
    ],
)
def test_an_unknown_key_that_is_elsewhere_says_where(key: str, meant: str) -> None:
    with pytest.raises(ConfigError) as error:
        Config.load("demo", [f"{key}=1"])
    assert error.value.problems == (f"{key}: unknown key; did you mean {meant}?",)


def test_every_other_name_of_a_key_means_one() -> None:
    for name in keys._OTHER_NAMES:
        assert keys_named(name, Config), name


@pytest.mark.parametrize(("there", "typed"), [("mine.yaml", "mine.yml"), ("mine.yml", "mine.yaml")])
def test_the_other_spelling_of_yaml_is_suggested(there: str, typed: str, tmp_path: Path) -> None:
    (tmp_path / there).touch()
    with pytest.raises(UsageError, match=f"no such file or recipe.*; did you mean {tmp_path / there}"):
        Config.load(tmp_path / typed)


def test_unreadable_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="did you mean course-tiny"):
        Config.load("course-tinny")
    broken = tmp_path / "broken.yaml"
    broken.write_text("a: [1")
    with pytest.raises(ConfigError, match=r"(?s)broken\.yaml.*line 1"):
        Config.load(broken)
    broken.write_text("- a")
    with pytest.raises(ConfigError, match=r"expected sections \(data, loader"):
        Config.load(broken)
    broken.write_text("a: !!python/object/apply:os.getcwd []")
    with pytest.raises(ConfigError, match="could not determine a constructor"):
        Config.load(broken)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("data: {root: a}\nloader: {}\ndata: {root: b}", "line 3, column 1: duplicate key 'data'"),
        ("data: {inventory: [A, B, A]}", "data.inventory: received 'A' twice; name each once"),
        ("data: {inventory: []}", "data.inventory: received nothing"),
        ("loader: {context: -3}", "loader.context: received -3; expected one number of frames, 0 to 1000"),
        ("loader: {context: 5000000}", "loader.context: received 5000000; expected one number"),
        ("model: {dropout: [0.1, 2, 0.1]}", "model.dropout[1]: received 2"),
        ("loader: {batch_size: true}", "loader.batch_size: received True; input should be a valid integer"),
        ("loader: {context: [true, 3]}", "loader.context[0]: received True; input should be a valid integer"),
        (
            "{data: {dev: null}, training: {early_stopping: 2}}",
            "training: received early_stopping without data.dev; name a partition to evaluate on",
        ),
        (
            "{data: {dev: null}, training: {schedule: {kind: plateau}}}",
            "training: received schedule.kind plateau without data.dev; name a partition to evaluate on",
        ),
        (
            "training: {schedule: cosine}",
            "training.schedule: received 'cosine'; expected a section, {} for its defaults, with the keys kind, "
            "warmup_steps, floor, factor, patience",
        ),
        (
            "loader: {masking: true}",
            "loader.masking: received True; expected a section, {} for its defaults, with the keys",
        ),
        ("model: {residual: 1}", "model.residual: received 1; input should be a valid boolean"),
        ("model: {hidden: [0, 5], dropout: [0.1, 0.2]}", "model.hidden[0]: received 0"),
        ("wandb: {project: a/b}", "wandb.project: received 'a/b'; allowed are all characters but / \\ # ? % :"),
        ("wandb: {entity: ''}", "wandb.entity: received ''; string should have at least 1 character"),
        ("data: {train: [a, a]}", "data.train: received 'a' twice; name each once"),
        ("loader: {context: 1, masking: {}}", "loader.masking: time masks up to 7 wide, but a window has 3 frames"),
        ("a: [1", "line 1, column"),
        ("model: {norm: [batch, none]}", "model.norm: received ['batch', 'none'] for 3 hidden layers"),
        ("training: {optimizer: {eps: .inf}}", "training.optimizer.eps: received inf; input should be a finite"),
    ],
)
def test_a_mistake_is_one_line(tmp_path: Path, text: str, problem: str) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError) as error:
        Config.load(file)
    (line,) = error.value.problems
    assert line.startswith(problem)


def test_yaml_is_read_back_as_the_same_configuration() -> None:
    config = Config.load("course-full", ["loader.masking={}", "model.dropout=[0,0,0,0,0,0,0.5]"])
    assert Config.check(yaml.safe_load(config.to_yaml())) == config


def test_configurations_are_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Config().data.root = "elsewhere"  # type: ignore[misc]


def sections(model: type[BaseModel]) -> list[type[BaseModel]]:
    """Return a section and all sections in it."""
    found = [model]
    for field in model.model_fields.values():
        for kind in (field.annotation, *getattr(field.annotation, "__args__", ())):
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                found += sections(kind)
    return found


def test_every_field_is_documented() -> None:
    for section in sections(Config):
        for name, field in section.model_fields.items():
            assert field.description, f"{section.__name__}.{name}"
    definitions = Config.model_json_schema()["$defs"]
    for name in ("Masking", "Bands"):
        assert all(field["description"] for field in definitions[name]["properties"].values()), name


def test_the_tables_of_all_keys_are_current() -> None:
    """`python -m tests.config_table` writes them."""
    text = config_table.README.read_text(encoding="utf-8")
    assert text.count(config_table.BEGIN) == text.count(config_table.END) == 1
    assert text == config_table.written(text)
    for section in sections(Config):
        for name in section.model_fields:
            assert f"| `{name}` |" in text or f".{name}`\n" in text or f"### `{name}`\n" in text, name


@pytest.mark.parametrize(
    ("values", "valid"),
    [
        ({"loader": {"context": 3}}, True),
        ({"loader": {"context": [3, 4]}}, True),
        ({"loader": {"context": [3]}}, False),
        ({"loader": {"masking": {"time": {"count": [0, 1]}}}}, True),
        ({"loader": {"masking": {"time": {"count": 1}}}}, False),
        ({"data": {"train": "a"}}, True),
        ({"data": {"normalization": "x"}}, False),
        ({"nothing": 1}, False),
    ],
)
def test_the_schema_allows_what_the_models_allow(values: dict[str, Any], valid: bool) -> None:
    schema = Config.model_json_schema()
    Draft202012Validator.check_schema(schema)
    validator = Draft202012Validator(schema)
    if valid:
        validator.validate(values)
        Config.check(values)
    else:
        with pytest.raises(SchemaError):
            validator.validate(values)
        with pytest.raises(ConfigError):
            Config.check(values)


def test_depths_of_the_presets_agree_with_the_model() -> None:
    from dali_asr.model import PRESETS

    for preset, layers in PRESETS.items():
        Config.check({"model": {"preset": preset, "dropout": [0.1] * len(layers)}})
        with pytest.raises(ConfigError):
            Config.check({"model": {"preset": preset, "dropout": [0.1] * (len(layers) + 1)}})


BOMB = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 10)}]\n" for before, name in pairwise("abcdefghi")
)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (f"{BOMB}data: {{root: *i}}", "its aliases expand to more values than a configuration has"),
        ("data: &d {root: *d}", "its aliases expand to more values than a configuration has"),
        ("data: {root: 2026-02-30}", "day is out of range for month"),
        ("data: {root: 0x_}", "invalid literal for int"),
        ("data: {root: !!bool maybe}", "'maybe'"),
        ("data: {root: !!timestamp soon}", ""),
        ('data: {root: "\\U00110000"}', ""),
        ('data: {root: "a\\0b"}', "line 1, column 14: text with characters that no name can have"),
        ('data: {root: "\\ud800"}', "line 1, column 14: text with characters that no name can have"),
        (f"data: {'[' * 600}", "nested too deeply"),
        (f"data: {{root: {'9' * 5000}}}", "Exceeds the limit"),
        ("? [a]\n: b", "found unhashable key"),
    ],
    ids=range(12),
)
def test_yaml_with_no_place_in_a_configuration_is_refused(tmp_path: Path, text: str, problem: str) -> None:
    """In a file and on the command line, at once and in few words."""
    file = tmp_path / "bad.yaml"
    file.write_text(text)
    tracemalloc.start()
    with pytest.raises(ConfigError) as error:
        Config.load(file)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 50e6
    (line,) = error.value.problems
    assert problem in line
    assert len(line) < 400
    value = text.removeprefix("data: {root: ").removesuffix("}").removeprefix("data: ")
    if not text.startswith(("?", "a:", "data: &d")):
        with pytest.raises(UsageError, match="the value is not YAML"):
            Config.load(None, [f"data.root={value}"])


def test_received_values_are_shortened() -> None:
    with pytest.raises(ConfigError) as error:
        Config.check({"data": {"root": ["x" * 10_000] * 1000}, "loader": {"graph": "y" * 10_000}})
    assert all(len(line) < 1500 for line in error.value.problems)


MUTATIONS = int(os.environ.get("DALI_ASR_FUZZ", "300"))
FRAGMENTS = [
    *("&a", "*a", "<<", "?", "!", "!!int", "!!float", "!!binary", "!!set", "!!omap", "!!timestamp", "{}", "[]", "[["),
    *("}}", ":", "-", "~", "|", ">", "%", "@", "0x_", ".inf", "-.nan", "2026-02-30", '"\\U00110000"', '"\\ud800"'),
    *("\0", "\ufeff", "\u2028", "1e999", "9" * 4500, "\n", "\t"),
]


def test_mutated_configurations_give_no_other_errors(tmp_path: Path) -> None:
    """Set DALI_ASR_FUZZ to the number of mutations."""
    rng = np.random.default_rng(3)
    texts = [path.read_text() for path in recipes_folder().glob("*.yaml")] + [BAD, BOMB, Config().to_yaml()]
    file, messages = tmp_path / "mutated.yaml", []
    for _ in range(MUTATIONS):
        text = texts[rng.integers(len(texts))]
        for _ in range(rng.integers(1, 6)):
            at = int(rng.integers(len(text)))
            draw = rng.random()
            if draw < 0.5:
                text = f"{text[:at]}{FRAGMENTS[rng.integers(len(FRAGMENTS))]}{text[at + int(rng.integers(4)) :]}"
            elif draw < 0.8:
                text = text[:at] + text[at + int(rng.integers(1, 9)) :]
            else:
                text = text[:at] + chr(rng.integers(32, 127)) + text[at:]
        file.write_text(text)
        try:
            Config.load(file).to_yaml()
        except DaliAsrError as error:
            messages.append(str(error))
    assert len(messages) > MUTATIONS / 4
    assert max(map(len, messages)) < 20_000
