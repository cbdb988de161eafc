"""Checkpoint to labels, and to files."""

from dali_asr.prediction.predict import Prediction, classified, label, predict, prepare
from dali_asr.prediction.writers import SUFFIXES, encode, write_prediction

__all__ = ["SUFFIXES", "Prediction", "classified", "encode", "label", "predict", "prepare", "write_prediction"]
