"""`dali-asr config`: show, copy and check configurations."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dali_asr.cli.commands import Commands, Overrides, complete_recipe
from dali_asr.cli.console import say

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dali_asr.config import DataConfig

app = typer.Typer(
    cls=Commands, no_args_is_help=True, rich_markup_mode="markdown", help="Show, copy and check configurations."
)


@app.command("list")
def list_recipes() -> None:
    """List the shipped recipes."""
    from dali_asr.config import find_config, recipe_names

    for name in recipe_names():
        first = find_config(name).read_text(encoding="utf-8").splitlines()[0]
        say(f"{name:<14} {first.lstrip('# ')}")


@app.command()
def show(
    name: Annotated[str, typer.Argument(help="A recipe or a YAML file.", autocompletion=complete_recipe)],
    full: Annotated[bool, typer.Option("--full", help="Print every key, including defaults.")] = False,
) -> None:
    """Print a configuration."""
    from dali_asr.config import Config, find_config

    if full:
        say(Config.load(name).to_yaml(), end="")
        return
    say(find_config(name).read_text(encoding="utf-8"), end="")


@app.command()
def copy(
    name: Annotated[str, typer.Argument(help="A recipe.", autocompletion=complete_recipe)],
    file: Annotated[Path, typer.Argument(help="The file to write. Edit it, then train with its path.")],
    force: Annotated[bool, typer.Option("--force", help="Overwrite the file.")] = False,
) -> None:
    """Copy a recipe to a file of your own."""
    from dali_asr.config import DEMO, Config, find_config
    from dali_asr.files import check_output, disk_errors, write_file

    content = find_config(name).read_bytes()
    check_output(file, overwrite=force)
    with disk_errors(file):
        file.parent.mkdir(parents=True, exist_ok=True)
        write_file(file, content)
    root = Config.load(name).data.root
    corpus = [] if root == DEMO else ["--set", "data.root=FOLDER"]
    say(f"Copied to {file}. Next: {shlex.join(['dali-asr', 'train', str(file), *corpus])}")


@app.command()
def validate(
    file: Annotated[str, typer.Argument(help="A YAML file or a recipe.", autocompletion=complete_recipe)],
    overrides: Overrides = None,
) -> None:
    """Check a configuration and its corpus, before anything is packed or trained.

    All mistakes in the configuration and all missing partitions are shown at once; other mistakes in the corpus, and a
    model above `model.max_parameters`, one after the other.
    """
    from dali_asr.build import check_corpus, check_parameters, corpus_mistakes, open_corpus
    from dali_asr.config import Config
    from dali_asr.corpus.packing import quiet
    from dali_asr.corpus.remote import is_at_hand
    from dali_asr.errors import ConfigError

    try:
        checked = Config.load(file, overrides or ())
    except ConfigError as error:
        found = _corpus_mistakes(file, overrides or ())
        of_file = _corpus_mistakes(file, ())
        if error.where == file or not of_file:
            raise ConfigError(error.where, [*error.problems, *found]) from error
        of_overrides = [*error.problems, *(mistake for mistake in found if mistake not in of_file)]
        raise ConfigError(
            file, [*(f"--set: {mistake}" for mistake in of_overrides), *(each for each in of_file if each in found)]
        ) from error
    mistakes = corpus_mistakes(checked.data)
    if len(mistakes) > 1:
        raise ConfigError(file, list(map(str, mistakes)))
    if mistakes:
        raise mistakes[0]
    whole = check_corpus(checked.data)
    if whole:
        check_parameters(checked, open_corpus(checked.data, quiet))
    later = "all but the first utterances are checked when its corpus is packed"
    if not is_at_hand(checked.data.root):
        later = "its corpus is checked when it is fetched and packed"
    say(f"{file}: valid" + ("" if whole else f"; {later}"))


def _corpus_mistakes(file: str, overrides: Sequence[str]) -> list[str]:
    """Return the mistakes in the corpus of a configuration whose data section is valid."""
    from dali_asr.build import corpus_mistakes

    data = _valid_data(file, overrides)
    return list(map(str, corpus_mistakes(data))) if data else []


def _valid_data(file: str, overrides: Sequence[str]) -> DataConfig | None:
    """Return the data section of a configuration that has mistakes; None if it has some itself."""
    from dali_asr.config import Config
    from dali_asr.config.reading import apply_overrides, find_config, read_yaml
    from dali_asr.errors import ConfigError

    values = read_yaml(find_config(file))
    apply_overrides(values, overrides)
    try:
        return Config.check({"data": values["data"]} if "data" in values else {}).data
    except ConfigError:
        return None


@app.command()
def schema() -> None:
    """Print the JSON Schema with which editors complete and check the YAML."""
    from dali_asr.config import Config

    say(json.dumps(Config.model_json_schema(), indent=2))
