"""The layout of `libriphone`: tensors, text labels, splits."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dali_asr import Corpus
from dali_asr.corpus.layouts import layout_title
from dali_asr.errors import DataError
from dali_asr.inventory import ARPABET_SYMBOLS, Inventory
from tests.corpus.layouts.references import Utterances, check, packed
from tests.makers import make_features

CLASSES = tuple(map(str, range(41)))


def make(root: Path, *, symbols: tuple[str, ...] = CLASSES) -> dict[str, Utterances]:
    """Write a folder; return what is in it. The splits are not sorted."""
    rng = np.random.default_rng(3)
    made: dict[str, Utterances] = {}
    for part, names in (("train", ("b-1", "a-2", "c-3")), ("test", ("t-9", "t-1"))):
        (root / "feat" / part).mkdir(parents=True)
        (root / f"{part}_split.txt").write_text("".join(f"{name}\n" for name in names))
        utterances: dict[str, Any] = {}
        for at, name in enumerate(names):
            frames = make_features(5 + 3 * at, 39, at)
            torch.save(torch.from_numpy(frames), root / f"feat/{part}/{name}.pt")
            utterances[name] = frames, rng.integers(0, 40, len(frames)) if part == "train" else None
        made[part] = utterances
    lines = [f"{name} {' '.join(symbols[i] for i in labels)}\n" for name, (_, labels) in made["train"].items()]  # type: ignore[union-attr]
    (root / "train_labels.txt").write_text("".join(reversed(lines)))
    return made


def test_tensors_labels_and_splits_are_read(tmp_path: Path) -> None:
    made = make(tmp_path / "l")
    assert layout_title(tmp_path / "l") == "libriphone folder"
    check(packed(tmp_path / "l", tmp_path / "p"), made, CLASSES)
    assert Corpus.open(tmp_path / "l").partition("train").utterances == ("b-1", "a-2", "c-3")


def test_labels_may_be_symbols_or_indices_of_a_given_inventory(tmp_path: Path) -> None:
    made = make(tmp_path / "symbols", symbols=ARPABET_SYMBOLS)
    check(packed(tmp_path / "symbols", tmp_path / "p"), made, ARPABET_SYMBOLS)
    made = make(tmp_path / "numbers")
    given = Inventory(ARPABET_SYMBOLS)
    check(packed(tmp_path / "numbers", tmp_path / "q", inventory=given), made, ARPABET_SYMBOLS)


def test_without_a_split_names_are_sorted(tmp_path: Path) -> None:
    make(tmp_path / "l")
    (tmp_path / "l/train_split.txt").unlink()
    assert packed(tmp_path / "l", tmp_path / "p").partition("train").utterances == ("a-2", "b-1", "c-3")


class Harmful:
    def __reduce__(self) -> Any:
        return (Path("/nowhere/never").touch, ())


def replaced(name: str, value: object) -> Any:
    return lambda root: torch.save(value, root / name)


def edited(name: str, old: str, new: str) -> Any:
    def edit(root: Path) -> None:
        text = (root / name).read_text()
        assert old in text
        (root / name).write_text(text.replace(old, new, 1))

    return edit


PT = "feat/train/a-2.pt"


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (replaced(PT, Harmful()), r"a-2\.pt: is not a file of torch.save with a tensor alone"),
        (replaced(PT, [1, 2]), r"a-2\.pt: holds a list; save a tensor"),
        (replaced(PT, torch.zeros(3)), r"a-2\.pt: has shape \(3,\)"),
        (replaced(PT, torch.zeros(3, 4, dtype=torch.int32)), r"a-2\.pt: has dtype int32"),
        (replaced(PT, torch.zeros(8, 7)), r"a-2\.pt: 7 features per frame, 39 in"),
        (lambda root: (root / PT).write_bytes(pickle.dumps(3)), "is not a file of torch.save"),
        (lambda root: (root / PT).write_bytes((root / PT).read_bytes()[:-300]), "is not a file of torch.save"),
        (lambda root: (root / PT).unlink(), r"a-2\.pt: is missing; copy it"),
        (edited("train_labels.txt", "a-2 ", "x-2 "), "train_labels.txt: has no labels of a-2"),
        (edited("train_labels.txt", "a-2 ", "a-2 0 "), "train_labels.txt, line 2: 9 labels for 8 frames"),
        (edited("train_labels.txt", "a-2 ", "b-1 "), "line 3: b-1 stands in|has no labels of a-2"),
        (edited("train_split.txt", "a-2", "b-1"), "train_split.txt: names 'b-1' twice"),
        (lambda root: (root / "train_split.txt").write_bytes(b"\xff\n"), "train_split.txt: is not UTF-8"),
    ],
)
def test_a_fault_is_one_line_and_leaves_nothing(tmp_path: Path, fault: Any, message: str) -> None:
    make(tmp_path / "l")
    fault(tmp_path / "l")
    with pytest.raises(DataError, match=message) as error:
        packed(tmp_path / "l", tmp_path / "p")
    assert "\n" not in str(error.value)
    assert [path.name for path in tmp_path.iterdir()] == ["l"]
