"""The command `dali-asr`: its groups, its errors and its exit codes."""

from __future__ import annotations

import errno
import os
import signal
import sys
import warnings
from io import TextIOWrapper
from multiprocessing import active_children
from typing import Annotated, Any, NoReturn

import typer

from dali_asr import __version__
from dali_asr.cli import (
    align,
    audit,
    bench,
    cache,
    compare,
    config,
    data,
    doctor,
    evaluate,
    export_model,
    features,
    fetch,
    handin,
    model,
    predict,
    prepare,
    profile,
    report,
    submit,
    sweep,
    train,
)
from dali_asr.cli.commands import Commands
from dali_asr.cli.console import complain, error_line, output_lost, say, stdout, warn
from dali_asr.cli.usage import is_parser_error, usage_error
from dali_asr.errors import DaliAsrError, DaliAsrWarning, UsageError

_SHOW_WARNING = warnings.showwarning
INTERRUPTED = 128 + signal.SIGINT


class _Commands(Commands):
    """Commands that report an error in one line; exit 2 for usage and configuration, 1 for data, 130 for Ctrl-C."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the arguments, as the base class does; `--debug` may stand behind a command too."""
        end = args.index("--") if "--" in args else len(args)
        options = [argument for argument in args[:end] if argument != "--debug"]
        debug = ["--debug"] if len(options) < end else []
        try:
            return super().parse_args(ctx, [*debug, *options, *args[end:]])
        except Exception as error:
            _refuse(error, ctx)
            raise

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Find the command, as the base class does; say of one that is in a group where it is."""
        try:
            return super().resolve_command(ctx, args)
        except Exception as error:
            groups = [name for name, group in self.commands.items() if args[0] in getattr(group, "commands", ())]
            if groups and is_parser_error(error):
                found = " or ".join(f"dali-asr {name} {args[0]}" for name in groups)
                raise UsageError(f"{args[0]}: no such command; did you mean {found}?") from error
            raise

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except DaliAsrError as error:
            if ctx.params.get("debug"):
                raise
            complain(error_line(error))
            raise typer.Exit(error.exit_code) from error
        except OSError as error:
            if error.errno in (errno.EPIPE, errno.ENOSPC) and error.filename is None:  # of help, which typer prints
                output_lost(error)
                raise typer.Exit(0) from None
            _unexpected(error, ctx)
        except KeyboardInterrupt as interrupt:
            complain(f"interrupted; {interrupt.args[0] if interrupt.args else 'no partial files are left'}")
            raise typer.Exit(INTERRUPTED) from None
        except Exception as error:
            _refuse(error, ctx)
            if type(error).__module__.partition(".")[0] in ("typer", "click"):
                raise
            _unexpected(error, ctx)


def _refuse(error: Exception, ctx: Any) -> None:
    """End with the line of a mistake that the parser found in the arguments; do nothing of other exceptions."""
    mistake = usage_error(error, ctx) if is_parser_error(error) else None
    if mistake:
        complain(error_line(mistake))
        raise typer.Exit(mistake.exit_code) from error


def _unexpected(error: Exception, ctx: Any) -> NoReturn:
    if ctx.params.get("debug"):
        raise error
    cause = " ".join(f"{type(error).__name__}: {error}".split())
    complain(f"error: unexpected {cause}; please report it with the output of the command with --debug")
    raise typer.Exit(1) from error


app = typer.Typer(
    cls=_Commands,
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        say(f"dali-asr {__version__}")
        raise typer.Exit


@app.callback(epilog="Try `dali-asr train`: it trains a small model on the embedded demo corpus in under two minutes.")
def root(
    *,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of errors; may stand anywhere.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Train and run frame classifiers on speech features. NVIDIA DALI cuts every window on the GPU."""


app.command("train", cls=train.TrainCommand)(train.train)
app.command("prepare")(prepare.prepare)
app.command("predict")(predict.predict)
app.command("evaluate")(evaluate.evaluate)
app.command("report")(report.report)
app.command("compare")(compare.compare)
app.command("profile")(profile.profile)
app.command("handin")(handin.handin)
app.command("export")(export_model.export)
app.command("sweep")(sweep.sweep)
app.command("features")(features.features)
app.command("align")(align.align)
app.command("audit", cls=audit.AuditCommand)(audit.audit)
app.command("doctor")(doctor.doctor)
data.app.command("submit")(submit.submit)
data.app.command("fetch")(fetch.fetch)
app.add_typer(data.app, name="data")
app.add_typer(cache.app, name="cache")
app.add_typer(config.app, name="config")
app.add_typer(model.app, name="model")
app.add_typer(bench.app, name="bench")


def main() -> None:
    """Run the command line."""
    warnings.showwarning = _show_warning
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a file's name may be no text
    try:
        app()
    except SystemExit as end:
        if end.code == INTERRUPTED:
            _leave_at_once()
        if stdout.lost and not end.code:
            raise SystemExit(1) from None
        raise


def _show_warning(message: Warning | str, category: type[Warning], *place: Any, **options: Any) -> None:
    """Print a warning of this package on one line, and others as Python does."""
    if issubclass(category, DaliAsrWarning):
        warn(str(message))
    else:
        _SHOW_WARNING(message, category, *place, **options)


def _leave_at_once() -> NoReturn:
    """End the process without waiting a second for torch and DALI to be torn down."""
    for child in active_children():
        child.kill()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(INTERRUPTED)
