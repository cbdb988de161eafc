"""Trackers: where metrics go beside the run's folder.

A tracker that is not installed, or fails, is warned of and left; training goes on. W&B finds its key in the environment
(WANDB_API_KEY), and without one its run is recorded offline, below the run's folder.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from dali_asr.config import Config

_WAIT = 20  # seconds, for W&B's server
_WANDB_ID = "wandb-id"


class Tracker(Protocol):
    """Something that shows metrics."""

    def log(self, line: dict[str, Any]) -> None:
        """Add a line of the metrics."""
        ...

    def close(self) -> None:
        """Write what is left."""
        ...


def open_trackers(config: Config, run: Path, step: int, warn: Callable[[str], None]) -> list[Tracker]:
    """Return the configured trackers that can be had.

    Args:
        config: of the run.
        run: its folder.
        step: after which it goes on; what a tracker showed of later ones is taken back where it can.
        warn: told of those that cannot be had, and of those that fail later.
    """
    openers: dict[str, Callable[[], Tracker]] = {
        "tensorboard": lambda: _TensorBoard(run, step),
        "wandb": lambda: _WandB(config, run, warn),
    }
    found: list[Tracker] = []
    for name in config.tracking:
        try:
            found.append(_Guarded(name, openers[name](), warn))
        except ImportError:
            warn(f"tracking: {name} is not installed; install it (pip install 'dali-asr[{name}]'), or take it out")
        except Exception as error:  # noqa: BLE001 - a tracker's errors are of any kind, and none ends a training
            warn(f"tracking: {name} cannot be used ({_one_line(error)}); training goes on without it")
    return found


class _Guarded:
    """A tracker whose faults are warned of once, after which it is left alone."""

    def __init__(self, name: str, tracker: Tracker, warn: Callable[[str], None]) -> None:
        self._name, self._tracker, self._warn = name, tracker, warn
        self._failed = False

    def log(self, line: dict[str, Any]) -> None:
        self._call(lambda: self._tracker.log(line))

    def close(self) -> None:
        self._call(self._tracker.close)

    def _call(self, action: Callable[[], None]) -> None:
        if self._failed:
            return
        try:
            action()
        except Exception as error:  # noqa: BLE001 - as above
            self._failed = True
            self._warn(f"tracking: {self._name} failed ({_one_line(error)}); training goes on without it")


class _TensorBoard:
    def __init__(self, run: Path, step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(run / "tensorboard"), purge_step=step + 1)

    def log(self, line: dict[str, Any]) -> None:
        for name, value in scalars(line).items():
            self._writer.add_scalar(name, value, line["step"])

    def close(self) -> None:
        self._writer.close()


class _WandB:
    def __init__(self, config: Config, run: Path, warn: Callable[[str], None]) -> None:
        import wandb

        self._number = _run_id(run)
        mode = os.environ.get("WANDB_MODE", "online")
        if mode == "online" and not os.environ.get("WANDB_API_KEY"):
            warn("tracking: wandb finds no key in the environment (WANDB_API_KEY); its run is recorded offline")
            mode = "offline"
        try:
            self._run = self._begin(wandb, config, run, mode)
        except Exception as error:
            if mode != "online":
                raise
            warn(f"tracking: wandb cannot reach its server ({_one_line(error)}); its run is recorded offline")
            wandb.teardown()  # whose process still holds the run's name
            self._run = self._begin(wandb, config, run, "offline")

    def log(self, line: dict[str, Any]) -> None:
        self._run.log(scalars(line), step=line["step"])

    def close(self) -> None:
        self._run.finish()

    def _begin(self, wandb: Any, config: Config, run: Path, mode: str) -> Any:
        settings = wandb.Settings(
            init_timeout=_WAIT,
            login_timeout=_WAIT,
            finish_timeout=_WAIT,
            silent=True,
            console="off",
            save_code=False,
        )
        return wandb.init(
            project=os.environ.get("WANDB_PROJECT", "dali-asr"),
            name=run.name,
            id=self._number,
            resume="allow",
            dir=str(run),
            config=config.model_dump(mode="json"),
            mode=mode,
            settings=settings,
        )


def scalars(line: dict[str, Any]) -> dict[str, float]:
    """Return a line's numbers by name: those of a step as `step/loss`, those of an epoch as `dev/accuracy`."""
    if line["kind"] == "step":
        groups: dict[str, Any] = {"step": {k: line[k] for k in ("loss", "accuracy", "learning_rate")}}
    else:
        groups = {name: line[name] or {} for name in ("train", "dev")}
    return {f"{group}/{name}": v for group, of in groups.items() for name, v in of.items() if v is not None}


def _run_id(run: Path) -> str:
    """Return W&B's name of the run, which a run that goes on keeps."""
    path = run / _WANDB_ID
    if not path.is_file():
        path.write_text(os.urandom(8).hex(), encoding="ascii")
    return path.read_text(encoding="ascii")


def _one_line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]
