"""The embedded demo corpus and recording: synthetic speech to try the commands with, unfit to judge a model by."""

from pathlib import Path

DEMO_CORPUS = Path(__file__).parent / "corpus"

DEMO_RECORDING = Path(__file__).parent / "demo.wav"

__all__ = ["DEMO_CORPUS", "DEMO_RECORDING"]
