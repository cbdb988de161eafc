"""Training runs in processes of their own, to be interrupted and killed.

    python -m tests.training_runs RUN [SECTION.KEY=VALUE ...]

prints the number of each step that is logged. The environment says how it runs and fails:

DIE_AT_WRITE=n                 SIGKILL at the n-th flush or rename
FULL_FROM=n                    the disk is full from the n-th flush on
DIE_ON_RANK=r, DIE_AT_STEP=n   exit code 3 at step n on rank r, unless torchrun restarted the process
COMMAND=[...], ERRORS=path     the command line with these arguments, which writes errors to a file
FOLDER=path                    in this folder, without root's right to read and write everything
WORLD_SIZE=n                   on n processes with the environment that torchrun gives them
AGENT_RESTARTS=n               on two processes of torchrun's agent, which starts them again n times
"""

from __future__ import annotations

import ctypes
import errno
import hashlib
import itertools
import json
import os
import signal
import socket
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from dali_asr.runs import Reporter
from tests.processes import ForkServer

# Everything that a resumed run has to bring back: dropout, averages of batch norm and of weights, masks, momentum,
# the schedule, sums under way.
OVERRIDES = (
    "loader.device=cpu",
    "loader.context=3",
    "loader.subset=9",
    "loader.masking={}",
    "loader.batch_size=250",
    "model.hidden=[24,24]",
    "model.dropout=0.2",
    "model.norm=[batch,layer]",
    "model.residual=true",
    "training.epochs=4",
    "training.ema=0.9",
    "training.schedule.kind=cosine",
    "training.schedule.warmup_steps=10",
    "training.label_smoothing=0.1",
    "training.class_weights=balanced",
    "training.optimizer.max_gradient_norm=1",
    "training.save_every=7",
    "training.log_every=4",
)
# A model and a partition for tests that are not about what it learns.
SMALL = ("model.hidden=[8]", "loader.context=1", "loader.subset=9", "loader.device=cpu")


class Forker:
    """Training runs, one after another, in processes that a server forks."""

    def __init__(self, server: ForkServer) -> None:
        self.printed: list[str] = []
        self._server = server

    def start(self, run: Path, *overrides: str, **environment: str) -> int:
        """Start a run and return the ID of its process."""
        self._program = self._server.start(
            "python", "-m", "tests.training_runs", str(run), *OVERRIDES, *overrides, **environment
        )
        return self._program.pid

    def command(self, *arguments: str, errors: Path, **environment: str) -> int:
        """Start the command line, which writes its errors to a file, and return the ID of its process."""
        return self.start(Path(), COMMAND=json.dumps(arguments), ERRORS=str(errors), **environment)

    def read(self) -> str:
        """Return the next line that the run printed."""
        line = self._program.stdout.readline()
        assert line, "the run ended"
        return line.strip()

    def wait(self) -> int:
        """Wait for the run and return its exit code, negative for a signal."""
        with self._program.stdout as lines:
            self.printed = [line.strip() for line in lines]
        return self._program.wait()

    def finish(self, run: Path, *overrides: str, ranks: int = 1) -> list[str]:
        """Run to the end, on several processes as torchrun starts them; return the lines that were printed."""
        assert self.end(run, *overrides, ranks=ranks) == 0
        return self.printed

    def end(self, run: Path, *overrides: str, ranks: int = 1, **environment: str) -> int:
        """Run to the end, as `finish`; return the exit code."""
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
        place = {"WORLD_SIZE": str(ranks), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        self.start(run, *overrides, **(place if ranks > 1 else {}), **environment)
        return self.wait()


class Warnings(Reporter):
    """Collects the warnings and the notes of a run."""

    def __init__(self) -> None:
        self.messages: list[str] = []
        self.notes: list[str] = []

    def noted(self, message: str) -> None:
        self.notes.append(message)

    def warned(self, message: str) -> None:
        self.messages.append(message)


class Printer(Reporter):
    """Prints the number of every step that is logged, and the warnings."""

    def stepped(self, step: int, metrics: dict[str, float | None], speed: float) -> None:
        del metrics, speed
        print(step, flush=True)

    def warned(self, message: str) -> None:
        print(f"warning: {message}", flush=True)


def damage(path: Path, change: Callable[[Any], Any]) -> None:
    """Change the values in a file of a checkpoint, `.json` or `.pt`, and make its checksum match again."""
    old = hashlib.sha256(path.read_bytes()).hexdigest()
    if path.suffix == ".json":
        path.write_text(json.dumps(change(json.loads(path.read_text()))))
    elif path.suffix == ".safetensors":
        path.write_bytes(save_tensors(change(load_tensors(path.read_bytes()))))
    else:
        torch.save(change(torch.load(path, weights_only=True)), path)
    sums = path.with_name("SHA256SUMS")
    sums.write_text(sums.read_text().replace(old, hashlib.sha256(path.read_bytes()).hexdigest()))


def die_at_write(number: int) -> None:
    calls = itertools.count(1)

    def counted(call: Callable[..., Any]) -> Callable[..., Any]:
        def dying(*arguments: Any, **named: Any) -> Any:
            if next(calls) == number:
                os.kill(os.getpid(), signal.SIGKILL)
            return call(*arguments, **named)

        return dying

    os.fsync = counted(os.fsync)
    os.rename = counted(os.rename)
    os.replace = counted(os.replace)
    os.rmdir = counted(os.rmdir)


def fill_disk(number: int) -> None:
    """Let every flush fail from the n-th on, as on a full disk."""
    calls, flush = itertools.count(1), os.fsync

    def flushing(fd: Any) -> None:
        if next(calls) >= number:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        flush(fd)

    os.fsync = flushing


def _die_at_step(number: int) -> None:
    from dali_asr.training.step import Stepper

    forward = Stepper.forward

    def dying(self: Stepper, batch: Any) -> Any:
        if self.steps == number:
            os._exit(3)
        return forward(self, batch)

    Stepper.forward = dying  # type: ignore[method-assign]


def _run() -> int:
    """Run what the environment says, on as many ranks; return the exit code."""
    if "COMMAND" in os.environ:
        os.environ["RANK"] = os.environ["LOCAL_RANK"] = str(_fork_ranks())
        return _command(json.loads(os.environ["COMMAND"]))
    if "AGENT_RESTARTS" not in os.environ:
        os.environ["RANK"] = os.environ["LOCAL_RANK"] = str(_fork_ranks())
        main()
        return 0
    agent = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=2,
        max_restarts=int(os.environ["AGENT_RESTARTS"]),
        monitor_interval=0.1,
        start_method="fork",
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
    )
    try:
        elastic_launch(agent, _main_of_agent)()
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        print(f"rank {rank} failed with exit code {failure.exitcode}")
        return 1
    return 0


