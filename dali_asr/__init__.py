"""Frame classifiers on speech features: DALI cuts every context window on the GPU, PyTorch trains.

The names below are the library. They are imported when first used, so that `import dali_asr`
costs nothing:

    from dali_asr import Corpus, WindowLoader

    partition = Corpus.open("corpus").partition("train-clean-100")
    for batch in WindowLoader(partition, context=30, batch_size=4096, device="cuda"):
        batch.windows  # [B, 61, D] float32, on the GPU
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dali_asr.config import Config
    from dali_asr.corpus import Corpus, Normalization, PackedWriter, PackSettings, Partition, export_corpus, pack_corpus
    from dali_asr.export.onnx_file import export_onnx
    from dali_asr.inference.evaluate import evaluate
    from dali_asr.inference.predict import predict
    from dali_asr.inference.trained import TrainedModel, load_model
    from dali_asr.inventory import Inventory
    from dali_asr.loading import Batch, WindowLoader
    from dali_asr.model import MLP, HiddenLayer
    from dali_asr.plan import Bands, Masking
    from dali_asr.segments import FrameTiming, Segment, segments_of
    from dali_asr.training import train

__version__ = "0.1.0"

__all__ = [
    "MLP",
    "Bands",
    "Batch",
    "Config",
    "Corpus",
    "FrameTiming",
    "HiddenLayer",
    "Inventory",
    "Masking",
    "Normalization",
    "PackSettings",
    "PackedWriter",
    "Partition",
    "Segment",
    "TrainedModel",
    "WindowLoader",
    "evaluate",
    "export_corpus",
    "export_onnx",
    "load_model",
    "pack_corpus",
    "predict",
    "segments_of",
    "train",
]

_HOME = {
    "MLP": "model",
    "Bands": "plan",
    "Batch": "loading",
    "Config": "config",
    "Corpus": "corpus",
    "FrameTiming": "segments",
    "HiddenLayer": "model",
    "Inventory": "inventory",
    "Masking": "plan",
    "Normalization": "corpus",
    "PackSettings": "corpus",
    "PackedWriter": "corpus",
    "Partition": "corpus",
    "Segment": "segments",
    "TrainedModel": "inference.trained",
    "WindowLoader": "loading",
    "evaluate": "inference.evaluate",
    "export_corpus": "corpus",
    "export_onnx": "export.onnx_file",
    "load_model": "inference.trained",
    "pack_corpus": "corpus",
    "predict": "inference.predict",
    "segments_of": "segments",
    "train": "training",
}


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
