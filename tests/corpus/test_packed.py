"""The packed format: what is in it, how it is written, and how damage is found."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dali_asr import Corpus, Inventory, PackedWriter
from dali_asr.corpus import Normalization, PackSettings, pack_course, packing, verify
from dali_asr.corpus.npy import OpenedFile
from dali_asr.errors import DataError, UsageError
from dali_asr.inventory import ARPABET
from tests.makers import make_course, make_features, make_transcript


def test_anything_can_open_it(course: Path, tmp_path: Path) -> None:
    """The files are plain: judged with NumPy and JSON alone."""
    pack_course(course, tmp_path / "packed")
    folder = tmp_path / "packed"
    assert sorted(p.name for p in folder.iterdir()) == ["corpus.json", "frames.npy", "labels.npy", "offsets.npy"]
    about = json.loads((folder / "corpus.json").read_text())
    frames, labels, offsets = (np.load(folder / f"{n}.npy") for n in ("frames", "labels", "offsets"))
    assert [p["name"] for p in about["partitions"]] == ["dev", "test", "train"]
    assert [p["labelled"] for p in about["partitions"]] == [True, False, True]
    assert about["inventory"] == list(ARPABET.symbols)
    assert about["normalization"] == {"kind": "utterance"}
    assert np.diff(offsets).tolist() == [9, 4, 5, 6, 7, 1, 30, 12]
    assert (frames.dtype, labels.dtype, offsets.dtype) == (np.float32, np.uint8, np.int64)
    assert (labels[13:24] == 255).all()
    at = 0
    for partition in about["partitions"]:
        for name in partition["utterances"]:
            raw = np.load(course / partition["name"] / "mfcc" / f"{name}.npy").astype(np.float64)
            deviation = raw.std(axis=0)
            expected = (raw - raw.mean(axis=0)) / np.where(deviation > 0, deviation, 1)
            rows = slice(offsets[at], offsets[at + 1])
            assert np.allclose(frames[rows], expected, rtol=0, atol=1e-6)
            if partition["labelled"]:
                symbols = np.load(course / partition["name"] / "transcript" / f"{name}.npy")[1:-1]
                assert [about["inventory"][i] for i in labels[rows]] == symbols.tolist()
            at += 1
    for name, digest in about["sha256"].items():
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest


def test_many_processes_give_the_bytes_of_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_course(tmp_path / "c", {"train": [1 + i % 17 for i in range(150)], "dev": [5, 3]})
    options = PackSettings(normalization="global", train=("train",))
    pack_course(tmp_path / "c", tmp_path / "one", options)
    monkeypatch.setattr(packing, "_UTTERANCES_A_PROCESS", 10)
    pack_course(tmp_path / "c", tmp_path / "many", options)
    for file in sorted((tmp_path / "one").iterdir()):
        assert file.read_bytes() == (tmp_path / "many" / file.name).read_bytes()


def test_faults_reach_the_caller_from_a_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing, "_UTTERANCES_A_PROCESS", 10)
    make_course(tmp_path / "c", {"train": [3] * 40})
    (tmp_path / "c/train/mfcc/u17.npy").write_bytes(b"")
    with pytest.raises(DataError, match=r"u17\.npy: the file is empty"):
        pack_course(tmp_path / "c", tmp_path / "packed")
    assert [p.name for p in tmp_path.iterdir()] == ["c"]


def test_global_statistics_come_from_training_alone(course: Path, tmp_path: Path) -> None:
    options = PackSettings(normalization="global", train=("train",))
    pack_course(course, tmp_path / "packed", options)
    corpus = Corpus.open(tmp_path / "packed")
    raw = np.concatenate([np.load(p) for p in sorted((course / "train/mfcc").iterdir())]).astype(np.float64)
    assert np.allclose(corpus.normalization.mean, raw.mean(axis=0))
    assert np.allclose(corpus.normalization.deviation, raw.std(axis=0))
    dev = np.concatenate([np.load(p) for p in sorted((course / "dev/mfcc").iterdir())])
    expected = (dev - raw.mean(axis=0)) / raw.std(axis=0)
    assert np.allclose(corpus.partition("dev").blocks[0], expected, rtol=0, atol=1e-5)
    with pytest.raises(UsageError, match="no training partition"):
        pack_course(course, tmp_path / "none", PackSettings(normalization="global"))


def test_float16_is_rounded_once(course: Path, tmp_path: Path) -> None:
    pack_course(course, tmp_path / "half", PackSettings(dtype="float16"))
    raw = np.load(course / "train/mfcc/u02.npy").astype(np.float64)
    expected = Normalization("utterance").apply(raw).astype(np.float16)
    assert np.array_equal(list(Corpus.open(tmp_path / "half").partition("train").frames())[2], expected)


def test_values_beyond_float16(tmp_path: Path) -> None:
    make_course(tmp_path / "c", {"train": [4]})
    np.save(tmp_path / "c/train/mfcc/u00.npy", np.full((4, 5), 1e5, np.float32))
    with pytest.raises(DataError, match="100000 does not fit float16"):
        pack_course(tmp_path / "c", tmp_path / "p", PackSettings(normalization="none", dtype="float16"))


def test_a_course_folder_is_packed_once_and_found_again(course: Path) -> None:
    first = Corpus.open(course).path
    assert first is not None
    stamp = (first / "corpus.json").stat().st_mtime_ns
    assert Corpus.open(course).path == first
    assert (first / "corpus.json").stat().st_mtime_ns == stamp
    assert Corpus.open(course, PackSettings(dtype="float16")).path != first
    assert Corpus.open(course, PackSettings(partitions=("dev",))).path != first
    np.save(course / "train/mfcc/u00.npy", make_features(7, seed=99))
    assert Corpus.open(course).path != first
    (course / "test/transcript").mkdir()
    for name, frames in (("u00", 5), ("u01", 6)):
        np.save(course / "test/transcript" / f"{name}.npy", make_transcript(frames))
    assert Corpus.open(course).partition("test").labels() is not None


def test_a_packed_corpus_must_agree_with_the_settings(course: Path, tmp_path: Path) -> None:
    pack_course(course, tmp_path / "p")
    for options, part in (
        (PackSettings(normalization="none"), "packed with normalization utterance, asked for none"),
        (PackSettings(dtype="float16"), "packed with dtype float32, asked for float16"),
        (PackSettings(inventory=Inventory(("a", "b"))), "packed with inventory 42 symbols, asked for 2 symbols"),
        (PackSettings(partitions=("other",)), "no partition 'other'"),
    ):
        with pytest.raises(UsageError, match=part):
            Corpus.open(tmp_path / "p", options)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    lengths=st.lists(st.integers(1, 9), min_size=1, max_size=5),
    dim=st.integers(1, 4),
    size=st.sampled_from([2, 300, 70_000]),
    normalization=st.sampled_from(["none", "utterance"]),
    dtype=st.sampled_from(["float32", "float16"]),
)
def test_writer_and_arrays_give_the_same_corpus(
    tmp_path: Path, lengths: list[int], dim: int, size: int, normalization: Any, dtype: str
) -> None:
    inventory = Inventory(tuple(f"s{i}" for i in range(size)))
    rng = np.random.default_rng(dim)
    frames = [make_features(n, dim, seed=i) for i, n in enumerate(lengths)]
    labels = [np.where(rng.random(n) < 0.2, -100, rng.integers(0, size, n)) for n in lengths]
    names = [f"u{i}" for i in range(len(lengths))]
    arguments: dict[str, Any] = {"normalization": normalization, "dtype": dtype}
    with PackedWriter(tmp_path / "w", inventory=inventory, overwrite=True, **arguments) as writer:
        for name, f, row in zip(names, frames, labels, strict=True):
            writer.add("all", name, f, row)
    written = Corpus.open(tmp_path / "w").partition("all")
    made = Corpus.from_arrays(frames, labels, inventory, names=names, **arguments).partition("all")
    assert written.utterances == made.utterances
    assert np.array_equal(written.offsets, made.offsets)
    assert np.concatenate(written.blocks).tobytes() == made.blocks[0].tobytes()
    for partition in (written, made):
        read = partition.labels()
        assert read is not None
        assert np.array_equal(read, np.concatenate(labels))


def test_several_partitions_by_the_writer(tmp_path: Path) -> None:
    with PackedWriter(tmp_path / "w", inventory=ARPABET) as writer:
        writer.add("train", "a", make_features(3), [1, 2, 3])
        writer.add("test", "b", make_features(2))
    corpus = Corpus.open(tmp_path / "w")
    assert corpus.partition("train").labels() is not None
    assert corpus.partition("test").labels() is None
    both = corpus.partition("train", "test")
    labels = both.labels()
    assert labels is not None
    assert labels.tolist() == [1, 2, 3, -100, -100]
    assert corpus.normalization.kind == "none"


@pytest.mark.parametrize(
    ("calls", "message"),
    [
        ([("t", "a", np.ones(3), None)], "frames must be floats"),
        ([("t", "a", np.ones((2, 2), int), None)], "frames must be floats"),
        ([("t", "a", np.full((2, 2), np.nan), None)], "NaN or infinity"),
        ([("t", "a", np.ones((2, 2)), [1])], r"expected integers \[2\]"),
        ([("t", "a", np.ones((2, 2)), [1, 42])], "label 42 at frame 1; the inventory has labels 0 to 41"),
        ([("t", "a", np.ones((2, 2)), [-1, 2])], "label -1 at frame 0"),
        ([("t", "a", np.ones((2, 2)), None), ("t", "b", np.ones((2, 3)), None)], "3 features a frame, 2 in"),
        ([("t", "a", np.ones((2, 2)), None), ("t", "b", np.ones((1, 2)), [1])], "has labels, unlike"),
        (
            [("t", "a", np.ones((2, 2)), None), ("s", "b", np.ones((1, 2)), None), ("t", "c", np.ones((1, 2)), None)],
            "partition t was left for another",
        ),
        ([("t", "a", np.ones((2, 2)), None), ("t", "a", np.ones((2, 2)), None)], "t/a: was added before"),
        ([("../t", "a", np.ones((2, 2)), None)], "partition '../t': no name for one"),
        ([("", "a", np.ones((2, 2)), None)], "partition '': no name for one"),
        ([(3, "a", np.ones((2, 2)), None)], "partition 3: no name for one"),
        ([], "no utterance was added"),
    ],
)
def test_what_the_writer_refuses_leaves_nothing(tmp_path: Path, calls: list[Any], message: str) -> None:
    with pytest.raises(DataError, match=message), PackedWriter(tmp_path / "w", inventory=ARPABET) as writer:
        for call in calls:
            writer.add(*call)
    assert list(tmp_path.iterdir()) == []


def test_what_exists_is_not_overwritten(course: Path, tmp_path: Path) -> None:
    dest = tmp_path / "p"
    pack_course(course, dest)
    with pytest.raises(UsageError, match=r"exists; choose another place, or overwrite it \(--force\)"):
        pack_course(course, dest)
    pack_course(course, dest, PackSettings(dtype="float16"), overwrite=True)
    assert Corpus.open(dest).dtype == np.float16
    (tmp_path / "mine").mkdir()
    with pytest.raises(UsageError, match="no packed corpus, so it is not overwritten"):
        pack_course(course, tmp_path / "mine", overwrite=True)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["course", "mine", "p"]


def test_no_space_left(course: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(DataError, match="no space left on the device while packing; free some"):
        pack_course(course, tmp_path / "p")
    assert [p.name for p in tmp_path.iterdir()] == ["course"]


def test_damage_is_found(course: Path, tmp_path: Path) -> None:
    def damaged(name: str, change: Any, message: str) -> None:
        dest = tmp_path / "p"
        pack_course(course, dest, overwrite=True)
        content = (dest / name).read_bytes()
        (dest / name).write_bytes(change(content))
        with pytest.raises(DataError, match=message):
            Corpus.open(dest)

    damaged("frames.npy", lambda b: b[:-1], r"frames\.npy: truncated, 1 of")
    damaged("labels.npy", lambda b: b[:-1], r"labels\.npy: truncated, 1 of")
    damaged("offsets.npy", lambda b: b[:-1], r"offsets\.npy: truncated, 1 of")
    damaged("corpus.json", lambda b: b[:-9], r"corpus\.json: damaged")
    damaged(
        "corpus.json", lambda b: b.replace(b'"version": 1', b'"version": 2'), "packed format 2, this dali-asr reads"
    )
    damaged("corpus.json", lambda b: b.replace(b'"u00", ', b"", 1), r"offsets\.npy: holds int64 \[9\]")


def test_verify_finds_a_flipped_bit(course: Path, tmp_path: Path) -> None:
    pack_course(course, tmp_path / "p")
    verify(tmp_path / "p")
    content = bytearray((tmp_path / "p/frames.npy").read_bytes())
    content[200] ^= 1
    (tmp_path / "p/frames.npy").write_bytes(content)
    with pytest.raises(DataError, match=r"frames\.npy: its SHA-256 is not the one packed"):
        verify(tmp_path / "p")


def test_from_arrays_refuses_what_does_not_fit() -> None:
    with pytest.raises(UsageError, match="give one array an utterance"):
        Corpus.from_arrays([], [])
    with pytest.raises(UsageError, match="1 frames, 2 labels"):
        Corpus.from_arrays([np.ones((1, 2))], [[1], [2]])
    with pytest.raises(DataError, match="3 features a frame, 2 in 0"):
        Corpus.from_arrays([np.ones((1, 2)), np.ones((1, 3))])
    with pytest.raises(UsageError, match="dtype 'float64'"):
        Corpus.from_arrays([np.ones((1, 2))], dtype="float64")


def test_ctrl_c_while_packing_leaves_nothing(tmp_path: Path) -> None:
    make_course(tmp_path / "c", {"train": [40] * 1500})
    # Slow enough to be caught at it: each utterance is written after a pause.
    code = (
        "import sys, time; from pathlib import Path; from dali_asr.corpus import pack_course, writer\n"
        "write = writer.ArrayWriter.write\n"
        "def slow(*a): time.sleep(0.02); write(*a)\n"
        "writer.ArrayWriter.write = slow\n"
        "print('ready', flush=True)\n"
        "pack_course(Path(sys.argv[1]), Path(sys.argv[2]))\n"
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


def test_an_utterance_that_moves_to_the_next_partition_is_packed_anew(tmp_path: Path) -> None:
    make_course(tmp_path / "c", {"a": [7, 8], "b": [9, 5]})
    for folder in ("mfcc", "transcript"):
        (tmp_path / f"c/b/{folder}/u00.npy").unlink()
        (tmp_path / f"c/b/{folder}/u01.npy").rename(tmp_path / f"c/b/{folder}/u02.npy")
    assert [len(p.utterances) for p in Corpus.open(tmp_path / "c").partitions.values()] == [2, 1]
    for folder in ("mfcc", "transcript"):
        (tmp_path / f"c/a/{folder}/u01.npy").rename(tmp_path / f"c/b/{folder}/u01.npy")
    assert [len(p.utterances) for p in Corpus.open(tmp_path / "c").partitions.values()] == [1, 2]


def test_a_damaged_cache_mends_itself(course: Path) -> None:
    packed = Corpus.open(course).path
    assert packed is not None
    for damage in (
        lambda: (packed / "labels.npy").write_bytes(b""),
        lambda: (packed / "corpus.json").write_text("{"),
        lambda: (packed / "corpus.json").unlink(),
    ):
        damage()
        assert Corpus.open(course).path == packed
        verify(packed)


def test_a_cache_that_cannot_be_made(course: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(DataError, match=r"cannot be made .*; set XDG_CACHE_HOME to another folder"):
        Corpus.open(course)


def test_what_was_there_comes_back_when_it_cannot_be_replaced(
    course: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dest = tmp_path / "p"
    pack_course(course, dest)
    before = (dest / "corpus.json").read_bytes()
    rename = Path.rename

    def fails(self: Path, target: Path) -> Path:
        if self.suffix == ".partial":
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fails)
    with pytest.raises(DataError, match="Input/output error while packing"):
        pack_course(course, dest, PackSettings(dtype="float16"), overwrite=True)
    assert (dest / "corpus.json").read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["course", "p"]


def test_a_link_to_nowhere_is_not_overwritten(course: Path, tmp_path: Path) -> None:
    (tmp_path / "p").symlink_to(tmp_path / "nowhere")
    with pytest.raises(UsageError, match="exists; choose another place"):
        pack_course(course, tmp_path / "p")


def test_arrays_that_are_whole_but_wrong(course: Path, tmp_path: Path) -> None:
    pack_course(course, tmp_path / "p")
    labels = np.load(tmp_path / "p/labels.npy")
    labels[4] = 42
    np.save(tmp_path / "p/labels.npy", labels)
    with pytest.raises(DataError, match="label 42 in a corpus whose inventory has 42 symbols; it is damaged"):
        [p.labels() for p in Corpus.open(tmp_path / "p").partitions.values()]
    np.save(tmp_path / "p/offsets.npy", np.zeros(0, np.int64))
    with pytest.raises(DataError, match=r"offsets\.npy: holds int64 \[0\], its corpus has 8 utterances"):
        Corpus.open(tmp_path / "p")


def test_global_statistics_and_their_features(course: Path, tmp_path: Path) -> None:
    two = Normalization("global", (0.0, 0.0), (1.0, 1.0))

    def write(**options: Any) -> None:
        with PackedWriter(tmp_path / "w", inventory=ARPABET, **options) as writer:
            writer.add("t", "a", np.ones((4, 5)))

    for attempt in (
        lambda: pack_course(course, tmp_path / "p", PackSettings(normalization=two)),
        lambda: Corpus.from_arrays([np.ones((4, 5))], normalization=two),
        lambda: write(normalization=two),
    ):
        with pytest.raises(DataError, match="5 features a frame, the statistics to normalize by have 2"):
            attempt()
    with pytest.raises(UsageError, match=r"'trian' is not packed; .* of dev, test, train; did you mean train"):
        pack_course(course, tmp_path / "p", PackSettings(normalization="global", train=("train", "trian")))
    with pytest.raises(UsageError, match="no training partition is named"):
        pack_course(course, tmp_path / "p", PackSettings(normalization="global"))


def test_an_utterance_that_is_refused_leaves_no_empty_partition(tmp_path: Path) -> None:
    with PackedWriter(tmp_path / "w", inventory=ARPABET, dtype="float16") as writer:
        writer.add("a", "1", np.ones((2, 3)))
        with pytest.raises(DataError, match="does not fit float16"):
            writer.add("b", "1", np.full((2, 3), 1e6))
    assert list(Corpus.open(tmp_path / "w").partitions) == ["a"]


def test_a_writer_outside_its_block(tmp_path: Path) -> None:
    writer = PackedWriter(tmp_path / "w", inventory=ARPABET)
    with pytest.raises(UsageError, match="the writer is not open; add utterances inside its with block"):
        writer.add("t", "a", np.ones((2, 2)))
    with writer:
        writer.add("t", "a", np.ones((2, 2)))
    with pytest.raises(UsageError, match="the writer is not open"):
        writer.add("t", "b", np.ones((2, 2)))
    assert [p.name for p in tmp_path.iterdir()] == ["w"]


def test_a_corpus_is_not_packed_into_its_source(course: Path) -> None:
    with pytest.raises(UsageError, match=r"lies in .*course, which is to be packed; choose a place outside"):
        pack_course(course, course / "packed")
    assert sorted(p.name for p in course.iterdir()) == ["dev", "test", "train"]


def test_a_name_in_a_manifest_that_leads_elsewhere(course: Path, tmp_path: Path) -> None:
    pack_course(course, tmp_path / "p")
    manifest = tmp_path / "p/corpus.json"
    manifest.write_text(manifest.read_text().replace('"name": "dev"', '"name": "../dev"'))
    with pytest.raises(DataError, match=r"partition '../dev': no name for one"):
        Corpus.open(tmp_path / "p")


def test_processes_that_pack_do_not_answer_ctrl_c(tmp_path: Path) -> None:
    """It is blocked in them before their first instruction, so none can print a traceback."""
    make_course(tmp_path / "c", {"train": [9] * 1200})
    blocked = []

    def look(stage: str, done: int, total: int) -> None:
        for path in Path("/proc").glob("[0-9]*/status"):
            with contextlib.suppress(OSError):
                status = dict(line.split(":\t", 1) for line in path.read_text().splitlines())
                if int(status["PPid"]) == os.getpid():
                    deaf = int(status["SigBlk"], 16) | int(status["SigIgn"], 16)
                    blocked.append(bool(deaf >> (signal.SIGINT - 1) & 1))

    pack_course(tmp_path / "c", tmp_path / "p", progress=look)
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, [])
    assert all(blocked)
    assert blocked or len(os.sched_getaffinity(0)) == 1


@pytest.mark.parametrize("normalization", ["utterance", "global", "none"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_long_utterances_in_blocks(
    course: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, normalization: Any, order: Any
) -> None:
    features = make_features(30)
    features[:, 1] = 0.1  # constant, and no sum of it is exact
    np.save(course / "train/mfcc/u02.npy", np.asarray(features, order=order))
    settings = PackSettings(("train",), normalization, train=("train",))
    pack_course(course, tmp_path / "whole", settings)
    monkeypatch.setattr(packing, "_LONG", 8)
    pack_course(course, tmp_path / "blocks", settings)
    whole, blocks = (Corpus.open(tmp_path / name).partition("train") for name in ("whole", "blocks"))
    assert np.array_equal(np.load(tmp_path / "whole/labels.npy"), np.load(tmp_path / "blocks/labels.npy"))
    assert np.allclose(whole.blocks[0], blocks.blocks[0], rtol=1e-6, atol=1e-6)
    if normalization == "none":
        assert whole.blocks[0].tobytes() == blocks.blocks[0].tobytes()
    if normalization == "utterance":
        assert not list(blocks.frames())[2][:, 1].any()
    features[20, 3] = np.nan
    np.save(course / "train/mfcc/u02.npy", features)
    with pytest.raises(DataError, match="nan at frame 20, feature 3"):
        pack_course(course, tmp_path / "bad", settings)


def test_memory_does_not_grow_with_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)))
    assert packing._Workers(10**6)._count == 8


def test_global_statistics_must_be_those_of_the_training_partitions(course: Path, tmp_path: Path) -> None:
    pack_course(course, tmp_path / "p", PackSettings(normalization="global", train=("dev",)))
    assert Corpus.open(tmp_path / "p", PackSettings(normalization="global", train=("dev",)))
    with pytest.raises(UsageError, match="packed with the statistics of dev, asked for those of train; name these"):
        Corpus.open(tmp_path / "p", PackSettings(normalization="global", train=("train",)))


def test_reads_that_give_less_than_was_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As Linux does beyond 2 GB, and some file systems at will."""
    content = np.random.default_rng(0).integers(0, 256, 5000).astype(np.uint8)
    content.tofile(tmp_path / "file")
    file = OpenedFile.of(tmp_path / "file")
    whole = os.preadv

    def some(fd: int, parts: list[memoryview], offset: int) -> int:
        return whole(fd, [parts[0][:7]], offset)

    monkeypatch.setattr(os, "preadv", some)
    arrays = [np.zeros((n, 2), np.int16) for n in (1, 700, 3, 2, 9)]
    file.read_into(arrays, 100)
    read = np.concatenate([array.reshape(-1) for array in arrays]).view(np.uint8)
    assert np.array_equal(read, content[100 : 100 + len(read)])
    with pytest.raises(DataError, match="changed since it was opened"):
        file.read_into([np.zeros(10, np.uint8)], 4995)
