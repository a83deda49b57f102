"""Files, folders, standard input and tables of pairs -> every molecule in order, and a reason where there is none."""

from __future__ import annotations

import csv
import gzip
import io
import sys
from pathlib import Path

import pytest

from src.ligands import LigandError
from src.poses import PoseError, find_ligands, iter_poses, read_pairs
from tests.complexes import sdf_text

PROTEIN = Path("p.pdb")


def names(poses: object) -> list[str]:
    return [pose.record.text.split("\n")[0] if pose.record else pose.failure for pose in poses]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "b.sdf").write_text(sdf_text("b1") + sdf_text("b2"))
    (tmp_path / "a.sdf.gz").write_bytes(gzip.compress(sdf_text("a").encode()))
    (tmp_path / "deeper").mkdir()
    (tmp_path / "deeper" / "c.SDF").write_text(sdf_text("c"))
    (tmp_path / "notes.txt").write_text("no ligand")
    (tmp_path / ".hidden.sdf").write_text(sdf_text("hidden"))
    return tmp_path


def test_a_folder_is_its_ligand_files_in_the_order_of_names(folder: Path) -> None:
    assert names(iter_poses(PROTEIN, find_ligands([folder]))) == ["a", "b1", "b2", "c"]


def test_files_stand_in_the_order_they_are_given_in(folder: Path) -> None:
    poses = list(iter_poses(PROTEIN, find_ligands([folder / "b.sdf", folder / "a.sdf.gz"])))
    assert names(poses) == ["b1", "b2", "a"]
    assert [(pose.ligand.name, pose.number) for pose in poses] == [("b.sdf", 1), ("b.sdf", 2), ("a.sdf.gz", 1)]


@pytest.mark.parametrize("path", ["absent.sdf", "CC(=O)N", "empty"])
def test_what_is_not_there_is_named_before_anything_is_scored(tmp_path: Path, path: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(PoseError, match=r"empty: no file in this folder|there is no such file or folder"):
        find_ligands([tmp_path / path])


@pytest.mark.fault("I3")
@pytest.mark.parametrize("content", [b"", b"not a molecule\n", b"\x1f\x8b damaged"])
def test_a_file_that_cannot_be_read_is_one_row_among_others_and_an_error_alone(folder: Path, content: bytes) -> None:
    bad = folder / "b.sdf"
    bad.write_bytes(content)
    poses = list(iter_poses(PROTEIN, find_ligands([folder])))
    assert [pose.failure == "" for pose in poses] == [True, False, True]
    assert "b.sdf" in poses[1].failure
    with pytest.raises(LigandError, match=r"b\.sdf"):
        list(iter_poses(PROTEIN, [bad]))


@pytest.mark.parametrize("packed", [False, True])
def test_standard_input(monkeypatch: pytest.MonkeyPatch, packed: bool) -> None:
    text = (sdf_text("first") + sdf_text("second")).encode()
    stream = io.BufferedReader(io.BytesIO(gzip.compress(text) if packed else text))
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(stream))
    assert names(iter_poses(PROTEIN, find_ligands([Path("-")]))) == ["first", "second"]


def test_only_what_is_asked_for_is_read(tmp_path: Path) -> None:
    path = tmp_path / "many.sdf"
    path.write_text(sdf_text("first") + "x" * (1 << 21))  # a line that is too long
    poses = iter_poses(PROTEIN, [path])
    assert next(poses).record.number == 1
    assert "line of over" in next(poses).failure


# Tables of pairs


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_a_table_of_pairs_keeps_its_columns_and_starts_from_its_folder(folder: Path, delimiter: str) -> None:
    rows = [
        ["id", "receptor", "ligand", "note"],
        ["7", "r.pdb", "b.sdf", 'said "x"'],
        ["8", "s.pdb", "deeper/c.SDF", ""],
    ]
    table = folder / "pairs.csv"
    with open(table, "w", newline="") as file:
        csv.writer(file, delimiter=delimiter).writerows(rows)
    pairs = read_pairs(table)
    poses = list(pairs.poses())
    assert pairs.columns == ("id", "receptor", "ligand", "note")
    assert names(poses) == ["b1", "b2", "c"]
    assert [pose.given for pose in poses] == [tuple(rows[1])] * 2 + [tuple(rows[2])]
    assert poses[2].protein == folder / "s.pdb"


def test_a_row_that_cannot_be_used_has_a_reason(folder: Path) -> None:
    table = folder / "pairs.csv"
    table.write_text("protein_path,ligand_path\nr.pdb,absent.sdf\n\nr.pdb\nr.pdb,b.sdf,more\nr.pdb,a.sdf.gz\n")
    poses = list(read_pairs(table).poses())
    assert len(poses) == 4
    assert "absent.sdf" in poses[0].failure
    assert "is not a file" in poses[1].failure
    assert poses[2].failure == "line 5: 3 cells under 2 names"
    assert names(poses[3:]) == ["a"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "header is empty"),
        ("protein_path,x\n", "a column ligand_path is needed"),
        ("ligand_path,x\n", "a column protein_path is needed"),
        ("protein_path,ligand_path,a,a\n", "two columns have one name"),
    ],
)
def test_a_header_that_says_too_little_is_named(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "pairs.csv").write_text(text)
    with pytest.raises(PoseError, match=message):
        read_pairs(tmp_path / "pairs.csv")


@pytest.mark.parametrize("content", [None, b"protein_path,ligand_path\n\xff\xfe\x00"])
def test_a_table_that_is_no_text_is_named(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "pairs.csv"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(PoseError, match=r"pairs\.csv: cannot be read as a table"):
        list(read_pairs(path).poses())
