"""`dali-asr train`."""

from __future__ import annotations

import json
import os
import shlex
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from dali_asr.cli.commands import Overrides, complete_recipe, is_valid_setting
from dali_asr.cli.console import copied_to, error_line, progress_bar, say, stdout, warn
from dali_asr.errors import DaliAsrError, UsageError
from dali_asr.runs import Reporter
from dali_asr.runs.curves import epoch_label
from dali_asr.runs.reporter import epoch_lines, shown

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.progress import Progress, TaskID

    from dali_asr.config import Config, DataConfig
    from dali_asr.loading import WindowLoader
    from dali_asr.runs.folder import EpochTiming


class TrainCommand(TyperCommand):
    """Says of an option that is a key of the configuration how to set the key."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the arguments, as the base class does."""
        given = list(args)
        _check_resume(given)
        try:
            return super().parse_args(ctx, args)
        except Exception as error:
            option = getattr(error, "option_name", None)  # of click's NoSuchOption
            remedy = _setting_for(option, given) if isinstance(option, str) else None
            if remedy:
                raise UsageError(f"{option}: no such option of train; {remedy}") from error
            raise


def _check_resume(arguments: list[str]) -> None:
    """Check that --resume has a value: the parser takes an option that follows it for one."""
    end = arguments.index("--") if "--" in arguments else len(arguments)
    for at in range(end):
        if arguments[at] == "--resume" and (at + 1 == end or arguments[at + 1].startswith("-")):
            raise UsageError("--resume needs the path of a run (--resume RUN), or auto for the latest run of a recipe")


def _setting_for(option: str, arguments: list[str]) -> str | None:
    """Return how to set the key that an unknown option means, with the value that was given; None if it means none."""
    from dali_asr.config import Config, keys_named

    keys = keys_named(option.lstrip("-").replace("-", "_"), Config)
    if not keys:
        return None
    at = next(at for at, argument in enumerate(arguments) if argument.partition("=")[0] == option)
    _, equals, value = arguments[at].partition("=")
    if not equals:
        value = next(iter(arguments[at + 1 :]), "")
    value = value if value and (equals or not value.startswith("-")) else "VALUE"
    settings = [f"{key}={value if is_valid_setting(key, value) else 'VALUE'}" for key in keys]
    return f"write {' or '.join(shlex.join(['--set', setting]) for setting in settings)}"


_STARTING = "loading PyTorch and DALI"
_MOVE_SECONDS = 0.1  # between movements of the bar


def train(
    config: Annotated[
        str | None,
        typer.Argument(
            help="A recipe (`dali-asr config list`) or a YAML file. With --resume, the run's own by default.",
            show_default="demo",
            autocompletion=complete_recipe,
        ),
    ] = None,
    overrides: Overrides = None,
    run: Annotated[
        Path | None,
        # Not `--run`, which torchrun takes for the beginning of an option of its own.
        typer.Option(
            "--run-folder", help="The run's folder. By default one in `runs/`, named by recipe, date and time."
        ),
    ] = None,
    init: Annotated[
        str | None,
        typer.Option(
            metavar="PATH",
            help="Start from the weights of another run or checkpoint (`training.init`).",
            show_default=False,
        ),
    ] = None,
    resume: Annotated[
        str | None,
        typer.Option(
            metavar="auto|PATH",
            help="Continue a run. `auto`: the run in --run-folder, else the recipe's latest, else a new one. PATH: the "
            "folder of a run or of a checkpoint; later checkpoints are removed.",
        ),
    ] = None,
) -> None:
    """Train a model. Without arguments, train a small one on the embedded demo corpus.

    Examples:

        dali-asr train

        dali-asr train course-tiny --set data.root=hw1p2 --set training.epochs=10

        dali-asr train --resume runs/demo-20261123-121500

        torchrun --nproc-per-node 8 -m dali_asr train course-full --run-folder runs/full --resume auto
    """  # noqa: D412
    from dali_asr.config import Config

    stdout.quiet = os.environ.get("RANK", "0") != "0"  # only rank 0 prints
    source = config
    if resume == "auto" and config is None and run is None and init is None:
        raise UsageError(
            "--resume auto: of which recipe? Name it (dali-asr train RECIPE --resume auto), the folder (--run-folder), "
            "or the run itself (--resume RUN)"
        )
    if source is None and resume not in (None, "auto"):
        from dali_asr.runs.start import config_of  # imports torch

        source = str(config_of(resume) or "demo")
    if init is not None:
        overrides = [*(overrides or ()), f"training.init={json.dumps(init)}"]
    if source is None:
        config = source = _recipe_of_init(overrides or ())
    checked = Config.load(source, overrides or ())
    log = _ConsoleLog()
    with (
        copied_to(log.add),
        progress_bar() as bar,
    ):
        try:
            _run(checked, run, resume, Path(config or "demo").stem, _Terminal(bar, log))
        except DaliAsrError as error:
            if not error.reported:
                error = _with_recipe_named(error, config, resume)
                log.add(f"{error_line(error)}\n")
                raise error from error.__cause__
            time.sleep(1)  # torchrun ends all processes when the first one ends; the one that reports has to finish
            raise typer.Exit(error.exit_code) from error


