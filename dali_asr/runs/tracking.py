"""Trackers: services that show metrics, in addition to the run's folder.

If a tracker is not installed or fails, a warning is given and training continues without it. W&B finds its key where it
always does: in the variable WANDB_API_KEY, or where `wandb login` leaves it. Without a key, or if the server cannot be
reached, its run is recorded offline in the run's folder, and a warning says how to upload it.
"""

from __future__ import annotations

import netrc
import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Callable

    from dali_asr.config import Config

_WAIT = 20  # seconds, for W&B's server
WANDB_ID = "wandb-id"
_UPSTREAM = {"api.forge.coreweave.com": "api.wandb.ai"}  # W&B takes the key of the latter for the former too


class Tracker(Protocol):
    """A service that shows metrics."""

    def log(self, line: dict[str, Any]) -> None:
        """Add a line of the metrics."""
        ...

    def close(self) -> None:
        """Write what is buffered and close."""
        ...


def open_trackers(config: Config, run: Path, step: int, warn: Callable[[str], None]) -> list[Tracker]:
    """Return the configured trackers that are available.

    Args:
        config: the run's configuration.
        run: the run's folder.
        step: the step that training continues from. A tracker that can do so removes its later values.
        warn: receives a warning for each tracker that is unavailable or fails later.
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
            warn(
                f"tracking: {name} is not installed; install it (pip install 'dali-asr[{name}]'), or remove it from "
                "the setting"
            )
        except Exception as error:  # noqa: BLE001 - a tracker's errors are of any kind, and none ends a run
            warn(f"tracking: {name} cannot be used ({_one_line(error)}); training continues without it")
    return found


class _Guarded:
    """A tracker that is disabled after its first error, with a warning."""

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
            self._warn(f"tracking: {self._name} failed ({_one_line(error)}); training continues without it")


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
        reason = f"WANDB_MODE is {mode}"
        if mode == "online" and not _has_key(wandb.setup().settings):
            reason = "wandb found no key, neither of `wandb login` nor in the variable WANDB_API_KEY"
            mode = "offline"
        try:
            self._run = self._begin(wandb, config, run, mode)
        except Exception as error:
            if mode != "online":
                raise
            reason = f"wandb cannot reach its server ({_one_line(error)})"
            mode = "offline"
            wandb.teardown()  # its process still holds the run's name
            self._run = self._begin(wandb, config, run, mode)
        if mode == "offline":
            folder = shlex.quote(str(Path(self._run.dir).parent))
            warn(f"tracking: {reason}; its run is recorded offline, upload it with: wandb sync {folder}")

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
            project=os.environ.get("WANDB_PROJECT") or config.wandb.project,
            entity=os.environ.get("WANDB_ENTITY") or config.wandb.entity,
            name=run.name,
            id=self._number,
            resume="allow",
            dir=str(run),
            config=config.model_dump(mode="json"),
            mode=mode,
            settings=settings,
        )


def scalars(line: dict[str, Any]) -> dict[str, float]:
    """Return the numbers of a line by name, such as `step/loss` for a step and `dev/accuracy` for an epoch."""
    if line["kind"] == "step":
        groups: dict[str, Any] = {"step": {k: line[k] for k in ("loss", "accuracy", "learning_rate")}}
    else:
        groups = {name: line[name] or {} for name in ("train", "dev")}
    return {f"{group}/{name}": v for group, of in groups.items() for name, v in of.items() if v is not None}


def _has_key(settings: Any) -> bool:
    """Whether W&B will find credentials of its server; asks neither the server nor the user."""
    if settings.api_key or os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    host = urlsplit(settings.base_url).netloc
    try:
        logins = netrc.netrc(_netrc_path())
    except (OSError, netrc.NetrcParseError):
        return False
    found = logins.authenticators(host) or logins.authenticators(_UPSTREAM.get(host, host))
    return bool(found and found[2])


def _netrc_path() -> Path:
    """Return the file in which `wandb login` keeps the key."""
    if path := os.environ.get("NETRC"):
        return Path(path).expanduser()
    usual, of_windows = Path.home() / ".netrc", Path.home() / "_netrc"
    return of_windows if of_windows.exists() and not usual.exists() else usual


def _run_id(run: Path) -> str:
    """Return W&B's ID of the run; a resumed run keeps it."""
    path = run / WANDB_ID
    if not path.is_file():
        path.write_text(os.urandom(8).hex(), encoding="ascii")
    return path.read_text(encoding="ascii")


def _one_line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]
