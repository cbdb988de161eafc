"""Export: what is written, packed again, is what it was; other tools read it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import kaldi_native_io
import numpy as np
import pytest

from dali_asr import Corpus, Inventory, PackedWriter
from dali_asr.corpus import PackSettings, pack_corpus
from dali_asr.corpus.export import Format, export_corpus
from dali_asr.errors import DataError, UsageError
from tests.makers import all_frames, make_course

RAW = PackSettings(normalization="none")


def contents(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


@pytest.fixture
def odd(tmp_path: Path) -> Corpus:
    """Return a corpus that no course folder can hold: frames without labels, and an inventory of its own."""
    rng = np.random.default_rng(0)
    with PackedWriter(tmp_path / "odd", inventory=Inventory(("silence", "speech", "ü")), dtype="float16") as writer:
        for name, lengths in {"train": (5, 1, 9), "dev": (4,)}.items():
            for at, length in enumerate(lengths):
                labels = rng.integers(0, 3, length)
                labels[0] = -100
                writer.add(name, f"rec-{at}", rng.normal(size=(length, 4)), labels)
        writer.add("test", "x", rng.normal(size=(3, 4)))
    return Corpus.open(tmp_path / "odd")


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_a_course_folder_comes_back_byte_for_byte(tmp_path: Path, dtype: Any) -> None:
    make_course(tmp_path / "c", {"train": [7, 1, 30], "dev": [9], "test": [5]}, unlabelled=("test",), dtype=dtype)
    pack_corpus(tmp_path / "c", tmp_path / "p", PackSettings(normalization="none", dtype=dtype))
    export_corpus(Corpus.open(tmp_path / "p"), tmp_path / "again", "course")
    assert contents(tmp_path / "again") == contents(tmp_path / "c")


@pytest.mark.parametrize(
    ("source", "form"),
    [("course", "npz"), ("course", "kaldi"), ("course", "course"), ("odd", "npz"), ("odd", "kaldi")],
)
def test_what_is_exported_packs_to_the_same_corpus(
    course: Path, odd: Corpus, tmp_path: Path, form: Format, source: str
) -> None:
    corpus = odd
    if source == "course":
        pack_corpus(course, tmp_path / "p", RAW)
        corpus = Corpus.open(tmp_path / "p")
    export_corpus(corpus, tmp_path / "e", form)
    settings = PackSettings(tuple(corpus.partitions), "none", dtype=corpus.dtype.name)
    pack_corpus(tmp_path / "e", tmp_path / "again", settings)
    assert corpus.path
    assert contents(tmp_path / "again") == contents(corpus.path)


def test_numpy_reads_the_arrays(odd: Corpus, tmp_path: Path) -> None:
    export_corpus(odd, tmp_path / "e", "npz")
    for name, partition in odd.partitions.items():
        with np.load(tmp_path / "e" / f"{name}.npz") as arrays:
            assert arrays["frames"].tobytes() == all_frames(partition).tobytes()
            assert arrays["frames"].dtype == np.float16
            assert arrays["offsets"].tolist() == partition.offsets.tolist()
            assert arrays["names"].tolist() == list(partition.utterances)
            assert arrays["inventory"].tolist() == ["silence", "speech", "ü"]
            if name == "test":
                assert "labels" not in arrays
                continue
            labels = partition.labels()
            assert labels is not None
            assert np.array_equal(arrays["labels"], labels)


def test_kaldi_reads_the_matrices_and_alignments(odd: Corpus, tmp_path: Path) -> None:
    export_corpus(odd, tmp_path / "e", "kaldi")
    partition = odd.partition("train")
    with kaldi_native_io.SequentialFloatMatrixReader(f"scp:{tmp_path}/e/train/feats.scp") as read:
        found = {name: np.array(matrix) for name, matrix in read}
    assert tuple(found) == partition.utterances
    assert np.array_equal(np.concatenate(list(found.values())), all_frames(partition).astype(np.float32))
    with kaldi_native_io.SequentialInt32VectorReader(f"ark:{tmp_path}/e/train/ali.txt") as numbers:
        labels = np.concatenate([row for _, row in numbers])
    expected = partition.labels()
    assert expected is not None
    assert np.array_equal(labels, np.where(expected == -100, 0, expected + 1))
    assert (tmp_path / "e/phones.txt").read_text() == "<eps> 0\nsilence 1\nspeech 2\nü 3\n"


def test_what_a_layout_cannot_express_is_refused(odd: Corpus, course: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no \[SOS\], which course transcripts need; export npz or kaldi"):
        export_corpus(odd, tmp_path / "e", "course")
    with PackedWriter(tmp_path / "gaps", inventory=("AA", "[SOS]", "[EOS]")) as writer:
        writer.add("t", "a/b", np.ones((2, 3)), [0, -100])
    with pytest.raises(DataError, match="t: 'a/b' cannot be the name of a file"):
        export_corpus(Corpus.open(tmp_path / "gaps"), tmp_path / "e", "course")
    with PackedWriter(tmp_path / "gaps", inventory=("AA", "[SOS]", "[EOS]"), overwrite=True) as writer:
        writer.add("t", "a b", np.ones((2, 3)), [0, -100])
    with pytest.raises(DataError, match="t/a b: frame 1 has no label"):
        export_corpus(Corpus.open(tmp_path / "gaps"), tmp_path / "e", "course")
    with pytest.raises(DataError, match="'a b': Kaldi's files cannot hold this name or symbol; export npz"):
        export_corpus(Corpus.open(tmp_path / "gaps"), tmp_path / "e", "kaldi")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["course", "gaps", "odd"]


def test_only_an_export_of_the_same_layout_is_overwritten(odd: Corpus, course: Path, tmp_path: Path) -> None:
    export_corpus(odd, tmp_path / "e", "npz")
    before = contents(tmp_path / "e")
    with pytest.raises(UsageError, match=r"e: exists; choose another place, or overwrite it \(overwrite=True\)"):
        export_corpus(odd, tmp_path / "e", "npz")
    with pytest.raises(UsageError, match="exists and does not hold arrays with offsets, so it is not overwritten"):
        export_corpus(odd, course, "npz", overwrite=True)
    export_corpus(odd, tmp_path / "e", "npz", overwrite=True)
    assert contents(tmp_path / "e") == before


def test_damage_ends_the_export_and_leaves_nothing(odd: Corpus, tmp_path: Path) -> None:
    content = bytearray((tmp_path / "odd/frames.npy").read_bytes())
    content[-1] ^= 128
    (tmp_path / "odd/frames.npy").write_bytes(content)
    with pytest.raises(DataError, match="utterance x is damaged"):
        export_corpus(Corpus.open(tmp_path / "odd"), tmp_path / "e", "npz")
    assert [path.name for path in tmp_path.iterdir()] == ["odd"]


def test_the_command_exports_and_says_how_to_pack_again(run_cli: Any, course: Path, tmp_path: Path) -> None:
    shown = run_cli("data", "export", "course", course, tmp_path / "e")
    assert shown.exit_code == 0, shown.output
    assert "Exported 74 frames of 3 partitions to" in shown.output
    assert contents(tmp_path / "e") == contents(course)
    refused = run_cli("data", "export", "course", course, tmp_path / "e")
    assert refused.exit_code == 2
    assert "overwrite it (--force)" in refused.output
