"""Where the time of a training step goes: shares of a step, a trace for Chrome, and a flame graph of the loader."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import chain, repeat
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch.profiler import ProfilerActivity, record_function
from torch.profiler import profile as torch_profile

from dali_asr.build import open_corpus
from dali_asr.config import Config
from dali_asr.corpus.packing import quiet
from dali_asr.errors import UsageError
from dali_asr.files import disk_errors, new_folder
from dali_asr.reports.flame import Stacks, draw_flame, read_folded
from dali_asr.training.distributed import joined
from dali_asr.training.setup import build_stepper, set_up
from dali_asr.training.step import matrix_precision

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import CodeType

    from dali_asr.corpus import Corpus
    from dali_asr.corpus.packing import Progress
    from dali_asr.loading import Batch, WindowLoader
    from dali_asr.training.distributed import World
    from dali_asr.training.step import Stepper

Part = Literal["data", "forward", "backward", "optimizer"]
Sampler = Literal["py-spy", "a thread"]
PARTS: tuple[Part, ...] = ("data", "forward", "backward", "optimizer")
TRACE, FLAME = "trace.json", "loader.svg"
_WARM_UP = 5  # steps that are not timed: the first ones allocate memory and choose algorithms
_TRACED = 10  # steps in the trace, which takes some 100 kB for each
_LOADING_SECONDS = 3.0  # that the stacks of the loader are sampled for
_SAMPLES_PER_SECOND = 250
_PROGRAMS = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])


@dataclass(frozen=True)
class StepProfile:
    """Where the time of a training step goes.

    Attributes:
        seconds: mean time of each part of a step.
        steps: number of steps that were timed.
        device: where the model trains.
        sampler: what sampled the stacks of the loader: `py-spy` or `a thread`.
    """

    seconds: dict[Part, float]
    steps: int
    device: torch.device
    sampler: Sampler

    @property
    def step_seconds(self) -> float:
        """Mean time of a step."""
        return sum(self.seconds.values())

    def share(self, part: Part) -> float:
        """Return the fraction of a step that a part takes."""
        return self.seconds[part] / self.step_seconds


def profile(
    config: Config,
    folder: Path,
    *,
    steps: int = 50,
    corpus: Corpus | None = None,
    progress: Progress = quiet,
    overwrite: bool = False,
) -> StepProfile:
    """Time the parts of training steps, trace some of them, and draw a flame graph of the loader.

    Every part is timed until the device has finished it, so that parts that overlap in training do not overlap here.
    `data` is the wait for a batch while DALI prepares the next ones.

    Args:
        config: the configuration; nothing is trained that is kept.
        folder: receives `trace.json`, for Chrome's chrome://tracing or ui.perfetto.dev, and `loader.svg`; it appears
            when both are complete.
        steps: number of steps to time.
        corpus: the corpus to train on, instead of the configured one.
        progress: called with a stage, the steps done, and of all.
        overwrite: whether a folder with a profile is replaced.

    Raises:
        UsageError: the folder exists, or there are too few frames for a batch.
        DataError: the corpus is missing or damaged, or the folder cannot be written.
        DeviceError: no such device, or too little memory.
    """
    _check_folder(folder, overwrite=overwrite)
    config = config.model_copy(update={"data": config.data.model_copy(update={"dev": None})})
    with joined(config.loader.device) as world, matrix_precision(world.device, allow_tf32=config.training.allow_tf32):
        opened = corpus or open_corpus(config.data, progress)
        setup = set_up(config, opened, world)
        stepper = build_stepper(
            setup.model.to(world.device),
            config.training,
            world,
            steps=_WARM_UP + steps + _TRACED,
            class_weights=setup.class_weights,
            states=setup.states,
        )
        stepper.model.train()
        batches = chain.from_iterable(repeat(setup.batches))
        seconds = _time_parts(stepper, batches, world, steps, progress)
        with disk_errors(folder), new_folder(folder) as partial:
            _trace(stepper, batches, world, partial / TRACE)
            progress("sampling the loader", 0, 1)
            sampler, stacks = _loader_stacks(setup.batches, config if corpus is None else None)
            title = f"The loader on {world.device}: {setup.batches!r}"
            (partial / FLAME).write_text(draw_flame(stacks, title), encoding="utf-8")
            progress("sampling the loader", 1, 1)
    return StepProfile(seconds, steps, world.device, sampler)


def _check_folder(folder: Path, *, overwrite: bool) -> None:
    if not folder.exists():
        return
    if not overwrite:
        raise UsageError(f"{folder}: exists; choose another folder, or overwrite it (overwrite=True)")
    if not folder.is_dir() or not {path.name for path in folder.iterdir()} <= {TRACE, FLAME}:
        raise UsageError(f"{folder}: exists and is not a profile, so it is not overwritten; choose another folder")


def _time_parts(
    stepper: Stepper, batches: Iterator[Batch], world: World, steps: int, progress: Progress
) -> dict[Part, float]:
    """Return the mean seconds of each part."""
    clock = _Clock(world.device)
    for done in range(-_WARM_UP, steps):
        if done == 0:
            clock = _Clock(world.device)
        _step(stepper, batches, clock)
        progress("timing steps", max(done + 1, 0), steps)
    return {part: clock.seconds[part] / steps for part in PARTS}


def _step(stepper: Stepper, batches: Iterator[Batch], clock: _Clock) -> None:
    with clock.timing("data"):
        batch = next(batches)
    with clock.timing("forward"):
        loss = stepper.forward(batch)
    with clock.timing("backward"):
        stepper.backward(loss)
    with clock.timing("optimizer"):
        stepper.update()


class _Clock:
    """Sums the time of the parts of steps, each until the device has finished it."""

    def __init__(self, device: torch.device) -> None:
        self.seconds: dict[Part, float] = dict.fromkeys(PARTS, 0.0)
        self._device = device
        self._part: Part = "data"
        self._label: Any = nullcontext()
        self._begun = 0.0

    def timing(self, part: Part) -> _Clock:
        """Return the clock as a context of a part."""
        self._part = part
        return self

    def __enter__(self) -> None:
        self._label = record_function(self._part)  # names the part in a trace
        self._label.__enter__()
        self._begun = time.perf_counter()

    def __exit__(self, *error: object) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        self.seconds[self._part] += time.perf_counter() - self._begun
        self._label.__exit__(*error)


def _trace(stepper: Stepper, batches: Iterator[Batch], world: World, path: Path) -> None:
    """Write a trace of some steps in Chrome's format."""
    activities = [ProfilerActivity.CPU]
    if world.device.type == "cuda":
        activities.append(ProfilerActivity.CUDA)
    with torch_profile(activities=activities) as traced:
        for _ in range(_TRACED):
            _step(stepper, batches, _Clock(world.device))
    traced.export_chrome_trace(str(path))


