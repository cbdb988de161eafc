"""A submission is compared with the competition's sample."""

from __future__ import annotations

from pathlib import Path

import pytest

from dali_asr.errors import DataError
from dali_asr.inventory import Inventory
from dali_asr.reports.submission import Check, Table, check_submission

INVENTORY = Inventory(("[SIL]", "AA", "AE", *(f"s{at}" for at in range(9))))


def table(path: Path, *rows: str, header: str = "id,label") -> Path:
    path.write_text("\n".join([header, *rows]) + "\n")
    return path


def compare(tmp_path: Path, ours: tuple[str, ...], theirs: tuple[str, ...], header: str = "id,label") -> Check:
    sample = table(tmp_path / "sample.csv", *theirs, header=header)
    return check_submission(table(tmp_path / "s.csv", *ours), Table.read(sample), INVENTORY)


def test_the_same_rows_in_any_order_fit(tmp_path: Path) -> None:
    assert compare(tmp_path, ("0,AA", '1,"a,b"', "2,AA"), ("2,AA", "0,AA", '1,"a,b"')) == Check(3, None)
    ours = tuple(f"{at},s{at}" for at in range(9))
    few = tuple(f"{at},s{at % 3}" for at in range(9))
    assert compare(tmp_path, ours, few) == Check(9, None), "a sample of few symbols does not name them all"


@pytest.mark.parametrize("placeholder", ["AA", "0", ""])
def test_a_sample_of_one_symbol_is_a_placeholder_and_the_inventory_names_the_symbols(
    placeholder: str, tmp_path: Path
) -> None:
    theirs = tuple(f"{at},{placeholder}" for at in range(3))
    found = compare(tmp_path, ("0,[SIL]", "1,AE", "2,AA"), theirs)
    assert found == Check(3, placeholder)
    assert str(found) == (
        f"3 rows, with the ids of the sample submission; its symbols were not compared, because {placeholder!r} in "
        "every row is a placeholder: the labels are symbols of the run's inventory"
    )
    for wrong, near in (("QQ", ""), ("", ""), ("AE1", "; did you mean AE?")):
        with pytest.raises(DataError) as raised:
            compare(tmp_path, ("0,[SIL]", f"1,{wrong}", "2,AA"), theirs)
        assert str(raised.value).endswith(
            f"s.csv: line 3: {wrong!r} in 1 row, the run's inventory has '[SIL]', 'AA', 'AE', 's0', 's1' and 7 more"
            f"; predict the file again, or name the run that it is of{near}"
        )


@pytest.mark.parametrize(
    ("ours", "theirs", "message"),
    [
        (
            ("0,AA",),
            ("0,AA", "1,AA"),
            "s.csv has 1 row, the sample has 2; predict the competition's test",
        ),
        (("1,AA", "2,AA"), ("0,AA", "1,AA"), "s.csv: line 2: id '1', the sample has '0'; predict"),
        (("0,AA", "0,AA"), ("0,AA", "1,AA"), "s.csv: line 3: id '0' is a duplicate of line 2; give every id once"),
        (("0,AA", "1,AA", "0,AE"), ("0,AA", "1,AA"), "s.csv: line 4: id '0' is a duplicate of line 2; give"),
        (("0,AA", "2,AA"), ("0,AA", "0,AA"), "s.csv: line 3: id '2', the sample has '0'; predict"),
        (
            tuple(f"{at},{'QQ' if at == 7 else f's{at}'}" for at in range(9)),
            tuple(f"{at},s{at % 3}" for at in range(9)),
            "s.csv: line 9: 'QQ' in 1 row, the run's inventory has",
        ),
        (
            ("0,[SIL]", "1,AA", "2,[SIL]", "3,b"),
            ("0,SIL", "1,AA", "2,AE", "3,AA"),
            "s.csv: line 2: '[SIL]', 'b' in 3 rows, the sample has 'SIL', 'AA', 'AE'; train with",
        ),
    ],
)
def test_differences_are_named(tmp_path: Path, ours: tuple[str, ...], theirs: tuple[str, ...], message: str) -> None:
    with pytest.raises(DataError) as raised:
        compare(tmp_path, ours, theirs)
    assert message in str(raised.value)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (["0,AA"], " has 1 row, the sample has 2; predict the competition's test partition (partition=NAME), or"),
        (["0,AA", "2,AA"], ": line 3: id '2', the sample has '1'; predict"),
        (["0,AA", "1,QQ"], ": line 3: 'QQ' in 1 row, the sample has"),
    ],
)
def test_a_prediction_is_named_by_its_partition(tmp_path: Path, rows: list[str], message: str) -> None:
    sample = Table.read(table(tmp_path / "sample.csv", "0,AA", "1,AE"))
    with pytest.raises(DataError) as raised:
        check_submission(table(tmp_path / "temporary.csv", *rows), sample, INVENTORY, partition="dev-clean")
    assert str(raised.value).startswith(f"the prediction of dev-clean{message}")


def test_other_columns_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"columns id,label, the sample has Id,Predictions; write the header of the"):
        compare(tmp_path, ("0,AA",), ("0,AA",), header="Id,Predictions")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "sample.csv: is empty, or its first line is; give a CSV file of id,label"),
        (b"id,label\n", "sample.csv: no rows after the header; give"),
        (b"0,AA\n1,AA\n", "sample.csv: line 1: 0,AA is a row, not a header; write one above it (id,label)"),
        (b"id;label\n0;AA\n", "sample.csv: line 1: not a submission (1 column (id;label), expected 2)"),
        (b"id,label,note\n", "sample.csv: line 1: not a submission (3 columns (id,label,note), expected 2)"),
        (b"id,label\n0,AA\n1\n", "sample.csv: line 3: not a submission (1 column, expected 2)"),
        (b"id,label\n0,A\xff\n", "not a submission (not UTF-8); give a CSV file of id,label"),
        (b"\x00" * 99, "sample.csv"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "sample.csv").write_bytes(content)
    with pytest.raises(DataError) as raised:
        Table.read(tmp_path / "sample.csv")
    assert message in str(raised.value)
    with pytest.raises(DataError, match="no such file"):
        Table.read(tmp_path / "nothing.csv")
    with pytest.raises(DataError, match="not a regular file"):
        Table.read(tmp_path)
