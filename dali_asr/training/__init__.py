"""Batches to checkpoint."""

from dali_asr.training.loop import Reporter, TrainingInterrupted, TrainingResult, train

__all__ = ["Reporter", "TrainingInterrupted", "TrainingResult", "train"]
