"""From a configuration to the run that it describes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from dali_asr.build import open_corpus, with_root
from dali_asr.config import Config
from dali_asr.corpus import Corpus
from dali_asr.errors import DeviceError, UsageError, brief
from dali_asr.runs.reporter import Reporter
from dali_asr.runs.start import find_start
from dali_asr.training.distributed import joined
from dali_asr.training.loop import Training, TrainingResult
from dali_asr.training.step import matrix_precision

if TYPE_CHECKING:
    from pathlib import Path


def train(
    config: Config,
    *,
    run: str | Path | None = None,
    recipe: str | None = None,
    resume: str | Path | None = None,
    corpus: Corpus | None = None,
    reporter: Reporter | None = None,
) -> TrainingResult:
    """Train a model.

    On the CPU, the same configuration on the same machine gives the same weights to the bit, also if the run is
    interrupted or killed, and resumed. Under torchrun, all processes train one model.

    Nothing is shown by default. `train(config, reporter=Printer())` prints the metrics of every epoch; for a bar or
    a log of your own, override methods of `Reporter` (both in `dali_asr.training`).

    Args:
        config: the configuration.
        run: the run's folder; by default one in `config.run.folder`, named by recipe, date and time.
        recipe: names the folder; by default the recipe or the YAML file that the configuration was read from does.
        resume: the folder of a run or of a checkpoint to continue; or `auto` for the run in `run`, else the recipe's
            latest, else a new one.
        corpus: the corpus to train on, instead of the configured one. The run records its folder as `data.root`, or
            that it was in memory.
        reporter: receives the progress, on rank 0; None for none.

    Raises:
        DataError: a partition without labels, a damaged file, a full disk.
        UsageError: a folder that is in use, a partition with fewer frames than a batch.
        DeviceError: no such device, or too little memory.
        CheckpointError: a run or checkpoint that cannot be resumed.
        TrainingError: the loss or a weight is not finite.
        TrainingInterrupted: Ctrl-C or SIGTERM; the message says what is saved.
    """
    if not isinstance(config, Config):
        raise UsageError(f"train: config is {brief(config)}; give a Config, as Config.load('demo') returns one")
    if not isinstance(corpus, Corpus | None):
        raise UsageError(f"train: corpus is {brief(corpus)}; give a Corpus, as Corpus.open(FOLDER) returns one")
    with joined(config.loader.device) as world, matrix_precision(world.device, allow_tf32=config.training.allow_tf32):
        told = reporter if reporter and world.leads else Reporter()
        start = world.on_rank_0(lambda: find_start(config.run, run, recipe or config.recipe, resume))
        if start.note:
            told.noted(start.note)
        with world.together():
            if corpus:
                config = config.model_copy(update={"data": with_root(config.data, corpus)})
            opened = corpus or open_corpus(config.data, told.packing)
        try:
            return Training(config, opened, world, start, told).run()
        except torch.OutOfMemoryError as error:
            raise DeviceError(
                f"{world.device}: out of memory; lower loader.batch_size, or choose a smaller model"
            ) from error
