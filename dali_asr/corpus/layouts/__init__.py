"""Layouts of source files, each in a module of its own; `find_layout` recognises them."""

from dali_asr.corpus.layouts.base import Layout, SourcePartition, SourceUtterance
from dali_asr.corpus.layouts.find import find_layout, layout_title, partition_names, refuse_partition

__all__ = [
    "Layout",
    "SourcePartition",
    "SourceUtterance",
    "find_layout",
    "layout_title",
    "partition_names",
    "refuse_partition",
]
