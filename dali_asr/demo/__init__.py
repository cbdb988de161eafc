"""The embedded demo corpus: synthetic speech to try the commands with, unfit to judge a model by."""

from pathlib import Path

DEMO_CORPUS = Path(__file__).parent / "corpus"

__all__ = ["DEMO_CORPUS"]
