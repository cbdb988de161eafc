"""Measure `dali-asr align` against given alignments, beside pocketsphinx on the same recordings.

    python benchmarks/alignment.py RUN FOLDER ... --json benchmarks/results/alignment_MACHINE_DATE.json

Each FOLDER holds recordings, `transcripts.tsv`, and of each recording `NAME.phn` with its given phones.

A boundary is the beginning of a phone, or its end before a silence or at the end. Given and placed phones are paired by
a shortest edit path, since a word may have been said in another pronunciation; of a pair, beginnings and ends are
compared. Boundaries of given phones without a pair count as misplaced: they are in the shares within a tolerance, but
not in mean and median. A multiple of 10 ms is within itself. Where given times are whole hundredths of a second, but
placed ones are not, an error of 20 ms becomes as often more as less: a share is also given of errors rounded to 10 ms.

Both aligners run in turn in this process on one thread, which is all that pocketsphinx uses, from the first recording
to the last boundary; loading libraries, models and dictionary is left out. Where the given times are by pocketsphinx,
its figures say how well it repeats itself.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from harness import in_turn, parser, write
from rapidfuzz.distance import Levenshtein

from dali_asr.alignment.aligning import align, transcript_entries
from dali_asr.alignment.dictionary import load_dictionary
from dali_asr.alignment.sphinx import SphinxAligner
from dali_asr.alignment.transcripts import read_transcripts
from dali_asr.audio.alignments.label_files import read_phn
from dali_asr.audio.recordings import find_recordings, read_header
from dali_asr.errors import DataError
from dali_asr.inventory import ARPABET
from dali_asr.pretrained import find_pretrained

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from dali_asr.segments import Segment

    Alignments = dict[str, list[Segment]]  # phones by the name of the recording

TOLERANCES = (10, 20, 50, 100)  # milliseconds
SILENCES = ("[SIL]", "SIL")


def boundary_errors(given: Sequence[Segment], placed: Sequence[Segment]) -> NDArray[np.float64]:
    """Return by how many seconds each boundary of the given phones is placed too late; NaN where it has no pair."""
    given_at, placed_at = ([n for n, one in enumerate(them) if one.label not in SILENCES] for them in (given, placed))
    pairs: dict[int, Segment] = {}
    for edit in Levenshtein.opcodes([given[n].label for n in given_at], [placed[n].label for n in placed_at]):
        of_given, of_placed = given_at[edit.src_start : edit.src_end], placed_at[edit.dest_start : edit.dest_end]
        pairs.update((n, placed[m]) for n, m in zip(of_given, of_placed, strict=False))
    errors = []
    for n in given_at:
        errors.append(pairs[n].start - given[n].start if n in pairs else np.nan)
        if n + 1 not in given_at:
            errors.append(pairs[n].end - given[n].end if n in pairs else np.nan)
    return np.array(errors)


def scores(errors: NDArray[np.float64]) -> dict[str, float]:
    """Return how well boundaries are placed; times in milliseconds."""
    distances = np.abs(errors[~np.isnan(errors)]) * 1e3
    within = np.round(np.abs(errors) * 1e3, 3)  # NaN is within nothing
    return {
        "boundaries": len(errors),
        "paired": float((~np.isnan(errors)).mean()),
        "mean": float(distances.mean()),
        "median": float(np.median(distances)),
        "bias": float(np.nanmedian(errors) * 1e3),
        **{f"within_{tolerance}_ms": float((within <= tolerance).mean()) for tolerance in TOLERANCES},
        "within_20_ms_rounded": float((np.round(within, -1) <= 20).mean()),
    }


def align_by_model(run: str, folder: Path) -> tuple[Alignments, float]:
    """Return the alignments of the recordings of a folder, and the seconds that they took."""
    aligning = align(find_pretrained(Path(run)) or run, folder, folder, device="cpu")
    start = time.perf_counter()
    phones = {result.name: result.utterance.phones for result in aligning.results}
    return phones, time.perf_counter() - start


def align_by_sphinx(aligner: SphinxAligner, folder: Path) -> tuple[Alignments, float]:
    """Return the same by pocketsphinx."""
    texts, words, phones = read_transcripts(folder), load_dictionary(ARPABET), {}
    start = time.perf_counter()
    for recording in find_recordings(folder)[0]:
        try:
            phones[recording.name] = aligner.align(recording.path, transcript_entries(texts[recording.name], words))
        except DataError as error:
            print(error)
    return phones, time.perf_counter() - start


def compare(folders: Sequence[Path], aligned: Sequence[Alignments]) -> dict[str, Any]:
    """Return the scores of each speaker and each folder, and of all of them."""
    errors: dict[str, list[NDArray[np.float64]]] = {}
    for folder, placed in zip(folders, aligned, strict=True):
        speakers = dict(line.split("\t")[:2] for line in (folder / "transcripts.tsv").read_text("utf-8").splitlines())
        for path in sorted(folder.glob("*.phn")):
            given = read_phn(path, read_header(path.with_suffix(".flac")).sample_rate)
            found = boundary_errors(given, placed.get(path.stem, ()))
            for group in (speakers[path.stem], folder.name, "all"):
                errors.setdefault(group, []).append(found)
    return {group: scores(np.concatenate(found)) for group, found in sorted(errors.items())}


def main() -> None:
    """Run from the command line."""
    made = parser(__doc__, repeats=3)
    made.add_argument("run", help="a run, or the name of a pretrained model")
    made.add_argument("folders", type=Path, nargs="+", help="folders of recordings with transcripts.tsv and NAME.phn")
    made.add_argument("--alone", action="store_true", help="leave out pocketsphinx")
    given = made.parse_args()
    torch.set_num_threads(1)
    sides = [lambda: [align_by_model(given.run, folder) for folder in given.folders]]
    if not given.alone:
        aligner = SphinxAligner(load_dictionary(ARPABET))
        sides.append(lambda: [align_by_sphinx(aligner, folder) for folder in given.folders])
    results = in_turn(given.repeats, *sides)
    recordings = [one for folder in given.folders for one in find_recordings(folder)[0]]
    headers = [read_header(recording.path) for recording in recordings]
    values: dict[str, Any] = {
        "recordings": len(recordings),
        "seconds_of_audio": sum(header.samples / header.sample_rate for header in headers),
        "load_average": os.getloadavg()[0],
    }
    for name, repeats in zip(("dali-asr", "pocketsphinx"), results, strict=False):
        aligned = [phones for phones, _ in repeats[0]]
        found = compare(given.folders, aligned)
        seconds = [sum(took for _, took in repeat) for repeat in repeats]
        values[name] = {"aligned": sum(map(len, aligned)), "seconds": seconds, "scores": found}
        times = ", ".join(f"{one:.1f}" for one in seconds)
        print(f"{name}: {values[name]['aligned']} of {len(recordings)} aligned, in {times} s")
        for group, one in found.items():
            shares = " ".join(f"{one[f'within_{tolerance}_ms']:6.1%}" for tolerance in TOLERANCES)
            times = f"mean {one['mean']:.1f} median {one['median']:.1f} bias {one['bias']:+.1f} ms"
            print(f"  {group:12} {shares}   rounded {one['within_20_ms_rounded']:6.1%}   {times}")
    write(given.json, "alignment", torch.device("cpu"), **values)


if __name__ == "__main__":
    main()
