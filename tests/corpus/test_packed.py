"""The packed format: what is in it, and that every damage to it is found."""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xxhash
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dali_asr import Corpus, Inventory
from dali_asr.corpus import PackSettings, pack_corpus, verify
from dali_asr.errors import DaliAsrError, DataError, UsageError
from dali_asr.inventory import ARPABET
from tests.makers import all_frames, make_course

ARRAYS = ("frames", "labels", "offsets", "checksums")


def signed(content: bytes) -> bytes:
    """Return the content of a `corpus.json` with its checksum put right."""
    end = content.rindex(b', "checksum"') if b', "checksum"' in content else len(content)
    return content[:end] + f', "checksum": "{xxhash.xxh3_64_hexdigest(content[:end])}"}}\n'.encode()


def sign(folder: Path) -> None:
    """Put the checksums in the manifest of a packed corpus right."""
    values = json.loads((folder / "corpus.json").read_bytes())
    for name in values["checksums"]:
        values["checksums"][name] = xxhash.xxh3_64_hexdigest((folder / name).read_bytes())
    values.pop("checksum")
    (folder / "corpus.json").write_bytes(signed(json.dumps(values).removesuffix("}").encode()))


def change(path: Path, edit: Callable[[bytearray], object]) -> None:
    """Edit the content of a file, and keep its size and time of change."""
    stamp = path.stat()
    content = bytearray(path.read_bytes())
    edit(content)
    assert len(content) == stamp.st_size
    path.write_bytes(content)
    os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))


def read_all(folder: Path) -> None:
    """Open a packed corpus and read everything in it."""
    for partition in Corpus.open(folder).partitions.values():
        all_frames(partition)
        partition.labels()


def contents_of(folder: Path) -> list[bytes]:
    """Return all frames and labels of a packed corpus."""
    return [
        content
        for p in Corpus.open(folder).partitions.values()
        for content in (all_frames(p).tobytes(), np.asarray(p.labels()).tobytes())
    ]


def test_the_files_can_be_read_without_this_package(course: Path, tmp_path: Path) -> None:
    """Judged with NumPy, JSON and xxhash alone."""
    pack_corpus(course, tmp_path / "packed")
    folder = tmp_path / "packed"
    assert sorted(p.name for p in folder.iterdir()) == sorted(["corpus.json", *(f"{name}.npy" for name in ARRAYS)])
    about = json.loads((folder / "corpus.json").read_text())
    frames, labels, offsets, checksums = (np.load(folder / f"{n}.npy") for n in ARRAYS)
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
            expected_sums = [xxhash.xxh3_64_intdigest(array[rows].tobytes()) for array in (frames, labels)]
            assert checksums[at].tolist() == expected_sums
            at += 1
    assert set(about["checksums"]) == {"offsets.npy", "checksums.npy"}
    for name, digits in about["checksums"].items():
        assert xxhash.xxh3_64_hexdigest((folder / name).read_bytes()) == digits
    content = (folder / "corpus.json").read_bytes()
    assert about["checksum"] == xxhash.xxh3_64_hexdigest(content[: content.rindex(b', "checksum"')])


def test_a_packed_corpus_must_agree_with_the_settings(course: Path, tmp_path: Path) -> None:
    pack_corpus(course, tmp_path / "p")
    for options, part in (
        (PackSettings(normalization="none"), "packed with normalization utterance, asked for none"),
        (PackSettings(dtype="float16"), "packed with dtype float32, asked for float16"),
        (PackSettings(inventory=Inventory(("a", "b"))), "packed with inventory 42 symbols, asked for 2 symbols"),
        (PackSettings(partitions=("other",)), "no partition 'other'"),
    ):
        with pytest.raises(UsageError, match=part):
            Corpus.open(tmp_path / "p", options)


def test_damage_is_found_at_opening(course: Path, tmp_path: Path) -> None:
    def damaged(name: str, change: Any, message: str) -> None:
        dest = tmp_path / "p"
        pack_corpus(course, dest, overwrite=True)
        content = (dest / name).read_bytes()
        (dest / name).write_bytes(change(content))
        with pytest.raises(DataError, match=message):
            Corpus.open(dest)

    damaged("frames.npy", lambda b: b[:-1], r"frames\.npy: truncated, 1 of")
    damaged("labels.npy", lambda b: b[:-1], r"labels\.npy: truncated, 1 of")
    damaged("offsets.npy", lambda b: b[:-1], r"offsets\.npy: truncated, 1 of")
    damaged("corpus.json", lambda b: b[:-9], r"corpus\.json: damaged")
    damaged(
        "corpus.json", lambda b: b.replace(b'"version": 2', b'"version": 3'), "packed format 3, this dali-asr reads"
    )
    damaged("corpus.json", lambda b: b.replace(b'"u00", ', b"", 1), r"corpus\.json: damaged \(checksum differs\)")
    damaged(
        "corpus.json",
        lambda b: signed(b.replace(b'"u00", ', b"", 1)),
        r"offsets\.npy: holds int64 \[9\], expected int64 \[8\]",
    )


