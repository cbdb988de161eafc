"""Loader spec to plan: which frames a step reads, and which bands of them are masked. NumPy only."""

from dali_asr.plan.groups import Layout
from dali_asr.plan.masking import Bands, Masking
from dali_asr.plan.planner import Plan, Planner
from dali_asr.plan.spec import LoaderSpec

__all__ = ["Bands", "Layout", "LoaderSpec", "Masking", "Plan", "Planner"]
