"""A submission is compared with the competition's sample."""

from __future__ import annotations

from pathlib import Path

import pytest

from dali_asr.errors import DataError
from dali_asr.reports.submission import check_submission


def table(path: Path, *rows: str, header: str = "id,label") -> Path:
    path.write_text("\n".join([header, *rows]) + "\n")
    return path


def compare(tmp_path: Path, ours: tuple[str, ...], theirs: tuple[str, ...], header: str = "id,label") -> int:
    return check_submission(table(tmp_path / "s.csv", *ours), table(tmp_path / "sample.csv", *theirs, header=header))


def test_the_same_rows_in_any_order_fit(tmp_path: Path) -> None:
    assert compare(tmp_path, ("0,AA", '1,"a,b"', "2,AA"), ("2,AA", "0,AA", '1,"a,b"')) == 3
    assert compare(tmp_path, ("0,AA", "1,AE"), ("0,AA", "1,AA")) == 2, "a sample of one symbol does not name them all"
    ours = tuple(f"{at},s{at}" for at in range(9))
    assert compare(tmp_path, ours, tuple(f"{at},s{at % 3}" for at in range(9))) == 9, "nor does one of few symbols"


@pytest.mark.parametrize(
    ("ours", "theirs", "message"),
    [
        (("0,AA",), ("0,AA", "1,AA"), "s.csv: 1 rows, the sample has 2; predict the competition's test partition"),
        (("1,AA", "2,AA"), ("0,AA", "1,AA"), "s.csv: line 2: id '1', the sample has '0'; predict"),
        (("0,AA", "0,AA"), ("0,AA", "1,AA"), "s.csv: line 3: id '0', the sample has '1'; predict"),
        (
            ("0,[SIL]", "1,AA"),
            ("0,SIL", "1,SIL"),
            "s.csv: '[SIL]', 'AA' in 2 rows, the sample has 'SIL'; did you mean SIL?; train with the competition's",
        ),
        (("0,AA", "1,AE"), ("0,0", "1,0"), "s.csv: 'AA', 'AE' in 2 rows, the sample has '0'; train with"),
        (
            ("0,[SIL]", "1,AA", "2,[SIL]", "3,b"),
            ("0,SIL", "1,AA", "2,AE", "3,AA"),
            "s.csv: '[SIL]', 'b' in 3 rows, the sample has 'SIL', 'AA', 'AE'; did you mean SIL?; train with the",
        ),
    ],
)
def test_differences_are_named(tmp_path: Path, ours: tuple[str, ...], theirs: tuple[str, ...], message: str) -> None:
    with pytest.raises(DataError) as raised:
        compare(tmp_path, ours, theirs)
    assert message in str(raised.value)


def test_other_columns_are_another_competition(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"columns id,label, the sample has Id,Predictions; check the competition's"):
        compare(tmp_path, ("0,AA",), ("0,AA",), header="Id,Predictions")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "sample.csv: line 1: not a submission (0 columns, expected 2)"),
        (b"id,label\n0,AA\n1\n", "sample.csv: line 3: not a submission"),
        (b"id,label\n0,A\xff\n", "not a submission (not UTF-8); give a CSV file of id,label"),
        (b"\x00" * 99, "sample.csv"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "sample.csv").write_bytes(content)
    with pytest.raises(DataError) as raised:
        check_submission(table(tmp_path / "s.csv", "0,AA"), tmp_path / "sample.csv")
    assert message in str(raised.value)
    with pytest.raises(DataError, match="no such file"):
        check_submission(tmp_path / "nothing.csv", tmp_path / "sample.csv")
    with pytest.raises(DataError, match="not a regular file"):
        check_submission(tmp_path, tmp_path / "sample.csv")