def test_verify_finds_a_flipped_bit(course: Path, tmp_path: Path) -> None:
    pack_corpus(course, tmp_path / "p")
    verify(tmp_path / "p")
    content = bytearray((tmp_path / "p/frames.npy").read_bytes())
    content[200] ^= 1
    (tmp_path / "p/frames.npy").write_bytes(content)
    with pytest.raises(
        DataError, match=r"frames\.npy: utterance u00 is damaged \(checksum differs\); pack the corpus again"
    ):
        verify(tmp_path / "p")


def test_wrong_arrays_with_right_checksums_are_refused(course: Path, tmp_path: Path) -> None:
    pack_corpus(course, tmp_path / "p")
    labels = np.load(tmp_path / "p/labels.npy")
    labels[4] = 42
    np.save(tmp_path / "p/labels.npy", labels)
    with pytest.raises(DataError, match=r"labels\.npy: utterance u00 is damaged \(checksum differs\)"):
        [p.labels() for p in Corpus.open(tmp_path / "p").partitions.values()]
    checksums = np.load(tmp_path / "p/checksums.npy")
    checksums[0, 1] = xxhash.xxh3_64_intdigest(labels[:9].tobytes())
    np.save(tmp_path / "p/checksums.npy", checksums)
    sign(tmp_path / "p")
    with pytest.raises(DataError, match="label 42 in a corpus whose inventory has 42 symbols; it is damaged"):
        [p.labels() for p in Corpus.open(tmp_path / "p").partitions.values()]
    np.save(tmp_path / "p/offsets.npy", np.zeros(0, np.int64))
    sign(tmp_path / "p")
    with pytest.raises(DataError, match=r"offsets\.npy: holds int64 \[0\], expected int64 \[9\]"):
        Corpus.open(tmp_path / "p")


def test_a_partition_name_in_a_manifest_cannot_lead_elsewhere(course: Path, tmp_path: Path) -> None:
    pack_corpus(course, tmp_path / "p")
    manifest = tmp_path / "p/corpus.json"
    manifest.write_bytes(signed(manifest.read_bytes().replace(b'"name": "dev"', b'"name": "../dev"')))
    with pytest.raises(DataError, match=r"partition '../dev': invalid name"):
        Corpus.open(tmp_path / "p")


def test_global_statistics_must_be_those_of_the_training_partitions(course: Path, tmp_path: Path) -> None:
    pack_corpus(course, tmp_path / "p", PackSettings(normalization="global", train=("dev",)))
    assert Corpus.open(tmp_path / "p", PackSettings(normalization="global", train=("dev",)))
    with pytest.raises(
        UsageError, match="packed with the statistics of dev, asked for those of train; name the former"
    ):
        Corpus.open(tmp_path / "p", PackSettings(normalization="global", train=("train",)))


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a packed corpus of two labelled partitions."""
    root = tmp_path_factory.mktemp("packed")
    make_course(root / "course", {"train": [7, 1, 30], "dev": [9, 4]})
    pack_corpus(root / "course", root / "p")
    return root / "p"


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(position=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
@pytest.mark.parametrize("name", [*(f"{name}.npy" for name in ARRAYS), "corpus.json"])
def test_a_flipped_bit_anywhere_is_found(packed: Path, name: str, position: float, bit: int) -> None:
    """Size and time of change do not tell."""
    path = packed / name
    at = int(position * path.stat().st_size)
    header = name in ("frames.npy", "labels.npy") and at < 128  # can change without a change of meaning, to '=f4'
    before = contents_of(packed)

    def flip(content: bytearray) -> None:
        content[at] ^= 1 << bit

    change(path, flip)
    try:
        if header:
            with contextlib.suppress(DataError):
                assert contents_of(packed) == before
        else:
            with pytest.raises(DataError, match=re.escape(name)):
                read_all(packed)
            with pytest.raises(DataError, match=re.escape(name)):
                verify(packed)
    finally:
        change(path, flip)
    read_all(packed)


def try_reading(folder: Path) -> bool:
    """Return whether a packed corpus could be read; nothing but the project's errors may come out."""
    try:
        read_all(folder)
    except DaliAsrError:
        return False
    return True


