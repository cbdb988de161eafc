"""The loaders that ours is measured against, and how they are measured."""

from dali_asr.bench.loader import BenchSettings, bench_loader, synthetic_partition, to_json

__all__ = ["BenchSettings", "bench_loader", "synthetic_partition", "to_json"]
