"""Packed corpus to batches. The only place that imports DALI."""

from dali_asr.loading.device import describe_device, resolve_device
from dali_asr.loading.feed import Batch
from dali_asr.loading.fused import can_fuse
from dali_asr.loading.loader import WindowLoader
from dali_asr.loading.masking import Bands, Masking
from dali_asr.loading.plan import Plan, Planner

__all__ = [
    "Bands",
    "Batch",
    "Masking",
    "Plan",
    "Planner",
    "WindowLoader",
    "can_fuse",
    "describe_device",
    "resolve_device",
]
