"""From a labelled corpus to ranked findings.

Shape letters: `F` frames, `U` utterances, `S` segments, `C` labels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from dali_asr.device import resolve_device
from dali_asr.errors import DataError, UsageError
from dali_asr.reports.audit.boundaries import boundary_shifts
from dali_asr.reports.audit.features import clipped_features, constant_runs, duplicates, sketch
from dali_asr.reports.audit.findings import KINDS, Finding, Kind, ranked
from dali_asr.reports.audit.folds import OF_FRAMES, OF_SEGMENTS, Grouping, assign_folds, fold_posteriors, speakers
from dali_asr.reports.audit.segments import Segments, as_frames, label_doubt
from dali_asr.reports.audit.transcripts import transcript_evidence

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from dali_asr.corpus import Corpus, Partition
    from dali_asr.segments import FrameTiming

    Progress = Callable[[str, int, int], None]

BUDGET = 0.05
_MIN_PER_FOLD = 2  # utterances
_WRONG_TRANSCRIPT = 1 / 3  # of the median evidence


@dataclass(frozen=True, eq=False)
class Audit:
    """The findings in a corpus, and what they rest on.

    Attributes:
        partition: the audited partitions, joined.
        partition_of: name of each utterance's partition, `[U]`.
        labels: given labels, `[F]` int64, −100 where a frame has none.
        log_posteriors: of every frame, `[F, C]` float32, by a model that was not trained on its utterance.
        segments: the segments of the given labels.
        findings: by kind, in the order of `KINDS`; the most doubtful first.
        folds: number of folds.
        grouped_by: what is never in two folds, and how it is known.
        timing: when frames are.
    """

    partition: Partition
    partition_of: list[str]
    labels: NDArray[np.int64]
    log_posteriors: NDArray[np.float32]
    segments: Segments
    findings: dict[Kind, list[Finding]]
    folds: int
    grouped_by: Grouping
    timing: FrameTiming

    @property
    def accuracy(self) -> float:
        """Fraction of the labelled frames that the folds label as given."""
        labelled = self.labels >= 0
        return float((self.log_posteriors.argmax(axis=1) == self.labels)[labelled].mean())

    def ordered(self) -> list[Finding]:
        """Return all findings, kind by kind."""
        return [finding for kind in KINDS for finding in self.findings[kind]]


def audit(
    corpus: Corpus,
    *,
    partitions: Sequence[str] = (),
    folds: int = 5,
    speaker_pattern: str | None = None,
    budget: float = BUDGET,
    silence: str | None = None,
    device: str = "auto",
    progress: Progress = lambda *_: None,
) -> Audit:
    """Find labels, boundaries and utterances of a corpus that are probably wrong.

    Models are trained on all folds but one and judge the labels of that one (cross-fitting; Northcutt et al. 2021,
    "Confident Learning"): one model on windows of frames, and one on the segments that its posteriors describe.

    Args:
        corpus: the corpus, in any normalization.
        partitions: to audit together; by default all that are labelled.
        folds: number of folds.
        speaker_pattern: regular expression with one group that finds the speaker in an utterance's name, so that no
            speaker is in two folds. By default the corpus names the speakers, or else LibriSpeech's names of
            utterances do; without either, folds are by utterance.
        budget: fraction of the segments, of the boundaries and of the utterances that are listed at most.
        silence: symbol of silence; None for the usual ones.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        progress: called with a stage, what is done of it, and its total.

    Raises:
        DataError: no partition is labelled, or there are too few utterances for the folds.
        UsageError: an unknown partition, an invalid pattern, or folds or budget out of range.
        DeviceError: the device is missing or has too little memory.
    """
    if folds < 2:
        raise UsageError(f"folds {folds}; expected 2 or more")
    if not 0 < budget <= 1:
        raise UsageError(f"budget {budget:g}; expected a fraction above 0 and up to 1")
    where = resolve_device(device)
    names = list(partitions) or [name for name, partition in corpus.partitions.items() if partition.labelled]
    partition, partition_of, labels = _labelled(corpus, names, folds)
    grouping = speakers(partition.utterances, speaker_pattern, partition.origins.speakers)
    folds_of = assign_folds(grouping.groups, partition.lengths, folds)
    found: dict[Kind, list[Finding]] = {kind: [] for kind in KINDS}
    builder = _Builder(partition, partition_of, labels, budget, corpus.timing.period)
    builder.check_features(found, progress)

    def report(stage: str) -> Callable[[int, int], None]:
        return lambda done, total: progress(stage, done, total)

    log_posteriors = fold_posteriors(partition, folds_of, OF_FRAMES, where, report("training on frames"))
    segments = Segments.of(labels, partition.offsets)
    described = as_frames(partition, segments, log_posteriors)
    of_segments = fold_posteriors(described, folds_of, OF_SEGMENTS, where, report("training on segments"))
    silent = partition.inventory.silence(silence)
    wrong = builder.transcripts(found, transcript_evidence(labels, partition.offsets, log_posteriors, silent))
    builder.silent(found, silent)
    doubted = builder.segments(found, segments, of_segments, wrong)
    builder.boundaries(found, segments, log_posteriors, wrong, doubted)
    count = int(folds_of.max()) + 1
    return Audit(partition, partition_of, labels, log_posteriors, segments, found, count, grouping, corpus.timing)


def _labelled(corpus: Corpus, names: Sequence[str], folds: int) -> tuple[Partition, list[str], NDArray[np.int64]]:
    """Return the partitions joined, the name of each utterance's partition, and the labels."""
    where = corpus.path or "corpus"
    if not names:
        raise DataError(f"{where}: no partition is labelled; an audit judges labels, give a corpus that has some")
    partition = corpus.partition(*names)
    labels = partition.labels()
    if labels is None or (labels < 0).all():
        raise DataError(f"{partition.name}: has no labels; name a labelled partition (partition=NAME)")
    count = sum(
        (labels[start:end] >= 0).any() for start, end in zip(partition.offsets, partition.offsets[1:], strict=False)
    )
    if count < _MIN_PER_FOLD * folds:
        raise DataError(
            f"{partition.name}: {count} labelled utterances are too few for {folds} folds of at least {_MIN_PER_FOLD}; "
            "audit more partitions together, or use fewer folds (folds=N)"
        )
    partition_of = [name for name in names for _ in corpus.partitions[name].utterances]
    return partition, partition_of, labels


