"""A process that fetches, unpacks or mirrors, to be killed: `python -m tests.fetching.victim WHAT SOURCE DEST`."""

from __future__ import annotations

import sys
from pathlib import Path

from dali_asr.fetching import mirror as mirroring
from dali_asr.fetching.fetch import fetch
from dali_asr.fetching.http import HttpRemote
from dali_asr.fetching.sources import Source
from dali_asr.fetching.unpacking import unpack

mirroring._PART = 1 << 16


def run(what: str, source: str, dest: Path) -> None:
    """Do one of the three."""
    if what == "fetch":
        fetch(source, dest)
    elif what == "unpack":
        unpack(Path(source), dest)
    else:
        folder = HttpRemote(source, source)
        mirroring.mirror(Source.parse(source), {name: folder.child(name) for name in ("a", "b", "c")}, dest)


if __name__ == "__main__":
    print("begun", flush=True)
    run(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
