"""WindowLoader: a partition as batches of context windows, cut by DALI.

    Partition ──frames──▶ rows on the device [R, D] ─┐
    LoaderSpec ──▶ Planner ──plan──────────────────┴─▶ DALI graph ──▶ DALIGenericIterator ──▶ Batch

Shape letters: `B` windows of a batch, `W` frames of a window, `D` features of a frame.
"""

from __future__ import annotations

import gc
import os
import warnings
import weakref
from typing import TYPE_CHECKING, Any, Literal, NoReturn, TypedDict, get_args

import torch

from dali_asr.corpus import Partition
from dali_asr.device import resolve_device
from dali_asr.errors import DaliAsrWarning, UsageError
from dali_asr.loading.frames import ResidentFrames, StreamedFrames, choose_layout, frame_budget
from dali_asr.loading.fused import FusedGraph, fused_problem
from dali_asr.loading.lifecycle import wait_for_shutdowns
from dali_asr.loading.pipeline import Batch, Feed, release_unused_memory
from dali_asr.loading.rows import row_bytes
from dali_asr.loading.sizing import GraphName, IterationSize, Memory
from dali_asr.loading.source import StepSource
from dali_asr.loading.stock import StockGraph
from dali_asr.plan import Layout, LoaderSpec, Planner
from dali_asr.plan.spec import MAX_EPOCHS, Dtype, as_bytes, as_dtype, as_masking, both_sides, checked_integer

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from dali_asr.loading.frames import Frames
    from dali_asr.plan import Masking

GraphChoice = Literal["auto", "stock", "fused"]


class Groups(TypedDict):
    """How a streamed partition is cut into groups, which its order depends on."""

    chunk_frames: int
    chunks: int


class LoaderState(TypedDict):
    """State of a loader: JSON values, the same on every rank."""

    epoch: int
    delivered: int
    groups: Groups | None
    belongs_to: dict[str, Any]


