"""Where the labels of a corpus are wrong."""

from dali_asr.reports.audit.auditing import Audit, audit
from dali_asr.reports.audit.findings import KINDS, Finding, Kind

__all__ = ["KINDS", "Audit", "Finding", "Kind", "audit"]
