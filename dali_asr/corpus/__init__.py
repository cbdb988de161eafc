"""Source files to packed corpus, and back. NumPy only: neither torch nor DALI is imported here."""

from dali_asr.corpus.corpus import Corpus
from dali_asr.corpus.export import export_corpus
from dali_asr.corpus.normalize import Normalization
from dali_asr.corpus.pack import pack_corpus
from dali_asr.corpus.packed import verify
from dali_asr.corpus.packing import PackSettings
from dali_asr.corpus.partition import FRAME_PERIOD, Partition
from dali_asr.corpus.segment_counts import count_segments
from dali_asr.corpus.writer import PackedWriter
from dali_asr.segments import NO_LABEL

__all__ = [
    "FRAME_PERIOD",
    "NO_LABEL",
    "Corpus",
    "Normalization",
    "PackSettings",
    "PackedWriter",
    "Partition",
    "count_segments",
    "export_corpus",
    "pack_corpus",
    "verify",
]
