"""Files, folders, standard input and tables of pairs -> every molecule in order, and a reason where there is none."""

from __future__ import annotations

import csv
import gzip
import io
import logging
import sys
from pathlib import Path

import pytest

from src.chemistry.ligands import LigandError, LigandRecord
from src.scoring.poses import LIGAND_ENDINGS, Pose, PoseError, find_ligands, iter_poses, read_pairs, require_protein
from tests.complexes import MOL2, pdb_text, sdf_text

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


@pytest.mark.parametrize("ending", [".sdf", ".sd", ".mol", ".mol2", ".MOL", ".sdf.gz", ".sd.gz", ".mol.gz", ".mol2.gz"])
def test_every_ligand_file_of_a_folder_is_scored(tmp_path: Path, ending: str) -> None:
    text = (MOL2 if "mol2" in ending else sdf_text("a")).encode()
    (tmp_path / f"x.1{ending}").write_bytes(gzip.compress(text) if ending.endswith("gz") else text)
    (pose,) = iter_poses(PROTEIN, find_ligands([tmp_path]))
    assert pose.title in ("a", "acetamide")
    assert ending.lower() in LIGAND_ENDINGS


def test_what_is_not_used_of_folders_is_said_once(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("x.pdb", "deeper/Y.PDB", "z.pdb.gz", "README"):
        (folder / name).touch()
    find_ligands([folder])
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    told = record.getMessage().removeprefix("files of the folders that are not scored: ")
    assert sorted(told.split(", ")) == ["1 .pdb.gz", "1 .txt", "1 without an ending", "2 .pdb"]
    caplog.clear()
    find_ligands([folder / "a.sdf.gz"])
    assert not caplog.records
    (folder / "only").mkdir()
    (folder / "only" / "x.pdb").touch()
    with pytest.raises(PoseError, match=r"it has 1 \.pdb$"):
        find_ligands([folder / "only"])


def test_an_output_is_none_of_the_ligands_of_its_folder(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    (folder / "notes.txt").unlink()
    output = folder / "deeper" / "scores.sdf"
    output.write_text(sdf_text("scored"))
    output.with_name("scores.sdf.state.json").touch()
    assert output in find_ligands([folder])
    caplog.clear()
    assert names(iter_poses(PROTEIN, find_ligands([folder], leave_out=output))) == ["a", "b1", "b2", "c"]
    assert not caplog.records
    assert output in find_ligands([output], leave_out=output)


@pytest.mark.parametrize(
    ("kind", "text", "title"),
    [
        ("sdf", sdf_text("two words"), "two words"),
        ("sdf", sdf_text(""), ""),
        ("sdf", sdf_text("*****"), ""),
        ("mol2", MOL2, "acetamide"),
        ("mol2", MOL2.replace("acetamide", "*****"), ""),
        ("mol2", "@<TRIPOS>ATOM\n1 C1 0 0 0 C.3\n", ""),
    ],
)
def test_the_name_of_a_pose_is_its_title_if_it_has_one(kind: str, text: str, title: str) -> None:
    path = Path(f"folder/l.{kind}")
    pose = Pose(PROTEIN, path, 3, LigandRecord(path, kind, 3, text))
    assert pose.title == title
    assert pose.name == (title or f"l.{kind}, molecule 3")
    assert Pose(PROTEIN, path, 2, None).name == f"l.{kind}, molecule 2"


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


def test_standard_input_without_anything_is_called_that(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BufferedReader(io.BytesIO(b""))))
    with pytest.raises(LigandError, match=r"^standard input is empty; expected SDF or MOL2"):
        list(iter_poses(PROTEIN, [Path("-")]))


@pytest.mark.parametrize("text", ["<!DOCTYPE html>\n<p>404</p>\n", "\ufeff \n<html>\n"])
def test_a_page_in_place_of_a_ligand_is_called_that(tmp_path: Path, text: str) -> None:
    path = tmp_path / "l.sdf"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(LigandError, match=r"l\.sdf: is an HTML page"):
        list(iter_poses(PROTEIN, [path]))


@pytest.mark.parametrize(("name", "text"), [("p.sdf", sdf_text()), ("p.mol2", MOL2), ("odd", sdf_text())])
def test_a_ligand_in_place_of_the_protein_may_be_swapped(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(PoseError, match="not a protein; are protein and ligand swapped"):
        require_protein(tmp_path / name)
    (tmp_path / "p.pdb").write_text(pdb_text())
    (tmp_path / "p").write_text(pdb_text())
    for sound in ("p.pdb", "p", "absent.pdb"):  # what is not there is said later
        require_protein(tmp_path / sound)
    table = tmp_path / "pairs.csv"
    table.write_text(f"protein_path,ligand_path\n{name},p.pdb\np.pdb,p.pdb\n")
    swapped, other = read_pairs(table).poses()
    assert swapped.failure.endswith("are protein and ligand swapped?")
    assert "swapped" not in other.failure


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
    assert poses[1].failure == "line 4: ligand_path is empty"
    assert poses[2].failure == "line 5: 3 cells under 2 names"
    assert names(poses[3:]) == ["a"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "header is empty"),
        ("protein_path,x\n", "a column ligand_path is needed"),
        ("ligand_path,x\n", "a column protein_path is needed"),
        ("protein_path,ligand_path,a,a\n", "two columns have one name"),
        ("protein_path,ligand_path\n\n,\n", "has no rows below its header"),
    ],
)
def test_a_header_that_says_too_little_is_named(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "pairs.csv").write_text(text)
    with pytest.raises(PoseError, match=message):
        read_pairs(tmp_path / "pairs.csv")


