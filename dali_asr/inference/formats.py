"""Formats of predictions. All but `npz` are written utterance by utterance, as they are labelled.

Of frames, one file for all utterances:

kaggle    CSV with the columns `id,label`: the position of each frame in the partition, from 0, and its symbol
npz       posteriors [F, C] float32, labels [F], offsets [U + 1], utterances [U], inventory [C]

Of segments, the runs of equal labels with their times, one file for all utterances:

json      an object; its `utterances` hold segments of start, end, label and confidence, and frame labels if asked for
ctm       NIST's time-marked conversation: utterance, channel 1, start, duration, label, confidence

Of segments, one file per utterance:

textgrid  Praat's TextGrid in the long text format, with the tier `phones`
audacity  a label track: start, end, label, separated by tabs
html      a page to look at and to listen to, which `reports` makes
"""

from __future__ import annotations

import json
import re
import warnings
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol

import numpy as np

from dali_asr.errors import DaliAsrWarning, UsageError, brief
from dali_asr.inference.format_names import PER_UTTERANCE
from dali_asr.inference.textgrid import seconds_text, to_textgrid

if TYPE_CHECKING:
    from collections.abc import Callable

    from dali_asr.inference.format_names import Format
    from dali_asr.inference.predict import LabelledUtterance, Labelling
    from dali_asr.segments import Segment


COLUMNS = ("id", "label")  # of the format kaggle


class UtteranceEncoder(Protocol):
    """What makes the file of an utterance, in a format of one file per utterance."""

    def __call__(self, utterance: LabelledUtterance, labelling: Labelling, form: Format) -> bytes:
        """Return the file."""


def encode_utterance(utterance: LabelledUtterance, labelling: Labelling, form: Format) -> bytes:
    """Return the file of an utterance, in a format of one file per utterance other than `html`."""
    segments = utterance.segments(labelling.inventory, labelling.timing)
    encoder: Callable[[list[Segment]], str] = {"textgrid": _textgrid, "audacity": _audacity}[form]
    return encoder(segments).encode()


def encode(
    labelling: Labelling,
    form: Format,
    stream: BinaryIO,
    *,
    frame_labels: bool = False,
    encoder: UtteranceEncoder = encode_utterance,
) -> None:
    """Write a labelling to a stream.

    Args:
        labelling: its utterances are asked for one by one; exactly one for a format of one file per utterance.
        form: the format.
        stream: to write to.
        frame_labels: whether `json` holds the label of each frame, too.
        encoder: of a format of one file per utterance; that of `html` is `reports.listening.UtterancePages`.

    Raises:
        UsageError: the format is `npz` and utterances have no posteriors; or it writes one file per utterance.
    """
    if form in PER_UTTERANCE:
        if len(labelling.names) != 1:
            raise UsageError(
                f"{form}: is a file per utterance, and there are {len(labelling.names):,} utterances; "
                "name a folder, or choose ctm or json"
            )
        for utterance in labelling.utterances:
            stream.write(encoder(utterance, labelling, form))
    elif form == "json":
        _json(labelling, stream, frame_labels=frame_labels)
    else:
        {"kaggle": encode_kaggle, "npz": _npz, "ctm": _ctm}[form](labelling, stream)


def encode_kaggle(labelling: Labelling, stream: BinaryIO, columns: tuple[str, str] = COLUMNS) -> None:
    """Write the label of each frame to a stream, as CSV with a header."""
    fields = [_csv_field(symbol) for symbol in labelling.inventory.symbols]
    stream.write(f"{','.join(map(_csv_field, columns))}\n".encode())
    first = 0
    for utterance in labelling.utterances:
        numbered = enumerate(utterance.labels.tolist(), first)
        stream.write("".join(f"{number},{fields[label]}\n" for number, label in numbered).encode())
        first += len(utterance.labels)


def _csv_field(text: str) -> str:
    """Quote a field if RFC 4180 requires it."""
    return '"' + text.replace('"', '""') + '"' if set(text) & set(',"\r\n') else text


def _json(labelling: Labelling, stream: BinaryIO, *, frame_labels: bool) -> None:
    """Write one utterance per line, so that no more than one is in memory."""
    about = {
        "partition": labelling.partition,
        "decoding": labelling.decode,
        "timing": asdict(labelling.timing),
        "inventory": labelling.inventory.symbols,
    }
    stream.write(f'{_dumped(about)[:-1]}, "utterances": ['.encode())
    for at, utterance in enumerate(labelling.utterances):
        values: dict[str, Any] = {
            "name": utterance.name,
            "segments": [_segment(segment) for segment in utterance.segments(labelling.inventory, labelling.timing)],
        }
        if frame_labels:
            values["labels"] = [labelling.inventory.symbols[label] for label in utterance.labels.tolist()]
        stream.write(f"{',' if at else ''}\n{_dumped(values)}".encode())
    stream.write(f'\n], "accuracy": {_dumped(labelling.accuracy)}}}\n'.encode())


def _dumped(values: object) -> str:
    return json.dumps(values, ensure_ascii=False)


def _segment(segment: Segment) -> dict[str, Any]:
    confidence = None if segment.confidence is None else round(segment.confidence, 4)
    return {
        "start": round(segment.start, 6),
        "end": round(segment.end, 6),
        "label": segment.label,
        "confidence": confidence,
    }


def _npz(labelling: Labelling, stream: BinaryIO) -> None:
    utterances = list(labelling.utterances)
    posteriors = [utterance.posteriors for utterance in utterances if utterance.posteriors is not None]
    if len(posteriors) < len(utterances):
        raise UsageError("npz holds posteriors; predict with posteriors=True")
    np.savez(
        stream,
        posteriors=np.concatenate(posteriors),
        labels=np.concatenate([utterance.labels for utterance in utterances]),
        offsets=np.cumsum([0, *(len(utterance.labels) for utterance in utterances)], dtype=np.int64),
        utterances=np.array([utterance.name for utterance in utterances]),
        inventory=np.array(labelling.inventory.symbols),
    )


def _ctm(labelling: Labelling, stream: BinaryIO) -> None:
    """Write fields separated by spaces; a space within one becomes `_`."""
    labels = {symbol: _word(symbol) for symbol in labelling.inventory.symbols}
    changed = [name for name in (*labelling.names, *labels) if _word(name) != name]
    if changed:
        more = f", and {len(changed) - 1:,} more likewise" if changed[1:] else ""
        message = f"ctm: {brief(changed[0])} is written as {_word(changed[0])}{more}: spaces separate the fields of CTM"
        warnings.warn(message, DaliAsrWarning, stacklevel=2)
    for utterance in labelling.utterances:
        name = _word(utterance.name)
        lines = (
            f"{name} 1 {s.start:.4f} {s.end - s.start:.4f} {labels[s.label]} {s.confidence or 0:.4f}\n"
            for s in utterance.segments(labelling.inventory, labelling.timing)
        )
        stream.write("".join(lines).encode())


def _word(text: str) -> str:
    return re.sub(r"\s", "_", text) or "_"


def _textgrid(segments: list[Segment]) -> str:
    intervals = [(segment.start, segment.end, segment.label) for segment in segments]
    return to_textgrid({"phones": intervals}, segments[-1].end)


def _audacity(segments: list[Segment]) -> str:
    return "".join(
        f"{seconds_text(segment.start)}\t{seconds_text(segment.end)}\t{' '.join(segment.label.split())}\n"
        for segment in segments
    )
