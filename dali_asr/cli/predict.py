"""`dali-asr predict`."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from dali_asr.cli.console import complain, counting, printing, say, warn
from dali_asr.cli.early import check_run, check_source
from dali_asr.errors import DataError, UsageError, or_leave_out, printable
from dali_asr.inference.format_names import OF_FRAMES, PER_UTTERANCE, SUFFIXES, WITH_POSTERIORS, Format, format_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dali_asr.inference.sources import Source
    from dali_asr.reports.listening import UtterancePages

_MAX_LISTED = 20


def predict(
    run: Annotated[
        Path,
        typer.Argument(
            help="Folder of a run, or of a checkpoint in it; or `english-small`, the model in the package.",
            readable=False,
        ),
    ],
    source: Annotated[
        list[str] | None,
        typer.Argument(
            help="Recordings, `.npy` files of features, and folders of them; or one corpus: packed, source files in "
            "any layout, a link (`data fetch`), or `demo`. `-` reads paths from standard input, one per line. "
            "`demo.wav` is in the package. By default what the run was trained on.",
            show_default=False,
        ),
    ] = None,
    partition: Annotated[
        str | None,
        typer.Option(
            help="Partition of the corpus, by default the run's `data.test`; of a folder of recordings, the folder "
            "`train`, `dev` or `test` in it.",
            show_default=False,
        ),
    ] = None,
    form: Annotated[
        Format | None,
        typer.Option(
            "--format",
            help="Of frames: kaggle (CSV of `id,label`), npz (posteriors). Of segments with times: json, ctm, or one "
            "file per utterance: textgrid (Praat), audacity (label track), html (a page to look at and listen to). By "
            "default that of the suffix of --output, such as `.json`; else textgrid for recordings, otherwise kaggle.",
            show_default=False,
        ),
    ] = None,
    decode: Annotated[
        str | None,
        typer.Option(
            metavar="viterbi|median:K|none",
            help="How labels follow from posteriors: viterbi: the best path of a bigram with durations; median:K: the "
            "majority of K frames; none: the most probable label of each frame. By default none for formats of frames, "
            "viterbi for those of segments.",
            show_default=False,
        ),
    ] = None,
    frame_labels: Annotated[
        bool, typer.Option("--frame-labels", help="Add the label of each frame to json.", show_default=False)
    ] = False,
    output: Annotated[
        str | None,
        typer.Option(
            "-o",
            "--output",
            help="The file to write, or the folder for one file per utterance; `-` for standard output. By default in "
            "the run's folder; of `english-small`, in the current one.",
            show_default=False,
        ),
    ] = None,
    checkpoint: Annotated[Literal["best", "last"], typer.Option(help="Checkpoint to use.")] = "best",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    keep_going: Annotated[
        bool,
        typer.Option("--keep-going", help="Leave out files that cannot be used; the exit code is then 1."),
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Overwrite files.")] = False,
) -> None:
    """Predict segments with times, or the label of every frame, of recordings or features.

    Examples:

        dali-asr predict english-small demo.wav --format textgrid

        dali-asr predict runs/demo-20260101-120000 demo

        dali-asr predict RUN hw1p2 --partition test-clean -o submission.csv

        dali-asr predict RUN one.wav -o one.json

        dali-asr predict RUN one.npy two.npy --format textgrid -o grids

        find features -name '*.npy' | dali-asr predict RUN - --format ctm -o all.ctm
    """  # noqa: D412
    from dali_asr.files import check_output

    _check_is_no_recording(run)
    to_stdout = output == "-"
    path = Path(output) if output and not to_stdout else None
    form = _chosen_format(form, path)
    if path and form and form not in PER_UTTERANCE:
        check_output(path, overwrite=force)
    sources = [path for given in source or () for path in (_listed_paths() if given == "-" else [given])]
    check_run(run)
    if len(sources) == 1:  # of several, all that cannot be used are named at once
        check_source(sources[0], partition)
    failures: list[DataError] = []

    def failed(errors: Sequence[DataError]) -> None:
        failures.extend(errors)
        for error in errors:
            complain(f"error: {printable(str(error))}")

    with counting() as report:
        report("starting", 0, 1)
        from dali_asr.device import describe_device, resolve_device
        from dali_asr.inference.decoding import NONE, VITERBI, check_decoding
        from dali_asr.inference.files import FILES
        from dali_asr.inference.formats import encode, encode_utterance
        from dali_asr.inference.predict import label, prepare
        from dali_asr.inference.writers import check_prediction, write_prediction
        from dali_asr.runs.checkpoint import shown_name

        report("starting", 1, 1)
        check_decoding(decode or NONE)
        where = resolve_device(device)
        sources = sources or [_own_corpus(run)]
        trained, opened = prepare(
            run,
            sources,
            partition=partition,
            checkpoint=checkpoint,
            device=device,
            packing=report,
            failed=failed if keep_going else lambda errors: _refuse(errors, sources),
        )
        form = form or ("textgrid" if opened.has_recordings else "kaggle")
        path = path or _default_output(run, sources, opened, form)
        pages = _pages(form)
        encoder = pages or encode_utterance
        labelling = label(
            trained,
            opened,
            decode=decode or (NONE if form in OF_FRAMES else VITERBI),
            posteriors=form in WITH_POSTERIORS,
            device=device,
            progress=lambda done, total: report("predicting", done, total),
        )
        if to_stdout:
            with printing():
                encode(labelling, form, sys.stdout.buffer, frame_labels=frame_labels, encoder=encoder)
                sys.stdout.buffer.flush()
        else:
            check_prediction(path, form, opened.utterances, overwrite=force)
            say(f"Predicting with {shown_name(run, trained)}, on the {describe_device(where)}")
            write_prediction(labelling, path, form, overwrite=force, frame_labels=frame_labels, encoder=encoder)
    if pages and pages.remark:
        warn(printable(pages.remark))
    if not to_stdout:
        of = "" if opened.name == FILES else f" of {opened.name}"
        utterances = "1 utterance" if labelling.done == 1 else f"{labelling.done:,} utterances"
        say(f"{labelling.frames:,} frames of {utterances}{of}, written to {path}")
    if labelling.accuracy is not None and not to_stdout:
        say(f"Frame accuracy {labelling.accuracy:.2%}")
    if failures:
        files = "1 file was" if len(failures) == 1 else f"{len(failures):,} files were"
        warn(f"{files} left out, for the reasons above")
        raise typer.Exit(1)


def _check_is_no_recording(run: Path) -> None:
    """Refuse what is to be predicted in the place of the run.

    Raises:
        UsageError: the path names a recording or a file of features.
    """
    from dali_asr.audio.recordings import SUFFIXES

    if run.suffix.lower() in (*SUFFIXES, ".npy") and not run.is_dir():
        raise UsageError(
            f"predict: the model is missing before {run}; name it first, as in "
            f"{shlex.join(['dali-asr', 'predict', 'english-small', str(run)])}"
        )


def _chosen_format(form: Format | None, path: Path | None) -> Format | None:
    """Return the format that was asked for, by its name or by the suffix of the output; None if neither says one.

    Raises:
        UsageError: they say different ones.
    """
    named = format_of(path.suffix) if path and not path.is_dir() else None
    if path and form and named and named != form:
        folder = " or a folder" if form in PER_UTTERANCE else ""
        raise UsageError(
            f"{path}: the format is {form}, and {path.suffix} the suffix of {named}; name a .{SUFFIXES[form]} file"
            f"{folder}, or take --format {named}"
        )
    return form or named


def _refuse(errors: Sequence[DataError], sources: Sequence[str | Path]) -> None:
    """Say which files cannot be used, and raise an error.

    Raises:
        DataError: always.
    """
    if len(errors) > 1:
        for error in errors[:_MAX_LISTED]:
            complain(f"error: {printable(str(error))}")
        if len(errors) > _MAX_LISTED:
            warn(f"and {len(errors) - _MAX_LISTED:,} more errors")
        raise or_leave_out(DataError(f"{len(errors):,} files cannot be used, nothing is written; repair them"))
    if len(sources) > 1 or Path(sources[0]).is_dir():
        raise or_leave_out(errors[0]) from errors[0]
    raise errors[0]


def _default_output(run: Path, sources: Sequence[str | Path], source: Source, form: Format) -> Path:
    """Return where a prediction is written by default."""
    from dali_asr.files import file_name
    from dali_asr.runs.checkpoint import output_folder

    if source.has_recordings and len(source.utterances) == 1:
        return output_folder(run) / file_name(source.utterances[0], f".{SUFFIXES[form]}")
    if form not in PER_UTTERANCE:
        return output_folder(run) / f"{source.name}.{SUFFIXES[form]}"
    is_folder = source.has_recordings and len(sources) == 1 and Path(sources[0]).is_dir()
    name = Path(sources[0]).resolve().name if is_folder else source.name
    return output_folder(run) / f"{name}-{form}"


def _pages(form: Format) -> UtterancePages | None:
    """Return what makes pages; None for the other formats."""
    if form != "html":
        return None
    from dali_asr.reports.listening import UtterancePages

    return UtterancePages()


def _own_corpus(run: Path) -> str:
    """Return the corpus that a run was trained on.

    Raises:
        UsageError: the run is a model in the package, which comes without a corpus.
    """
    from dali_asr.config import DEMO, Config
    from dali_asr.runs.checkpoint import is_of_package
    from dali_asr.runs.start import config_of

    if is_of_package(run):
        raise UsageError(f"predict: name recordings or a corpus after {run}, as in dali-asr predict {run} demo.wav")
    path = config_of(run)
    return Config.load(path).data.root if path else DEMO  # a run without configuration is refused when it is read


def _listed_paths() -> list[str]:
    """Return the paths that standard input lists, one per line.

    Raises:
        UsageError: there is none.
    """
    lines = sys.stdin.buffer.read().split(b"\n")
    paths = [os.fsdecode(line) for line in lines if line.strip()]
    if not paths:
        raise UsageError("-: standard input lists no paths; write one per line, as find does")
    return paths
