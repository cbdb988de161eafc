"""From batches to a run: the training loop."""

from dali_asr.runs.reporter import Printer, Reporter
from dali_asr.training.loop import TrainingResult
from dali_asr.training.run import train

__all__ = ["Printer", "Reporter", "TrainingResult", "train"]
