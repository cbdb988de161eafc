"""The run folder: what a run leaves behind, so that it explains itself.

config.yaml         the resolved configuration
environment.json    versions and machine
metrics.jsonl       a line every so many steps and one an epoch; the same for the same seed
timings.jsonl       seconds and frames per second of each epoch
curves.png          loss and accuracy
checkpoints/        last and best
"""

from __future__ import annotations

import json
import os
import platform
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

import torch

from dali_asr.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path

    from dali_asr.config import Config

PACKAGES = ("dali-asr", "nvidia-dali-cuda120", "torch", "numpy", "pydantic", "safetensors", "torchmetrics")


class RunFolder:
    """A run's folder, newly made.

    Args:
        path: the folder; it may exist when it is empty.

    Raises:
        UsageError: it holds something.
    """

    def __init__(self, path: Path) -> None:
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise UsageError(f"{path}: exists and is not empty; choose another folder (--run)")
        path.mkdir(parents=True, exist_ok=True)
        self.path = path

    @property
    def checkpoints(self) -> Path:
        """Where checkpoints lie."""
        return self.path / "checkpoints"

    def describe(self, config: Config, device: torch.device) -> None:
        """Write the resolved configuration, versions and machine."""
        (self.path / "config.yaml").write_text(config.to_yaml(), encoding="utf-8")
        self._write_json("environment.json", environment(device))

    def log(self, line: dict[str, Any]) -> None:
        """Append to the metrics."""
        self._append("metrics.jsonl", line)

    def time(self, line: dict[str, Any]) -> None:
        """Append to the timings."""
        self._append("timings.jsonl", line)

    def _append(self, name: str, line: dict[str, Any]) -> None:
        with (self.path / name).open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def _write_json(self, name: str, values: dict[str, Any]) -> None:
        (self.path / name).write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


def environment(device: torch.device) -> dict[str, Any]:
    """Return versions and machine as JSON values."""
    values: dict[str, Any] = {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "machine": {
            "system": platform.platform(),
            "processor": _processor(),
            "cores": len(os.sched_getaffinity(0)),
            "gpu": torch.cuda.get_device_name(device) if device.type == "cuda" else None,
        },
        "device": str(device),
        "python": platform.python_version(),
        "cuda": torch.version.cuda,
    }
    values["packages"] = {name: installed_version(name) for name in PACKAGES}
    return values


def installed_version(package: str) -> str:
    """Return a package's version, or `not installed`."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:  # noqa: PTH123
            return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "")
    except OSError:
        return platform.processor()
