"""Versions and machine, as results record them. Importing this module imports neither torch nor DALI."""

from __future__ import annotations

import os
import platform
import subprocess
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

PACKAGES = ("dali-asr", "nvidia-dali-cuda120", "torch", "triton", "numpy", "pydantic", "safetensors", "torchmetrics")


def environment(device: torch.device) -> dict[str, Any]:
    """Return date, machine and versions as JSON values; `device` is the device that did the work."""
    import torch

    return {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "machine": {
            "system": platform.platform(),
            "processor": _processor(),
            "cores": len(os.sched_getaffinity(0)),
            "gpu": torch.cuda.get_device_name(device) if device.type == "cuda" else None,
        },
        "device": str(device),
        "git": git_commit(),
        "python": platform.python_version(),
        "cuda": torch.version.cuda,
        "packages": {name: installed_version(name) for name in PACKAGES},
    }


def installed_version(package: str) -> str:
    """Return a package's version, or `not installed`."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def git_commit() -> str | None:
    """Return the commit of the working directory, with `+` if tracked files were changed; None outside of git.

    The repository may be untrusted: its configuration can name programs that `git status` would run. File system
    monitors, hooks, content filters and submodules are therefore turned off.
    """
    try:
        commit = _git("rev-parse", "HEAD")
        names = _git("config", "--list", "--name-only").splitlines()
        filters = [name for name in names if name.lower().startswith("filter.")]
        changed = _git("status", "--porcelain", "--untracked-files=no", "--ignore-submodules=all", cleared=filters)
    except (OSError, subprocess.SubprocessError):
        return None
    return commit + ("+" if changed else "")


def _git(*arguments: str, cleared: list[str] | None = None) -> str:
    """Return what a git command prints; the `cleared` keys of the configuration are set to nothing."""
    keys = {f"GIT_CONFIG_KEY_{at}": key for at, key in enumerate(cleared or [])}
    values = {f"GIT_CONFIG_VALUE_{at}": "" for at in range(len(keys))}
    done = subprocess.run(
        ["git", "-c", "core.fsmonitor=false", "-c", "core.hooksPath=/dev/null", *arguments],
        env={**os.environ, **keys, **values, "GIT_CONFIG_COUNT": str(len(keys)), "GIT_OPTIONAL_LOCKS": "0"},
        capture_output=True,
        text=True,
        timeout=5,
        check=True,
    )
    return done.stdout.strip()


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:  # noqa: PTH123
            return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "")
    except OSError:
        return platform.processor()
