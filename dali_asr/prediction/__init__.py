"""Checkpoint to labels, and to files."""

from dali_asr.prediction.predict import Prediction, label, predict, prepare
from dali_asr.prediction.writers import check_output, encode, write_prediction

__all__ = ["Prediction", "check_output", "encode", "label", "predict", "prepare", "write_prediction"]
