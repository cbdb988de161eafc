"""Runs: the folder that a training leaves behind, with its checkpoints, metrics and trackers."""

from dali_asr.runs.reporter import Reporter

__all__ = ["Reporter"]
