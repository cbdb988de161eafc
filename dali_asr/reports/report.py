"""The report of a run: one page with its curves, scores, confusions, speed, configuration and utterances."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from dali_asr.corpus.packing import quiet
from dali_asr.device import resolve_device
from dali_asr.errors import printable
from dali_asr.files import check_output
from dali_asr.inference.evaluate import prepare_evaluation
from dali_asr.inference.kept import evaluate_once
from dali_asr.inference.pictures import phonetic_order
from dali_asr.model import parameter_count
from dali_asr.reports.examples import choose, make_examples
from dali_asr.reports.figures import draw_metric
from dali_asr.reports.posteriorgram import draw_posteriorgram
from dali_asr.reports.record import compare_recipe, fold_sections, read_record, settings
from dali_asr.reports.run_pages import write_page
from dali_asr.reports.sounds import Sounds
from dali_asr.runs.checkpoint import output_folder, shown_name

if TYPE_CHECKING:
    from pathlib import Path

    from markupsafe import Markup

    from dali_asr.corpus.packing import Progress
    from dali_asr.inference.evaluate import Evaluation
    from dali_asr.inference.scores import SymbolScores
    from dali_asr.reports.examples import Example
    from dali_asr.reports.record import Record
    from dali_asr.reports.sounds import Sound
    from dali_asr.runs.checkpoint import Checkpoint, Which

_MAX_SYMBOLS = 80  # of the confusion matrix
_EXAMPLES = 3  # utterances of either kind
_MAX_SOUND = 3_000_000  # bytes of the page


@dataclass(frozen=True, eq=False)
class Report:
    """The report of a run.

    Attributes:
        path: the page.
        evaluation: the scores that it shows.
        name: of the checkpoint; a model in the package has its own.
        origin: a sentence about where the scores come from.
        remark: a line about recordings that are missing or cannot be read; empty if there are none.
    """

    path: Path
    evaluation: Evaluation
    name: str
    origin: str
    remark: str = ""


def report(
    run: str | Path,
    source: str | Path | None = None,
    *,
    output: Path | None = None,
    partition: str | None = None,
    checkpoint: Which = "best",
    recordings: Path | None = None,
    device: str = "auto",
    progress: Progress = quiet,
    overwrite: bool = False,
) -> Report:
    """Write a page about a run, which opens without a network.

    It shows the evaluation that the run's folder keeps of this checkpoint and partition. If there is none, or it is of
    another corpus, the model is evaluated, and the evaluation is kept there.

    Args:
        run: folder of a run, or of one of its checkpoints.
        source: a packed corpus, a course folder or `demo`; by default the corpus that the run was trained on.
        output: the page; by default `report-PARTITION.html` in the run's folder.
        partition: a labelled partition; by default the run's `data.dev`.
        checkpoint: `best` or `last`.
        recordings: folder of the corpus's recordings, if they were moved since it was prepared from them.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        progress: called with a stage, the work done, and of all.
        overwrite: whether a file is replaced.

    Raises:
        CheckpointError: the run is damaged, of another version, was never evaluated, or does not fit the corpus.
        DataError: the partition has no labels, the corpus is missing or damaged, or the disk cannot be written.
        UsageError: the page exists; an unknown partition or device name; or the corpus names no recordings.
        DeviceError: the device is missing or has too little memory.
    """
    record = read_record(run)
    named = partition or record.config.data.dev
    if output or named:
        check_output(output or page_path(record, str(named)), overwrite=overwrite)
    trained, opened, silence = prepare_evaluation(
        run, source, partition=partition, checkpoint=checkpoint, packing=progress
    )
    path = output or page_path(record, opened.name)
    check_output(path, overwrite=overwrite)
    sounds = Sounds(opened, trained.description.timing, _MAX_SOUND, recordings)
    evaluation, origin = evaluate_once(
        output_folder(record.path),
        trained,
        opened,
        silence,
        device=device,
        progress=lambda done, total: progress("evaluating", done, total),
    )
    progress("drawing", 0, 1)
    utterances = evaluation.scores.utterances
    groups = {
        kind: make_examples(numbers, trained, opened, utterances, resolve_device(device))
        for kind, numbers in zip(("worst", "best"), choose(utterances, _EXAMPLES), strict=True)
    }
    name = shown_name(record.path, trained)
    contents = _contents(record, trained, evaluation, groups, sounds)
    write_page(path, "report.html", overwrite=overwrite, checkpoint=name, **contents)
    progress("drawing", 1, 1)
    return Report(path, evaluation, name, origin, sounds.remark)


def page_path(record: Record, partition: str) -> Path:
    """Return the default place of a report about a run on a partition."""
    return output_folder(record.path) / f"report-{partition.replace('+', '-')}.html"


def _contents(
    record: Record, checkpoint: Checkpoint, evaluation: Evaluation, groups: dict[str, list[Example]], sounds: Sounds
) -> dict[str, Any]:
    """Return what the template inserts."""
    compared, differing = compare_recipe(record)
    folded = fold_sections(differing)
    scores = evaluation.scores
    return {
        "title": printable(record.name),
        "record": record,
        "recipe": printable(record.recipe or "not known"),
        "evaluation": evaluation,
        "scores": scores,
        "silence": None if evaluation.silence is None else evaluation.inventory.symbols[evaluation.silence],
        "parameters": _parameters(checkpoint),
        "curves": [draw_metric(name, record.lines) for name in ("loss", "accuracy")] if record.lines else [],
        "matrix": confusion_rows(evaluation),
        "occurring": sum(1 for symbol in scores.symbols if symbol.frames),
        "symbols": [symbol for symbol in scores.symbols if symbol.frames],
        "slowest": max((line["train_seconds"] for line in record.timings), default=1),
        "compared": compared,
        "changed": [(key, ours, theirs) for key, (theirs, ours) in folded.items()],
        "config": [
            (key, value, (folded.get(key) or differing.get(key) or (None,))[0])
            for key, value in settings(record.config).items()
        ],
        "groups": [(kind, _pictures(examples, evaluation, sounds)) for kind, examples in groups.items()],
        "sounds_known": sounds.known,
    }


def _parameters(checkpoint: Checkpoint) -> int:
    with torch.device("meta"):
        return parameter_count(checkpoint.description.build())


def _pictures(
    examples: list[Example], evaluation: Evaluation, sounds: Sounds
) -> list[tuple[Example, Markup, Sound | None]]:
    return [
        (
            example,
            draw_posteriorgram(example, evaluation.inventory.symbols),
            sounds.stretch(example.position, 0, len(example.true)),
        )
        for example in examples
    ]


@dataclass(frozen=True)
class ConfusionRow:
    """A row of the confusion matrix as it is shown.

    Attributes:
        label: the true label.
        symbol: its symbol and scores.
        cells: count of each predicted label and how strongly the cell is shaded, 0 to 1.
    """

    label: int
    symbol: SymbolScores
    cells: list[tuple[int, float]]


def confusion_rows(evaluation: Evaluation) -> list[ConfusionRow]:
    """Return the rows of the symbols that occur, true or predicted, in phonetic order.

    Of more than 80 symbols, the 80 most frequent. The shade of a cell is the square root of its fraction of the true
    symbol's frames, so that rare confusions can be seen.
    """
    confusion, symbols = evaluation.scores.confusion, evaluation.scores.symbols
    frequency = confusion.true_counts + confusion.predicted_counts
    occurring = np.flatnonzero(frequency)
    chosen = np.sort(occurring[np.argsort(-frequency[occurring], kind="stable")][:_MAX_SYMBOLS])
    order = np.array(phonetic_order([symbols[label].symbol for label in chosen]), np.int64)
    shown = chosen[order]
    counts = confusion.dense(chosen)[np.ix_(order, order)]
    shades = np.sqrt(counts / np.maximum(confusion.true_counts[shown][:, None], 1))
    return [
        ConfusionRow(label, symbols[label], list(zip(counts[row].tolist(), shades[row].tolist(), strict=True)))
        for row, label in enumerate(shown.tolist())
    ]
