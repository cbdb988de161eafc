"""`dali-asr train`."""

from __future__ import annotations

import shlex
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import TextColumn

from dali_asr.cli.console import progress_bar, say

if TYPE_CHECKING:
    from rich.progress import Progress

    from dali_asr.config import Config
    from dali_asr.loading import WindowLoader
    from dali_asr.training.metrics import Measured


def train(
    config: Annotated[
        str, typer.Argument(help="A recipe (`dali-asr config list`) or a YAML file.", show_default=True)
    ] = "demo",
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Override a setting; repeat for more."),
    ] = None,
    run: Annotated[
        Path | None,
        typer.Option(help="The run's folder. By default one in `runs/`, by recipe, date and time."),
    ] = None,
) -> None:
    """Train a model; without arguments, a small one on the embedded demo corpus.

    Examples:

        dali-asr train

        dali-asr train course-tiny --set data.root=hw1p2 --set training.epochs=10
    """  # noqa: D412
    from dali_asr.config import Config

    checked = Config.load(config, overrides or ())
    with progress_bar(
        TextColumn("loss {task.fields[loss]} accuracy {task.fields[accuracy]} {task.fields[speed]} frames/s")
    ) as bar:
        _run(checked, run, Path(config).stem, bar)


def _run(config: Config, run: Path | None, recipe: str, bar: Progress) -> None:
    # Imported under the bar, which shows that something is going on.
    waiting = bar.add_task("starting", total=None, loss="–", accuracy="–", speed="–")
    from dali_asr.training import Reporter
    from dali_asr.training import train as run_training

    bar.remove_task(waiting)

    class Terminal(Reporter):
        """Shows a run as a bar, and prints a line an epoch."""

        def __init__(self) -> None:
            self._stages: dict[str, Any] = {}
            self._began = time.perf_counter()

        def packing(self, stage: str, done: int, total: int) -> None:
            if stage not in self._stages:
                self._stages[stage] = bar.add_task(stage, total=total, loss="–", accuracy="–", speed="–")
            bar.update(self._stages[stage], completed=done)

        def started(self, run: Path, loader: WindowLoader, steps: int) -> None:
            for task in self._stages.values():
                bar.remove_task(task)
            say(f"Training on the {_describe(loader)}, {steps:,} steps")
            say(f"Run: {run}")
            self._began = time.perf_counter()
            self._task = bar.add_task("training", total=steps, loss="–", accuracy="–", speed="–")

        def stepped(self, step: int, metrics: Measured, speed: float) -> None:
            bar.update(
                self._task,
                completed=step,
                loss=_format(metrics["loss"], ".3f"),
                accuracy=_format(metrics["accuracy"], ".1%"),
                speed=f"{speed:,.0f}",
            )

        def evaluated(self, epoch: dict[str, Any]) -> None:
            for name in ("train", "dev"):
                measured = epoch[name]
                if measured:
                    say(
                        f"epoch {epoch['epoch']}  {name:<5}  loss {_format(measured['loss'], '.3f')}  "
                        f"accuracy {_format(measured['accuracy'], '.2%')}"
                    )

    reporter = Terminal()
    result = run_training(config, run=run, recipe=recipe, reporter=reporter)
    say(f"Done in {time.perf_counter() - reporter._began:.0f} s; checkpoints, metrics and curves lie in {result.run}")
    say(f"Next: {_next_command(config, result.run)}")


def _describe(loader: WindowLoader) -> str:
    from dali_asr.loading import describe_device

    groups = loader.planner.layout.group_count
    streamed = f", frames streamed in {groups:,} groups an epoch" if loader.streamed else ""
    return describe_device(loader.device) + streamed


def _format(number: float | None, form: str) -> str:
    return "nan" if number is None else format(number, form)


def _next_command(config: Config, run: Path) -> str:
    if config.data.test:
        return shlex.join(["dali-asr", "predict", str(run), config.data.root, "--partition", config.data.test])
    return shlex.join(["dali-asr", "predict", str(run), "FEATURES.npy"])
