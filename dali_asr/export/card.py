"""The model card: what the run knows of its model, in Markdown.

Sections follow Mitchell et al. 2019, "Model cards for model reporting". What the run does not record is said to be
unknown.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from dali_asr.corpus import FRAME_PERIOD
from dali_asr.environment import installed_version
from dali_asr.errors import DataError, printable
from dali_asr.pretrained import PRETRAINED, is_pretrained
from dali_asr.runs.curves import epoch_label
from dali_asr.runs.folder import ABOUT

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from dali_asr.config import Config
    from dali_asr.runs.checkpoint import Checkpoint
    from dali_asr.runs.description import ModelDescription

_SCORES = {
    "frame accuracy": "accuracy",
    "without silence": "accuracy_without_silence",
    "top 3": "top3_accuracy",
    "macro F1": "macro_f1",
    "phoneme error rate": "phoneme_error_rate",
    "calibration error": "calibration_error",
}
_USE = """
import json

import numpy as np
import onnxruntime

session = onnxruntime.InferenceSession("{file}")
frames = np.load("{array}").astype(np.float32)  # [T, {features}], not normalized
(log_probabilities,) = session.run(None, {{"frames": frames}})
symbols = np.array(json.loads(session.get_modelmeta().custom_metadata_map["symbols"]))
labels = symbols[log_probabilities.argmax(axis=1)]  # [T]
"""
_TIMES = """times = {first:g} + {period:g} * np.arange(len(labels))  # [T], in seconds
"""
_FEATURES = """
dali-asr features RECORDINGS features --normalization none {options}
dali-asr data export course features arrays
"""
_ARRAY = "arrays/all/mfcc/NAME.npy"  # that the commands write for the recording NAME
_LINK = re.compile(r"\[([^\]]*)\]\(([^)]*)\)")


def model_card(
    run: Path, checkpoint: Checkpoint, config: Config, *, file: str, size: int, sha256: str, parameters: int
) -> str:
    """Return the model card of an exported checkpoint.

    Args:
        run: the run's folder, or that of a model in the package.
        checkpoint: what was exported.
        config: the run's configuration.
        file: name of the ONNX file.
        size: of this file, in bytes.
        sha256: its checksum.
        parameters: number of trained parameters.

    Raises:
        DataError: the environment or an evaluation of the run is damaged.
    """
    about = _read(run / ABOUT, "copy the whole run again") or {}
    name = printable(run.absolute().name)
    pattern = f"evaluation-*-{checkpoint.name}.json"
    evaluations = [_read(path, "evaluate again") or {} for path in sorted(run.glob(pattern))]
    description = checkpoint.description
    exported = (
        f"the model `{name}`" if is_pretrained(run) else f"the checkpoint `{checkpoint.name}` of the run `{name}`"
    )
    opening = [
        f"`{file}` gives every frame of an utterance a probability for each of {len(description.inventory)} symbols. "
        f"It is {exported}, exported by dali-asr {installed_version('dali-asr')}.",
        f"{size / 1e6:.1f} MB, SHA-256: `{sha256}`",
    ]
    sections = {
        "Model": [_table(_model(description, parameters)), "Symbols, in label order:", _symbols(description)],
        "Data": [_table(_data(config))],
        "Training": [_table(_training(checkpoint, config, about))],
        "Metrics": _metrics(checkpoint, evaluations),
        "Intended use": [_intended(description)],
        "Limits": ["\n".join(f"- {limit}" for limit in _limits(description, config, evaluations))],
        "How to run it": _how_to_run(description, file),
    }
    if is_pretrained(run):  # whose card says what no run records
        sections = {title: sections[title] for title in ("Model", "How to run it")} | {
            f"About {name}": [_own_card(run)]
        }
    texts = [f"# {name}: a frame classifier", *opening]
    for title, parts in sections.items():
        texts += [f"## {title}", *parts]
    return "\n\n".join(texts) + "\n"


def _own_card(run: Path) -> str:
    """Return the card of a model in the package without its title, to stand in a section.

    Links to other files of the package become their paths: the card may be anywhere.
    """
    text = (run / "README.md").read_text(encoding="utf-8")
    text = text.partition("\n")[2].strip().replace("\n## ", "\n### ")

    def unlinked(link: re.Match[str]) -> str:
        words, target = link.groups()
        if "://" in target or target.startswith("#"):
            return link[0]
        path = (run / target.partition("#")[0]).resolve().relative_to(PRETRAINED.parents[1])
        return f"{words} ({path.as_posix()})"

    return _LINK.sub(unlinked, text)


def _how_to_run(description: ModelDescription, file: str) -> list[str]:
    """Return how features of recordings are made, if it is known, and how the file is applied to them."""
    python = "```python" + _USE.format(
        file=file, features=description.feature_dim, array=_ARRAY if description.features else "utterance.npy"
    )
    if description.features is None:
        return [f"{python}```", "When frames are depends on how their features were computed, which is not recorded."]
    timing = description.timing
    first, period = float(timing.centers(1)[0]), timing.period
    commands = _FEATURES.format(options=description.features.options())
    return [
        f"`dali-asr` makes the features of each recording, `{_ARRAY}`:",
        f"```sh{commands}```",
        "The file gives probabilities for them:",
        f"{python}{_TIMES.format(first=first, period=period)}```",
        f"Frame `t` is centered {first:g} + {period:g} · `t` seconds after the beginning of the recording, and stands "
        f"for the time from {period / 2:g} s before to {period / 2:g} s after.",
    ]


def _model(description: ModelDescription, parameters: int) -> Iterable[tuple[str, object]]:
    left, right = description.context
    normalization = description.normalization
    statistics = {
        "none": "none",
        "utterance": "in the file: mean and variance of the utterance",
        "global": f"in the file: mean and variance of {_names(normalization.partitions, 'partitions without a name')}",
    }
    yield "input", f"`frames`, float32 `[T, {description.feature_dim}]`: one utterance, not normalized, T at least 1"
    yield "output", f"`log_probabilities`, float32 `[T, {len(description.inventory)}]`: natural logarithms"
    yield "normalization", statistics[normalization.kind]
    yield (
        "context",
        f"{left} frames before and {right} after each frame, {description.window * FRAME_PERIOD:.2f} s in all at "
        f"{1000 * FRAME_PERIOD:.0f} ms per frame; zeros beyond the utterance",
    )
    for number, layer in enumerate(description.hidden, 1):
        norm = "" if layer.norm == "none" else f", {layer.norm} norm"
        yield f"hidden layer {number}", f"{layer.width} units{norm}, {description.activation}"
    yield "residual connections", "between layers of equal width" if description.residual else "none"
    if description.states > 1:
        yield "outputs", f"{description.states} states per symbol, whose probabilities are summed"
    yield "parameters", f"{parameters:,}"


def _symbols(description: ModelDescription) -> str:
    return "    " + " ".join(printable(symbol) for symbol in description.inventory.symbols)


def _data(config: Config) -> Iterable[tuple[str, object]]:
    data, loader = config.data, config.loader
    demo = ": synthetic speech, made with flite" if data.root == "demo" else ""
    yield "corpus", f"`{_folder(data.root)}`{demo}"
    yield "trained on", _names(data.train)
    yield "best checkpoint chosen by", _names([data.dev] if data.dev else [])
    yield "fold of the symbols", data.fold or "none"
    yield "frames read", "all" if loader.subset == 1 else f"every {loader.subset}th"
    yield "masks", "none" if loader.masking is None else f"per {loader.masking.scope}, by time and frequency"
    yield "speakers, languages, licence", "not recorded in the run"


def _training(checkpoint: Checkpoint, config: Config, about: dict[str, Any]) -> Iterable[tuple[str, object]]:
    training = config.training
    machine = about.get("machine", {})
    packages = about.get("packages", {})
    yield "recipe", about.get("recipe", "not recorded")
    yield "progress", f"{_count(checkpoint.epoch, 'complete epoch')}, {_count(checkpoint.step, 'step')}"
    yield "batch size", f"{config.loader.batch_size:,} windows per process"
    yield "optimizer", f"AdamW, learning rate {training.optimizer.learning_rate:g} ({training.schedule.kind} schedule)"
    yield "label smoothing", f"{training.label_smoothing:g}"
    yield "average of the weights", "none" if training.ema is None else f"decay {training.ema:g}"
    yield "precision", training.precision
    yield "seed", training.seed
    yield "started from", f"`{_folder(training.init)}`" if training.init else "random weights"
    yield "device", machine.get("gpu") or machine.get("processor") or "not recorded"
    yield "last started", about.get("date", "not recorded")
    yield "versions", ", ".join(f"{name} {packages[name]}" for name in ("dali-asr", "torch") if name in packages)


def _metrics(checkpoint: Checkpoint, evaluations: list[dict[str, Any]]) -> list[str]:
    texts = []
    metrics = checkpoint.metrics or {}
    dev = metrics.get("dev") or {}
    if dev.get("accuracy") is not None:
        texts.append(
            f"After epoch {epoch_label(metrics)}, the frame accuracy on the dev partition was {dev['accuracy']:.2%}. "
            "The checkpoint may have been chosen by it."
        )
    if evaluations:
        rows = [
            [
                _names([scores["partition"]]),
                scores["decoding"],
                f"{scores['frames']:,}",
                *(_percent(scores[key]) for key in _SCORES.values()),
            ]
            for scores in evaluations
        ]
        header = ["partition", "decoding", "frames", *_SCORES]
        texts.append("\n".join(_row(cells) for cells in (header, ["---"] * len(header), *rows)))
    else:
        texts.append("This checkpoint was not evaluated with `dali-asr evaluate`.")
    return texts


def _intended(description: ModelDescription) -> str:
    return (
        "To label frames of speech of the kind that it was trained on, given the same "
        f"{description.feature_dim} features per frame, computed in the same way. Other uses were not tested."
    )


def _limits(description: ModelDescription, config: Config, evaluations: list[dict[str, Any]]) -> Iterable[str]:
    if config.data.root == "demo":
        yield "Trained on synthetic speech; its scores say nothing about real speech."
    chosen_by = {config.data.dev, *config.data.train}
    if all(scores["partition"] in chosen_by for scores in evaluations):
        yield "Its scores on data that no choice depended on are unknown."
    yield "Scores by speaker, accent, noise or recording device are unknown."
    yield "Only the number of features is checked. Features computed in another way give labels without any warning."
    if description.normalization.kind == "utterance":
        yield "Give an utterance whole: a part of it is normalized by its own mean and variance and gets other labels."
    else:
        yield "Give an utterance whole: at the ends of a part, zeros stand in place of the frames beyond."
    yield "NaN, infinity and values beyond float16 or float32 are not refused."
    yield "Labels are decided frame by frame; they are not smoothed, and they are not words."


def _table(rows: Iterable[tuple[str, object]]) -> str:
    lines = [_row(["", ""]), _row(["---", "---"]), *(_row([name, str(value)]) for name, value in rows)]
    return "\n".join(lines)


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(printable(cell).replace('|', chr(92) + '|') for cell in cells)} |"


def _names(partitions: Iterable[str], absent: str = "none") -> str:
    return ", ".join(f"`{name}`" for name in partitions) or absent


def _folder(path: str) -> str:
    """Return the name of a folder, without the folders around it, which are nobody else's business."""
    return path.rstrip("/").rpartition("/")[2]


def _count(number: int, thing: str) -> str:
    return f"{number:,} {thing}{'' if number == 1 else 's'}"


def _percent(fraction: float | None) -> str:
    return "–" if fraction is None else f"{fraction:.2%}"


def _read(path: Path, remedy: str) -> dict[str, Any] | None:
    """Return the values of a JSON file; None if it is missing."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path}: damaged ({error}); {remedy}") from error
    if not isinstance(values, dict):
        raise DataError(f"{path}: damaged (not an object); {remedy}")
    return values
