"""The embedded demo corpus and recording: synthetic speech to try the commands with, unfit to judge a model by."""

from pathlib import Path

DEMO_CORPUS = Path(__file__).parent / "corpus"

DEMO_RECORDING = Path(__file__).parent / "demo.wav"

__all__ = ["DEMO_CORPUS", "DEMO_RECORDING", "recording_path"]


def recording_path(name: str) -> Path:
    """Return the path of a name: `demo.wav` is the embedded recording, unless there is a file of that name."""
    return DEMO_RECORDING if name == DEMO_RECORDING.name and not Path(name).exists() else Path(name)
