"""The command line. Each command imports what it needs when it runs, so that `--help` is quick."""

from dali_asr.cli.app import app, main

__all__ = ["app", "main"]
