"""Packing a course folder: the result, and what is left behind when it fails or is killed."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dali_asr import Corpus, PackedWriter
from dali_asr.corpus import Normalization, PackSettings, pack_corpus, packing, storing, workers
from dali_asr.corpus.layouts.find import partition_names
from dali_asr.errors import DataError, UsageError
from dali_asr.files import new_folder
from dali_asr.inventory import ARPABET
from tests.makers import all_frames, make_course, make_features


def test_many_processes_give_the_bytes_of_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_course(tmp_path / "c", {"train": [1 + i % 17 for i in range(150)], "dev": [5, 3]})
    options = PackSettings(normalization="global", train=("train",))
    pack_corpus(tmp_path / "c", tmp_path / "one", options)
    monkeypatch.setattr(workers, "_MIN_UTTERANCES", 10)
    pack_corpus(tmp_path / "c", tmp_path / "many", options)
    for file in sorted((tmp_path / "one").iterdir()):
        assert file.read_bytes() == (tmp_path / "many" / file.name).read_bytes()


def test_a_fault_in_a_worker_process_reaches_the_caller(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "_MIN_UTTERANCES", 10)
    make_course(tmp_path / "c", {"train": [3] * 40})
    (tmp_path / "c/train/mfcc/u17.npy").write_bytes(b"")
    with pytest.raises(DataError, match=r"u17\.npy: the file is empty"):
        pack_corpus(tmp_path / "c", tmp_path / "packed")
    assert [p.name for p in tmp_path.iterdir()] == ["c"]


def test_global_statistics_come_from_training_alone(course: Path, tmp_path: Path) -> None:
    options = PackSettings(normalization="global", train=("train",))
    pack_corpus(course, tmp_path / "packed", options)
    corpus = Corpus.open(tmp_path / "packed")
    raw = np.concatenate([np.load(p) for p in sorted((course / "train/mfcc").iterdir())]).astype(np.float64)
    assert np.allclose(corpus.normalization.mean, raw.mean(axis=0))
    assert np.allclose(corpus.normalization.deviation, raw.std(axis=0))
    dev = np.concatenate([np.load(p) for p in sorted((course / "dev/mfcc").iterdir())])
    expected = (dev - raw.mean(axis=0)) / raw.std(axis=0)
    assert np.allclose(all_frames(corpus.partition("dev")), expected, rtol=0, atol=1e-5)
    with pytest.raises(UsageError, match="no training partition"):
        pack_corpus(course, tmp_path / "none", PackSettings(normalization="global"))


def test_float16_is_rounded_once(course: Path, tmp_path: Path) -> None:
    pack_corpus(course, tmp_path / "half", PackSettings(dtype="float16"))
    raw = np.load(course / "train/mfcc/u02.npy").astype(np.float64)
    expected = Normalization("utterance").apply(raw).astype(np.float16)
    assert np.array_equal(list(Corpus.open(tmp_path / "half").partition("train").frames())[2], expected)


def test_values_beyond_float16_are_refused(tmp_path: Path) -> None:
    make_course(tmp_path / "c", {"train": [4]})
    np.save(tmp_path / "c/train/mfcc/u00.npy", np.full((4, 5), 1e5, np.float32))
    with pytest.raises(DataError, match="100000 does not fit float16"):
        pack_corpus(tmp_path / "c", tmp_path / "p", PackSettings(normalization="none", dtype="float16"))


@pytest.mark.parametrize("normalization", ["utterance", "global"])
def test_values_too_large_to_normalize_are_refused(tmp_path: Path, normalization: Any) -> None:
    """Their variance overflows; dividing by it would give zeros."""
    make_course(tmp_path / "c", {"train": [4, 5]}, dtype="float64")
    features = np.load(tmp_path / "c/train/mfcc/u01.npy")
    features[:, 1] = [0, 1e160, 0, -1e160, 3]
    np.save(tmp_path / "c/train/mfcc/u01.npy", features)
    with pytest.raises(DataError, match=r"\.npy: values too large to normalize"):
        pack_corpus(tmp_path / "c", tmp_path / "p", PackSettings(normalization=normalization, train=("train",)))


def test_a_full_disk_is_one_line_and_leaves_nothing(
    course: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(DataError, match="No space left on device while writing; free some"):
        pack_corpus(course, tmp_path / "p")
    assert [p.name for p in tmp_path.iterdir()] == ["course"]


def test_ctrl_c_while_packing_leaves_nothing(tmp_path: Path) -> None:
    make_course(tmp_path / "c", {"train": [40] * 1500})
    # Slow enough to be caught at it: each utterance is written after a pause.
    code = (
        "import sys, time; from pathlib import Path; from dali_asr.corpus import draft, pack_corpus\n"
        "write = draft.PackedDraft.write\n"
        "def slow(*a): time.sleep(0.02); return write(*a)\n"
        "draft.PackedDraft.write = slow\n"
        "print('ready', flush=True)\n"
        "pack_corpus(Path(sys.argv[1]), Path(sys.argv[2]))\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "c"), str(tmp_path / "p")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True) as child:
        assert child.stdout
        child.stdout.readline()
        deadline = time.monotonic() + 30
        while not list(tmp_path.glob(".p.*.partial/frames.npy")) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert list(tmp_path.glob(".p.*.partial"))
        os.killpg(child.pid, signal.SIGINT)
        assert child.wait(timeout=20) != 0
    assert [p.name for p in tmp_path.iterdir()] == ["c"]


def test_a_corpus_is_not_packed_into_its_source(course: Path) -> None:
    with pytest.raises(UsageError, match=r"is inside .*course, the folder to pack; choose a place outside"):
        pack_corpus(course, course / "packed")
    assert sorted(p.name for p in course.iterdir()) == ["dev", "test", "train"]


def test_processes_that_pack_do_not_answer_ctrl_c(large_course: Path, tmp_path: Path) -> None:
    """SIGINT is blocked before their first instruction, so none prints a traceback."""
    blocked = []
    others = set(Path("/proc").glob("[0-9]*/status"))  # some are children of this process by other tests

    def look(stage: str, done: int, total: int) -> None:
        for path in set(Path("/proc").glob("[0-9]*/status")) - others:
            with contextlib.suppress(OSError):
                status = dict(line.split(":\t", 1) for line in path.read_text().splitlines())
                if int(status["PPid"]) == os.getpid():
                    deaf = int(status["SigBlk"], 16) | int(status["SigIgn"], 16)
                    blocked.append(bool(deaf >> (signal.SIGINT - 1) & 1))

    pack_corpus(large_course, tmp_path / "p", progress=look)
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, [])
    assert all(blocked)
    assert blocked or len(os.sched_getaffinity(0)) == 1


@pytest.mark.parametrize("normalization", ["utterance", "global", "none"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_long_utterances_are_packed_in_blocks(
    course: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, normalization: Any, order: Any
) -> None:
    features = make_features(30)
    features[:, 1] = 0.1  # constant, and no sum of it is exact
    np.save(course / "train/mfcc/u02.npy", np.asarray(features, order=order))
    settings = PackSettings(("train",), normalization, train=("train",))
    pack_corpus(course, tmp_path / "whole", settings)
    monkeypatch.setattr(storing, "LONG", 8)
    pack_corpus(course, tmp_path / "blocks", settings)
    whole, blocks = (Corpus.open(tmp_path / name).partition("train") for name in ("whole", "blocks"))
    assert np.array_equal(np.load(tmp_path / "whole/labels.npy"), np.load(tmp_path / "blocks/labels.npy"))
    assert np.allclose(all_frames(whole), all_frames(blocks), rtol=1e-6, atol=1e-6)
    if normalization == "none":
        assert all_frames(whole).tobytes() == all_frames(blocks).tobytes()
    if normalization == "utterance":
        assert not list(blocks.frames())[2][:, 1].any()
    features[20, 3] = np.nan
    np.save(course / "train/mfcc/u02.npy", features)
    with pytest.raises(DataError, match="nan at frame 20, feature 3"):
        pack_corpus(course, tmp_path / "bad", settings)


def test_memory_does_not_grow_with_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)))
    assert workers.Workers(10**6)._count == 8


def test_an_existing_folder_is_not_overwritten(course: Path, tmp_path: Path) -> None:
    dest = tmp_path / "p"
    pack_corpus(course, dest)
    with pytest.raises(UsageError, match=r"exists; choose another place, or overwrite it \(overwrite=True\)"):
        pack_corpus(course, dest)
    pack_corpus(course, dest, PackSettings(dtype="float16"), overwrite=True)
    assert Corpus.open(dest).dtype == np.float16
    (tmp_path / "mine").mkdir()
    with pytest.raises(UsageError, match="not a packed corpus, so it is not overwritten"):
        pack_corpus(course, tmp_path / "mine", overwrite=True)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["course", "mine", "p"]


def test_a_corpus_that_cannot_be_replaced_stays(course: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dest = tmp_path / "p"
    pack_corpus(course, dest)
    before = (dest / "corpus.json").read_bytes()

    def fails(*names: Path) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO), str(names[-1]))

    monkeypatch.setattr("dali_asr.files._exchange", fails)
    with pytest.raises(DataError, match="Input/output error while writing"):
        pack_corpus(course, dest, PackSettings(dtype="float16"), overwrite=True)
    assert (dest / "corpus.json").read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["course", "p"]


def test_a_link_to_nowhere_is_not_overwritten(course: Path, tmp_path: Path) -> None:
    (tmp_path / "p").symlink_to(tmp_path / "nowhere")
    with pytest.raises(UsageError, match="exists; choose another place"):
        pack_corpus(course, tmp_path / "p")


def test_a_destination_that_cannot_be_made_is_one_line(course: Path, tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    for dest in (tmp_path / "loop/p", tmp_path / "dangling/p", tmp_path / ("p" * 300), tmp_path / ("p" * 250)):
        with pytest.raises(DataError, match=r"(File exists|File name too long) while writing; choose another place"):
            pack_corpus(course, dest)


def test_global_statistics_must_fit_the_features_and_the_partitions(course: Path, tmp_path: Path) -> None:
    two = Normalization("global", (0.0, 0.0), (1.0, 1.0))

    def write(**options: Any) -> None:
        with PackedWriter(tmp_path / "w", inventory=ARPABET, **options) as writer:
            writer.add("t", "a", np.ones((4, 5)))

    for attempt in (
        lambda: pack_corpus(course, tmp_path / "p", PackSettings(normalization=two)),
        lambda: Corpus.from_arrays([np.ones((4, 5))], normalization=two),
        lambda: write(normalization=two),
    ):
        with pytest.raises(DataError, match="5 features per frame, the normalization statistics have 2"):
            attempt()
    with pytest.raises(UsageError, match=r"'trian' is not packed; .* out of dev, test, train; did you mean train"):
        pack_corpus(course, tmp_path / "p", PackSettings(normalization="global", train=("train", "trian")))
    with pytest.raises(UsageError, match="no training partition is named"):
        pack_corpus(course, tmp_path / "p", PackSettings(normalization="global"))


@pytest.fixture(scope="module")
def large_course(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a course folder that is large enough for two processes."""
    root = tmp_path_factory.mktemp("large") / "c"
    make_course(root, {"train": [20] * 1000})
    return root


