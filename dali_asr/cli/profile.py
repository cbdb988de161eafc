"""`dali-asr profile`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dali_asr.cli.commands import Overrides, complete_recipe
from dali_asr.cli.console import counting, say

if TYPE_CHECKING:
    from dali_asr.reports.profile import StepProfile

_BAR_WIDTH = 40  # characters


def profile(
    config: Annotated[
        str,
        typer.Argument(help="A recipe (`dali-asr config list`) or a YAML file.", autocompletion=complete_recipe),
    ] = "demo",
    overrides: Overrides = None,
    steps: Annotated[int, typer.Option(min=1, help="Number of steps to time.")] = 50,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            help="The folder for the trace and the flame graph. By default `profile-RECIPE`.",
            show_default=False,
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite a profile.")] = False,
) -> None:
    """Show where the time of a training step goes: data, forward, backward, optimizer.

    Writes a trace that Chrome and ui.perfetto.dev open, and a flame graph of the loader, by py-spy where it is
    installed.

    Examples:

        dali-asr profile

        dali-asr profile course-tiny --set data.root=hw1p2 --steps 200
    """  # noqa: D412
    from dali_asr.config import Config

    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # torch's profiler, when it is imported, would announce its stages
    checked = Config.load(config, overrides or ())
    folder = output or Path(f"profile-{Path(config).stem}")
    with counting() as report:
        from dali_asr.device import describe_device
        from dali_asr.reports.profile import FLAME, TRACE
        from dali_asr.reports.profile import profile as run_profile

        measured = run_profile(checked, folder, steps=steps, progress=report, overwrite=force)
    where, each = describe_device(measured.device), _milliseconds(measured.step_seconds)
    say(f"{measured.steps} steps on the {where}, {each} per step")
    say(_verdict(measured))
    _show_shares(measured)
    say(f"Trace, for chrome://tracing or ui.perfetto.dev: {folder / TRACE}")
    say(f"Flame graph of the loader, by {measured.sampler}: {folder / FLAME}")


def _verdict(measured: StepProfile) -> str:
    from dali_asr.training.watch import MAX_STALL

    data = measured.share("data")
    if data > MAX_STALL:
        return f"A step waits for data during {data:.1%} of its time: the loader limits this training"
    return f"A step waits for data during {data:.1%} of its time: the model limits this training, not the loader"


def _show_shares(measured: StepProfile) -> None:
    from dali_asr.reports.profile import PARTS

    for part in PARTS:
        share = measured.share(part)
        bar = "█" * round(_BAR_WIDTH * share)
        say(f"  {part:<9}  {_milliseconds(measured.seconds[part]):>10}  {share:>6.1%}  {bar}")


def _milliseconds(seconds: float) -> str:
    return f"{1e3 * seconds:.2f} ms"
