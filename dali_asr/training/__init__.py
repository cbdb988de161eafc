"""Batches to run: the training loop."""

from dali_asr.training.loop import TrainingResult, train

__all__ = ["TrainingResult", "train"]