def _loader_stacks(loader: WindowLoader, config: Config | None) -> tuple[Sampler, Stacks]:
    """Sample the stacks of a loader: by py-spy in a process of its own where it is installed, else by a thread."""
    if config is not None and (py_spy := shutil.which("py-spy", path=_PROGRAMS)):
        stacks = _sampled_by_py_spy(py_spy, config)
        if stacks:
            return "py-spy", stacks
    return "a thread", _sampled_by_thread(loader)


def _sampled_by_py_spy(py_spy: str, config: Config) -> Stacks:
    """Return the stacks of the thread that iterates; empty if py-spy may not look into the process."""
    with tempfile.TemporaryDirectory() as scratch:
        recipe, folded = Path(scratch) / "config.yaml", Path(scratch) / "stacks"
        recipe.write_text(config.to_yaml(), encoding="utf-8")
        watched = [sys.executable, "-m", "dali_asr.reports.profile", str(recipe), str(_LOADING_SECONDS)]
        options = ["--format", "raw", "--function", "--rate", str(_SAMPLES_PER_SECOND), "--output", str(folded)]
        done = subprocess.run([py_spy, "record", *options, "--", *watched], capture_output=True, check=False)
        if done.returncode or not folded.is_file():
            return {}
        return read_folded(folded.read_text(encoding="utf-8"), within="_iterate ")


def _sampled_by_thread(loader: WindowLoader) -> Stacks:
    """Return the stacks of this thread, which iterates, looked at by another one.

    torch's profiler could record stacks as well, but it sets a trace function in every thread, and crashes now and then
    where threads come and go.
    """
    stacks: Stacks = {}
    iterating, over = threading.get_ident(), threading.Event()

    def sample() -> None:
        while not over.wait(1 / _SAMPLES_PER_SECOND):
            frame, names = sys._current_frames().get(iterating), []
            while frame is not None:
                names.append(_frame_name(frame.f_code))
                if frame.f_code is _iterate.__code__:
                    stack = tuple(reversed(names))
                    stacks[stack] = stacks.get(stack, 0) + 1
                    break
                frame = frame.f_back

    sampler = threading.Thread(target=sample, name="dali-asr samples the loader", daemon=True)
    sampler.start()
    try:
        _iterate(loader, _LOADING_SECONDS)
    finally:
        over.set()
        sampler.join()
    return stacks


def _frame_name(code: CodeType) -> str:
    """Return what a frame is called, as py-spy does: its function, its file below the folder of imports, its line."""
    path = code.co_filename
    roots = (f"{root}/" for root in sys.path if root)
    root = max((root for root in roots if path.startswith(root)), key=len, default="")
    name = getattr(code, "co_qualname", code.co_name)  # since Python 3.11
    return f"{name} ({path.removeprefix(root)}:{code.co_firstlineno})"


def _iterate(loader: WindowLoader, seconds: float) -> None:
    begun = time.perf_counter()
    for batch in chain.from_iterable(repeat(loader)):
        del batch
        if time.perf_counter() - begun > seconds:
            return


def _load_for(config: Config, seconds: float) -> None:
    """Iterate over a configuration's loader, as py-spy watches it in a process of its own."""
    with joined(config.loader.device) as world:
        _iterate(set_up(config, open_corpus(config.data, quiet), world).batches, seconds)


if __name__ == "__main__":
    _load_for(Config.load(sys.argv[1]), float(sys.argv[2]))
