"""Packed corpus to batches. The only place that imports DALI."""

from dali_asr.loading.device import describe_device, resolve_device
from dali_asr.loading.loader import Batch, WindowLoader
from dali_asr.loading.plan import Bands, Masking, Plan, Planner

__all__ = [
    "Bands",
    "Batch",
    "Masking",
    "Plan",
    "Planner",
    "WindowLoader",
    "describe_device",
    "resolve_device",
]
