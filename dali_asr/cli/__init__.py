"""The command line. Each command imports the heavy packages only when it runs, so that `--help` is quick."""

from dali_asr.cli.app import app, main

__all__ = ["app", "main"]
