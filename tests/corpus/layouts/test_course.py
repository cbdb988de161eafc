"""The course layout in all its spellings, and everything that can be wrong with it."""

from __future__ import annotations

import errno
import os
import pickle
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from dali_asr import Corpus
from dali_asr.corpus import PackSettings, pack_corpus
from dali_asr.errors import DaliAsrError, DataError, UsageError
from dali_asr.inventory import ARPABET_SYMBOLS, Inventory
from tests.makers import all_frames, make_course, make_features, make_transcript

ARRAY = "train/mfcc/u02.npy"
TRANSCRIPT = "train/transcript/u02.npy"


@pytest.mark.parametrize("width", [5, 6, 12])
@pytest.mark.parametrize("spelling", ["brackets", "bare", "bytes", "int64", "uint8"])
def test_transcripts_of_every_year_are_read(course: Path, tmp_path: Path, spelling: str, width: int) -> None:
    symbols = np.load(course / TRANSCRIPT).astype(f"<U{width}")
    expected = [ARPABET_SYMBOLS.index(s) for s in symbols[1:-1]]
    if spelling == "bare":
        table = {"[SIL]": "SIL", "[SOS]": "<sos>", "[EOS]": "<eos>"}
        symbols = np.array([table.get(s, s) for s in symbols], f"<U{width}")
    elif spelling == "bytes":
        symbols = symbols.astype("S")
    elif spelling != "brackets":
        symbols = np.array([ARPABET_SYMBOLS.index(s) for s in symbols], spelling)
    np.save(course / TRANSCRIPT, symbols)
    partition = Corpus.open(course).partition("train")
    labels = partition.labels()
    assert labels is not None
    assert labels[8:38].tolist() == expected


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", ">f4"])
@pytest.mark.parametrize("dim", [1, 15, 28, 40])
def test_any_feature_dim_and_precision_is_read(tmp_path: Path, dtype: str, dim: int) -> None:
    make_course(tmp_path / "c", {"train": [4, 9]}, dim=dim, dtype=dtype)
    corpus = Corpus.open(tmp_path / "c", PackSettings(normalization="none"))
    stored = np.load(tmp_path / "c/train/mfcc/u01.npy")
    assert np.array_equal(list(corpus.partition("train").frames())[1], stored.astype(np.float32))


def test_arrays_in_fortran_order_are_read(course: Path) -> None:
    expected = all_frames(Corpus.open(course).partition("train"))
    np.save(course / ARRAY, np.asfortranarray(np.load(course / ARRAY)))
    assert np.array_equal(all_frames(Corpus.open(course).partition("train")), expected)


def test_utterances_are_in_the_order_of_file_names(tmp_path: Path) -> None:
    make_course(tmp_path / "c", {"train": [3]})
    names = ["b", "a-1", "a", "B", "10", "9"]
    (tmp_path / "c/train/mfcc/u00.npy").unlink()
    (tmp_path / "c/train/transcript/u00.npy").unlink()
    for at, name in enumerate(names):
        np.save(tmp_path / f"c/train/mfcc/{name}.npy", make_features(at + 1))
        np.save(tmp_path / f"c/train/transcript/{name}.npy", make_transcript(at + 1))
    partition = Corpus.open(tmp_path / "c").partition("train")
    files = sorted(f"{name}.npy" for name in names)
    assert [f"{u}.npy" for u in partition.utterances] == files
    assert partition.lengths.tolist() == [names.index(file[:-4]) + 1 for file in files]


def test_real_speech_is_packed_as_a_plain_loop_reads_it(real_speech: Path) -> None:
    corpus = Corpus.open(real_speech, PackSettings(partitions=("dev-clean",)))
    partition = corpus.partition("dev-clean")
    truth = partition.labels()
    assert truth is not None
    first = 0
    for name, frames in zip(partition.utterances, partition.frames(), strict=True):
        raw = np.load(real_speech / "dev-clean/mfcc" / f"{name}.npy").astype(np.float64)
        expected = (raw - raw.mean(axis=0)) / raw.std(axis=0)
        assert np.allclose(frames, expected, rtol=0, atol=1e-6)
        symbols = np.load(real_speech / "dev-clean/transcript" / f"{name}.npy")[1:-1]
        assert [ARPABET_SYMBOLS[i] for i in truth[first : first + len(frames)]] == symbols.tolist()
        first += len(frames)
    assert (truth == 0).mean() == pytest.approx(0.300, abs=5e-4)


def save(path: str, make: Callable[[np.ndarray], np.ndarray]) -> Callable[[Path], None]:
    """Return a fault: the array at `path`, changed."""
    return lambda root: np.save(root / path, make(np.load(root / path)), allow_pickle=True)


