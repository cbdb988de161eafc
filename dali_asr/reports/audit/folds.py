"""Posteriors of every frame by a model that was not trained on its utterance: K folds, cross-fitted.

Shape letters: `F` frames of a partition, `U` utterances, `C` labels.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from dali_asr.build import complete_loader
from dali_asr.errors import UsageError, brief
from dali_asr.loading import WindowLoader
from dali_asr.model import MLP, HiddenLayer
from dali_asr.training.distributed import World
from dali_asr.training.step import Schedule, Stepper, build_optimizer

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from dali_asr.corpus import Partition

_LIBRISPEECH = r"(\d+)-\d+-\d+"  # SPEAKER-CHAPTER-NUMBER
_MIN_BATCHES, _MIN_STEPS = 16, 160  # per epoch and of all, so that a small corpus is learnt too
_PREDICTED = 4096  # windows per batch


@dataclass(frozen=True)
class Grouping:
    """What is never in two folds.

    Attributes:
        groups: the group of each utterance, `[U]`.
        how: they are told: `the corpus names them`; empty if every utterance stands alone.
    """

    groups: tuple[str, ...]
    how: str = ""

    def __str__(self) -> str:
        """Return what the folds are by, in words."""
        return f"speaker ({len(set(self.groups)):,}; {self.how})" if self.how else "utterance"


def speakers(names: Sequence[str], pattern: str | None = None, known: Sequence[str] = ()) -> Grouping:
    """Return the speaker of each utterance.

    Without a pattern they are those that the corpus names, or else names as LibriSpeech's give the speaker. Other
    utterances, and those of one speaker, stand alone.

    Args:
        names: of the utterances, `[U]`.
        pattern: a regular expression with one group, the speaker, that is searched for in each name.
        known: the speakers that the corpus names, `[U]`; empty if it names none.

    Raises:
        UsageError: the pattern is invalid, fits not every name, or finds one speaker only.
    """
    if pattern is None:
        if len(set(known)) > 1:
            return Grouping(tuple(known), "the corpus names them")
        found = [match[1] for match in (re.fullmatch(_LIBRISPEECH, name) for name in names) if match]
        if len(found) == len(names) and len(set(found)) > 1 and not known:
            return Grouping(tuple(found), "as in LibriSpeech's names")
        return Grouping(tuple(str(number) for number in range(len(names))))
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise UsageError(f"speaker_pattern {pattern!r}: {error}; give a regular expression with one group") from error
    if compiled.groups != 1:
        raise UsageError(f"speaker_pattern {pattern!r}: has {compiled.groups} groups; give one, around the speaker")
    groups = []
    for name in names:
        match = compiled.search(name)
        if not match or not match[1]:
            raise UsageError(
                f"speaker_pattern {pattern!r}: finds no speaker in {brief(name)}; make it match every name, with a "
                "group around the speaker"
            )
        groups.append(match[1])
    if len(set(groups)) == 1:
        raise UsageError(
            f"speaker_pattern {pattern!r}: finds one speaker, {brief(groups[0])}, in all utterances; folds need two, "
            "leave it out to fold by utterance"
        )
    return Grouping(tuple(groups), f"by the pattern {pattern}")


def assign_folds(groups: Sequence[str], lengths: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """Return the fold of each utterance, `[U]`: a group is in one fold, and folds have about as many frames.

    Args:
        groups: of each utterance.
        lengths: frames of each utterance, `[U]`.
        count: number of folds; with fewer groups, there are as many folds as groups.
    """
    names, group_of = np.unique(np.array(groups), return_inverse=True)
    frames = np.bincount(group_of, weights=lengths)
    fold_of = np.empty(len(names), np.int64)
    filled = np.zeros(min(count, len(names)))
    for group in np.argsort(-frames, kind="stable"):  # the largest first, each into the emptiest fold
        fold_of[group] = filled.argmin()
        filled[fold_of[group]] += frames[group]
    return fold_of[group_of]


@dataclass(frozen=True)
class FoldSettings:
    """How the models of the folds are made and trained.

    Attributes:
        context: frames on each side of a window's own.
        hidden: units of each hidden layer.
        dropout: of each hidden layer; each has batch norm as well.
        epochs: passes over the other folds; more where a pass is short.
        batch_size: windows per batch.
        learning_rate: peak of a cosine schedule.
        label_smoothing: fraction of a label's probability that is spread over all labels.
        seed: of weights, order and folds.
    """

    context: int
    hidden: tuple[int, ...]
    dropout: float
    epochs: int
    batch_size: int
    learning_rate: float = 2e-3
    label_smoothing: float = 0.1
    seed: int = 0


OF_FRAMES = FoldSettings(context=12, hidden=(256, 256), dropout=0.25, epochs=4, batch_size=1024)
OF_SEGMENTS = FoldSettings(context=0, hidden=(256,), dropout=0.3, epochs=12, batch_size=256)


def fold_posteriors(
    partition: Partition,
    folds: NDArray[np.int64],
    settings: FoldSettings,
    device: torch.device,
    progress: Callable[[int, int], None],
) -> NDArray[np.float32]:
    """Return log posteriors of every frame by the model that was trained on the other folds.

    Args:
        partition: a labelled partition; frames without a label are not trained on.
        folds: each utterance's fold, `[U]`, counted from 0.
        settings: of the models.
        device: to train on.
        progress: called with what is done, and the total.

    Returns:
        `[F, C]` in nats.
    """
    found = np.empty((partition.frame_count, len(partition.inventory)), np.float32)
    frames = np.repeat(folds, partition.lengths)
    count = int(folds.max()) + 1
    for fold in range(count):

        def trained(share: float, before: int = fold) -> None:
            progress(round(100 * (before + share)), 100 * count)

        model = _train(partition.pick(np.flatnonzero(folds != fold)), settings, fold, device, trained)
        found[frames == fold] = _predict(model, partition.pick(np.flatnonzero(folds == fold)), settings, device)
    return found


def _train(
    partition: Partition, settings: FoldSettings, fold: int, device: torch.device, progress: Callable[[float], None]
) -> MLP:
    torch.manual_seed(settings.seed + fold)
    batches = WindowLoader(
        partition,
        context=settings.context,
        batch_size=max(min(settings.batch_size, partition.frame_count // _MIN_BATCHES), 2),
        drop_last=True,
        seed=settings.seed + fold,
        device=device,
    )
    layers = [HiddenLayer(width, settings.dropout, "batch") for width in settings.hidden]
    model = MLP(
        window=2 * settings.context + 1,
        feature_dim=partition.feature_dim,
        classes=len(partition.inventory),
        hidden=layers,
    ).to(device)
    epochs = max(settings.epochs, -(-_MIN_STEPS // len(batches)))
    steps = epochs * len(batches)
    stepper = Stepper(
        model,
        build_optimizer(model, learning_rate=settings.learning_rate),
        Schedule(settings.learning_rate, steps, kind="cosine"),
        World(device),
        label_smoothing=settings.label_smoothing,
    )
    for epoch in range(epochs):
        for batch in batches:
            stepper.backward(stepper.forward(batch))
            stepper.update()
        progress((epoch + 1) / epochs)
    batches.close()
    return model.eval()


@torch.inference_mode()
def _predict(model: MLP, partition: Partition, settings: FoldSettings, device: torch.device) -> NDArray[np.float32]:
    batches = complete_loader(
        partition, context=(settings.context, settings.context), batch_size=_PREDICTED, device=device
    )
    rows = [model(batch.windows).log_softmax(dim=1).cpu().numpy() for batch in batches]
    batches.close()
    return np.concatenate(rows)
