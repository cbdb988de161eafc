"""Checkpoint to scores: how well a model labels a partition."""

from dali_asr.evaluation.evaluate import Evaluation, evaluate
from dali_asr.evaluation.scores import Scores, SymbolScores

__all__ = ["Evaluation", "Scores", "SymbolScores", "evaluate"]
