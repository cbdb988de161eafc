"""WindowLoader: a partition as batches of context windows, cut by DALI.

    plan (seed, epoch, step) ──▶ what to cut ──────┐
    Partition ──▶ frames on the device [R, D] ─────┴─▶ DALI graph ──▶ DALIGenericIterator ──▶ Batch

Shape letters: `B` windows of a batch, `W` frames of a window, `D` features of a frame.
"""

from __future__ import annotations

import gc
import json
import operator
import weakref
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch

from dali_asr.corpus import Partition, verify
from dali_asr.device import resolve_device
from dali_asr.errors import UsageError
from dali_asr.loading.feed import Batch, Feed
from dali_asr.loading.frames import ResidentFrames, StreamedFrames
from dali_asr.loading.fused import FusedGraph, can_fuse, check_can_fuse
from dali_asr.loading.graph import OUTPUT_TYPES, release_unused_memory
from dali_asr.loading.memory import Memory, choose_chunks, frame_budget, free_memory, row_bytes
from dali_asr.loading.source import StepSource
from dali_asr.loading.stock import StockGraph
from dali_asr.plan.groups import Chunks
from dali_asr.plan.masking import Masking
from dali_asr.plan.planner import Planner

if TYPE_CHECKING:
    from collections.abc import Iterator

# Windows that an iteration cuts, in bytes, unless it is set: enough to make DALI's fixed cost small. On the CPU more
# than its caches hold would cost more than it brings, and the stock graph's host work grows with it.
_ITERATION_BYTES = {"stock": 32 << 20, "fused": 256 << 20}
_MOST_EPOCHS = (1 << 32) - 1  # a word of the draws' counter, and the source runs one ahead
_ITERATION_SHARE = 64  # of free memory: an iteration takes no more than one part


