"""Benchmarks of the loader against other loaders, and of training against a bare loop."""

from dali_asr.bench.loader import bench_loader, synthetic_corpus
from dali_asr.bench.train import bench_train

__all__ = ["bench_loader", "bench_train", "synthetic_corpus"]
