"""What an SDF has of a pose is the molecule that was scored, to our reader and to RDKit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from rdkit import Chem

from src.chemistry.ligands import Ligand, iter_ligands, ligand_records
from src.scoring.poses import Pose
from src.scoring.row_formats import SdfRows
from tests.chemistry.ligand_forms import MOLECULES, conformer, forms, sdf, with_hydrogens

COLUMNS = ["ligand", "pK", "status"]


def read(path: Path) -> Ligand:
    (ligand,) = iter_ligands(path)
    assert isinstance(ligand, Ligand), ligand
    return ligand


def written(path: Path, *, scored: bool = True) -> Path:
    """The output for the only molecule of a file."""
    (record,) = ligand_records(path)
    pose = Pose(Path("p.pdb"), path, 1, record)
    output = path.with_name(f"{path.name}.scores.sdf")
    row = {"ligand": "lig", "pK": 6.5, "status": "ok"}
    output.write_text(SdfRows(COLUMNS).row(row, pose, first=True, scored=scored), encoding="utf-8")
    return output


def assert_equal(found: Ligand, expected: Ligand, why: str) -> None:
    for name in ("features", "bonds", "bond_types"):
        assert np.array_equal(getattr(found.atoms, name), getattr(expected.atoms, name)), f"{why}: {found.smiles}"
    np.testing.assert_allclose(found.atoms.pos, expected.atoms.pos, atol=6e-5)


def assert_same_molecule(path: Path, why: str) -> None:
    """Read back by our reader, and by RDKit and written by it once more."""
    expected, output = read(path), written(path)
    assert_equal(read(output), expected, why)
    (mol,) = Chem.SDMolSupplier(str(output), removeHs=False)
    assert mol is not None, why
    assert mol.GetProp("pK") == "6.5"
    again = path.with_name("again.sdf")
    again.write_text(Chem.MolToMolBlock(mol) + "$$$$\n", encoding="utf-8")
    assert_equal(read(again), expected, f"{why}, by RDKit")


@pytest.mark.parametrize("smiles", MOLECULES.values(), ids=MOLECULES.keys())
def test_every_form_is_written_as_the_molecule_that_was_scored(tmp_path: Path, smiles: str) -> None:
    open_forms = [form for form in forms(conformer(smiles)) if form[1] == "mol2" or "aromatic" in form[0]][::2]
    assert len(open_forms) > 6
    for number, (name, ending, text, _) in enumerate(open_forms):
        path = tmp_path / f"{number}.{ending}"
        path.write_text(text, encoding="utf-8")
        assert_same_molecule(path, name)


@pytest.mark.parametrize("v3000", [False, True])
def test_an_aromatic_record_keeps_its_header_properties_and_coordinates(tmp_path: Path, v3000: bool) -> None:
    mol = with_hydrogens(conformer(MOLECULES["indole"]), "no")
    head = "my title\n  Program 01012026123D\na comment"
    body = sdf(mol, aromatic=True, v3000=v3000).split("\n", 3)[3].replace("$$$$\n", "")
    items = "> <mine> (7)\none\ntwo\n\n> <pK>\n4.2\n\n"
    path = tmp_path / "x.sdf"
    path.write_text(f"{head}\n{body}{items}$$$$\n", encoding="utf-8")
    text = written(path).read_text(encoding="utf-8")
    assert text.startswith(f"{head}\n")
    assert ("V3000" in text) == v3000
    assert items in text
    np.testing.assert_array_equal(read(written(path)).atoms.pos, read(path).atoms.pos)
    unread = written(path, scored=False).read_text(encoding="utf-8")
    assert unread.startswith(f"{head}\n{body}{items}")  # what could not be read stays as it is


def test_a_record_that_rdkit_cannot_read_is_written_as_it_was_understood(tmp_path: Path) -> None:
    """Charges that a program forgot."""
    path = tmp_path / "x.sdf"
    ions = with_hydrogens(conformer("C[N+](C)(C)CC"), "all")
    text = "".join(line for line in sdf(ions).splitlines(keepends=True) if not line.startswith("M  CHG"))
    path.write_text(text, encoding="utf-8")
    assert Chem.MolFromMolBlock(text) is None
    assert_same_molecule(path, "no charge")


@pytest.mark.parametrize("v3000", [False, True])
def test_queries_of_a_record_are_no_part_of_its_molecule(tmp_path: Path, v3000: bool) -> None:
    """X-TOOL, which wrote the SDF files of PDBbind, fills the column that asks for a number of hydrogens."""
    plain, path = sdf(with_hydrogens(conformer("CCO"), "all"), v3000=v3000), tmp_path / "x.sdf"
    text = plain.replace("  0  0  0  0  0  0  0  0  0  0\n", "  0  1  0  0  0  0  0  0  0  0\n")
    if v3000:
        text = "\n".join(f"{one} HCOUNT=-1" if " H " in one else one for one in plain.split("\n"))
    path.write_text(text, encoding="utf-8")
    assert any(atom.HasQuery() for atom in Chem.MolFromMolBlock(text, removeHs=False).GetAtoms())
    assert len(read(path).atoms) == 3
    assert_same_molecule(path, "queries")


def test_a_record_that_every_reader_reads_alike_stays_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "x.sdf"
    path.write_text(sdf(conformer(MOLECULES["indole"])), encoding="utf-8")
    assert written(path).read_text(encoding="utf-8").startswith(path.read_text(encoding="utf-8")[:-5])
