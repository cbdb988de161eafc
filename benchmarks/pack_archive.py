"""Compare the rate of packing an archive with that of decompressing it alone.

    python benchmarks/make_course_tree.py /tmp/tree
    tar czf /tmp/tree.tar.gz -C /tmp/tree train-clean-100
    python benchmarks/pack_archive.py /tmp/tree.tar.gz --json benchmarks/results/pack-archive_MACHINE_DATE.json

Decompressing is `tar xzOf ARCHIVE` to nothing. Both run in turn, each in its own process, whose start counts, and read
from a warm page cache. The rate is that of the decompressed bytes, by the clock, and by the
seconds of all cores that were used, which other programs disturb less.
"""

from __future__ import annotations

import sys
import tempfile
from functools import partial
from pathlib import Path
from statistics import median

import torch
from harness import in_turn, parser, timed, write

from dali_asr.corpus.archive import read_members

PACK = """
import sys
from pathlib import Path
from dali_asr.corpus import PackSettings, pack_corpus
pack_corpus(Path(sys.argv[1]), Path(sys.argv[2]), PackSettings(normalization=sys.argv[3], train=tuple(sys.argv[4:])))
"""


def main() -> None:
    """Measure and print."""
    arguments = parser(__doc__, repeats=5)
    arguments.add_argument("archive", type=Path, help="a .tar.gz of a course folder")
    arguments.add_argument("--normalization", default="utterance", choices=("utterance", "global", "none"))
    arguments.add_argument("--train", nargs="*", default=["train-clean-100"], help="for global normalization")
    given = arguments.parse_args()
    members = [member.size for member in read_members(given.archive)]  # which reads the whole file once
    decompress = partial(timed, ["tar", "xzOf", str(given.archive)])
    pack = partial(time_packing, given.archive, given.normalization, given.train)
    alone, packing = in_turn(given.repeats, decompress, pack)
    ratio, core_ratio = (median(a[at] for a in alone) / median(p[at] for p in packing) for at in (0, 2))
    results = {
        "members": len(members),
        "bytes": sum(members),
        "archive_bytes": given.archive.stat().st_size,
        "normalization": given.normalization,
        "decompressing_seconds": [seconds for seconds, _, _ in alone],
        "packing_seconds": [seconds for seconds, _, _ in packing],
        "decompressing_core_seconds": [used for _, _, used in alone],
        "packing_core_seconds": [used for _, _, used in packing],
        "rate_of_decompressing_alone": ratio,
        "rate_on_one_core": core_ratio,
        "peak_anonymous_MiB": max(peak for _, peak, _ in packing) / 2**20,
    }
    print(
        f"{sum(members) / 1e9:.2f} GB: decompressing {median(s for s, _, _ in alone):.2f} s, "
        f"packing {median(s for s, _, _ in packing):.2f} s: {ratio:.0%} of the rate, "
        f"{core_ratio:.0%} per second of a core, {results['peak_anonymous_MiB']:.0f} MiB"
    )
    write(given.json, "pack_archive", torch.device("cpu"), **results)


def time_packing(archive: Path, normalization: str, train: list[str]) -> tuple[float, int, float]:
    """Return the seconds of packing, its peak of anonymous memory in bytes, and the seconds of all cores."""
    with tempfile.TemporaryDirectory(dir=archive.parent) as scratch:
        return timed([sys.executable, "-c", PACK, str(archive), f"{scratch}/packed", normalization, *train])


if __name__ == "__main__":
    main()
