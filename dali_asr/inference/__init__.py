"""From a run to labels and scores."""

from dali_asr.inference.evaluate import Evaluation, evaluate
from dali_asr.inference.predict import Prediction, predict

__all__ = ["Evaluation", "Prediction", "evaluate", "predict"]
