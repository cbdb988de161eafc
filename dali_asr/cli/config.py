"""`dali-asr config`: recipes, and checking one's own."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Annotated

import typer

from dali_asr.cli.console import say

app = typer.Typer(no_args_is_help=True, rich_markup_mode="markdown", help="Show, copy and check configurations.")


@app.command("list")
def list_recipes() -> None:
    """List the shipped recipes."""
    from dali_asr.config import find_config, recipe_names

    for name in recipe_names():
        first = find_config(name).read_text(encoding="utf-8").splitlines()[0]
        say(f"{name:<14} {first.lstrip('# ')}")


@app.command()
def show(
    name: Annotated[str, typer.Argument(help="A recipe, or a file.")],
    full: Annotated[bool, typer.Option("--full", help="Print all keys, with their defaults.")] = False,
) -> None:
    """Print a recipe as it is written."""
    from dali_asr.config import Config, find_config

    if full:
        typer.echo(Config.load(name).to_yaml(), nl=False)
        return
    typer.echo(find_config(name).read_text(encoding="utf-8"), nl=False)


@app.command()
def copy(
    name: Annotated[str, typer.Argument(help="A recipe.")],
    file: Annotated[Path, typer.Argument(help="Where to; to be edited, then trained by its path.")],
    force: Annotated[bool, typer.Option("--force", help="Overwrite the file.")] = False,
) -> None:
    """Copy a recipe, to change it."""
    from dali_asr.config import find_config
    from dali_asr.errors import DataError
    from dali_asr.files import check_output

    content = find_config(name).read_text(encoding="utf-8")
    check_output(file, overwrite=force)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content, encoding="utf-8")
    except OSError as error:
        raise DataError(f"{file}: {error.strerror}; choose another place") from error
    say(f"Copied to {file}. Next: {shlex.join(['dali-asr', 'train', str(file)])}")


@app.command()
def validate(file: Annotated[str, typer.Argument(help="A YAML file, or a recipe.")]) -> None:
    """Check a configuration; all its mistakes are shown at once."""
    from dali_asr.config import Config

    Config.load(file)
    say(f"{file}: valid")


@app.command()
def schema() -> None:
    """Print the JSON Schema, by which editors complete and check the YAML."""
    from dali_asr.config import Config

    typer.echo(json.dumps(Config.model_json_schema(), indent=2))
