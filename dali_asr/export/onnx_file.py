"""A run to an ONNX file that was compared with the run's own predictions, and a model card beside it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from dali_asr.corpus.packing import quiet
from dali_asr.errors import ExportError, UsageError
from dali_asr.export.card import model_card
from dali_asr.export.graph import CHUNK, INPUT, build_graph
from dali_asr.files import check_output, disk_errors, sweep, write_file
from dali_asr.inference.trained import TrainedModel, run_config
from dali_asr.model import parameter_count
from dali_asr.runs.checkpoint import load_checkpoint, output_folder, run_of, shown_name

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from dali_asr.corpus.packing import Progress
    from dali_asr.runs.checkpoint import Which

TOLERANCE = 1e-4  # of log-probabilities, absolute and relative
_MAX_SIZE = 2**31 - 2**20  # bytes; a protobuf message is smaller than 2 GiB
_SUFFIX = ".onnx"


@dataclass(frozen=True)
class Exported:
    """What `export_onnx` wrote.

    Attributes:
        path: the ONNX file.
        card: the model card.
        checkpoint: name of the exported checkpoint, or of the pretrained model.
        difference: the largest difference of log-probabilities between ONNX and the run's own predictions.
    """

    path: Path
    card: Path
    checkpoint: str
    difference: float


def export_onnx(
    run: str | Path,
    output: str | Path | None = None,
    *,
    checkpoint: Which = "best",
    overwrite: bool = False,
    progress: Progress = quiet,
) -> Exported:
    """Write a run's model as an ONNX file, and a model card beside it.

    The file maps `frames` `[T, D]` of one utterance, float32 and not normalized, T at least 1, to `log_probabilities`
    `[T, C]`. Its metadata hold the symbols in label order. It is run by onnxruntime and compared with the run's own
    predictions before it is written.

    Args:
        run: folder of a run, or of one of its checkpoints.
        output: the file to write, `.onnx`; by default `model.onnx` in the run's folder, for a pretrained model in the
            current one. The card has the suffix `.md`.
        checkpoint: `best` or `last`.
        overwrite: whether existing files are replaced.
        progress: called with the progress of both stages.

    Raises:
        UsageError: the output exists or is not named `.onnx`, a package is missing, or the model is too large.
        CheckpointError: the folder is not a run, or the checkpoint is damaged.
        DataError: the disk is full or cannot be written, or a file that the card needs is damaged.
        ExportError: the predictions differ.
    """
    if not isinstance(run, (str, Path)):
        raise UsageError(
            f"export_onnx: received a {type(run).__name__}; give the folder of a run. Another module is exported by "
            "torch.onnx.export"
        )
    _check_packages()
    folder = run_of(Path(run).expanduser())
    path = Path(output).expanduser() if output else output_folder(Path(run).expanduser()) / f"model{_SUFFIX}"
    card = _check_outputs(path, overwrite=overwrite)
    trained = load_checkpoint(Path(run).expanduser(), checkpoint)
    config = run_config(folder, trained)
    model = TrainedModel.of(trained, config.data.dtype or "float32", torch.device("cpu"))
    parameters = parameter_count(model)
    if 4 * parameters > _MAX_SIZE:
        raise UsageError(f"{run}: {parameters:,} parameters; an ONNX file holds at most {_MAX_SIZE // 4:,}")
    progress("exporting", 0, 1)
    content = build_graph(model).SerializeToString()
    progress("exporting", 1, 1)
    difference = compare(content, model, progress)
    text = model_card(
        folder,
        trained,
        config,
        file=path.name,
        size=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
        parameters=parameters,
    )
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        sweep(path.parent)
        write_file(path, content)
        write_file(card, text.encode())
    return Exported(path, card, shown_name(Path(run).expanduser(), trained), difference)


def compare(content: bytes, model: TrainedModel, progress: Progress = quiet) -> float:
    """Run an ONNX file on utterances of random frames; return the largest difference to the model's log-probabilities.

    The lengths are 1, that of a window, and one more than a chunk.

    Raises:
        ExportError: a difference exceeds the tolerance.
    """
    session = open_session(content)
    lengths = (1, sum(model.context) + 1, CHUNK + 1)
    largest = 0.0
    for done, length in enumerate(lengths):
        progress("checking", done, len(lengths))
        frames = _random_frames(model, length)
        found = session.run(None, {INPUT: frames})[0]
        expected = model.log_probabilities(frames)
        if not np.allclose(found, expected, rtol=TOLERANCE, atol=TOLERANCE):
            raise ExportError(
                f"export: log-probabilities of {length} frames differ by {np.abs(found - expected).max():g} from the "
                "run's own, and nothing is written; use other versions of torch, onnxscript or onnxruntime"
            )
        largest = max(largest, float(np.abs(found - expected).max()))
    progress("checking", len(lengths), len(lengths))
    return largest


def open_session(content: bytes) -> Any:
    """Return an onnxruntime session on the CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # what fails is raised
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def _random_frames(model: TrainedModel, length: int) -> NDArray[np.float32]:
    """Return frames `[T, D]` with the mean and deviation of the training frames, where they are known."""
    frames = np.random.default_rng(length).standard_normal((length, model.feature_dim))
    if model.normalization.kind == "global":
        frames = frames * np.array(model.normalization.deviation) + np.array(model.normalization.mean)
    return frames.astype(np.float32)


def _check_packages() -> None:
    missing = [name for name in ("onnx", "onnxruntime", "onnxscript") if find_spec(name) is None]
    if missing:
        raise UsageError(f"export: needs {', '.join(missing)}; pip install 'dali-asr[onnx]'")


def _check_outputs(path: Path, *, overwrite: bool) -> Path:
    """Refuse an output that cannot be written; return the path of the card."""
    if path.suffix != _SUFFIX:
        raise UsageError(f"{path}: is not named as an ONNX file; give a name that ends in {_SUFFIX}")
    card = path.with_suffix(".md")
    for file in (path, card):
        check_output(file, overwrite=overwrite)
    return card