@pytest.mark.parametrize("name", ["frames.npy", "labels.npy"])
def test_damage_that_comes_after_opening_is_found_and_named(course: Path, tmp_path: Path, name: str) -> None:
    pack_corpus(course, tmp_path / "p")
    partition = Corpus.open(tmp_path / "p").partition("train")
    end = 128 + (partition.offsets[-1] + 24) * (20 if name == "frames.npy" else 1)  # 24 frames come before train

    def flip(content: bytearray) -> None:
        content[end - 1] ^= 1

    change(tmp_path / "p" / name, flip)
    partition.check_unchanged()
    with pytest.raises(DataError, match=rf"{name}: utterance u03 is damaged \(checksum differs\); pack the corpus"):
        if name == "frames.npy":
            partition.read_into([np.empty((12, 5), np.float32)], 3)
        else:
            partition.labels(partition.frame_count - 1)
    partition.labels(0, 38)
    partition.read_into([np.empty((30, 5), np.float32)], 2)


def test_frames_of_another_packing_of_the_same_shape_are_found(course: Path, tmp_path: Path) -> None:
    pack_corpus(course, tmp_path / "a")
    pack_corpus(course, tmp_path / "b", PackSettings(normalization="none"))
    frames = (tmp_path / "b/frames.npy").read_bytes()
    change(tmp_path / "a/frames.npy", lambda content: content.__setitem__(slice(None), frames))
    with pytest.raises(DataError, match=r"frames\.npy: utterance u00 is damaged"):
        read_all(tmp_path / "a")


@pytest.mark.parametrize("name", ["frames.npy", "labels.npy"])
def test_a_file_that_is_cut_short_after_opening_is_an_error(course: Path, tmp_path: Path, name: str) -> None:
    """Reading a memory map would end the process with a bus error."""
    pack_corpus(course, tmp_path / "p")
    partition = Corpus.open(tmp_path / "p").partition("train")
    os.truncate(tmp_path / "p" / name, 130)
    with pytest.raises(DataError, match=rf"{name}: changed since it was opened; open the corpus again"):
        list(partition.frames()) if name == "frames.npy" else partition.labels()
    with pytest.raises(DataError, match=rf"{name}: changed since it was opened"):
        partition.check_unchanged()


INVALID: list[Any] = [
    None,
    True,
    -1,
    0,
    10**30,
    1.5,
    "",
    "x",
    "float64",
    "../x",
    "\ud800",
    [],
    {},
    [[]],
    [None],
    {"a": 1},
]


def paths_of(values: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the path of every value in a JSON document."""
    items = list(values.items()) if isinstance(values, dict) else list(enumerate(values))
    found = []
    for key, value in items:
        found.append((*path, key))
        if isinstance(value, (dict, list)):
            found += paths_of(value, (*path, key))
    return found


def mutate_manifest(folder: Path, rng: np.random.Generator) -> None:
    """Replace or remove a value of a manifest, and put its checksum right."""
    values = json.loads((folder / "corpus.json").read_bytes())
    values.pop("checksum")
    paths = paths_of(values)
    *path, key = paths[rng.integers(len(paths))]
    parent = values
    for step in path:
        parent = parent[step]
    if rng.random() < 0.2:
        del parent[key]
    else:
        parent[key] = INVALID[rng.integers(len(INVALID))]
    (folder / "corpus.json").write_bytes(signed(json.dumps(values).removesuffix("}").encode()))


def mutate_file(folder: Path, rng: np.random.Generator) -> None:
    """Change bytes of a file of a packed corpus, cut it short or make it longer; sign the manifest half of the time."""
    name = f"{ARRAYS[rng.integers(len(ARRAYS))]}.npy" if rng.random() < 0.8 else "corpus.json"
    content = bytearray((folder / name).read_bytes())
    for _ in range(rng.integers(1, 4)):
        low = 128 if rng.random() < 0.6 else len(content)
        content[rng.integers(min(low, len(content)))] = rng.integers(256)
    if rng.random() < 0.2:
        content = content[: rng.integers(len(content))]
    elif rng.random() < 0.1:
        content += bytes(rng.integers(1, 300))
    (folder / name).write_bytes(content)
    if name != "corpus.json" and rng.random() < 0.5:
        sign(folder)


MUTATIONS = int(os.environ.get("DALI_ASR_FUZZ", "300"))


def test_mutated_corpora_give_no_other_errors(packed: Path, tmp_path: Path) -> None:
    """Set DALI_ASR_FUZZ to the number of mutations."""
    rng = np.random.default_rng(5)
    original = {path.name: path.read_bytes() for path in packed.iterdir()}
    refused = 0
    for _ in range(MUTATIONS):
        for name, content in original.items():
            (tmp_path / name).write_bytes(content)
        (mutate_manifest if rng.random() < 0.5 else mutate_file)(tmp_path, rng)
        refused += not try_reading(tmp_path)
    assert refused > MUTATIONS / 2
