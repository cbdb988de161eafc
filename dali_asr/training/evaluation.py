"""Loss and accuracy of the model under training on the dev partition."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn import functional

from dali_asr.corpus import NO_LABEL
from dali_asr.training.metrics import FrameMetrics
from dali_asr.training.step import forward

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn

    from dali_asr.loading import WindowLoader
    from dali_asr.training.distributed import World
    from dali_asr.training.metrics import Measured


@torch.inference_mode()
def evaluate(
    model: nn.Module, batches: WindowLoader, world: World, precision: str, after_batch: Callable[[], None]
) -> Measured:
    """Return `loss` and `accuracy` over all frames and ranks.

    Args:
        model: the model, which is left in evaluation mode; all ranks take the buffers of rank 0.
        batches: the loader of the dev partition.
        world: the ranks, which share the frames.
        precision: of the forward pass: `fp32`, `bf16` or `fp16`.
        after_batch: called after each batch; may raise.
    """
    world.share_buffers(model.eval())
    metrics = FrameMetrics(world)
    for batch in batches:
        logits = forward(model, batch.windows, precision)
        loss = functional.cross_entropy(logits, batch.labels, ignore_index=NO_LABEL, reduction="sum")
        metrics.update(logits, batch.labels, loss)
        after_batch()
    return metrics.compute()
