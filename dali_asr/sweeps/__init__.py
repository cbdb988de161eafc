"""Many runs that differ in some settings, and the table that compares them."""

from dali_asr.sweeps.combinations import SweepPlan, plan_sweep
from dali_asr.sweeps.sweep import SweepReporter, sweep

__all__ = ["SweepPlan", "SweepReporter", "plan_sweep", "sweep"]
