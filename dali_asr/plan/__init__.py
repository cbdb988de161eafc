"""Loader spec to plan: which frames a step reads and which bands are masked. NumPy only."""

from dali_asr.plan.masking import Bands, Masking
from dali_asr.plan.planner import Plan, Planner

__all__ = ["Bands", "Masking", "Plan", "Planner"]
