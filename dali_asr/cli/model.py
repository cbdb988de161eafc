"""`dali-asr model`: show models."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from dali_asr.cli.commands import Commands, Overrides, complete_recipe
from dali_asr.cli.console import say
from dali_asr.cli.console import show as show_table

app = typer.Typer(cls=Commands, no_args_is_help=True, rich_markup_mode="markdown", help="Show models.")


@app.callback()
def group() -> None:
    """Show models."""


@app.command()
def show(
    config: Annotated[str, typer.Argument(help="A recipe or a YAML file.", autocompletion=complete_recipe)] = "demo",
    overrides: Overrides = None,
    features: Annotated[int, typer.Option(help="Features per frame, D.", min=1)] = 28,
    plot: Annotated[
        Path | None,
        typer.Option(help="Draw the model's graph into this file: .svg, .png or .pdf.", show_default=False),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite the file.")] = False,
) -> None:
    """Print a model's layers, shapes and parameter counts, and draw them."""
    from dali_asr.build import build_hidden, check_size
    from dali_asr.config import Config
    from dali_asr.inventory import resolve_inventory
    from dali_asr.model import MLP, parameter_count, summarize
    from dali_asr.runs.diagram import check_diagram, write_diagram

    if plot:
        check_diagram(plot, overwrite=force)
    checked = Config.load(config, overrides or ())
    left, right = checked.loader.context
    window = left + 1 + right
    model = MLP(
        window=window,
        feature_dim=features,
        classes=len(resolve_inventory(checked.data.inventory)),
        hidden=build_hidden(checked.model),
        activation=checked.model.activation,
        residual=checked.model.residual,
        states=checked.model.states,
    )
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("layer", overflow="fold")
    table.add_column("output", justify="right", no_wrap=True)
    table.add_column("parameters", justify="right", no_wrap=True)
    table.add_row("windows", f"[B, {window}, {features}]", "")
    for line in summarize(model, window, features):
        table.add_row(line.name, line.output, f"{line.parameters:,}" if line.parameters else "")
    show_table(table)
    say(f"{parameter_count(model):,} parameters; B is the batch size")
    check_size(model, checked.model)
    if plot:
        write_diagram(model, plot, window=window, feature_dim=features, title=Path(config).stem, overwrite=force)
        say(f"Graph: {plot}")