@dataclass(frozen=True, eq=False)
class _Builder:
    """Turns what was computed into findings."""

    partition: Partition
    partition_of: list[str]
    labels: NDArray[np.int64]
    budget: float
    period: float

    def finding(
        self, kind: Kind, number: int, span: tuple[int, int] | None, score: float, note: str, **symbols: str
    ) -> Finding:
        """Return a finding in an utterance; its span is in frames of the partition, or None for all of it."""
        first, end = (int(offset) for offset in self.partition.offsets[number : number + 2])
        start, stop = span or (first, end)
        return Finding(
            kind,
            self.partition_of[number],
            self.partition.utterances[number],
            start - first,
            stop - first,
            symbols.get("label", ""),
            symbols.get("folds", ""),
            round(float(score), 3),
            note,
            number,
        )

    def listed(self, count: int) -> int:
        """Return how many of a number of things are listed at most."""
        return max(1, round(self.budget * count))

    def check_features(self, found: dict[Kind, list[Finding]], progress: Progress) -> None:
        """Find what the features alone tell."""
        partition, total = self.partition, len(self.partition.utterances)
        sketches, constant, clipped = [], [], []
        for number, frames in enumerate(partition.frames()):
            frames = np.asarray(frames, np.float32)
            sketches.append(sketch(frames))
            first = int(partition.offsets[number])
            changing = np.ones(len(frames), np.bool_)
            for start, end in constant_runs(frames):
                changing[start:end] = False
                note = f"no feature changes for {end - start} frames"
                constant.append(self.finding("constant", number, (first + start, first + end), end - start, note))
            for feature, count in clipped_features(frames[changing]):
                note = f"feature {feature} is at its highest value in {count} of {len(frames)} frames"
                clipped.append(self.finding("clipped", number, None, count / len(frames), note))
            progress("reading features", number + 1, total)
        found["constant"], found["clipped"] = ranked(constant), ranked(clipped)
        found["duplicate"] = ranked(self._duplicates(np.array(sketches)))

    def _duplicates(self, sketches: NDArray[np.float32]) -> list[Finding]:
        partition = self.partition
        made = []
        for first, other, distance in duplicates(partition, sketches):
            a, b = (self.labels[slice(*partition.offsets[n : n + 2])] for n in (first, other))
            differing = int((a != b).sum())
            how = "equal" if distance == 0 else f"within {distance:.1%} of"
            labels = f"labels differ in {differing} of {len(a)} frames" if differing else "the labels are equal"
            where = f"{self.partition_of[first]}/{partition.utterances[first]}"
            note = f"frames {how} {'to ' if distance == 0 else ''}those of {where}; {labels}"
            made.append(self.finding("duplicate", other, None, differing / len(a), note))
        return made

    def transcripts(self, found: dict[Kind, list[Finding]], evidence: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Find wrong transcripts; return which utterances have one, `[U]`."""
        median = (
            float(
                np.median(
                    evidence[np.isfinite(evidence)],
                )
            )
            if np.isfinite(evidence).any()
            else 0.0
        )
        doubtful = np.flatnonzero(evidence < _WRONG_TRANSCRIPT * median)
        findings = [
            self.finding(
                "transcript",
                int(number),
                None,
                median - evidence[number],
                f"its labels have a mean log posterior-to-prior ratio of {evidence[number]:.2f} nats per frame; the "
                f"median utterance has {median:.2f}",
            )
            for number in doubtful
        ]
        found["transcript"] = ranked(findings, self.listed(len(evidence)))
        wrong = np.zeros(len(evidence), np.bool_)
        wrong[[finding.position for finding in found["transcript"]]] = True
        return wrong

    def silent(self, found: dict[Kind, list[Finding]], silence: int | None) -> None:
        """Find utterances that are labelled as silence alone."""
        if silence is None:
            return
        quiet = np.logical_and.reduceat(self.labels == silence, self.partition.offsets[:-1])
        lengths = self.partition.lengths
        found["silent"] = ranked(
            self.finding("silent", int(n), None, lengths[n], f"all {lengths[n]} frames are labelled as silence")
            for n in np.flatnonzero(quiet)
        )

    def segments(
        self,
        found: dict[Kind, list[Finding]],
        segments: Segments,
        log_posteriors: NDArray[np.float32],
        wrong: NDArray[np.bool_],
    ) -> NDArray[np.bool_]:
        """Find segments with a doubtful label outside of wrong transcripts; return which ones are listed, `[S]`."""
        doubt, best = label_doubt(segments, log_posteriors)
        doubt = np.where(wrong[segments.utterances], 0.0, doubt)
        chosen = np.argsort(-doubt, kind="stable")[: self.listed(int((segments.labels >= 0).sum()))]
        chosen = chosen[doubt[chosen] > 0]
        symbols = self.partition.inventory.symbols
        found["segment"] = ranked(
            self.finding(
                "segment",
                int(segments.utterances[at]),
                (int(segments.starts[at]), int(segments.ends[at])),
                doubt[at],
                f"{symbols[best[at]]} is {_times(doubt[at])} as probable as {symbols[segments.labels[at]]}",
                label=symbols[segments.labels[at]],
                folds=symbols[best[at]],
            )
            for at in chosen
        )
        listed = np.zeros(len(segments), np.bool_)
        listed[chosen] = True
        return listed

    def boundaries(
        self,
        found: dict[Kind, list[Finding]],
        segments: Segments,
        log_posteriors: NDArray[np.float32],
        wrong: NDArray[np.bool_],
        doubted: NDArray[np.bool_],
    ) -> None:
        """Find shifted boundaries between segments whose labels are not doubted themselves."""
        left, shift, gain = boundary_shifts(segments, log_posteriors)
        gain = np.where(wrong[segments.utterances[left]] | doubted[left] | doubted[left + 1], 0.0, gain)
        chosen = np.argsort(-gain, kind="stable")[: self.listed(len(left))]
        symbols = self.partition.inventory.symbols
        made = []
        for at in chosen[gain[chosen] > 0]:
            boundary, moved = int(segments.ends[left[at]]), int(shift[at])
            a, b = (symbols[segments.labels[left[at] + side]] for side in (0, 1))
            direction = "later" if moved > 0 else "earlier"
            span = (min(boundary, boundary + moved), max(boundary, boundary + moved))
            note = f"{a} should end {abs(moved) * 1000 * self.period:.0f} ms {direction}"
            number = int(segments.utterances[left[at]])
            made.append(
                self.finding("boundary", number, span, gain[at], note, label=f"{a}|{b}", folds=b if moved < 0 else a)
            )
        found["boundary"] = ranked(made)


def _times(nats: float) -> str:
    ratio = float(np.exp(min(nats, 50)))
    return f"{ratio:,.1f} times" if ratio < 10 else f"{ratio:,.0f} times" if ratio < 1e4 else "over 10,000 times"
