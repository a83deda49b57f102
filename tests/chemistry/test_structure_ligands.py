"""Ligands of complexes, PDB and PDBQT with the bond orders that their files, and those beside them, state."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from rdkit import Chem

from src.chemistry.ligands import Ligand, LigandError, LigandRecord, ligand_of, read_ligand
from src.chemistry.structure_ligands import COMPLEX, PlacedLigand, place_ligand, structure_records
from tests.complex_texts import (
    as_mmcif,
    complex_text,
    component_bonds,
    conect_lines,
    ligand_lines,
    molecule,
    without_hydrogens,
)

SMILES = "O=C(Nc1ccccc1)C1CC1"
CDK2 = "CC(C)[C@H](CO)Nc1nc(Nc2ccc(C(=O)O)c(Cl)c2)c2ncn(C(C)C)c2n1"
MOL = molecule(SMILES)
LINES = ligand_lines(MOL, shift=(60.0, 0.0, 0.0))
HEAVY = without_hydrogens(LINES)
CASES = Path(os.environ.get("AIDD_CASES", Path(__file__).parents[3] / "shared" / "cases")) / "complex-files"


def place(path: Path, smiles: str = "", residue: str = "") -> PlacedLigand:
    return place_ligand(LigandRecord(path, COMPLEX, 1, ""), smiles, residue)


def read(placed: PlacedLigand) -> Ligand:
    ligand = ligand_of(placed.record)
    assert isinstance(ligand, Ligand)
    return ligand


def written(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


@pytest.mark.parametrize(("smiles", "chain"), [("Cc1cc(=O)n2c(n1)CCCC2", "A"), (CDK2, "B")])
def test_a_smiles_makes_the_ligand_of_pdb_and_mmcif(tmp_path: Path, smiles: str, chain: str) -> None:
    lines = without_hydrogens(ligand_lines(molecule(smiles), chain=chain, number=700, shift=(60.0, 0.0, 0.0)))
    for name, text in (("x.pdb", complex_text(lines)), ("x.cif", as_mmcif(complex_text(lines)))):
        placed = place(written(tmp_path / name, text), smiles, "LIG")
        assert Chem.CanonSmiles(read(placed).smiles) == Chem.CanonSmiles(smiles)
        assert placed.found["bond_orders"] == "the SMILES given"
        assert placed.found["ligand_residue"] == f"{chain}:LIG:700"
        assert read(placed).name == "x"
    with pytest.raises(LigandError, match="--smiles"):
        place(tmp_path / "x.pdb")


def test_a_file_of_the_molecule_stands_for_its_smiles(tmp_path: Path) -> None:
    path = written(tmp_path / "x.pdb", complex_text(HEAVY))
    sdf = written(tmp_path / "drawn.sdf", Chem.MolToMolBlock(molecule(SMILES, order=[3, 2, 1, 0, *range(4, 12)])))
    placed = place(path, str(sdf))
    assert placed.found["bond_orders"] == "drawn.sdf"
    assert Chem.CanonSmiles(read(placed).smiles) == Chem.CanonSmiles(SMILES)


def test_sources_are_asked_in_order_and_what_the_user_says_has_no_other(tmp_path: Path) -> None:
    """Each later source says a tautomer, so that the SMILES tells which one was taken."""
    tautomer = "OC(=Nc1ccccc1)C1CC1"
    bonds = component_bonds(MOL)
    drawn = f"loop_\n_chem_comp.id\n_chem_comp.pdbx_smiles\nLIG '{tautomer}'\n#\n"
    path = written(tmp_path / "x.cif", as_mmcif(complex_text(HEAVY), bonds + drawn))
    written(tmp_path / "x.yaml", f"sequences:\n- ligand:\n    id: B\n    smiles: {SMILES}\n")
    assert place(path, tautomer).found["bond_orders"] == "the SMILES given"
    with pytest.raises(LigandError, match="the SMILES given: heavy atoms are C2O, the file has C10NO"):
        place(path, "CCO")
    assert place(path).found["bond_orders"] == "_chem_comp_bond"
    assert Chem.CanonSmiles(read(place(path)).smiles) == Chem.CanonSmiles(SMILES)
    written(path, as_mmcif(complex_text(HEAVY), bonds.replace("LIG N3", "LIG N4") + drawn))  # does not fit the atoms
    assert place(path).found["bond_orders"] == "_chem_comp.pdbx_smiles"
    assert Chem.CanonSmiles(read(place(path)).smiles, useChiral=False) == Chem.CanonSmiles(tautomer)
    written(path, as_mmcif(complex_text(HEAVY)))
    assert place(path).found["bond_orders"] == "x.yaml"
    written(tmp_path / "x.yaml", "smiles: CCO\n")
    with pytest.raises(LigandError, match=r"B:LIG:1: nothing states its bond orders \(x.yaml: .*--smiles"):
        place(path)


def test_a_file_of_alphafold_has_its_smiles_and_a_cofactor_beside_it(tmp_path: Path) -> None:
    haem = without_hydrogens(ligand_lines(molecule("C" * 30), name="HEM", chain="H", shift=(90.0, 0.0, 0.0)))
    drawn = f"loop_\n_chem_comp.id\n_chem_comp.name\n_chem_comp.pdbx_smiles\nHEM haem ?\nLIG_Lig x '{SMILES}'\n#\n"
    text = as_mmcif(complex_text(HEAVY, haem), drawn).replace(" LIG B ", " LIG_Lig Lig ").replace(" B 1\n", " Lig 1\n")
    placed = place(written(tmp_path / "x_model.cif", f"# terms of use\n#\n{text}"))
    assert (placed.found["ligand_residue"], placed.found["bond_orders"]) == ("Lig:LIG_LIG:1", "_chem_comp.pdbx_smiles")
    assert Chem.CanonSmiles(read(placed).smiles) == Chem.CanonSmiles(SMILES)


def test_aromatic_bonds_of_a_component_are_settled(tmp_path: Path) -> None:
    smiles = "NS(=O)(=O)c1ccc2[nH]ccc2c1"
    mol = molecule(smiles)
    rings = {bond.GetIdx() for bond in Chem.MolFromSmiles(smiles).GetBonds() if bond.GetIsAromatic()}
    rows = component_bonds(mol).split("\n")
    first = next(number for number, row in enumerate(rows) if row.startswith("LIG"))
    rows = [row.rsplit(" ", 1)[0] + " arom" if n - first in rings else row for n, row in enumerate(rows)]
    lines = ligand_lines(mol, shift=(60.0, 0.0, 0.0))
    for atoms in (lines, without_hydrogens(lines)):
        placed = place(written(tmp_path / "x.cif", as_mmcif(complex_text(atoms), "\n".join(rows))))
        assert placed.found["bond_orders"] == "_chem_comp_bond"
        assert Chem.CanonSmiles(read(placed).smiles) == Chem.CanonSmiles(smiles)


@pytest.mark.parametrize("smiles", ["C/C=C/C(=O)NO", "C/C=C\\C(=O)N/N=C/c1ccccc1"])
def test_double_bonds_are_as_the_coordinates_have_them(tmp_path: Path, smiles: str) -> None:
    mol = molecule(smiles)
    lines = without_hydrogens(ligand_lines(mol, shift=(60.0, 0.0, 0.0)))
    path = written(tmp_path / "x.cif", as_mmcif(complex_text(lines), component_bonds(mol)))
    assert [Chem.CanonSmiles(read(one).smiles) for one in (place(path), place(path, smiles))] == [
        Chem.CanonSmiles(smiles)
    ] * 2


def test_conect_records_of_a_pdb_file_come_after_its_remark(tmp_path: Path) -> None:
    path = written(tmp_path / "x.pdb", complex_text(HEAVY, more=conect_lines(MOL, orders=True)))
    assert place(path).found["bond_orders"] == "CONECT orders"
    assert Chem.CanonSmiles(read(place(path)).smiles) == Chem.CanonSmiles(SMILES)
    written(path, complex_text(LINES, more=conect_lines(MOL, orders=False)))
    assert place(path).found["bond_orders"] == "CONECT and hydrogens"
    assert Chem.CanonSmiles(read(place(path)).smiles) == Chem.CanonSmiles(SMILES)
    written(path, f"REMARK SMILES {SMILES}\n" + path.read_text())
    assert place(path).found["bond_orders"] == "REMARK SMILES"


def test_an_input_with_two_ligands_that_fit_says_nothing(tmp_path: Path) -> None:
    path = written(tmp_path / "x_model_0.cif", as_mmcif(complex_text(HEAVY)))
    written(tmp_path / "x.yaml", f"smiles: {SMILES}\nother:\n  smiles: 'OC(=Nc1ccccc1)C1CC1'\n")
    with pytest.raises(LigandError, match="2 of its ligands fit the atoms"):
        place(path)


@pytest.mark.parametrize("scale", [1.0, 0.01])
def test_confidences_of_a_model_are_columns_and_b_factors_of_a_crystal_are_not(tmp_path: Path, scale: float) -> None:
    lines = ligand_lines(MOL, b_factor=90.0 * scale, shift=(4.0, 4.0, 0.0))
    text = complex_text(lines).replace(" 10.00 ", f"{80.0 * scale:6.2f} ")
    path = written(tmp_path / "x_model_0.pdb", text)
    assert "ligand_pLDDT" not in place(path, SMILES).found
    written(tmp_path / "confidence_x_model_0.json", json.dumps({"iptm": 0.9, "chains": {"iptm": 0.1}}))
    written(tmp_path / "affinity_x.json", json.dumps({"affinity_pred_value": -1.5}))
    written(tmp_path / "confidence_x_model_1.json", json.dumps({"iptm": 0.2}))
    found = place(path, SMILES).found
    assert {name: found[name] for name in ("ligand_pLDDT", "pocket_pLDDT", "ipTM", "boltz_pIC50")} == {
        "ligand_pLDDT": 90.0,
        "pocket_pLDDT": 80.0,
        "ipTM": 0.9,
        "boltz_pIC50": 7.5,
    }


def pdbqt(smiles: str = SMILES) -> str:
    """A ROOT block as Meeko writes it."""
    types = {"C": "C", "N": "NA", "O": "OA", "H": "HD"}
    lines = [line[:70].ljust(77) + types[line[76:78].strip()] for line in LINES[:13]]
    remarks = [f"REMARK SMILES {smiles}"] * bool(smiles) + ["REMARK SMILES IDX 1 1"]
    return "\n".join([*remarks, "ROOT", *lines, "ENDROOT", "TORSDOF 2", ""])


def test_each_model_and_each_root_of_a_pdbqt_is_a_pose(tmp_path: Path) -> None:
    side_chain = "BEGIN_RES PHE A 1\nROOT\n" + "\n".join(HEAVY[:3]) + "\nENDROOT\nEND_RES PHE A 1\n"
    first = "MODEL 1\nREMARK VINA RESULT:   -9.5  0.0  0.0\n" + pdbqt() + pdbqt() + side_chain
    second = "MODEL 2\nREMARK VINA RESULT:   -8.25  0.0  0.0\n" + pdbqt() + "ENDMDL\n"
    poses = list(structure_records(written(tmp_path / "out.pdbqt", first + second)))
    assert [pose.number for pose in poses] == [1, 2, 3]
    placed = [place_ligand(pose) for pose in poses]
    assert [one.found["docking_score"] for one in placed] == [-9.5, -9.5, -8.25]
    assert {Chem.CanonSmiles(read(one).smiles) for one in placed} == {Chem.CanonSmiles(SMILES)}


def test_a_pdbqt_without_a_smiles_takes_that_of_the_user(tmp_path: Path) -> None:
    (pose,) = structure_records(written(tmp_path / "out.pdbqt", pdbqt("")))
    with pytest.raises(LigandError, match=r"out\.pdbqt: the ligand: nothing states its bond orders; give its SMILES"):
        place_ligand(pose)
    assert Chem.CanonSmiles(read(place_ligand(pose, SMILES)).smiles) == Chem.CanonSmiles(SMILES)


def test_each_model_of_a_ligand_pdb_is_a_pose_and_a_protein_is_none(tmp_path: Path) -> None:
    body = "\n".join(["MODEL 1", *HEAVY, "ENDMDL", "MODEL 2", *HEAVY, "ENDMDL", ""])
    poses = list(structure_records(written(tmp_path / "lig.pdb", body)))
    assert [read(place_ligand(pose, SMILES)).smiles for pose in poses] == [Chem.CanonSmiles(SMILES)] * 2
    with pytest.raises(LigandError, match="give --complex_path"):
        list(structure_records(written(tmp_path / "p.pdb", complex_text(HEAVY))))
    with pytest.raises(LigandError, match="is it a receptor"):
        list(structure_records(written(tmp_path / "r.pdbqt", "\n".join(HEAVY))))


def test_damage_is_an_error_of_the_ligand(tmp_path: Path) -> None:
    for content in (b"", b"x", b"\0", b"ATOM  \n", as_mmcif(complex_text(LINES)).encode()[:900]):
        (tmp_path / "x.cif").write_bytes(content)
        with pytest.raises(LigandError, match=r"x\.cif"):
            place(tmp_path / "x.cif")
    with pytest.raises(LigandError, match="there is no such file"):
        place(tmp_path / "absent.cif")


@pytest.mark.skipif(not CASES.is_dir(), reason="the shared cases are not there")
@pytest.mark.parametrize(
    ("name", "residue", "smiles", "source"),
    [
        (
            "boltz2_1ckp_cdk2_model_0.cif",
            "B:LIG1:1",
            CDK2,
            "1ckp_cdk2.yaml",
        ),
        (
            "boltz2_1ckp_cdk2_model_0.pdb",
            "B:IG1:1",
            CDK2,
            "1ckp_cdk2.yaml",
        ),
        ("PW_p38_sample_1_model.cif", "2.1:LIG0:0", "Nc1nccc(c2c(c3ccc(F)cc3)ncn2CC2CC2)n1", "_chem_comp_bond"),
        ("6z0r_Q4H_SO4_EDO_cut12.cif", "A:Q4H:301", "Nc1ncncc1C#N", "_chem_comp_bond"),
        ("6A93_maestro_8NU_cut12.pdb", "A:8NU:3001", "", "CONECT orders"),
    ],
)
def test_files_of_programs_give_the_expected_ligand(name: str, residue: str, smiles: str, source: str) -> None:
    placed = place(CASES / name)
    expected = smiles or read_ligand([CASES / "6A93_maestro_8NU_reference.sdf"]).smiles
    assert Chem.CanonSmiles(read(placed).smiles) == Chem.CanonSmiles(expected)
    assert (placed.found["ligand_residue"], placed.found["bond_orders"], placed.notes) == (residue, source, ())
    if name.startswith("boltz2"):
        assert (placed.found["ipTM"], placed.found["boltz_pIC50"], placed.found["ligand_pLDDT"]) == (0.983, 7.076, 92.3)
    assert ("ligand_pLDDT" in placed.found) == name.startswith(("boltz2", "PW"))


@pytest.mark.skipif(not CASES.is_dir(), reason="the shared cases are not there")
def test_the_poses_of_vina_are_read() -> None:
    poses = [place_ligand(one) for one in structure_records(CASES / "1iep_vina_meeko_4models.pdbqt")]
    assert [one.found["docking_score"] for one in poses] == [-13.234, -11.293, -11.281, -11.146]
    assert {read(one).smiles for one in poses} == {
        Chem.CanonSmiles("Cc1ccc(NC(=O)c2ccc(CN3CCN(C)CC3)cc2)cc1Nc1nccc(-c2cccnc2)n1")
    }
