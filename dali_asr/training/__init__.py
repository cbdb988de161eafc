"""Batches to checkpoint."""

from dali_asr.training.interruption import TrainingInterrupted
from dali_asr.training.loop import TrainingResult, train
from dali_asr.training.reporter import Reporter

__all__ = ["Reporter", "TrainingInterrupted", "TrainingResult", "train"]