def _with_recipe_named(error: DaliAsrError, config: str | None, resume: str | None) -> DaliAsrError:
    """Return an error about the corpus of a recipe that is named beside the run to resume, with what to leave out."""
    if config is None or resume in (None, "auto") or not str(error).startswith("data."):
        return error
    return type(error)(
        f"{error}; {config} took the place of the configuration of {resume}: leave {config} out to use the run's own"
    )


def _recipe_of_init(overrides: Sequence[str]) -> str | None:
    """Return the recipe of the pretrained model that training starts from; a model of another shape could not."""
    from dali_asr.pretrained import pretrained_names

    started = [setting.partition("=")[2].strip("\"'") for setting in overrides if setting.startswith("training.init=")]
    return next((name for name in started if name in pretrained_names() and not Path(name).exists()), None)


class _ConsoleLog:
    """A copy of what is printed, `console.log` in the run's folder; kept in memory until there is a folder."""

    def __init__(self) -> None:
        self._path: Path | None = None
        self._waiting = ""

    def add(self, text: str) -> None:
        """Add a text; one that cannot be written is added with the next."""
        self._waiting += text
        if self._path:
            with suppress(OSError), self._path.open("a", encoding="utf-8", errors="backslashreplace") as file:
                file.write(self._waiting)
                self._waiting = ""

    def open(self, run: Path) -> None:
        """Write to the run's folder from now on."""
        self._path = run / "console.log"