def _drop_rights() -> None:
    """Give up CAP_DAC_OVERRIDE (bit 1) and CAP_DAC_READ_SEARCH (bit 2), which root has."""
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)  # of capabilities in two words, of this process
    sets = (ctypes.c_uint32 * 6)()  # effective, permitted and inheritable: low words, then high words
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.capget(header, sets) == 0
    for at in range(3):
        sets[at] &= ~0b110
    assert libc.capset(header, sets) == 0, os.strerror(ctypes.get_errno())


def _command(arguments: list[str]) -> int:
    """Run the command line; return its exit code."""
    from dali_asr.cli import main as command_line

    if "FOLDER" in os.environ:
        os.chdir(os.environ["FOLDER"])
        _drop_rights()
    if "DIE_AT_WRITE" in os.environ:
        die_at_write(int(os.environ["DIE_AT_WRITE"]))
    os.dup2(os.open(os.environ["ERRORS"], os.O_WRONLY | os.O_CREAT), 2)
    sys.argv[1:] = arguments
    try:
        command_line()
    except SystemExit as end:
        sys.stderr.flush()
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    return 0


def _main_of_agent() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # instead of the agent's handler, which a fork inherits
    main()


def _fork_ranks() -> int:
    """Fork a process for each further rank of `WORLD_SIZE`; return the rank of this one."""
    for rank in range(1, int(os.environ.get("WORLD_SIZE", "1"))):
        if not os.fork():
            return rank
    return 0


def main() -> None:
    """Train, and die where the environment says."""
    from dali_asr.config import Config
    from dali_asr.runs import folder
    from dali_asr.training import train

    setattr(folder, "draw_curves", lambda *_: None)  # noqa: B010 - takes longer than the training, and is not exported
    if "DIE_AT_WRITE" in os.environ:
        die_at_write(int(os.environ["DIE_AT_WRITE"]))
    if "FULL_FROM" in os.environ:
        fill_disk(int(os.environ["FULL_FROM"]))
    first_try = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") == "0"
    if first_try and os.environ.get("DIE_ON_RANK") == os.environ.get("RANK", "0"):
        _die_at_step(int(os.environ["DIE_AT_STEP"]))
    train(Config.load("demo", sys.argv[2:]), run=sys.argv[1], resume="auto", reporter=Printer())


if __name__ == "__main__":
    try:
        sys.exit(_run())
    except Exception:  # noqa: BLE001
        traceback.print_exc(file=sys.stdout)  # which the test reads
        sys.exit(1)
    finally:
        sys.stdout.flush()
        with suppress(ChildProcessError):  # no further ranks
            os.wait()
