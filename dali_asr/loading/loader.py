"""WindowLoader: a partition as batches of context windows, cut by DALI.

    plan (seed, epoch, step) ──▶ row order, masks ─┐
    Partition ──▶ resident frames [R, D] ──────────┴─▶ DALI graph ──▶ DALIGenericIterator ──▶ Batch

Shape letters: `B` windows of a batch, `W` frames of a window, `D` features of a frame.
"""

from __future__ import annotations

import json
import operator
import os
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch

from dali_asr.corpus import Partition
from dali_asr.errors import UsageError
from dali_asr.loading.device import resolve_device
from dali_asr.loading.graph import OUTPUT_TYPES, release_unused_memory, stock_graph
from dali_asr.loading.plan import Masking, Planner
from dali_asr.loading.source import ResidentFrames, StepSource

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from nvidia.dali.pipeline import Pipeline


_MOST_THREADS = 8
_BATCHES_HELD = 3  # of windows, a prefetched iteration: DALI's gather, its masked copy, torch's


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
        if not isinstance(partition, Partition):
            raise UsageError(f"WindowLoader: received a {type(partition).__name__}; give corpus.partition(NAME)")
        left, right = _both_sides(context)
        batch_size, seed = _integer("batch_size", batch_size), _integer("seed", seed)
        subset, prefetch = _integer("subset", subset), _integer("prefetch", prefetch)
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
            masking=_masking(masking),
        )
        self._partition_name = partition.name
        self._context = (left, right)
        self._delivered = 0
        self._begun = False
        self._loop = 0
        window_bytes = self.planner.window * partition.feature_dim * np.dtype(dtype).itemsize
        working_memory = _BATCHES_HELD * prefetch * batch_size * window_bytes
        resident = ResidentFrames(partition, left, right, self.device, working_memory=working_memory)
        source = StepSource(self.planner, resident, partition.labels(), dtype)
        self._feed: _Feed | None = _Feed(
            source,
            partial(
                stock_graph,
                resident.rows,
                source,
                device=self.device,
                shape=(self.planner.window, partition.feature_dim),
                dtype=dtype,
                labelled=partition.stored_labels is not None,
                masked=self.planner.masking is not None and self.planner.masking.frequency.count[1] > 0,
                prefetch=prefetch,
                threads=min(len(os.sched_getaffinity(0)), _MOST_THREADS),
            ),
            self.device,
        )

    def __len__(self) -> int:
        """Batches of an epoch."""
        return self.planner.steps

    def __iter__(self) -> Iterator[Batch]:
        """Iterate over the next epoch, or over what a loaded state has left of its own.

        Raises:
            UsageError: another loop over this loader was begun meanwhile, or the loader closed.
        """
        feed = self._begin()
        loop = self._loop
        while self._delivered < len(self):
            output = feed.next()
            self._delivered += 1
            # The one sample of DALI's batch is the minibatch.
            labels = output["labels"][0] if "labels" in output else None
            yield Batch(output["windows"][0], labels, output["frames"][0])
            if loop != self._loop:
                raise UsageError(
                    "WindowLoader: it was closed, a state was loaded, or another loop begun; use one loader a loop"
                )

    def state_dict(self) -> dict[str, Any]:
        """Return where the loader is: what was delivered, and what it belongs to; JSON values only."""
        return {"epoch": self.epoch, "delivered": self._delivered, "belongs_to": self._identity()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue, in the next loop, after the last batch that was delivered when `state` was taken.

        Raises:
            UsageError: a state of another partition, seed, batch size or the like, or none at all.
        """
        try:
            theirs, ours = dict(state["belongs_to"]), self._identity()
            epoch, delivered = _integer("epoch", state["epoch"]), _integer("delivered", state["delivered"])
        except (KeyError, TypeError, ValueError) as error:
            raise UsageError("WindowLoader: no state of a loader; give what state_dict() returned") from error
        differing = [f"{k} {theirs.get(k)} (here {ours[k]})" for k in ours if theirs.get(k) != ours[k]]
        if differing:
            raise UsageError(f"WindowLoader: the state belongs to another loader: {', '.join(differing)}")
        if not (0 <= epoch < 1 << 32 and 0 <= delivered <= len(self)):
            raise UsageError(
                f"WindowLoader: the state stands at epoch {epoch}, batch {delivered}; an epoch has {len(self)} batches"
            )
        self.epoch, self._delivered = epoch, delivered
        self._begun = False
        self._loop += 1  # a loop that is under way ends

    def close(self) -> None:
        """Give the frames and the pipeline's memory back; the loader cannot be used after."""
        self._feed = None
        self._loop += 1
        release_unused_memory()

    def _begin(self) -> _Feed:
        """Set out for the next epoch, or for the rest of the one that was loaded."""
        if self._feed is None:
            raise UsageError("WindowLoader: it was closed; make another")
        self._loop += 1
        if self._begun or self._delivered >= len(self):
            self.epoch += 1
            self._delivered = 0
        self._begun = True
        self._feed.seek(self.epoch, self._delivered)
        return self._feed

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


class _Feed:
    """A DALI pipeline under its source: delivers the steps that are wanted, in order.

    The pipeline is built when it is first needed, and again after an error or an interrupt broke into it, when
    nobody knows what it still holds.
    """

    def __init__(
        self, source: StepSource, build: Callable[[], tuple[Pipeline, list[str]]], device: torch.device
    ) -> None:
        self._source, self._build, self._device = source, build, device
        self._batches: Iterator[Any] | None = None

    def seek(self, epoch: int, step: int) -> None:
        """Deliver this step next."""
        if self._batches is None:
            self._source.issued.clear()
        upcoming = self._source.upcoming
        if (upcoming.epoch, upcoming.step) != (epoch, step):
            self._source.seek(epoch, step)

    def next(self) -> dict[str, Any]:
        """Return the outputs of the next step, by name."""
        with self._on_device():
            batches = self._start() if self._batches is None else self._batches
            self._batches = None
            while True:
                (output,) = next(batches)
                issued = self._source.issued.popleft()
                if issued.turn == self._source.turn:  # else it was prefetched for a loop that was left
                    break
        self._batches = batches
        found: dict[str, Any] = output
        return found

    def _on_device(self) -> AbstractContextManager[Any]:
        # DALI feeds the frames by the stream of torch's current device, whichever that is.
        return torch.cuda.device(self._device) if self._device.type == "cuda" else nullcontext()

    def _start(self) -> Iterator[Any]:
        # DALI's torch plugin takes long to import.
        from nvidia.dali.plugin.pytorch import DALIGenericIterator

        pipeline, outputs = self._build()
        batches: Iterator[Any] = DALIGenericIterator([pipeline], outputs, size=-1, prepare_first_batch=False)
        return batches


def _integer(name: str, value: Any) -> int:
    """Return a plain integer, which NumPy's are not; refuse what would have to be rounded."""
    try:
        if isinstance(value, bool):
            raise TypeError
        return operator.index(value)
    except TypeError as error:
        raise UsageError(f"WindowLoader: {name} {value!r}; expected an integer") from error


def _both_sides(context: Any) -> tuple[int, int]:
    sides = tuple(context) if isinstance(context, (tuple, list)) else (context, context)
    if len(sides) != 2:
        raise UsageError(f"WindowLoader: context {context!r}; expected one number of frames, or (left, right)")
    return _integer("context", sides[0]), _integer("context", sides[1])


def _masking(masking: Any) -> Masking | None:
    if masking is None or isinstance(masking, (bool, Masking)):
        return Masking() if masking is True else masking or None
    raise UsageError(f"WindowLoader: masking {masking!r}; expected None, True or a Masking")


def _check_arguments(left: int, right: int, dtype: str, graph: str, prefetch: int) -> None:
    if min(left, right) < 0:
        raise UsageError(f"WindowLoader: context {left}, {right}; expected frames on either side, 0 or more")
    if dtype not in OUTPUT_TYPES:
        raise UsageError(f"WindowLoader: dtype {dtype!r}; expected {' or '.join(OUTPUT_TYPES)}")
    if graph not in ("auto", "stock"):
        raise UsageError(f"WindowLoader: graph {graph!r}; expected auto or stock")
    if prefetch < 1:
        raise UsageError(f"WindowLoader: prefetch {prefetch}; expected 1 or more")
