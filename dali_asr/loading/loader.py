"""WindowLoader: a partition as batches of context windows, cut by DALI.

    plan (seed, epoch, step) ──▶ row order, masks ─┐
    Partition ──▶ resident frames [R, D] ──────────┴─▶ DALI graph ──▶ DALIGenericIterator ──▶ Batch

Shape letters: `B` windows of a batch, `W` frames of a window, `D` features of a frame.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

from dali_asr.errors import UsageError
from dali_asr.loading.device import resolve_device
from dali_asr.loading.graph import OUTPUT_TYPES, mask_dtype, stock_graph
from dali_asr.loading.plan import Masking, Planner
from dali_asr.loading.source import ResidentFrames, StepSource

if TYPE_CHECKING:
    from collections.abc import Iterator

    import torch

    from dali_asr.corpus import Partition

_MOST_THREADS = 8


@dataclass(frozen=True)
class Batch:
    """One step's windows, on the loader's device.

    Attributes:
        windows: `[B, W, D]`, float32 or float16.
        labels: `[B]` int64, of the frames in the middle, −100 where one has none; None in an unlabelled
            partition.
        frames: `[B]` int64, their numbers in the partition.
    """

    windows: torch.Tensor
    labels: torch.Tensor | None
    frames: torch.Tensor


class WindowLoader:
    """Iterate over a partition, one epoch a `for` loop, in batches of context windows.

    The frames are copied once to the device and stay there; DALI cuts every window from them. Each `for` loop is
    the next epoch, in an order of its own; one that was left early is not continued. `state_dict()` after any
    batch, loaded into a new loader, continues with the batch after it.

    Args:
        partition: what to read.
        context: frames on either side, or (left, right).
        batch_size: B.
        shuffle: whether an epoch is a random permutation of all frames, else in frame order.
        seed: of order and masks, under 2^64.
        masking: None for none, True for the notebook's widths, or a `Masking`.
        subset: every `subset`-th frame is read.
        drop_last: whether a last batch of fewer than B windows is dropped. Where it is kept, one of a single
            window joins the batch before it, because batch norm cannot train on one.
        dtype: of the windows, `float32` or `float16`.
        graph: `stock`, of DALI's own operators; `auto` chooses.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        prefetch: batches that DALI works on ahead, at least 1.

    Attributes:
        device: where batches lie.
        epoch: the epoch that was begun last, from 0.

    Raises:
        UsageError: an argument out of its range.
        DeviceError: no such device, or the frames do not fit its memory.

    Example:
        for batch in WindowLoader(partition, context=30, batch_size=4096, masking=True):
            loss = cross_entropy(model(batch.windows), batch.labels)
    """

    def __init__(
        self,
        partition: Partition,
        *,
        context: int | tuple[int, int],
        batch_size: int,
        shuffle: bool = True,
        seed: int = 0,
        masking: Masking | bool | None = None,
        subset: int = 1,
        drop_last: bool = False,
        dtype: str = "float32",
        graph: Literal["auto", "stock"] = "auto",
        device: str | torch.device = "auto",
        prefetch: int = 2,
    ) -> None:
        left, right = context if isinstance(context, (tuple, list)) else (context, context)
        _check_arguments(left, right, dtype, graph, prefetch)
        self.device = resolve_device(str(device))
        self.epoch = 0
        self.planner = Planner(
            frame_count=partition.frame_count,
            batch_size=batch_size,
            window=left + 1 + right,
            feature_dim=partition.feature_dim,
            seed=seed,
            shuffle=shuffle,
            subset=subset,
            drop_last=drop_last,
            masking=Masking() if masking is True else masking or None,
        )
        self._partition_name = partition.name
        self._context = (left, right)
        self._delivered = 0
        self._begun = False
        self._loop = 0
        self._resident = ResidentFrames(partition, left, right, self.device)
        self._source = StepSource(self.planner, self._resident, partition.labels(), mask_dtype(dtype))
        self._batches = self._build(dtype, prefetch, labelled=partition.stored_labels is not None)

    def __len__(self) -> int:
        """Batches of an epoch."""
        return self.planner.steps

    def __iter__(self) -> Iterator[Batch]:
        """Iterate over the next epoch, or over what a loaded state has left of its own.

        Raises:
            UsageError: another loop over this loader was begun meanwhile.
        """
        self._begin()
        turn = self._loop
        while self._delivered < len(self):
            if turn != self._loop:
                raise UsageError("WindowLoader: another loop over it was begun; use one loader a loop")
            batch = self._next_batch()
            self._delivered += 1
            yield batch

    def state_dict(self) -> dict[str, Any]:
        """Return where the loader is: what was delivered, and what it belongs to; JSON values only."""
        return {"epoch": self.epoch, "delivered": self._delivered, "belongs_to": self._identity()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue, in the next loop, after the last batch that was delivered when `state` was taken.

        Raises:
            UsageError: a state of another partition, seed, batch size or the like.
        """
        theirs, ours = state["belongs_to"], self._identity()
        differing = [f"{k} {theirs.get(k)} (here {ours[k]})" for k in ours if theirs.get(k) != ours[k]]
        if differing:
            raise UsageError(f"WindowLoader: the state belongs to another loader: {', '.join(differing)}")
        self.epoch, self._delivered = int(state["epoch"]), int(state["delivered"])
        self._begun = False

    def close(self) -> None:
        """Give the frames and the pipeline's memory back; the loader cannot be used after."""
        del self._batches, self._source, self._resident

    def _build(self, dtype: str, prefetch: int, *, labelled: bool) -> Iterator[Any]:
        # DALI's torch plugin takes long to import.
        from nvidia.dali.plugin.pytorch import DALIGenericIterator

        masking = self.planner.masking
        pipeline, outputs = stock_graph(
            self._resident.rows,
            self._source,
            device=self.device,
            shape=(self.planner.window, self.planner.feature_dim),
            dtype=dtype,
            labelled=labelled,
            masked=masking is not None and masking.frequency.count[1] > 0,
            prefetch=prefetch,
            threads=min(len(os.sched_getaffinity(0)), _MOST_THREADS),
        )
        batches: Iterator[Any] = DALIGenericIterator([pipeline], outputs, size=-1, prepare_first_batch=False)
        return batches

    def _begin(self) -> None:
        """Set out for the next epoch, or for the rest of the one that was loaded."""
        self._loop += 1
        if self._begun or self._delivered >= len(self):
            self.epoch += 1
            self._delivered = 0
        self._begun = True
        upcoming = self._source.upcoming
        if (upcoming.epoch, upcoming.step) != (self.epoch, self._delivered):
            self._source.seek(self.epoch, self._delivered)

    def _next_batch(self) -> Batch:
        while True:
            (output,) = next(self._batches)
            issued = self._source.issued.popleft()
            if issued.turn == self._source.turn:  # else it was prefetched for a loop that was left
                break
        # The one sample of DALI's batch is the minibatch.
        labels = output["labels"][0] if "labels" in output else None
        return Batch(output["windows"][0], labels, output["frames"][0])

    def _identity(self) -> dict[str, Any]:
        """Return all that the sequence of batches follows from."""
        plan = asdict(self.planner)
        masking = plan.pop("masking")
        return {
            "partition": self._partition_name,
            **plan,
            "context": list(self._context),
            "masking": json.loads(json.dumps(masking)),
        }


def _check_arguments(left: int, right: int, dtype: str, graph: str, prefetch: int) -> None:
    if min(left, right) < 0:
        raise UsageError(f"WindowLoader: context {left}, {right}; expected frames on either side, 0 or more")
    if dtype not in OUTPUT_TYPES:
        raise UsageError(f"WindowLoader: dtype {dtype!r}; expected {' or '.join(OUTPUT_TYPES)}")
    if graph not in ("auto", "stock"):
        raise UsageError(f"WindowLoader: graph {graph!r}; expected auto or stock")
    if prefetch < 1:
        raise UsageError(f"WindowLoader: prefetch {prefetch}; expected 1 or more")
