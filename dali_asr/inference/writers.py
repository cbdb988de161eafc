"""Files of predictions and evaluations. Each appears whole or not at all.

The formats of predictions are those of `formats`. An evaluation is a JSON file with all scores, and a picture of its
confusion matrix. The matrix is stored as `confusion` (C rows of C counts) up to 300 symbols, and as `confusion_cells`
(`[true, predicted, count]` of each cell that is not zero) above.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dali_asr.errors import UsageError
from dali_asr.files import check_output, disk_errors, file_name, new_file, write_file
from dali_asr.inference.format_names import PER_UTTERANCE, SUFFIXES, format_of
from dali_asr.inference.formats import encode, encode_utterance
from dali_asr.inference.kept import keep
from dali_asr.inference.pictures import draw_confusion

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from dali_asr.inference.evaluate import Evaluation
    from dali_asr.inference.format_names import Format
    from dali_asr.inference.formats import UtteranceEncoder
    from dali_asr.inference.predict import Labelling


def is_folder(path: Path, form: Format) -> bool:
    """Return whether a prediction is written to a folder of this name: a format of one file per utterance is.

    A name with the format's suffix is that of a file, which holds one utterance.
    """
    return form in PER_UTTERANCE and (path.is_dir() or format_of(path.suffix) != form)


def check_prediction(path: Path, form: Format, names: Sequence[str], *, overwrite: bool = False) -> None:
    """Refuse an output that cannot be written.

    Args:
        path: of the file or folder.
        form: the format.
        names: of the utterances.
        overwrite: whether files are replaced.

    Raises:
        UsageError: a file exists, the folder is none, or two utterances have the same name.
        DataError: it cannot be written.
    """
    if not is_folder(path, form):
        check_output(path, overwrite=overwrite)
        return
    if path.exists() and not path.is_dir():
        raise UsageError(f"{path}: is a file, and {form} writes a file per utterance; name a folder")
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise UsageError(f"{name}: two utterances have this name, {form} writes a file of each; rename one")
        seen.add(name)
        check_output(path / file_name(name, f".{SUFFIXES[form]}"), overwrite=overwrite)


def write_prediction(
    labelling: Labelling,
    path: Path,
    form: Format,
    *,
    overwrite: bool = False,
    frame_labels: bool = False,
    encoder: UtteranceEncoder = encode_utterance,
) -> None:
    """Write a prediction to a file, or a file per utterance to a folder, as its utterances are labelled.

    In a folder, each file appears when it is complete; other files are kept.

    Args:
        labelling: what to write.
        path: of the file or folder; `is_folder` says which.
        form: the format.
        overwrite: whether files are replaced.
        frame_labels: whether `json` holds the label of each frame, too.
        encoder: as of `encode`.

    Raises:
        UsageError: as `check_prediction` and `encode`.
        DataError: the disk is full or cannot be written.
    """
    check_prediction(path, form, labelling.names, overwrite=overwrite)
    if not is_folder(path, form):
        with disk_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            with new_file(path) as file:
                encode(labelling, form, file, frame_labels=frame_labels, encoder=encoder)
        return
    with disk_errors(path):
        path.mkdir(parents=True, exist_ok=True)
        for utterance in labelling.utterances:
            write_file(path / file_name(utterance.name, f".{SUFFIXES[form]}"), encoder(utterance, labelling, form))


def write_evaluation(evaluation: Evaluation, folder: Path) -> list[Path]:
    """Write an evaluation and the picture of its confusion matrix, `.json` and `.png`, and return both paths.

    They replace those of an earlier evaluation of the same checkpoint and decoding on a partition of this name.

    Raises:
        DataError: the disk is full or cannot be written.
    """
    scores = keep(evaluation, folder)
    picture = scores.with_suffix(".png")
    with disk_errors(folder):
        write_file(picture, draw_confusion(evaluation))
    return [scores, picture]
