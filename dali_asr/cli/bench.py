"""`dali-asr bench`."""

from __future__ import annotations

import typer

app = typer.Typer(no_args_is_help=True, rich_markup_mode="markdown", help="Measure.")


@app.callback()
def group() -> None:
    """Measure."""