class WindowLoader:
    """Iterate over a partition in batches of context windows; each `for` loop is one epoch.

    The frames are copied to the device once and stay there; DALI cuts every window from them. Frames that exceed the
    memory budget are streamed in groups: the order is then random among the groups and within each of them.

    Each `for` loop runs the next epoch, in a new order. Leaving a loop early abandons its epoch. A state that was taken
    after any batch and loaded into another loader continues with the batch after it.

    Arguments that decide the sequence (they make up `spec`):
        partition: partition to read.
        context: frames on each side of a window's own, or (left, right).
        batch_size: B, windows per batch on this rank.
        shuffle: whether an epoch is a random permutation of all frames; otherwise it follows frame order.
        seed: seed of order and masks, below 2^64.
        masking: None for no masks, True for the defaults, a `Masking`, or its fields as a mapping.
        subset: read every `subset`-th frame.
        drop_last: whether a short last batch is dropped; otherwise the last two batches share the rest evenly.
        dtype: data type of the windows: `float32`, `float16` or `bfloat16`, or torch's object of this name. Values
            above 65,504 become infinite in `float16`.
        rank: number of this process, from 0.
        world_size: number of processes that share the steps. The batches of all ranks at a step are the global batch.

    Arguments that change only speed and memory:
        device: `auto`, `cpu`, `cuda` or `cuda:N`, or N.
        graph: `stock`, made of DALI's own operators; `fused`, one GPU operator; `auto` takes `fused` on a GPU where
            Triton can launch kernels, and otherwise warns and takes `stock`.
        prefetch: number of iterations that DALI prepares ahead, at least 1.
        memory_budget: device memory for frames and labels, in bytes or as text (`2GiB`); None for a share of what is
            free. It does not bound the batches, which take memory beside them. Frames that exceed it are streamed in
            groups whose size follows from it, and with it their order.
        batches_per_iteration: maximum number of batches that DALI cuts at once; None to choose.

    Attributes:
        spec: what decides the sequence.
        device: where the batches are.
        graph: `stock` or `fused`.
        epoch: current epoch, from 0.
        delivered: number of batches of it delivered so far.
        planner: plans the steps.
        memory: memory that the loader takes of its device.

    Raises:
        UsageError: an argument is out of range, an epoch has no batch, or the memory budget is too small for two groups
            or a batch.
        DeviceError: the device does not exist, or the frames do not fit its memory.
        DataError: the corpus is damaged, or changed since it was opened.

    Example:
        for batch in WindowLoader(partition, context=30, batch_size=4096, masking=True):
            loss = cross_entropy(model(batch.windows), batch.labels)
    """

    batch_sampler = None  # trainers that look at `sampler`, such as Lightning's, look at this as well

    def __init__(
        self,
        partition: Partition,
        *,
        context: int | tuple[int, int],
        batch_size: int,
        shuffle: bool = True,
        seed: int = 0,
        masking: Masking | Mapping[str, Any] | bool | None = None,
        subset: int = 1,
        drop_last: bool = False,
        dtype: Dtype | torch.dtype = "float32",
        rank: int = 0,
        world_size: int = 1,
        device: str | int | torch.device = "auto",
        graph: GraphChoice = "auto",
        prefetch: int = 2,
        memory_budget: int | str | None = None,
        batches_per_iteration: int | None = None,
    ) -> None:
        if not isinstance(partition, Partition):
            raise UsageError(f"loader: received a {type(partition).__name__}; give corpus.partition(NAME)")
        self.spec = LoaderSpec(
            frame_count=partition.frame_count,
            feature_dim=partition.feature_dim,
            context=both_sides(context),
            batch_size=batch_size,
            shuffle=shuffle,
            seed=seed,
            masking=as_masking(masking),
            subset=subset,
            drop_last=drop_last,
            dtype=as_dtype(dtype),
            rank=rank,
            world_size=world_size,
        )
        if not len(self):
            batch = "a batch" if world_size == 1 else "a global batch"
            raise UsageError(
                f"{partition.name}: {self.spec.positions:,} frames are fewer than {batch} of "
                f"{self.spec.steps.global_batch:,}; lower batch_size, or set drop_last to false"
            )
        self.device = resolve_device(f"cuda:{device}" if isinstance(device, int) else str(device))
        self.graph = choose_graph(graph, self.device)
        self._prefetch = checked_integer("prefetch", prefetch, 1)
        self._memory_budget = None if memory_budget is None else as_bytes("memory_budget", memory_budget)
        self._size = IterationSize.choose(
            self.spec, self.graph, partition.dtype.name, self._prefetch, batches_per_iteration, self.device
        )
        self._partition = partition
        self._process = os.getpid()
        self.epoch = self.delivered = 0
        self._begun = False
        self._loop = 0  # number of the loop under way; another number ends it
        self._feed: Feed | None = None
        partition.check_unchanged()
        wait_for_shutdowns()
        self._build(choose_layout(partition, self.spec, self.device, self._memory_budget, self._size.batch_bytes))

    def __repr__(self) -> str:
        return (
            f"WindowLoader({self._partition.name!r}, context={self.spec.context}, batch_size={self.batch_size}: "
            f"{len(self)} batches [{self.batch_size}, {self.spec.window}, {self.spec.feature_dim}] {self.spec.dtype} "
            f"per epoch, on {self.device} by {self.graph}{', streamed' if self.streamed else ''})"
        )

    def __len__(self) -> int:
        """Return the number of batches per epoch."""
        return self.spec.steps.count

    def __iter__(self) -> Iterator[Batch]:
        """Iterate over the next epoch, or over the rest of the epoch of a loaded state.

        Raises:
            UsageError: the loader was closed, another loop over it has begun, or it belongs to another process.
            DataError: the corpus is damaged or changed, found while it is streamed.
            LoadingError: DALI failed.
        """
        feed, loop, count = self._begin(), self._loop, len(self)
        while self.delivered < count:
            batch = feed.next()
            self.delivered += 1
            yield batch
            if loop != self._loop:
                raise UsageError(
                    "loader: it was closed, a state was loaded, or another loop has begun; use one loader per loop"
                )

    def __reduce__(self) -> NoReturn:
        raise UsageError(
            "loader: a WindowLoader cannot be copied, pickled or sent to another process; make another where it is "
            "iterated (it needs no workers: DALI cuts the windows in threads)"
        )

    def __getitem__(self, _index: object) -> NoReturn:
        """Refuse the indices of torch's DataLoader, which needs a dataset."""
        raise UsageError(
            "loader: a WindowLoader is not a dataset for a DataLoader: iterate it directly. It batches, shuffles and "
            "prefetches itself, and needs no workers"
        )

    def state_dict(self) -> LoaderState:
        """Return the position of the loader and what it belongs to, as JSON values; the same on every rank."""
        return {
            "epoch": self.epoch,
            "delivered": self.delivered,
            "groups": self.groups,
            "belongs_to": self._identity(),
        }

    def load_state_dict(self, state: LoaderState) -> None:
        """Continue, in the next loop, after the last batch that had been delivered when `state` was taken.

        The world size may differ if the global batch is the same, and so may the masks. A streamed partition keeps the
        groups of the state, whatever memory is free.

        Raises:
            UsageError: not a loader state, a state of another spec or partition, or groups that exceed the budget.
            DataError: the corpus changed since it was opened.
        """
        try:
            theirs, ours = dict(state["belongs_to"]), self._identity()
        except (KeyError, TypeError, ValueError) as error:
            raise UsageError("loader: not a loader state; pass a value returned by state_dict()") from error
        differing = [f"{k} {_short(theirs.get(k))} (here {_short(ours[k])})" for k in ours if theirs.get(k) != ours[k]]
        if differing:
            raise UsageError(f"loader: the state belongs to another loader: {', '.join(differing)}")
        try:
            epoch = checked_integer("epoch", state["epoch"], 0, MAX_EPOCHS)
            delivered = checked_integer("delivered", state["delivered"], 0, len(self) + 1)
            layout = self._layout_of(state["groups"])
        except (KeyError, TypeError, ValueError) as error:
            reason = f" ({str(error).removeprefix('loader: ')})" if isinstance(error, UsageError) else ""
            raise UsageError(f"loader: not a loader state{reason}; pass a value returned by state_dict()") from error
        self._partition.check_unchanged()
        if state["groups"] != self.groups:
            self._rebuild(layout)
        self.epoch, self.delivered = epoch, delivered
        self._begun = False
        self._loop += 1

    def set_epoch(self, epoch: int) -> None:
        """Let the next loop run this epoch, as `set_epoch` of torch's `DistributedSampler`, and end one under way.

        It begins with the first batch, unless the next loop is to run the rest of this epoch already.

        Raises:
            UsageError: the epoch is out of range.
        """
        checked_integer("epoch", epoch, 0, MAX_EPOCHS)
        self.epoch, self.delivered = self._upcoming if epoch == self._upcoming[0] else (epoch, 0)
        self._begun = False
        self._loop += 1

    @property
    def sampler(self) -> WindowLoader:
        """The loader, which is its own sampler: trainers such as Lightning's call `loader.sampler.set_epoch`."""
        return self

    def close(self) -> None:
        """Free the frames and the pipeline; the loader cannot be used afterwards."""
        self._drop()
        self._loop += 1
        gc.collect()  # DALI's operators reference each other
        release_unused_memory()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    @property
    def batch_size(self) -> int:
        """Number of windows per batch on this rank, B; ragged last batches have fewer."""
        return self.spec.batch_size

    @property
    def batches_ahead(self) -> int:
        """Number of batches that may be prepared before they are asked for."""
        return (self._prefetch + 1) * self._size.within(self.planner).max_steps

    @property
    def groups(self) -> Groups | None:
        """How a streamed partition is cut into groups; None if all frames are on the device."""
        layout = self.planner.layout
        if layout.is_whole:
            return None
        return {"chunk_frames": layout.chunk_frames, "chunks": layout.chunks_per_group}

    @property
    def streamed(self) -> bool:
        """Whether the frames exceed the memory budget and are read in groups."""
        return not self.planner.layout.is_whole

    @property
    def _upcoming(self) -> tuple[int, int]:
        """Epoch and batch that the next loop begins with."""
        over = self._begun or self.delivered >= len(self)
        return (self.epoch + 1, 0) if over else (self.epoch, self.delivered)

    def _begin(self) -> Feed:
        """Move to the next epoch, or to the rest of the one that was loaded."""
        if os.getpid() != self._process:
            raise UsageError(
                f"loader: made in process {self._process} and iterated in process {os.getpid()}, which was forked from "
                "it; make the loader in the process that iterates it, and use no DataLoader workers: it needs none"
            )
        if self._feed is None:
            raise UsageError("loader: it was closed; make another")
        _check_ranks(self.spec.world_size)  # here, since a trainer forms the group after the loader was made
        self._loop += 1
        self.epoch, self.delivered = self._upcoming
        self._begun = True
        self._feed.seek(self.epoch, self.delivered)
        return self._feed

    def _build(self, layout: Layout) -> None:
        """Bring the frames to the device, or prepare to stream them, and build what cuts them."""
        self.planner = planner = Planner(self.spec, layout)
        size = self._size.within(planner)
        frames: Frames
        if layout.is_whole:
            frames = ResidentFrames(self._partition, self.spec, self.device)
        else:
            frames = StreamedFrames(self._partition, planner, self.device)
        assert frames.rows is not None
        graph: StockGraph | FusedGraph
        if self.graph == "fused":
            graph = FusedGraph(planner, frames, self.device, self._prefetch, size.capacity)
        else:
            graph = StockGraph(planner, frames, self.device, self._prefetch)
        source = StepSource(planner, frames, graph, size.max_steps)
        self._feed = Feed(source, graph, self.device, getattr(torch, self.spec.dtype), may_skip=layout.is_whole)
        self._finalizer = weakref.finalize(self, self._feed.stop_later, frames.close)
        self._finalizer.atexit = False  # at exit, `lifecycle` stops every pipeline
        self._close_frames = frames.close
        self.memory = Memory(
            frames=frames.rows.nbytes,
            labels=0 if frames.labels is None else frames.labels.nbytes,
            tables=graph.table_bytes if isinstance(graph, FusedGraph) else 0,
            batches=size.batch_bytes,
        )

    def _drop(self) -> None:
        """Stop the pipeline, then free the frames."""
        if self._feed is not None:
            self._finalizer.detach()
            self._feed.stop()
            self._close_frames()
        self._feed = None

    def _layout_of(self, groups: Groups | None) -> Layout:
        """Return the layout of a state's groups."""
        if groups is None:
            return Layout.whole(self._partition.offsets)
        chunk_frames = checked_integer("chunk_frames", groups["chunk_frames"], 1)
        chunks = checked_integer("chunks", groups["chunks"], 1)
        return Layout.split(self._partition.offsets, chunk_frames, chunks)

    def _rebuild(self, layout: Layout) -> None:
        """Read in another layout, if it fits the memory budget."""
        Planner(self.spec, layout)  # raises before anything is dropped
        groups = 1 if layout.is_whole else 2
        needed = groups * layout.group_rows(self.spec.gap) * row_bytes(self._partition)
        self._drop()
        gc.collect()
        budget = frame_budget(self.device, self._memory_budget, self._size.batch_bytes)
        if needed > budget:
            self._build(self.planner.layout)
            how = "resident, which takes" if layout.is_whole else "streamed in groups, which take"
            raise UsageError(
                f"loader: the frames of the state were {how} {needed:,} bytes, but the memory budget is {budget:,}; "
                "raise memory_budget"
            )
        self._build(layout)

    def _identity(self) -> dict[str, Any]:
        """Return what the order of the windows depends on."""
        return {
            "partition": self._partition.name,
            "corpus": self._partition.fingerprint,
            **self.spec.identity(),
        }


