"""Lists and tables of SMILES -> every molecule in order, and a reason where there is none."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from src.chemistry.atoms import StructureError
from src.chemistry.ligands import LigandError
from src.scoring.poses import PoseError
from src.scoring.smiles_files import KIND, is_smiles_file, read_smiles_file, read_templates
from tests.complexes import MOL2, sdf_text

PROTEIN = Path("p.pdb")


def write(path: Path, text: str) -> Path:
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


def found(path: Path) -> list[tuple[str, str]]:
    """Title and SMILES, or '' and the reason."""
    poses = list(read_smiles_file(PROTEIN, path).poses())
    assert [pose.number for pose in poses] == list(range(1, len(poses) + 1))
    assert all(pose.record is None or pose.record.kind == KIND for pose in poses)
    return [(pose.title, pose.record.text.split("\n")[1] if pose.record else pose.failure) for pose in poses]


@pytest.mark.parametrize("name", ["a.smi", "A.SMI", "a.smiles", "a.smi.gz"])
def test_a_list_has_a_smiles_and_a_title_in_each_line(tmp_path: Path, name: str) -> None:
    text = "CCO ethanol\n\nc1ccccc1\tbenzene, the ring\r\nCN   \n"
    assert found(write(tmp_path / name, text)) == [("ethanol", "CCO"), ("benzene, the ring", "c1ccccc1"), ("CN", "CN")]


@pytest.mark.parametrize("header", ["SMILES Name\n", "smiles\n", "\ufeffCANONICAL_SMILES\tID\n", ""])
def test_a_header_is_no_molecule(tmp_path: Path, header: str) -> None:
    assert found(write(tmp_path / "a.smi", header + "CCO a\n")) == [("a", "CCO")]


def test_extensions_of_a_smiles_belong_to_it(tmp_path: Path) -> None:
    text = "C[C@H](N)O |o1:1| left\nC[C@H](N)O |o1:1|\n"
    assert found(write(tmp_path / "a.smi", text)) == [
        ("left", "C[C@H](N)O |o1:1|"),
        ("C[C@H](N)O |o1:1|", "C[C@H](N)O |o1:1|"),
    ]


def test_the_same_molecule_twice_is_two_rows(tmp_path: Path) -> None:
    assert found(write(tmp_path / "a.smi", "CCO a\nCCO a\n")) == [("a", "CCO")] * 2


def test_a_table_keeps_its_columns(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", 'Name;SMILES;pK\nx;CCO;6,5\n;CN;\n"y";;7\nz;C;1;2\n')
    assert found(path) == [
        *[("x", "CCO"), ("CN", "CN")],
        *[("", "line 4: SMILES is empty"), ("", "line 5: 4 cells under 3 names")],
    ]
    assert next(read_smiles_file(PROTEIN, path).poses()).given == ("x", "CCO", "6,5")
    assert read_smiles_file(PROTEIN, path).columns == ("Name", "SMILES", "pK")


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("a.smi", "", "has no SMILES"),
        ("a.smi", "SMILES Name\n\n", "has no SMILES"),
        ("a.csv", "name,structure\nx,CCO\n", "the header is name, structure; a column smiles is needed"),
        ("a.csv", "name,smiles\n", "has no rows below its header"),
        ("a.csv", 'name,smiles\n"x,CCO\n', "has no partner"),
    ],
)
def test_a_file_without_molecules_is_refused(tmp_path: Path, name: str, text: str, reason: str) -> None:
    with pytest.raises(PoseError, match=reason):
        read_smiles_file(PROTEIN, write(tmp_path / name, text))


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(StructureError, match=r"absent\.smi: there is no such file"):
        read_smiles_file(PROTEIN, tmp_path / "absent.smi")
    with pytest.raises(LigandError, match=r"absent\.sdf: there is no such file"):
        read_templates([tmp_path / "absent.sdf"])


def test_every_molecule_of_the_templates_is_one(tmp_path: Path) -> None:
    paths = [write(tmp_path / "a.sdf", sdf_text("1") + sdf_text("2")), write(tmp_path / "b.mol2", MOL2)]
    assert [(record.path.name, record.number) for record in read_templates(paths)] == [
        *[("a.sdf", 1), ("a.sdf", 2)],
        ("b.mol2", 1),
    ]


def test_the_ending_tells_smiles_from_poses() -> None:
    assert [is_smiles_file(Path(name)) for name in ("a.smi", "a.CSV", "a.sdf", "a.smi.sdf", "-")] == [
        *[True, True],
        *[False] * 3,
    ]
