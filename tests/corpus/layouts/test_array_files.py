"""The layout of one large array per partition."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dali_asr import Corpus
from dali_asr.corpus import storing
from dali_asr.corpus.layouts import layout_title
from dali_asr.errors import DataError
from dali_asr.inventory import ARPABET_SYMBOLS
from tests.corpus.layouts.references import Utterances, check, packed
from tests.makers import make_features

SYMBOLS = ("silence", "a", "b")


def arrays_of(utterances: Utterances, **more: Any) -> dict[str, Any]:
    lengths = [len(frames) for frames, _ in utterances.values()]
    found = {"frames": np.concatenate([frames for frames, _ in utterances.values()])}
    labels = [given for _, given in utterances.values() if given is not None]
    if labels:
        found["labels"] = np.concatenate(labels)
    return found | {"offsets": np.cumsum([0, *lengths]), "names": np.array(list(utterances))} | more


def utterances(seed: int, lengths: list[int], dtype: Any = np.float32) -> Utterances:
    rng = np.random.default_rng(seed)
    return {
        f"u{at}": (make_features(n, 3, seed + at, dtype), np.where(rng.random(n) < 0.2, -100, rng.integers(0, 3, n)))
        for at, n in enumerate(lengths)
    }


def save(folder: Path, arrays: dict[str, Any]) -> None:
    folder.mkdir(parents=True)
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)


@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=6), st.sampled_from(["f2", "f4", "f8", ">f4"]), st.booleans())
def test_zipped_and_plain_arrays_are_read(tmp_path_factory: Any, lengths: list[int], dtype: str, fortran: bool) -> None:
    root = tmp_path_factory.mktemp("arrays")
    made = {"dev": utterances(7, lengths, dtype), "train": utterances(1, lengths[::-1], dtype)}
    zipped = arrays_of(made["train"], inventory=np.array(SYMBOLS))
    plain = arrays_of(made["dev"], inventory=np.array(SYMBOLS))
    if fortran:
        zipped["frames"] = np.asfortranarray(zipped["frames"])
    (root / "c").mkdir()
    np.savez(root / "c/train.npz", **zipped)
    save(root / "c/dev", plain)
    assert layout_title(root / "c") == "arrays with offsets"
    check(packed(root / "c", root / "p"), made, SYMBOLS)


def test_what_is_optional_may_be_missing(tmp_path: Path) -> None:
    made = utterances(1, [4, 2])
    without = {str(at): (frames, None) for at, (frames, _) in enumerate(made.values())}
    arrays = arrays_of(made)
    (tmp_path / "c").mkdir()
    np.savez(tmp_path / "c/all.npz", frames=arrays["frames"], offsets=arrays["offsets"].astype(np.uint32))
    check(Corpus.open(packed(tmp_path / "c", tmp_path / "p").path or ""), {"all": without}, ARPABET_SYMBOLS)


def test_labels_may_be_symbols(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storing, "LONG", 3)
    made = {"t": utterances(1, [5, 2])}
    for _, labels in made["t"].values():
        assert labels is not None
        labels[labels < 0] = 0
    symbols = np.array(SYMBOLS)[arrays_of(made["t"])["labels"]]
    (tmp_path / "c").mkdir()
    np.savez(tmp_path / "c/t.npz", **arrays_of(made["t"], labels=symbols, inventory=np.array(SYMBOLS)))
    check(packed(tmp_path / "c", tmp_path / "p"), made, SYMBOLS)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"frames": np.zeros(6)}, "has shape"),
        ({"frames": np.full((6, 3), np.nan)}, "utterance u0: nan at frame 0"),
        ({"offsets": np.array([0, 4, 4, 6])}, "offsets must rise from 0 to the 6 frames"),
        ({"offsets": np.array([0, 4, 7])}, "offsets must rise"),
        ({"offsets": np.array([0.0, 6.0])}, "offsets are float64"),
        ({"names": np.array(["x", "x"])}, "2 names of 2 utterances; give each one of its own"),
        ({"names": np.array(["x"])}, "1 names of 2 utterances"),
        ({"names": np.array([1, 2])}, "names and symbols are int64"),
        ({"labels": np.zeros(5, int)}, r"labels are int64 \[5\]; give integers or symbols \[6\]"),
        ({"labels": np.full(6, 42)}, "utterance u0: unknown symbol 42 at position 0"),
        ({"labels": np.array([None] * 6)}, "holds Python objects"),
    ],
)
def test_a_fault_is_one_line_and_leaves_nothing(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    arrays = arrays_of(utterances(1, [4, 2])) | changes
    for name in ("zipped", "plain"):
        (tmp_path / name).mkdir()
        if name == "zipped":
            np.savez(tmp_path / name / "t.npz", **arrays)
        else:
            save(tmp_path / name / "t", arrays)
        with pytest.raises(DataError, match=message) as error:
            packed(tmp_path / name, tmp_path / "p")
        assert "\n" not in str(error.value)
        assert not list(tmp_path.glob("*p*.partial"))
        assert not (tmp_path / "p").exists()


def test_arrays_that_cannot_be_read_row_by_row_are_refused(tmp_path: Path) -> None:
    arrays = arrays_of(utterances(1, [4, 2]))
    np.savez_compressed(tmp_path / "t.npz", **arrays)
    with pytest.raises(DataError, match=r"t\.npz, frames\.npy: is compressed.*write it with numpy\.savez"):
        Corpus.open(tmp_path)
    del arrays["offsets"]
    np.savez(tmp_path / "t.npz", **arrays)
    with pytest.raises(DataError, match=r"t\.npz: has no array offsets"):
        Corpus.open(tmp_path)
    (tmp_path / "t.npz").write_bytes(b"PK\x03\x04")
    with pytest.raises(DataError, match=r"t\.npz: damaged"):
        Corpus.open(tmp_path)


def test_a_folder_of_packed_corpora_is_no_layout(tmp_path: Path, course: Path) -> None:
    packed(course, tmp_path / "many/one")
    assert layout_title(tmp_path / "many") is None
