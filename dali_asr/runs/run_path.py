"""What makes a folder that of a run, and what is said of a path that is not one.

Imports little, because `compare` asks before it imports PyTorch.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from dali_asr.corpus.regular import reading
from dali_asr.errors import CheckpointError, nearest
from dali_asr.pretrained import pretrained_names

if TYPE_CHECKING:
    from pathlib import Path

CONFIG = "config.yaml"  # of the run
CHECKPOINTS = "checkpoints"  # the folder of the run in which each checkpoint is a folder
_ONNX = ".onnx"


def check_run_folder(run: Path, *, pretrained: bool) -> None:
    """Check that a run is a folder.

    Args:
        run: the run's folder.
        pretrained: whether a model in the package would do as well, which the message then says.

    Raises:
        CheckpointError: it is a file, or there is none.
        DataError: it cannot be read.
    """
    with reading(run):
        if run.is_dir():
            return
        is_file = run.exists()
    if is_file and run.suffix.lower() == _ONNX:
        raise CheckpointError(
            f"{run}: is an ONNX file, which onnxruntime runs; give the folder of the run that it was exported from"
        )
    names = pretrained_names() if pretrained else []
    problem = f"is {_kind(run)}, not the folder of a run" if is_file else "no such folder"
    or_pretrained = f", or a pretrained model ({', '.join(names)})" if names else ""
    raise CheckpointError(
        f"{run}: {problem}; give the folder of a run, as dali-asr train prints it{or_pretrained}{_near(run, names)}"
    )


def _kind(file: Path) -> str:
    from dali_asr.audio.recordings import SUFFIXES

    return "a recording" if file.suffix.lower() in SUFFIXES else "a file"


def _near(run: Path, names: list[str]) -> str:
    """Return `; did you mean RUN?` for what a path may have meant, or an empty string.

    That is the run that a file is in, or one with a similar name: beside the path, or of the pretrained models named.
    """
    folder, found = run.parent, None
    with suppress(OSError):  # what cannot be read is not suggested
        if run.exists():
            found = folder if (folder / CONFIG).is_file() else None
        else:
            runs = {entry.name: entry for entry in folder.iterdir() if (entry / CONFIG).is_file()}
            beside = {name: folder / name for name in names if len(run.parts) == 1} | runs
            found = beside.get(nearest(run.name, beside) or "")
    return f"; did you mean {found}?" if found else ""
