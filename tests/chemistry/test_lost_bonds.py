"""Molecules drawn with single bonds that their shape contradicts: repaired with a note, or refused; others stay."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from rdkit import Chem
from rdkit.Chem import AllChem

from src.chemistry.ligands import Ligand, LigandError, iter_ligands, read_ligand
from tests.chemistry.ligand_forms import MOLECULES

DATA = Path(os.environ.get("AIDD_REAL_DATA", "absent")) / "pdbbind"


def conformer(smiles: str) -> Chem.Mol:
    mol = Chem.AddHs(Chem.MolFromSmiles(smiles))
    assert AllChem.EmbedMolecule(mol, randomSeed=7) == 0
    AllChem.MMFFOptimizeMolecule(mol)
    return mol


def drawn(mol: Chem.Mol, lost: str = "", *, hydrogens: bool = False) -> str:
    """A record in which the bonds that match are single; all of them without a pattern."""
    mol = Chem.RWMol(mol if hydrogens else Chem.RemoveHs(mol))
    Chem.Kekulize(mol, clearAromaticFlags=True)
    pattern = Chem.MolFromSmarts(lost or "*~*")
    for match in mol.GetSubstructMatches(pattern):
        for bond in pattern.GetBonds():
            pair = match[bond.GetBeginAtomIdx()], match[bond.GetEndAtomIdx()]
            mol.GetBondBetweenAtoms(*pair).SetBondType(Chem.BondType.SINGLE)
    for atom in mol.GetAtoms():
        atom.SetFormalCharge(0)
        atom.SetNumExplicitHs(0)
        atom.SetNoImplicit(False)
    mol.UpdatePropertyCache(strict=False)
    return Chem.MolToMolBlock(mol, kekulize=False) + "$$$$\n"


def read(folder: Path, text: str) -> Ligand | LigandError:
    (folder / "x.sdf").write_text(text)
    (ligand,) = iter_ligands(folder / "x.sdf")
    return ligand


def assert_same(one: Ligand, other: Ligand) -> None:
    assert one.atoms.features.tolist() == other.atoms.features.tolist(), (one.smiles, other.smiles)
    assert one.atoms.bond_types.tolist() == other.atoms.bond_types.tolist(), (one.smiles, other.smiles)


LOST = {
    "guanidine": ("CNC(=N)N", "C=N"),
    "benzamidine": ("NC(=N)c1ccccc1", "[#6]=[NX2]"),
    "benzene": ("Cc1ccccc1CO", ""),
    "one ring of two": ("OCc1ccc(-c2ccncc2)cc1", "[#6]1~[#6]~[#6]~[#6]~[#6]~[#6]1"),
    "amide": ("CC(=O)NCC", "C=O"),
    "carboxylate": ("CCC(=O)O", "C=O"),
    "alkene": ("CC(C)=C(C)C", "C=C"),
    "nitrile": ("CCC#N", "C#N"),
    "alkyne": ("CC#CCO", "C#C"),
    "imidazole": ("CCc1c[nH]cn1", ""),
    "azo": ("CCN=NCC", "N=N"),
}


@pytest.mark.parametrize(("smiles", "lost"), LOST.values(), ids=LOST.keys())
def test_lost_bond_orders_are_restored_with_a_note(tmp_path: Path, smiles: str, lost: str) -> None:
    mol = conformer(smiles)
    whole = read(tmp_path, Chem.MolToMolBlock(Chem.RemoveHs(mol)) + "$$$$\n")
    assert (whole.read_as, whole.notes) == ("sdf", ())
    ligand = read(tmp_path, drawn(mol, lost))
    assert ligand.read_as == "bond orders restored in the sdf"
    assert any("bonds restored, which the shape contradicts" in note for note in ligand.notes)
    assert any("bond orders are lost" in note for note in ligand.notes)
    assert_same(ligand, whole)


@pytest.mark.parametrize("smiles", MOLECULES.values(), ids=MOLECULES.keys())
def test_a_molecule_without_any_bond_orders_is_itself_again_or_refused(tmp_path: Path, smiles: str) -> None:
    mol = conformer(smiles)
    whole = read(tmp_path, Chem.MolToMolBlock(Chem.RemoveHs(mol)) + "$$$$\n")
    ligand = read(tmp_path, drawn(mol))
    if isinstance(ligand, LigandError):
        assert "expected the double bonds in the file" in str(ligand)
    else:
        assert_same(ligand, whole)


def test_most_molecules_without_any_bond_orders_are_restored(tmp_path: Path) -> None:
    found = [read(tmp_path, drawn(conformer(smiles))) for smiles in list(MOLECULES.values())[::3]]
    assert sum(isinstance(each, Ligand) for each in found) >= 0.7 * len(found)


def test_three_nitrogens_are_a_guanidine_whatever_its_shape(tmp_path: Path) -> None:
    """As 6szp of PDBbind, whose carbon has a hydrogen and lies outside of the plane of its nitrogens."""
    mol = conformer("CNC(N)N")
    for hydrogens in (False, True):
        ligand = read(tmp_path, Chem.MolToMolBlock(mol if hydrogens else Chem.RemoveHs(mol)) + "$$$$\n")
        assert ligand.read_as == "bond orders restored in the sdf"
        assert Chem.CanonSmiles(ligand.smiles) in map(Chem.CanonSmiles, ("CNC(=N)N", "CN=C(N)N"))
    stays = read(tmp_path, Chem.MolToMolBlock(conformer("CN(C)C(N(C)C)N(C)C")) + "$$$$\n")
    assert (stays.read_as, stays.notes) == ("sdf", ())


SATURATED = ["C1CCCCC1C", "CC1CCCC1", "OC1CCOC1CO", "CN1CCNCC1", "CC(C)(C)CC(O)CN", "CC(N)N", "CC(O)O", "C1CC2CCC1C2"]


@pytest.mark.parametrize("hydrogens", [False, True])
@pytest.mark.parametrize("smiles", SATURATED)
def test_what_is_drawn_tetrahedral_and_is_stays(tmp_path: Path, smiles: str, hydrogens: bool) -> None:
    mol = conformer(smiles)
    ligand = read(tmp_path, Chem.MolToMolBlock(mol if hydrogens else Chem.RemoveHs(mol)) + "$$$$\n")
    assert (ligand.read_as, ligand.notes) == ("sdf", ())


@pytest.mark.parametrize("smiles", MOLECULES.values(), ids=MOLECULES.keys())
def test_what_is_drawn_right_stays(tmp_path: Path, smiles: str) -> None:
    ligand = read(tmp_path, Chem.MolToMolBlock(Chem.RemoveHs(conformer(smiles))) + "$$$$\n")
    assert (ligand.read_as, ligand.notes) == ("sdf", ())


def test_coordinates_that_are_a_little_wrong_are_no_contradiction(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    for smiles in MOLECULES.values():
        mol = Chem.RemoveHs(conformer(smiles))
        for number, place in enumerate(mol.GetConformer().GetPositions()):
            mol.GetConformer().SetAtomPosition(number, (place + draw.normal(0, 0.03, 3)).tolist())
        ligand = read(tmp_path, Chem.MolToMolBlock(mol) + "$$$$\n")
        assert (ligand.read_as, ligand.notes) == ("sdf", ())


def test_hydrogens_of_the_file_are_facts(tmp_path: Path) -> None:
    """Flat and short as its ring is, cyclohexane with its twelve hydrogens in the file is no benzene."""
    mol = conformer("Cc1ccccc1")
    text = drawn(mol)
    assert read(tmp_path, text).read_as == "bond orders restored in the sdf"
    filled = Chem.AddHs(Chem.MolFromMolBlock(text, removeHs=False), addCoords=True)
    ligand = read(tmp_path, Chem.MolToMolBlock(filled) + "$$$$\n")
    assert (ligand.read_as, ligand.smiles) == ("sdf", "CC1CCCCC1")


def test_two_answers_are_refused(tmp_path: Path) -> None:
    places = [(0.0, 0.0, 0.0), (1.5, 0.0, 0.05), (-0.66, 1.14, 0.0), (-0.66, -1.14, 0.0), (-2.09, 1.39, 0.1)]
    atoms = [(symbol, *xyz) for symbol, xyz in zip("CCNNC", places, strict=True)]
    lines = ["x", "", "", "  5  4  0  0  0  0  0  0  0  0999 V2000"]
    lines += [f"{x:10.4f}{y:10.4f}{z:10.4f} {symbol:<3} 0  0" for symbol, x, y, z in atoms]
    lines += ["  1  2  1  0", "  1  3  1  0", "  1  4  1  0", "  3  5  1  0", "M  END", "$$$$", ""]
    assert read(tmp_path, "\n".join(lines)).read_as == "bond orders restored in the sdf"  # an amidine, where it is one
    # With oxygen on one nitrogen it is an amidoxime or its tautomer, which are two molecules.
    error = read(tmp_path, "\n".join(lines).replace("0.1000 C ", "0.1000 O "))
    assert isinstance(error, LigandError)
    assert "there is not one set of double bonds that agrees with it" in str(error)
    assert "heavy atom C1" in str(error)


@pytest.mark.skipif("AIDD_REAL_DATA" not in os.environ, reason="AIDD_REAL_DATA is not set")
@pytest.mark.parametrize("code", ["1a4w", "1a94", "1a9m", "1bai", "1bhx", "1njs", "2fx6", "6szp"])
def test_guanidines_of_pdbbind_without_their_double_bond(code: str) -> None:
    ligand = read_ligand([DATA / code / f"{code}_ligand.sdf"])
    assert ligand.read_as == "bond orders restored in the sdf"
    assert Chem.MolFromSmiles(ligand.smiles).HasSubstructMatch(Chem.MolFromSmarts("[#6](=,:[#7])(~[#7])~[#7]"))
