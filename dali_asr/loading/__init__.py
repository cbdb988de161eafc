"""Packed corpus and plan to batches. The only room that imports DALI."""

from dali_asr.loading.feed import Batch
from dali_asr.loading.fused import can_fuse
from dali_asr.loading.loader import WindowLoader

__all__ = ["Batch", "WindowLoader", "can_fuse"]