class _Terminal(Reporter):
    """Shows a progress bar, and prints the metrics of every epoch."""

    def __init__(self, bar: Progress, log: _ConsoleLog) -> None:
        self._bar, self._log = bar, log
        self._tasks: dict[str, TaskID] = {}
        self._began = time.perf_counter()
        self._moved = 0.0
        self.steps = 0  # done now
        self._steps_per_epoch = self._epochs = 1
        self._show(_STARTING, None, 0)

    @property
    def seconds(self) -> float:
        """Seconds since training began."""
        return time.perf_counter() - self._began

    def packing(self, stage: str, done: int, total: int) -> None:
        self._show(stage, total, done)

    def started(self, run: Path, loader: WindowLoader, parameters: int, step: int, steps: int) -> None:
        self._clear()
        self._log.open(run)
        self._steps_per_epoch, self._epochs = len(loader), -(-steps // len(loader))
        say(f"Training {parameters:,} parameters on {_describe(loader)}, {steps:,} steps")
        say(f"Run: {run}" + (f", resumed after step {step:,}" if step else ""))
        self._began = time.perf_counter()
        self._show("training", steps, step)

    def advanced(self, step: int) -> None:
        self.steps += 1
        now = time.monotonic()
        if now - self._moved > _MOVE_SECONDS:
            self._moved = now
            epoch = (step - 1) // self._steps_per_epoch + 1
            self._bar.update(self._tasks["training"], completed=step, description=f"epoch {epoch}/{self._epochs}")

    def stepped(self, step: int, metrics: dict[str, float | None], speed: float) -> None:
        loss, accuracy = shown(metrics["loss"], ".3f"), shown(metrics["accuracy"], ".1%")
        text = f"loss {loss}  accuracy {accuracy}  {speed:,.0f} frames/s"
        self._bar.update(self._tasks["training"], completed=step, shown=text)

    def evaluated(self, epoch: dict[str, Any], timing: EpochTiming) -> None:
        for line in epoch_lines(epoch, timing):
            say(line)

    def noted(self, message: str) -> None:
        say(message)

    def warned(self, message: str) -> None:
        warn(message)

    def _show(self, stage: str, total: int | None, done: int) -> None:
        if stage != _STARTING:
            self._clear(_STARTING)
        if stage not in self._tasks:
            self._tasks[stage] = self._bar.add_task(stage, total=total, shown="")
        self._bar.update(self._tasks[stage], completed=done, total=total)

    def _clear(self, *stages: str) -> None:
        for stage in stages or tuple(self._tasks):
            if stage in self._tasks:
                self._bar.remove_task(self._tasks.pop(stage))


def _run(config: Config, run: Path | None, resume: str | None, recipe: str, terminal: _Terminal) -> None:
    # Imported while the bar is shown, because it takes seconds.
    from dali_asr.training import train as run_training

    result = run_training(config, run=run, recipe=recipe, resume=resume, reporter=terminal)
    if result.remark:
        say(result.remark)
    evaluated = [epoch for epoch in result.epochs if epoch["dev"] and epoch["dev"]["accuracy"] is not None]
    if len(evaluated) > 1:
        best = max(evaluated, key=lambda epoch: float(epoch["dev"]["accuracy"]))
        say(f"Best: epoch {epoch_label(best)}, dev accuracy {best['dev']['accuracy']:.2%}")
    if _trails(result.epochs):
        say(_why_it_trails(config))
    done = f"Trained in {terminal.seconds:.0f} s; checkpoints" if terminal.steps else "Checkpoints"
    say(f"{done}, metrics and curves are in {result.run}")
    say(f"Next: {_next_command(config, result.run)}")
    if _has_labelled_test(config.data):
        say(f"  or: {shlex.join(['dali-asr', 'evaluate', str(result.run), '--partition', str(config.data.test)])}")
    elif evaluated:
        say(f"  or: {shlex.join(['dali-asr', 'evaluate', str(result.run)])}")


def _trails(epochs: list[dict[str, Any]]) -> bool:
    """Return whether the accuracy in training ended below that on the dev partition, which needs an explanation."""
    last = epochs[-1] if epochs else {}
    train, dev = ((last.get(name) or {}).get("accuracy") for name in ("train", "dev"))
    return train is not None and dev is not None and train < dev


def _why_it_trails(config: Config) -> str:
    from dali_asr.build import build_hidden

    dropout = any(layer.dropout for layer in build_hidden(config.model))
    only_trained = " and ".join(["dropout"] * dropout + ["masks"] * (config.loader.masking is not None))
    train, dev = (f", with {only_trained}", ", without") if only_trained else ("", "")
    return f"Train accuracy is the mean over an epoch{train}; dev accuracy is taken after it{dev}"


def _describe(loader: WindowLoader) -> str:
    from dali_asr.device import describe_device

    groups = loader.planner.layout.group_count
    streamed = f", frames streamed in {groups:,} groups per epoch" if loader.streamed else ""
    ranks = loader.spec.world_size
    together = f"{ranks} processes, the first on " if ranks > 1 else ""
    return together + "the " + describe_device(loader.device) + streamed


def _has_labelled_test(data: DataConfig) -> bool:
    """Return whether the model can be scored on a partition that did not choose the checkpoint."""
    from dali_asr.build import open_corpus
    from dali_asr.corpus.packing import quiet

    if not data.test:
        return False
    with suppress(DaliAsrError):  # the training is done, whatever became of its corpus
        return open_corpus(data, quiet).partition(data.test).labelled
    return False


def _next_command(config: Config, run: Path) -> str:
    if config.data.test:
        return shlex.join(["dali-asr", "predict", str(run), config.data.root, "--partition", config.data.test])
    return shlex.join(["dali-asr", "predict", str(run), "FEATURES.npy"])