class WindowLoader:
    """Iterate over a partition, one epoch a `for` loop, in batches of context windows.

    The frames are copied once to the device and stay there; DALI cuts every window from them. Where they exceed the
    memory budget, they are streamed in groups, and the order of an epoch is random within a group and among groups.
    Each `for` loop is the next epoch, in an order of its own; one that was left early is not continued.
    `state_dict()` after any batch, loaded into a new loader, continues with the batch after it.

    Args:
        partition: what to read.
        context: frames on either side, or (left, right).
        batch_size: B, on this rank.
        shuffle: whether an epoch is a random permutation of all frames, else in frame order.
        seed: of order and masks, under 2^64.
        masking: None for none, True for the notebook's widths, or a `Masking`.
        subset: every `subset`-th frame is read.
        drop_last: whether a last batch of fewer windows is dropped. Where it is kept, the last two share evenly
            what is left, so that none is small.
        dtype: of the windows, `float32` or `float16`.
        graph: `stock`, of DALI's own operators; `fused`, one GPU operator; `auto` is `fused` on CUDA with Triton,
            else `stock`.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        prefetch: iterations that DALI works on ahead, at least 1.
        memory_budget: bytes of the device for frames and their labels; None for a share of what is free.
        batches_per_iteration: batches that DALI cuts at once, at most; None for as many as pay. Order and contents
            do not depend on it.
        rank: which of the processes this is, from 0.
        world_size: how many processes share the steps. The batches of all ranks at a step are the global batch.

    Attributes:
        device: where batches lie.
        graph: `stock` or `fused`.
        epoch: the epoch that was begun last, from 0.
        delivered: batches of it that were delivered.
        planner: plans the steps.
        memory: what the loader takes of its device.

    Raises:
        UsageError: an argument out of its range, or a memory budget too small for two groups or a batch.
        DeviceError: no such device, or the frames do not fit its memory.
        DataError: the corpus changed since it was opened.

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
        graph: Literal["auto", "stock", "fused"] = "auto",
        device: str | torch.device = "auto",
        prefetch: int = 2,
        memory_budget: int | None = None,
        batches_per_iteration: int | None = None,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        if not isinstance(partition, Partition):
            raise UsageError(f"WindowLoader: received a {type(partition).__name__}; give corpus.partition(NAME)")
        self._left, self._right = _both_sides(context)
        self._dtype = _one_of("dtype", dtype, *OUTPUT_TYPES)
        self._prefetch = _at_least("prefetch", prefetch, 1)
        self._budget = None if memory_budget is None else _at_least("memory_budget", memory_budget, 1)
        self._most_steps = (
            None if batches_per_iteration is None else _at_least("batches_per_iteration", batches_per_iteration, 1)
        )
        self.device = resolve_device(str(device))
        self.graph = _choose_graph(graph, self.device)
        self.epoch = 0
        self._partition = partition
        self._plan_arguments: dict[str, Any] = {
            "frame_count": partition.frame_count,
            "batch_size": _integer("batch_size", batch_size),
            "window": self._left + 1 + self._right,
            "feature_dim": partition.feature_dim,
            "seed": _integer("seed", seed),
            "shuffle": bool(shuffle),
            "subset": _integer("subset", subset),
            "drop_last": bool(drop_last),
            "masking": _masking(masking),
            "rank": _integer("rank", rank),
            "world_size": _integer("world_size", world_size),
        }
        self._iteration_bytes = min(_ITERATION_BYTES[self.graph], free_memory(self.device) // _ITERATION_SHARE)
        self.delivered = 0
        self._begun = False
        self._loop = 0
        self._feed: Feed | None = None
        partition.check_unchanged()
        gap = max(self._left, self._right, 1)
        planner = Planner(**self._plan_arguments)
        working = self._batch_memory(self._capacity(planner))
        alone = planner.world_size == 1
        self._lay_out(choose_chunks(partition, gap, self.device, budget=self._budget, batches=working, alone=alone))

    def __len__(self) -> int:
        """Batches of an epoch."""
        return self.planner.steps.count

    def __iter__(self) -> Iterator[Batch]:
        """Iterate over the next epoch, or over what a loaded state has left of its own.

        Raises:
            UsageError: another loop over this loader was begun meanwhile, or the loader closed.
            DataError: the corpus changed while it was streamed.
            LoadingError: DALI failed.
        """
        feed = self._begin()
        loop = self._loop
        while self.delivered < len(self):
            batch = feed.next()
            self.delivered += 1
            yield batch
            if loop != self._loop:
                raise UsageError(
                    "WindowLoader: it was closed, a state was loaded, or another loop begun; use one loader a loop"
                )

    def state_dict(self) -> dict[str, Any]:
        """Return where the loader is: what was delivered, and what it belongs to; JSON values only.

        It is the same on every rank.
        """
        return {
            "epoch": self.epoch,
            "delivered": self.delivered,
            "world_size": self.planner.world_size,
            "groups": self.groups,
            "files": self._file_stamps(),
            "belongs_to": self._identity(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue, in the next loop, after the last batch that was delivered when `state` was taken.

        Another world size may continue it, if the global batch is the same. The groups of a streamed partition are
        those of the state, whatever memory is free. Where the corpus's files have another size or time than when the
        state was taken, they are read whole and compared with their checksums.

        Raises:
            UsageError: a state of another partition, seed, global batch or the like, or none at all; or one whose
                groups exceed the memory budget.
            DataError: the corpus changed since it was opened, or since it was packed.
        """
        try:
            theirs, ours = dict(state["belongs_to"]), self._identity()
            epoch, delivered = _integer("epoch", state["epoch"]), _integer("delivered", state["delivered"])
            groups, files = state["groups"], state["files"]
        except (KeyError, TypeError, ValueError) as error:
            raise UsageError("WindowLoader: no state of a loader; give what state_dict() returned") from error
        differing = [f"{k} {_short(theirs.get(k))} (here {_short(ours[k])})" for k in ours if theirs.get(k) != ours[k]]
        if differing:
            raise UsageError(f"WindowLoader: the state belongs to another loader: {', '.join(differing)}")
        if not (0 <= epoch < _MOST_EPOCHS and 0 <= delivered <= len(self)):
            raise UsageError(
                f"WindowLoader: the state stands at epoch {epoch}, batch {delivered}; an epoch has {len(self)} batches"
            )
        self._partition.check_unchanged()
        if files != self._file_stamps():
            for folder in {file.path.parent for file in self._partition.packed_files}:
                verify(folder)
        if groups != self.groups:
            self._adopt(groups)
        self.epoch, self.delivered = epoch, delivered
        self._begun = False
        self._loop += 1  # a loop that is under way ends

    def close(self) -> None:
        """Give the frames and the pipeline's memory back; the loader cannot be used after."""
        self._let_go()
        self._loop += 1
        gc.collect()  # DALI's operators hold each other
        release_unused_memory()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    @property
    def batches_ahead(self) -> int:
        """Batches that may be ready before they are asked for."""
        return (self._prefetch + 1) * self._steps_at_once(self.planner)

    @property
    def groups(self) -> dict[str, int] | None:
        """How a streamed partition is cut, which its order follows from; None where it is on the device as a whole."""
        chunks = self.planner.chunks
        return None if chunks is None else {"chunk_frames": chunks.target, "chunks": chunks.most}

    @property
    def streamed(self) -> bool:
        """Whether the frames exceed the memory budget, so that they are read in groups."""
        return self.planner.chunks is not None

    def _begin(self) -> Feed:
        """Set out for the next epoch, or for the rest of the one that was loaded."""
        if self._feed is None:
            raise UsageError("WindowLoader: it was closed; make another")
        self._loop += 1
        if self._begun or self.delivered >= len(self):
            self.epoch, self.delivered = self.epoch + 1, 0
        self._begun = True
        self._feed.seek(self.epoch, self.delivered)
        return self._feed

    def _lay_out(self, chunks: Chunks | None) -> None:
        """Put the frames on the device, or make ready to stream them, and build what cuts them."""
        self.planner = planner = Planner(**self._plan_arguments, chunks=chunks)
        capacity = self._capacity(planner)
        shape = (self._partition, self._left, self._right, self.device)
        frames: ResidentFrames | StreamedFrames
        frames = ResidentFrames(*shape) if chunks is None else StreamedFrames(*shape, chunks, planner.groups)
        graph: StockGraph | FusedGraph
        if self.graph == "fused":
            graph = FusedGraph(planner, frames, self.device, self._dtype, self._prefetch, capacity)
        else:
            graph = StockGraph(planner, frames, self.device, self._dtype, self._prefetch)
        source = StepSource(planner, frames, graph, self._steps_at_once(planner))
        self._feed = Feed(source, graph, self.device, may_skip=chunks is None)
        self._finalizer = weakref.finalize(self, _release, self._feed, frames)
        self._finalizer.atexit = False  # DALI and torch tidy up by themselves then
        self.memory = Memory(
            frames=frames.rows.nbytes,
            labels=0 if frames.labels is None else frames.labels.nbytes,
            tables=graph.table_bytes if isinstance(graph, FusedGraph) else 0,
            batches=self._batch_memory(capacity),
        )

    def _let_go(self) -> None:
        """Stop, and let frames and pipeline go."""
        self._finalizer()
        self._feed = None

    def _adopt(self, groups: Any) -> None:
        """Read in the groups of a state."""
        offsets, gap = self._partition.offsets, max(self._left, self._right, 1)
        chunks = None
        if groups is not None:
            try:
                target, most = (_at_least(name, groups[name], 1) for name in ("chunk_frames", "chunks"))
            except (KeyError, TypeError) as error:
                raise UsageError("WindowLoader: no state of a loader; give what state_dict() returned") from error
            chunks = Chunks.split(offsets, target, most)
        rows = Chunks.whole(offsets).group_rows(gap) if chunks is None else 2 * chunks.group_rows(gap)
        needed = rows * row_bytes(self._partition)
        self._let_go()
        gc.collect()
        budget = frame_budget(self.device, self._budget, self._batch_memory(self._capacity(self.planner)))
        if needed > budget:
            self._lay_out(self.planner.chunks)
            how = "resident, which takes" if chunks is None else "streamed in groups that take"
            raise UsageError(
                f"WindowLoader: the state's frames were {how} {needed:,} bytes, the memory budget is {budget:,}; "
                "raise loader.memory_budget"
            )
        self._lay_out(chunks)

    def _steps_at_once(self, planner: Planner) -> int:
        """Return how many steps an iteration has, at most."""
        wanted = self._most_steps or self._iteration_bytes // (planner.batch_size * self._window_bytes)
        possible = min(planner.steps.count, planner.positions_in_two_groups // planner.steps.global_batch)
        return max(1, min(wanted, possible))

    def _capacity(self, planner: Planner) -> int:
        """Return how many windows an iteration has, at most."""
        largest = planner.steps.largest
        return max(largest, self._steps_at_once(planner) * min(planner.batch_size, largest))

    def _batch_memory(self, capacity: int) -> int:
        """Return the bytes of windows in flight.

        These are the prefetched iterations, the one delivered and the one before it; and what one is made of: the
        kernel's output beside DALI's copy, or the stock graph's windows before they are converted and masked.
        """
        masking = self._plan_arguments["masking"]
        steps_of_stock = (self._partition.dtype.name != self._dtype) + bool(masking and masking.frequency.count[1])
        unfinished = 1 if self.graph == "fused" else steps_of_stock
        return (self._prefetch + 2 + unfinished) * capacity * self._window_bytes

    @property
    def _window_bytes(self) -> int:
        return (self._left + 1 + self._right) * self._partition.feature_dim * np.dtype(self._dtype).itemsize

    def _file_stamps(self) -> list[list[int]]:
        """Return size and time of change of the corpus's files."""
        return [[file.size, file.modified] for file in self._partition.packed_files]

    def _identity(self) -> dict[str, Any]:
        """Return all else that the sequence of global batches follows from."""
        planner = self.planner
        masking = None if planner.masking is None else asdict(planner.masking)
        return {
            "partition": self._partition.name,
            "corpus": self._partition.fingerprint,
            "context": [self._left, self._right],
            "global_batch": planner.steps.global_batch,
            "seed": planner.seed,
            "shuffle": planner.shuffle,
            "subset": planner.subset,
            "drop_last": planner.drop_last,
            "masking": json.loads(json.dumps(masking)),
        }


def _release(feed: Feed, frames: ResidentFrames | StreamedFrames) -> None:
    """Stop a loader's pipeline, then let its frames go; also of a loader that was dropped."""
    feed.stop()
    frames.close()


def _short(value: Any) -> str:
    """Return a value for people, who tell fingerprints apart by their first digits."""
    return value[:12] if isinstance(value, str) else str(value)


def _choose_graph(graph: Any, device: torch.device) -> Literal["stock", "fused"]:
    _one_of("graph", graph, "auto", "stock", "fused")
    if graph == "fused":
        check_can_fuse(device)
    if graph == "auto":
        graph = "fused" if device.type == "cuda" and can_fuse(device) else "stock"
    chosen: Literal["stock", "fused"] = graph
    return chosen


def _integer(name: str, value: Any) -> int:
    """Return a plain integer, which NumPy's are not; refuse what would have to be rounded."""
    try:
        if isinstance(value, bool):
            raise TypeError
        return operator.index(value)
    except TypeError as error:
        raise UsageError(f"WindowLoader: {name} {value!r}; expected an integer") from error


def _at_least(name: str, value: Any, least: int) -> int:
    number = _integer(name, value)
    if number < least:
        raise UsageError(f"WindowLoader: {name} {number}; expected {least} or more")
    return number


def _one_of(name: str, value: Any, *allowed: str) -> str:
    if value not in allowed:
        raise UsageError(f"WindowLoader: {name} {value!r}; expected {', '.join(allowed[:-1])} or {allowed[-1]}")
    return str(value)


def _both_sides(context: Any) -> tuple[int, int]:
    sides = tuple(context) if isinstance(context, (tuple, list)) else (context, context)
    if len(sides) != 2:
        raise UsageError(f"WindowLoader: context {context!r}; expected one number of frames, or (left, right)")
    left, right = (_integer("context", side) for side in sides)
    if min(left, right) < 0:
        raise UsageError(f"WindowLoader: context {left}, {right}; expected frames on either side, 0 or more")
    return left, right


def _masking(masking: Any) -> Masking | None:
    if masking is None or isinstance(masking, (bool, Masking)):
        return Masking() if masking is True else masking or None
    raise UsageError(f"WindowLoader: masking {masking!r}; expected None, True or a Masking")