@pytest.mark.parametrize("first", ["sep=;\n", '"sep=;"\r\n', "SEP=;\n"])
def test_the_first_line_of_excel_says_what_stands_between_cells(tmp_path: Path, first: str) -> None:
    (tmp_path / "pairs.csv").write_text(f"{first}protein_path;ligand_path;a,b,c\n;x.sdf;7,5\n", newline="")
    table = read_pairs(tmp_path / "pairs.csv")
    assert table.columns == ("protein_path", "ligand_path", "a,b,c")
    (pose,) = table.poses()
    assert pose.given == ("", "x.sdf", "7,5")
    assert pose.failure == "line 3: protein_path is empty"


def test_the_files_of_a_table_are_known_before_they_are_read(tmp_path: Path) -> None:
    (tmp_path / "pairs.csv").write_text("note,ligand,protein\n1,l.sdf,p.pdb\n2,m.sdf\n")
    assert [path.name for path in read_pairs(tmp_path / "pairs.csv").files()] == ["p.pdb", "l.sdf", "m.sdf"]


@pytest.mark.parametrize(
    "row", ['p.pdb,"l.sdf', 'p.pdb,"l.sdf\np.pdb,"l.sdf"\n', 'p.pdb,"l.sdf\n' + "p.pdb,l.sdf\n" * 20_000]
)
@pytest.mark.parametrize("first", ["", "sep=,\n"])
def test_a_quote_that_is_not_closed_is_named_with_its_line(tmp_path: Path, row: str, first: str) -> None:
    path = tmp_path / "pairs.csv"
    path.write_text(f'{first}protein_path,ligand_path\n"p\n.pdb",l.sdf\n{row}')
    with pytest.raises(PoseError, match=rf"pairs\.csv: .* table: line {5 if first else 4}: a quotation"):
        read_pairs(path)


def test_a_quotation_mark_inside_a_cell_refuses_no_table(tmp_path: Path) -> None:
    path = tmp_path / "pairs.csv"
    path.write_text('protein_path,ligand_path,note\np.pdb,l.sdf,"5"" tube" x\nq.pdb,m.sdf,plain\n')
    table = read_pairs(path)
    assert [file.name for file in table.files()] == ["p.pdb", "l.sdf", "q.pdb", "m.sdf"]


def test_what_an_explanation_left_in_a_folder_is_no_ligand(tmp_path: Path) -> None:
    explained = tmp_path / "why" / "0001_a"
    explained.mkdir(parents=True)
    for path in (tmp_path / "a.sdf", explained / "ligand.sdf", explained / "explanation.html"):
        path.write_text(sdf_text("a"))
    (tmp_path / "out.sdf").write_text("unfinished")
    (tmp_path / "why" / "out.sdf").symlink_to(tmp_path / "nowhere.sdf")
    found = find_ligands([tmp_path], leave_out=tmp_path / "out.sdf")
    assert [path.relative_to(tmp_path).as_posix() for path in found] == ["a.sdf", "why/out.sdf"]


@pytest.mark.parametrize(("encoding", "name"), [("cp1252", "Zoë"), ("utf-16", "Zoë"), ("utf-16-le", "Zoe")])
def test_a_table_that_is_not_utf_8_says_what_to_do(tmp_path: Path, encoding: str, name: str) -> None:
    (tmp_path / "pairs.csv").write_text(f"protein_path,ligand_path\n{name}.pdb,l.sdf\n", encoding=encoding)
    with pytest.raises(PoseError, match="it is not UTF-8 text; save it as CSV UTF-8"):
        read_pairs(tmp_path / "pairs.csv")


@pytest.mark.parametrize("content", [None, b"protein_path,ligand_path\n\xff\xfe\x00"])
def test_a_table_that_is_no_text_is_named(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "pairs.csv"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(PoseError, match=r"pairs\.csv: cannot be read as a table"):
        list(read_pairs(path).poses())


def test_all_files_that_a_row_lacks_are_named(tmp_path: Path) -> None:
    (tmp_path / "pairs.csv").write_text("protein_path,ligand_path\nno.pdb,none.sdf\n")
    (pose,) = read_pairs(tmp_path / "pairs.csv").poses()
    assert pose.failure == f"{tmp_path / 'no.pdb'} and {tmp_path / 'none.sdf'}: there are no such files"


def test_a_table_may_have_complexes_and_pairs(tmp_path: Path) -> None:
    (tmp_path / "pairs.csv").write_text("complex_path,protein_path,ligand_path\nno.pdb,,\n,p.pdb,l.sdf\n,p.pdb,\n")
    complex_, pair, half = read_pairs(tmp_path / "pairs.csv").poses()
    assert (complex_.ligand, complex_.failure) == (tmp_path / "no.pdb", "")
    assert pair.failure == f"{tmp_path / 'p.pdb'} and {tmp_path / 'l.sdf'}: there are no such files"
    assert half.failure == "line 4: complex_path is empty"