@pytest.fixture
def slow_packing(large_course: Path, tmp_path: Path) -> Any:
    """Return a function that starts to pack a large course folder and returns once the workers write."""
    code = (
        "import signal, sys, time; from pathlib import Path; from dali_asr.corpus import pack_corpus, workers\n"
        "signal.signal(signal.SIGHUP, signal.SIG_DFL)  # which `nohup pytest` ignores\n"
        "workers._CHUNK = 1\n"
        "def report(stage, done, total): time.sleep(0.02 if stage == 'packing' else 0)\n"
        "pack_corpus(Path(sys.argv[1]), Path(sys.argv[2]), progress=report)\n"
    )
    command = [sys.executable, "-c", code, str(large_course), str(tmp_path / "p")]

    def start() -> subprocess.Popen[bytes]:
        child = subprocess.Popen(command, stderr=subprocess.DEVNULL, start_new_session=True)
        deadline = time.monotonic() + 30
        while not list(tmp_path.glob(".p.*.partial/frames.npy")) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert list(tmp_path.glob(".p.*.partial"))
        return child

    return start


def processes_of(session: int) -> list[int]:
    """Return the live processes of a session."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
            if int(fields[3]) == session and fields[0] != "Z":
                found.append(int(folder.name))
    return found


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP])
def test_a_killed_packing_leaves_no_processes_and_its_draft_is_swept(
    large_course: Path, tmp_path: Path, slow_packing: Any, number: int
) -> None:
    with slow_packing() as child:
        assert len(processes_of(child.pid)) > 1 or len(os.sched_getaffinity(0)) == 1
        child.send_signal(number)
        assert child.wait(timeout=20) == -number
    deadline = time.monotonic() + 10
    while processes_of(child.pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert processes_of(child.pid) == []
    assert list(tmp_path.glob(".p.*.partial")), "the draft was left behind"
    with new_folder(tmp_path / "live") as live:
        pack_corpus(large_course, tmp_path / "p")
        assert {p.name for p in tmp_path.iterdir()} == {"p", live.name}
        assert live.is_dir(), "a draft of a live process stays"


@pytest.mark.parametrize("make", ["fifo", "loop", "dangling", "folder", "device"])
@pytest.mark.parametrize("folder", ["mfcc", "transcript"])
def test_only_regular_files_are_read(course: Path, tmp_path: Path, make: str, folder: str) -> None:
    path = course / "train" / folder / "u02.npy"
    path.unlink()
    if make == "fifo":
        os.mkfifo(path)
    elif make == "folder":
        path.mkdir()
    else:
        path.symlink_to({"loop": path, "dangling": tmp_path / "nowhere", "device": Path("/dev/zero")}[make])
    reasons = {"loop": "too many levels of symbolic links", "dangling": "no such file or directory"}
    reasons["fifo"] = "is a pipe, not a regular file; put its content into a file instead"
    message = rf"{folder}/u02\.npy: {reasons.get(make, 'is not a regular file; ')}"
    with pytest.raises(DataError, match=message):
        pack_corpus(course, tmp_path / "packed")
    with pytest.raises(DataError, match=message):
        Corpus.open(course)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["course"]


def test_names_are_checked_before_packing(course: Path, tmp_path: Path) -> None:
    stages: list[str] = []

    def report(stage: str, done: int, total: int) -> None:
        stages.append(stage)

    (course / "dev").rename(course / "de\x1bv")
    with pytest.raises(DataError, match=r"partition 'de\\x1bv': invalid name"):
        pack_corpus(course, tmp_path / "p", progress=report)
    with pytest.raises(DataError, match=r"partition '../course': invalid name"):
        pack_corpus(course, tmp_path / "p", PackSettings(partitions=("../course",)), progress=report)
    (course / "de\x1bv").rename(course / "dev")
    name = os.fsdecode(b"\xff.npy")
    for folder in ("mfcc", "transcript"):
        (course / "dev" / folder / "u00.npy").rename(course / "dev" / folder / name)
    with pytest.raises(DataError, match=r"the file name '\\udcff.npy' is not UTF-8; rename it"):
        pack_corpus(course, tmp_path / "p", progress=report)
    assert stages == []


def test_a_source_file_that_is_cut_short_during_packing_is_named(
    course: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.setattr(storing, "LONG", 8)
    shapes = packing._shapes

    def then_cut(utterances: Any) -> Any:
        found = shapes(utterances)
        os.truncate(course / "train/mfcc/u02.npy", 300)
        return found

    monkeypatch.setattr(packing, "_shapes", then_cut)
    with pytest.raises(DataError, match=r"u02\.npy: truncated"):
        pack_corpus(course, tmp_path / "p")
    assert [p.name for p in tmp_path.iterdir()] == ["course"]


def test_a_partition_is_told_from_the_folder_of_the_partitions(course: Path, tmp_path: Path) -> None:
    message = f"{course}/train: is a partition, not the folder of the partitions; give {course}, and train as the name"
    with pytest.raises(DataError, match=message):
        pack_corpus(course / "train", tmp_path / "p")


def test_the_folder_above_a_corpus_names_it(course: Path) -> None:
    message = f"{course.parent}: is not a corpus, but course in it is a course folder; give {course}$"
    with pytest.raises(DataError, match=message):
        partition_names(course.parent)