def put(path: str, content: Callable[[bytes], bytes]) -> Callable[[Path], object]:
    """Return a fault: the bytes at `path`, changed."""
    return lambda root: (root / path).write_bytes(content((root / path).read_bytes()))


def symbol(at: int, text: str) -> Callable[[Path], None]:
    """Return a fault: one symbol of the transcript, changed."""

    def change(symbols: np.ndarray) -> np.ndarray:
        symbols[at] = text
        return symbols

    return save(TRANSCRIPT, change)


def value(what: float) -> Callable[[Path], None]:
    """Return a fault: one value of the features, changed."""

    def change(features: np.ndarray) -> np.ndarray:
        features[3, 2] = what
        return features

    return save(ARRAY, change)


def empty_folder(path: str) -> Callable[[Path], None]:
    """Return a fault: an empty folder."""

    def change(root: Path) -> None:
        shutil.rmtree(root / path, ignore_errors=True)
        (root / path).mkdir()

    return change


def rename_folder(name: str) -> Callable[[Path], object]:
    """Return a fault: a folder of train is missing."""
    return lambda root: (root / "train" / name).rename(root / f"moved-{name}")


FAULTS: dict[str, tuple[Callable[[Path], object], tuple[str, ...]]] = {
    "no mfcc folder": (rename_folder("mfcc"), ("train: has no folder mfcc",)),
    "an empty partition": (empty_folder("test-clean"), ("test-clean: has no folder mfcc",)),
    "arrays beside the layout": (
        lambda root: shutil.copytree(root / "train/mfcc", root / "more"),
        ("more: has no folder mfcc",),
    ),
    "no files": (
        empty_folder("train/mfcc"),
        ("holds no .npy file",),
    ),
    "counts differ": (
        lambda root: (root / TRANSCRIPT).unlink(),
        ("4 mfcc files and 3 transcripts", "u02.npy is in mfcc but not in transcript"),
    ),
    "names differ": (
        lambda root: (root / TRANSCRIPT).rename(root / "train/transcript/zz.npy"),
        ("u02.npy is in mfcc but not in transcript",),
    ),
    "lengths differ": (save(TRANSCRIPT, lambda a: a[:-1]), (TRANSCRIPT, "holds 31 symbols for 30 frames", "32")),
    "unknown symbol": (symbol(4, "[SLI]"), (TRANSCRIPT, "'[SLI]' at position 4", "did you mean [SIL]?")),
    "label out of range": (
        save(TRANSCRIPT, lambda a: np.array([40, *[42] * 30, 41])),
        (TRANSCRIPT, "unknown symbol 42 at position 1", "labels 0 to 41"),
    ),
    "no start symbol": (symbol(0, "AA"), (TRANSCRIPT, "opens with 'AA'", "start symbol [SOS]")),
    "no end symbol": (symbol(-1, "AA"), (TRANSCRIPT, "closes with 'AA'", "end symbol [EOS]")),
    "2-D transcript": (save(TRANSCRIPT, lambda a: a[:, None]), (TRANSCRIPT, "one row of symbols or integers")),
    "float transcript": (save(TRANSCRIPT, lambda a: np.zeros(32)), (TRANSCRIPT, "float64")),
    "D changes": (save(ARRAY, lambda a: a[:, :4]), (ARRAY, "4 features per frame, 5 in")),
    "empty file": (put(ARRAY, lambda _: b""), (ARRAY, "the file is empty")),
    "truncated": (put(ARRAY, lambda b: b[:-7]), (ARRAY, "truncated, 7 of 600 bytes")),
    "damaged header": (put(ARRAY, lambda b: b.replace(b"(30, 5)", b"(30, 5(")), (ARRAY, "not a .npy file")),
    "negative shape": (put(ARRAY, lambda b: b.replace(b"(30, 5)", b"(-3, 5)")), (ARRAY, "not a .npy file")),
    "bytes that are not UTF-8": (
        save(TRANSCRIPT, lambda a: np.array([b"[SOS]", *[b"\xff\xfe"] * 30, b"[EOS]"])),
        (TRANSCRIPT, "its symbols are not UTF-8"),
    ),
    "truncated header": (put(ARRAY, lambda b: b[:40]), (ARRAY, "cut off in its header")),
    "truncated transcript": (put(TRANSCRIPT, lambda b: b[:-7]), (TRANSCRIPT, "truncated")),
    "1-D": (save(ARRAY, lambda a: a[:, 0]), (ARRAY, "shape (30,)", "[frames, features per frame]")),
    "no frames": (save(ARRAY, lambda a: a[:0]), (ARRAY, "no frames")),
    "integers": (save(ARRAY, lambda a: a.astype(np.int64)), (ARRAY, "dtype int64")),
    "pickled": (put(ARRAY, lambda _: pickle.dumps([1.0])), (ARRAY, "a pickle")),
    "objects": (save(ARRAY, lambda a: a.astype(object)), (ARRAY, "Python objects", "never loaded")),
    "object transcript": (save(TRANSCRIPT, lambda a: a.astype(object)), (TRANSCRIPT, "Python objects")),
    "no .npy": (put(ARRAY, lambda _: b"hello, world"), (ARRAY, "not a .npy file")),
    "NaN": (value(np.nan), (ARRAY, "nan at frame 3, feature 2", "zero_nonfinite")),
    "infinity": (value(np.inf), (ARRAY, "inf at frame 3, feature 2", "zero_nonfinite=True")),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_one_line_and_leaves_no_files(course: Path, tmp_path: Path, name: str) -> None:
    fault, parts = FAULTS[name]
    fault(course)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(DataError) as error:
        pack_corpus(course, tmp_path / "packed")
    assert "\n" not in str(error.value)
    for part in parts:
        assert part in str(error.value)
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("normalization", ["utterance", "global", "none"])
def test_nonfinite_values_can_be_zeroed(course: Path, tmp_path: Path, normalization: str) -> None:
    value(np.nan)(course)
    settings = PackSettings(normalization=normalization, train=("train",), zero_nonfinite=True)  # type: ignore[arg-type]
    pack_corpus(course, tmp_path / "zeroed", settings)
    value(0.0)(course)
    pack_corpus(course, tmp_path / "plain", settings)
    a, b = (all_frames(Corpus.open(tmp_path / n).partition("train")) for n in ("zeroed", "plain"))
    assert a.tobytes() == b.tobytes()


@pytest.mark.parametrize(
    ("make", "error", "parts"),
    [
        (lambda p: p / "none", DataError, ("no such folder", "check the path")),
        (lambda p: p, DataError, ("neither a packed corpus nor a known layout", "corpus.json", "mfcc")),
    ],
)
def test_other_folders_are_refused(
    tmp_path: Path, make: Callable[[Path], Path], error: type[DaliAsrError], parts: tuple[str, ...]
) -> None:
    with pytest.raises(error) as raised:
        Corpus.open(make(tmp_path))
    assert all(part in str(raised.value) for part in parts)


@pytest.mark.parametrize("make", ["dangling", "loop", "fifo", "file", "long"])
def test_a_path_that_is_not_a_folder_is_one_line(tmp_path: Path, make: str) -> None:
    path = tmp_path / ("a" * 300 if make == "long" else "a")
    if make == "fifo":
        os.mkfifo(path)
    elif make == "file":
        path.write_text("")
    elif make != "long":
        path.symlink_to(path if make == "loop" else tmp_path / "nowhere")
    for attempt in (
        lambda: Corpus.open(path),
        lambda: pack_corpus(path, tmp_path / "packed"),
    ):
        with pytest.raises(DataError, match=r"no such folder|neither a folder nor|file name too long|symbolic links"):
            attempt()


@pytest.mark.parametrize("folder", ["", "train", "train/mfcc", "train/transcript"])
def test_a_folder_that_cannot_be_read_is_named(course: Path, monkeypatch: pytest.MonkeyPatch, folder: str) -> None:
    """Root may read everything, so the refusal is simulated."""
    closed, scandir, iterdir = course / folder, os.scandir, Path.iterdir

    def refusing(read: Callable[[Path], object]) -> Callable[[Path], object]:
        def refuse(path: Path) -> object:
            if Path(path) == closed:
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
            return read(path)

        return refuse

    monkeypatch.setattr(os, "scandir", refusing(scandir))
    monkeypatch.setattr(Path, "iterdir", refusing(iterdir))
    if folder == "train":  # only its own folders are listed
        assert Corpus.open(course).partition("train")
        return
    with pytest.raises(DataError, match=rf"{re.escape(str(closed))}: permission denied; check the path and its perm"):
        Corpus.open(course)


def test_an_unknown_partition_is_refused(course: Path) -> None:
    with pytest.raises(UsageError, match="no partition 'trian'; it has 'dev', 'test', 'train'; did you mean train"):
        Corpus.open(course, PackSettings(partitions=("trian",)))


def test_an_inventory_needs_start_and_end_symbols(course: Path, tmp_path: Path) -> None:
    settings = PackSettings(inventory=Inventory(ARPABET_SYMBOLS[:40]))
    with pytest.raises(DataError, match=r"unknown symbol '\[SOS\]' at position 0"):
        pack_corpus(course, tmp_path / "packed", settings)


def test_hidden_files_of_other_systems_are_ignored(course: Path) -> None:
    (course / "__MACOSX/train/mfcc").mkdir(parents=True)
    (course / "train/mfcc/._u00.npy").write_bytes(b"x")
    (course / "train/.DS_Store").write_bytes(b"x")
    assert Corpus.open(course).partition("train").utterances == ("u00", "u01", "u02", "u03")
