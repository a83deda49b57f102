"""Drawings of one molecule: the typed ligand is the same for all of them, with the same coordinates."""

from __future__ import annotations

from pathlib import Path

import pytest
from rdkit import Chem

from src.chemistry.ligands import Ligand, iter_ligands

# The first of each group is how RDKit draws it; the order of atoms is the same in all.
DRAWINGS = {
    "sulfoxide": ["CS(=O)C", "C[S+]([O-])C"],
    "sulfone": ["CS(=O)(=O)C", "C[S+2]([O-])([O-])C", "C[S+](=O)([O-])C", "CS(O)(O)C"],
    "sulfonamide": ["CS(=O)(=O)NC", "C[S+2]([O-])([O-])NC", "C[S+]([O-])(=O)NC"],
    "sulfonic acid": ["CS(=O)(=O)O", "C[S+2]([O-])([O-])[O-]", "C[S+2]([O-])([O-])O", "CS(=O)(=O)[O-]"],
    "sulfinic acid": ["CS(=O)O", "C[S+]([O-])[O-]", "C[S+]([O-])O"],
    "sulfoximine": ["CS(=O)(=N)C", "C[S+]([O-])(=N)C"],
    "sulfilimine": ["CS(=NC)C", "C[S+]([N-]C)C"],
    "selenoxide": ["C[Se](=O)C", "C[Se+]([O-])C"],
    "phosphate": ["COP(=O)(O)O", "CO[P+]([O-])(O)O", "CO[P+]([O-])([O-])[O-]", "COP(O)(O)O"],
    "phosphate ester": ["COP(=O)(OC)OC", "CO[P+]([O-])(OC)OC", "COP(O)(OC)OC"],
    "phosphine oxide": ["CP(=O)(C)C", "C[P+]([O-])(C)C"],
    "thiophosphate": ["COP(=S)(OC)OC", "CO[P+]([S-])(OC)OC"],
    "phosphazene": ["CP(=NC)(C)C", "C[P+]([N-]C)(C)C"],
    "nitro": ["C[N+](=O)[O-]", "C[N+]([O-])=O", "CN(=O)=O"],
    "aromatic nitro": ["c1cc([N+](=O)[O-])ccc1O", "c1cc(N(=O)=O)ccc1O"],
    "azide": ["CN=[N+]=[N-]", "C[N-][N+]#N", "CN=N#N"],
    "diazo": ["CC(C)=[N+]=[N-]", "C[C-](C)[N+]#N", "CC(C)=N#N"],
    "pyridine oxide": ["c1cc[n+]([O-])cc1", "c1ccn(=O)cc1", "c1cc[n+](O)cc1"],
    "amine oxide": ["C[N+]([O-])(C)C", "CN(=O)(C)C", "C[N+](O)(C)C"],
    "nitrone": ["CC=[N+]([O-])C", "CC=N(=O)C"],
    "amide": ["CC(=O)N(C)C", "CC([O-])=[N+](C)C"],
    "vinylogous amide": ["CC(=O)C=CN(C)C", "CC([O-])=CC=[N+](C)C"],
    "pyridone": ["O=c1ccn(C)cc1", "[O-]c1cc[n+](C)cc1"],
    "imidazolium": ["Cn1ccnc1", "Cn1cc[nH+]c1", "C[n+]1cc[nH]c1"],
    "amidinium": ["CC(=N)N(C)C", "CC(=[NH2+])N(C)C", "CC(N)=[N+](C)C"],
    "carbonyl": ["CC(=O)C", "C[C+]([O-])C"],
}


def ligand_of(smiles: str, hydrogens: bool, folder: Path) -> Ligand:
    mol = Chem.MolFromSmiles(smiles, sanitize=False)
    conformer = Chem.Conformer(mol.GetNumAtoms())
    for number in range(mol.GetNumAtoms()):
        conformer.SetAtomPosition(number, [1.45 * number, 0.6 * (number % 2), 0.4 * (number % 3)])
    mol.AddConformer(conformer)
    mol.UpdatePropertyCache(strict=False)
    if hydrogens:
        mol = Chem.AddHs(mol)
        for number, atom in enumerate(mol.GetAtoms()):
            if atom.GetAtomicNum() == 1:
                mol.GetConformer().SetAtomPosition(number, [1.1 * number, 5.0, 0.3 * number])
    if any(bond.GetIsAromatic() for bond in mol.GetBonds()):
        block = Chem.MolToMolBlock(mol, kekulize=False)
    else:
        block = Chem.MolToMolBlock(mol)
    (folder / "x.sdf").write_text(block + "$$$$\n")
    (ligand,) = iter_ligands(folder / "x.sdf")
    assert isinstance(ligand, Ligand), ligand
    return ligand


@pytest.mark.parametrize("hydrogens", [False, True])
@pytest.mark.parametrize("drawings", DRAWINGS.values(), ids=DRAWINGS.keys())
def test_drawings_of_one_molecule_are_one_ligand(tmp_path: Path, drawings: list[str], hydrogens: bool) -> None:
    first, *others = (ligand_of(smiles, hydrogens, tmp_path) for smiles in drawings)
    for smiles, other in zip(drawings[1:], others, strict=True):
        assert other.atoms.features.tolist() == first.atoms.features.tolist(), (smiles, other.smiles)
        assert other.atoms.bond_types.tolist() == first.atoms.bond_types.tolist(), (smiles, other.smiles)


CHARGED = ["C[N+](C)(C)C", "C[S+](C)C", "C[P+](C)(C)C", "C[n+]1ccccc1", "Cn1cc[n+](C)c1", "C[n+]1ccc(N)cc1"]


@pytest.mark.parametrize("smiles", CHARGED)
def test_charges_that_no_other_drawing_takes_away(tmp_path: Path, smiles: str) -> None:
    assert ligand_of(smiles, True, tmp_path).smiles == Chem.CanonSmiles(smiles)


@pytest.mark.parametrize(
    ("smiles", "note"),
    [
        ("CS(O)(O)C", "2 double bonds"),
        ("COP(O)(O)O", "1 double bonds"),
        ("COP(=O)(=O)=O", "2 double bonds"),
        ("CC(=O)=O", "1 double bonds"),
        ("CS(=O)(=O)=O", "1 double bonds"),
    ],
)
def test_a_repair_leaves_a_note(tmp_path: Path, smiles: str, note: str) -> None:
    ligand = ligand_of(smiles, False, tmp_path)
    assert ligand.read_as == "sdf"
    assert ligand.notes == (f"{note} of S, P, N or C set as their groups have them",)


def test_equal_drawings_need_no_note(tmp_path: Path) -> None:
    for name in ("sulfoxide", "nitro", "azide", "amide"):
        assert ligand_of(DRAWINGS[name][1], False, tmp_path).notes == ()
