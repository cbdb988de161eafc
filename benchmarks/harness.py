"""What the scripts in this folder share: arguments, repeats in turn, and the file of results."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dali_asr.environment import environment
from dali_asr.files import check_output, disk_errors, write_file

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch


def parser(description: str | None, *, repeats: int | None = None) -> argparse.ArgumentParser:
    """Return a parser with `--json`, and with `--repeats` if a default is given."""
    made = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--json", type=_output, help="write machine, versions and all repeats to this file")
    if repeats is not None:
        made.add_argument("--repeats", type=int, default=repeats, help="number of times that each side is measured")
    return made


def in_turn(repeats: int, *sides: Callable[[], Any]) -> list[list[Any]]:
    """Call all sides `repeats` times; return the results of each.

    Every second round is in reverse order, so that each side runs after the other and after itself.
    """
    results: list[list[Any]] = [[] for _ in sides]
    for number in range(repeats):
        order = range(len(sides)) if number % 2 == 0 else reversed(range(len(sides)))
        for at in order:
            results[at].append(sides[at]())
    return results


def timed(command: list[str]) -> tuple[float, int, float]:
    """Run a command, with its output thrown away.

    Returns:
        Its seconds, the peak of the anonymous memory of all of its processes in bytes, sampled ten times a second, and
        the seconds of all cores that they used.
    """
    start, peak, before = time.perf_counter(), 0, os.times()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, start_new_session=True) as child:
        while child.poll() is None:
            peak = max(peak, anonymous_memory(child.pid))
            with suppress(subprocess.TimeoutExpired):
                child.wait(0.1)
    if child.returncode:
        raise SystemExit(f"{command[0]} failed")
    seconds, after = time.perf_counter() - start, os.times()
    used = after.children_user + after.children_system - before.children_user - before.children_system
    return seconds, peak, used


def anonymous_memory(session: int) -> int:
    """Return the anonymous and shared memory of all processes of a session, in bytes."""
    total = 0
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if os.getsid(int(folder.name)) != session:
                continue
            lines = (folder / "status").read_text().splitlines()
        except (OSError, ProcessLookupError):
            continue
        total += sum(1024 * int(line.split()[1]) for line in lines if line.startswith(("RssAnon", "RssShmem")))
    return total


def write(path: Path | None, benchmark: str, device: torch.device, **values: Any) -> None:
    """Write results with machine and versions, if there is a file to write to."""
    if path is None:
        return
    with disk_errors(path):
        write_file(
            path, (json.dumps({"benchmark": benchmark, **environment(device), **values}, indent=1) + "\n").encode()
        )


def _output(text: str) -> Path:
    """Check that results can be written, before anything is measured."""
    path = Path(text)
    check_output(path, overwrite=True)
    return path
