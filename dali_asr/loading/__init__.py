"""Packed corpus and plan to batches: the loader, its two DALI graphs and its kernels."""

from dali_asr.loading.fused import fused_problem
from dali_asr.loading.loader import LoaderState, WindowLoader
from dali_asr.loading.pipeline import Batch

__all__ = ["Batch", "LoaderState", "WindowLoader", "fused_problem"]
