"""Many runs that differ in some settings, and the table that compares them."""

from dali_asr.sweeps.reporter import SweepReporter

__all__ = ["SweepReporter"]
