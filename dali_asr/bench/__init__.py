"""The loaders that ours is measured against, and how they are measured."""

from dali_asr.bench.loader import BenchSettings, bench_loader, synthetic_corpus
from dali_asr.bench.train import TrainSettings, bench_train

__all__ = ["BenchSettings", "TrainSettings", "bench_loader", "bench_train", "synthetic_corpus"]
