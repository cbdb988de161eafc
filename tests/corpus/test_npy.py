"""Reading `.npy` files of unknown quality."""

from __future__ import annotations

import io
import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dali_asr.corpus import PackSettings, pack_corpus
from dali_asr.corpus.npy import NpyFile, header_bytes, read_array
from dali_asr.corpus.regular import OpenedFile
from dali_asr.errors import DaliAsrError, DataError
from tests.makers import make_course


def test_short_reads_are_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Linux reads at most 2 GB at once, and some file systems less."""
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


def crafted(descr: str, shape: str, data: bytes = bytes(64), order: str = "False") -> bytes:
    """Return a `.npy` file with this header, as it stands."""
    header = f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, }}"
    return b"\x93NUMPY\x01\x00\x76\x00" + header.ljust(117).encode("latin1") + b"\n" + data


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (crafted("'<U0'", "(4,)"), "has dtype <U0; save an array of numbers or strings"),
        (crafted("'|S0'", "(4,)"), r"has dtype \|S0"),
        (crafted("'(2,2)f4'", "(2,)"), r"has dtype \(2,2\)f4"),
        (crafted("'|V0'", "(4,)"), r"has dtype \|V0"),
        (crafted("'|V4'", "(4,)"), r"has dtype \|V4"),
        (crafted("'<M8[s]'", "(4,)"), "has dtype <M8"),
        (crafted("'<f3'", "(4,)"), "has dtype <f3"),
        (crafted("'<U999999999'", "(0,)"), "has dtype <U999999999"),
        (crafted("[('a', '<f4')]", "(4,)"), r"has dtype \[\('a', '<f4'\)\]"),
        (crafted("'|O'", "(4,)"), "holds Python objects"),
        (crafted("'<f4'", "(True, 2)"), "not a .npy file, or cut off in its header"),
        (crafted("'<f4'", "(2.0,)"), "not a .npy file"),
        (crafted("'<f4'", "4"), "not a .npy file"),
        (crafted("'<f4'", f"({'1,' * 33})"), "not a .npy file"),
        (crafted("'<f4'", "(-1,)"), "not a .npy file"),
        (crafted("'<f4'", "(4,)", order="0"), "not a .npy file"),
        (crafted("'<f4'", "(0, 10**23)"), "not a .npy file"),
        (crafted("'<f4'", f"(0, {10**23})"), "has shape .*, which is too large"),
        (crafted("'<f4'", f"({2**62},)"), "has shape .*, which is too large"),
        (crafted("'<f4'", f"({2**40},)"), "truncated, .* bytes of data are missing"),
        (crafted("'<U1'", "(1,)", b"\x00\x00\x11\x00"), "damaged, it holds characters beyond Unicode"),
        (crafted("'>U1'", "(1,)", b"\x00\x11\x00\x00"), "damaged, it holds characters beyond Unicode"),
        (b"\x93NUMPY\x09\x09" + crafted("'<f4'", "(1,)")[8:], "not a .npy file"),
        (b"\x93NUMPY\x01\x00\xff\xff" + b"(" * 5000, "not a .npy file"),
        (b"\x93NUMPY\x01\x00\x00\x0f" + b"(" * 5000, "not a .npy file"),
        (b"", "the file is empty"),
    ],
)
def test_a_crafted_file_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "a.npy").write_bytes(content)
    with pytest.raises(DataError, match=rf"a\.npy: {message}"):
        read_array(tmp_path / "a.npy")


@pytest.mark.parametrize("dtype", ["<f4", ">f8", "<f2", "|u1", "<i8", "|b1", "<c8", "<U5", ">U3", "|S4"])
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
def test_arrays_of_numbers_and_strings_are_read(tmp_path: Path, dtype: str, order: Any, version: Any) -> None:
    array = np.arange(15).reshape(3, 5).astype(dtype, order=order)
    with (tmp_path / "a.npy").open("wb") as file:
        np.lib.format.write_array(file, array, version)
    read = read_array(tmp_path / "a.npy")
    assert (read.dtype, read.tobytes()) == (array.dtype, array.tobytes())
    rows = NpyFile.open(tmp_path / "a.npy").read_rows(1, 2)
    assert np.array_equal(rows, array[1:])


def test_a_written_header_is_that_of_numpy() -> None:
    for shape in ((0, 3), (10**12, 28), (5,)):
        buffer = io.BytesIO()
        np.save(buffer, np.empty((0, *shape[1:]), np.float16))
        written = header_bytes((0, *shape[1:]), np.dtype(np.float16))
        assert buffer.getvalue()[: len(written)] == written
        assert len(header_bytes(shape, np.dtype(np.float16))) == 128


MUTATIONS = int(os.environ.get("DALI_ASR_FUZZ", "400"))


def test_mutated_files_give_no_other_errors(tmp_path: Path) -> None:
    """Set DALI_ASR_FUZZ to the number of mutations."""
    make_course(tmp_path / "c", {"train": [6]})
    rng = np.random.default_rng(7)
    paths = [tmp_path / f"c/train/{folder}/u00.npy" for folder in ("mfcc", "transcript")]
    features, transcript = (path.read_bytes() for path in paths)
    symbols = np.load(paths[1])
    spellings = [transcript, *(array_bytes(symbols.astype(dtype)) for dtype in (">U5", "S5", "U9"))]
    settings = PackSettings(normalization="none")
    refused = 0
    for _ in range(MUTATIONS):
        paths[0].write_bytes(features)
        paths[1].write_bytes(transcript)
        kind = int(rng.integers(2))
        content = features if kind == 0 else spellings[rng.integers(len(spellings))]
        paths[kind].write_bytes(mutated(content, rng))
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                pack_corpus(tmp_path / "c", tmp_path / "p", settings, overwrite=True)
        except DaliAsrError:
            refused += 1
    assert refused > MUTATIONS / 4


def array_bytes(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


FRAGMENTS = [
    b"True",
    b"None",
    b"'",
    b"(",
    b"U0",
    b"O",
    b"V0",
    b"(2,2)",
    b"99999999999999",
    b"-1",
    b"L",
    b"\\x",
    b"[",
    b"e9",
]


def mutated(content: bytes, rng: np.random.Generator) -> bytes:
    """Return a `.npy` file with some bytes changed, most of them in the header."""
    changed = bytearray(content)
    for _ in range(rng.integers(1, 4)):
        at = int(rng.integers(80 if rng.random() < 0.7 else len(changed)))
        if rng.random() < 0.3:
            fragment = FRAGMENTS[rng.integers(len(FRAGMENTS))]
            changed[at : at + len(fragment)] = fragment
        else:
            changed[at] = rng.integers(256)
    return bytes(changed[: rng.integers(len(changed))] if rng.random() < 0.1 else changed)
