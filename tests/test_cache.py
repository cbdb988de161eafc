"""The cache lists what it holds, and clears what no process uses."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dali_asr import cache
from dali_asr.cache import clear, list_entries, unused_since
from dali_asr.files import cache_folder, new_folder
from tests.makers import make_course

Run = Callable[..., Any]
OPEN = (
    "import sys; from dali_asr import Corpus; c = Corpus.open(sys.argv[1]); print(c.path, flush=True); sys.stdin.read()"
)


def open_elsewhere(course: Path) -> tuple[subprocess.Popen[str], Path]:
    """Open a course folder through the cache in another process; return the process and the packed corpus."""
    command = [sys.executable, "-c", OPEN, str(course)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout
    return process, Path(process.stdout.readline().strip())


def disk_usage(path: Path) -> int:
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())


def test_the_place_is_chosen_by_the_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cache_folder("corpora") == Path(os.environ["XDG_CACHE_HOME"]) / "dali-asr/corpora"
    monkeypatch.setenv("DALI_ASR_CACHE", str(tmp_path / "elsewhere"))
    assert cache_folder("mirrors") == tmp_path / "elsewhere/mirrors"
    monkeypatch.setenv("DALI_ASR_CACHE", "")
    assert cache_folder("corpora") == Path(os.environ["XDG_CACHE_HOME"]) / "dali-asr/corpora"


def test_a_corpus_knows_its_source_and_its_last_use(course: Path) -> None:
    process, packed = open_elsewhere(course)
    (entry,) = list_entries()
    assert entry.in_use
    process.communicate()
    (entry,) = list_entries()
    assert not entry.in_use
    assert (entry.kind, entry.path, entry.size) == ("corpora", packed, disk_usage(packed))
    expected = {"source": str(course), "partitions": ["dev", "test", "train"]}
    assert entry.about == expected | {"normalization": "utterance", "dtype": "float32"}
    assert entry.used == pytest.approx(time.time(), abs=60)
    os.utime(packed.with_name(f"{packed.name}.json"), (0, 0))
    os.utime(packed, (0, 0))
    assert [e.used for e in list_entries()] == [0]
    open_elsewhere(course)[0].communicate()
    assert list_entries()[0].used == pytest.approx(time.time(), abs=60)


def test_entries_of_every_kind_are_listed_and_cleared(run_cli: Run, tmp_path: Path) -> None:
    downloads, mirrors = cache_folder("downloads"), cache_folder("mirrors")
    (mirrors / "ab").mkdir(parents=True)
    (mirrors / "ab/frames.npy").write_bytes(b"x" * 3000)
    downloads.mkdir()
    (downloads / "data.tar.gz").write_bytes(b"x" * 2000)
    (downloads / "data.tar.gz.json").write_text(json.dumps({"source": "https://example.org/data.tar.gz"}))
    (downloads / "other.zip").write_bytes(b"x" * 10)
    (downloads / "other.zip.json").write_text("{")
    os.utime(downloads / "other.zip", (0, 0))
    os.utime(downloads / "other.zip.json", (0, 0))
    listed = run_cli("cache", "list")
    assert listed.exit_code == 0, listed.output
    assert f"{downloads.parent}: 3 entries, 4.9 KiB" in listed.output
    assert "\nhttps://example.org/data.tar.gz\n  downloads, 2.0 KiB, used " in listed.output
    assert "unknown: ab" in listed.output
    assert "1970-01-01" in listed.output
    sizes = dict(line.split(maxsplit=1) for line in run_cli("cache", "size").output.splitlines()[2:])
    assert {name: " ".join(value.split()) for name, value in sizes.items()} == {
        "corpora": "0 0 bytes",
        "downloads": "2 2.0 KiB",
        "mirrors": "1 2.9 KiB",
        "incomplete": "0 0 bytes",
        "total": "3 4.9 KiB",
    }
    nowhere = run_cli("cache", "clear", "--source", "nowhere")
    assert (nowhere.exit_code, "nothing in the cache is from there" in nowhere.stderr) == (2, True)
    tried = run_cli("cache", "clear", "--source", "https://example.org/data.tar.gz", "--dry-run")
    assert tried.output.endswith("Would free 2.0 KiB of 1 entry\n")
    tried = run_cli("cache", "clear", "--older-than", "4w", "--dry-run")
    assert tried.output.splitlines()[-2:] == ["Would free 10 bytes of 1 entry", "Kept 2 used within 4w"]
    assert len(list_entries()) == 3
    assert run_cli("cache", "clear", "--older-than", "4w").output.startswith("Freed 10 bytes of 1 entry\n")
    assert not list(downloads.glob("other*"))
    assert run_cli("cache", "clear").output == "Freed 4.9 KiB of 2 entries\n"
    assert run_cli("cache", "list").output == f"{downloads.parent}: empty\n"
    assert not [*downloads.iterdir(), *mirrors.iterdir()]


@pytest.mark.parametrize("age", ["30", "d", "-1d", "1y", "1.5h", "٣d"])
def test_an_age_has_a_number_and_a_unit(run_cli: Run, age: str) -> None:
    refused = run_cli("cache", "clear", f"--older-than={age}")
    assert refused.exit_code == 2
    assert "expected a number and a unit: 90m, 12h, 30d or 4w" in refused.output


def test_what_killed_processes_left_is_counted_and_cleared(run_cli: Run) -> None:
    corpora = cache_folder("corpora")
    left = corpora / ".0123.01234567.partial"
    left.mkdir(parents=True)
    (left / "frames.npy").write_bytes(b"x" * 100)
    with new_folder(corpora / "ab") as partial:
        (partial / "frames.npy").write_bytes(b"x" * 50)
        assert {e.path: (e.size, e.in_use) for e in list_entries()} == {left: (100, False), partial: (50, True)}
        cleared = run_cli("cache", "clear", "--older-than", "30d")
        assert cleared.output == "Freed 100 bytes of 1 entry\nKept 1 entry that a running process uses\n"
        assert not left.exists()
    assert (corpora / "ab/frames.npy").exists()


def test_a_training_keeps_its_corpus(run_cli: Run, tmp_path: Path) -> None:
    """The cache is cleared in the middle of the first epoch; the second one reads the corpus again."""
    from dali_asr import Config, train
    from dali_asr.runs import Reporter
    from tests.training_runs import SMALL

    class Clearing(Reporter):
        printed = ""

        def stepped(self, step: int, metrics: dict[str, float | None], speed: float) -> None:
            self.printed = self.printed or str(run_cli("cache", "clear").output)

    make_course(tmp_path / "course", {"train": [60, 50], "dev": [40], "test": [30]})
    options = [f"data.root={tmp_path / 'course'}", "training.epochs=2", "loader.batch_size=4", "training.log_every=1"]
    heard = Clearing()
    result = train(Config.load("demo", [*SMALL, *options]), run=tmp_path / "run", reporter=heard)
    assert heard.printed == "Freed 0 bytes of 0 entries\nKept 1 entry that a running process uses\n"
    assert len(result.epochs) == 2


def test_an_entry_that_is_being_written_is_kept(tmp_path: Path) -> None:
    from filelock import FileLock

    path = cache_folder("downloads") / "data.zip"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"half")
    with FileLock(f"{path}.lock"):
        entries = list_entries()
        assert [entry.in_use for entry in entries] == [True]
        assert clear(entries) == []
    assert clear(entries) == entries
    assert clear(entries) == [], "cleared by another process meanwhile"


def test_what_is_fetched_is_described_in_itself_and_its_work_is_incomplete(run_cli: Run, course: Path) -> None:
    from filelock import FileLock

    downloads = cache_folder("downloads")
    shutil.copytree(course, downloads / "0123")
    (downloads / "0123/fetched.json").write_text(json.dumps({"source": "s3://bucket/data.tar.gz", "size": 5}))
    (downloads / ".4567.fetch").mkdir()
    (downloads / ".4567.fetch/file").write_bytes(b"half")
    process, packed = open_elsewhere(downloads / "0123")
    process.communicate()
    sources = {e.path: (e.about.get("source"), e.partial) for e in list_entries()}
    assert sources == {
        packed: ("s3://bucket/data.tar.gz", False),
        downloads / "0123": ("s3://bucket/data.tar.gz", False),
        downloads / ".4567.fetch": (None, True),
    }
    with FileLock(downloads / ".4567.fetch/lock"):
        assert run_cli("cache", "clear").output.endswith("Kept 1 entry that a running process uses\n")
        assert [entry.path for entry in list_entries()] == [downloads / ".4567.fetch"]
    assert run_cli("cache", "clear").output == "Freed 4 bytes of 1 entry\n"


def test_a_cache_that_may_not_be_written_is_used(course: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    process, packed = open_elsewhere(course)
    process.communicate()

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    packed.with_name(f"{packed.name}.json").unlink()
    monkeypatch.setattr(cache, "write_file", refuse)
    monkeypatch.setattr(os, "utime", refuse)
    cache.record_use(packed, {})
    assert [entry.about for entry in list_entries()] == [{}]


def test_recent_entries_are_told_from_old_ones() -> None:
    now = time.time()
    made = [
        cache.Entry("corpora", Path(str(age)), {}, 1, now - age, in_use=False, partial=partial)
        for age, partial in ((5, False), (50, False), (5, True))
    ]
    assert unused_since(made, 20) == made[1:]
    assert unused_since(made, 0) == made