def choose_graph(graph: GraphChoice, device: torch.device) -> GraphName:
    """Return the graph to use on a device.

    Raises:
        UsageError: not the name of a graph, or `fused` was asked for and cannot run.
    """
    if graph not in get_args(GraphChoice):
        raise UsageError(f"loader: graph {graph!r}; expected auto, stock or fused")
    if graph != "auto":
        return graph
    if device.type != "cuda":
        return "stock"
    problem = fused_problem(device)
    if problem is None:
        return "fused"
    message = f"loader: graph stock instead of fused, which is faster: {problem}"
    warnings.warn(message, DaliAsrWarning, stacklevel=3)
    return "stock"


def _short(value: object) -> str:
    """Return a value for people, who tell fingerprints apart by their first digits."""
    return value[:12] if isinstance(value, str) else str(value)


def _check_ranks(world_size: int) -> None:
    """Warn if torch's processes train together and each would read everything."""
    from torch import distributed

    if world_size == 1 and distributed.is_available() and distributed.is_initialized():
        ranks = distributed.get_world_size()
        if ranks > 1:
            message = (
                f"loader: {ranks} processes train together, and each reads the whole partition; give the loader "
                "rank=torch.distributed.get_rank() and world_size=torch.distributed.get_world_size() to share it"
            )
            warnings.warn(message, DaliAsrWarning, stacklevel=3)
