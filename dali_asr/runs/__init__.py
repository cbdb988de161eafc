"""Runs: the folder a training leaves behind, its checkpoints, metrics and trackers."""

from dali_asr.runs.reporter import Reporter

__all__ = ["Reporter"]
