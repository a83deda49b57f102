"""Ligand records as several programs write them: they must give the molecule of an ordinary SDF."""

from __future__ import annotations

from pathlib import Path

import pytest
from rdkit import Chem
from rdkit.Chem import AllChem
from rdkit.Chem.rdMolDescriptors import CalcMolFormula

from src.chemistry.ligand_parsing import parse_ligand
from src.chemistry.ligands import Ligand, LigandError, read_ligand


def embedded(smiles: str) -> Chem.Mol:
    mol = Chem.AddHs(Chem.MolFromSmiles(smiles))
    assert AllChem.EmbedMolecule(mol, randomSeed=7) == 0
    return mol


def mol2(mol: Chem.Mol, *, nitrogen: str = "N.pl3", hydrogens: bool = True) -> str:
    """As Open Babel and Sybyl write it: bonds of aromatic rings are `ar`, and there are no charges."""
    mol = mol if hydrogens else Chem.RemoveHs(mol)
    aromatic = {"C": "C.ar", "N": nitrogen, "O": "O.3", "S": "S.3"}
    plain = {"C": "C.3", "N": "N.3", "O": "O.3", "S": "S.o2", "H": "H"}
    orders = {Chem.BondType.AROMATIC: "ar", Chem.BondType.SINGLE: "1", Chem.BondType.DOUBLE: "2"}
    lines = ["@<TRIPOS>MOLECULE", "test", f" {mol.GetNumAtoms()} {mol.GetNumBonds()} 0 0 0", "SMALL", "GASTEIGER", ""]
    lines.append("@<TRIPOS>ATOM")
    for atom, pos in zip(mol.GetAtoms(), mol.GetConformer().GetPositions(), strict=True):
        kind = (aromatic if atom.GetIsAromatic() else plain)[atom.GetSymbol()]
        place = " ".join(f"{value:.4f}" for value in pos)
        lines.append(f"{atom.GetIdx() + 1:>7} {atom.GetSymbol()} {place} {kind} 1 UNL1 0.01")
    lines.append("@<TRIPOS>BOND")
    for bond in mol.GetBonds():
        ends = f"{bond.GetBeginAtomIdx() + 1} {bond.GetEndAtomIdx() + 1}"
        lines.append(f"{bond.GetIdx() + 1:>6} {ends} {orders[bond.GetBondType()]}")
    return "\n".join([*lines, ""])


def read(folder: Path, text: str, name: str = "x.mol2") -> Ligand:
    (folder / name).write_text(text, encoding="utf-8")
    return read_ligand([folder / name])


def formula(smiles: str) -> str:
    return CalcMolFormula(Chem.MolFromSmiles(smiles))


AZOLES = {
    "indole": "c1ccc2[nH]ccc2c1",
    "N-methylindole": "Cn1ccc2ccccc21",
    "pyridone": "O=c1cc[nH]cc1",
    "N-methylpyridone": "Cn1ccccc1=O",
    "N-methylpyridinium": "C[n+]1ccccc1",
    "imidazole": "Cc1c[nH]cn1",
    "uracil": "Cc1cc(=O)[nH]c(=O)[nH]1",
    "purine": "c1ncc2nc[nH]c2n1",
    "indole and pyridinium": "C[n+]1ccc(-c2c[nH]c3ccccc23)cc1",
    "pyridine": "Cc1ccncc1",
    "thiazolium": "Cc1sc[n+](C)c1C",
    "imidazolium": "Cn1cc[n+](C)c1",
    "triazolium": "Cn1cc[n+](C)n1",
    "pyrazinium": "C[n+]1ccncc1",
}


@pytest.mark.fault("I4")
@pytest.mark.parametrize("nitrogen", ["N.pl3", "N.ar"])
@pytest.mark.parametrize("smiles", AZOLES.values(), ids=AZOLES.keys())
def test_aromatic_nitrogens_of_a_mol2(tmp_path: Path, smiles: str, nitrogen: str) -> None:
    ligand = read(tmp_path, mol2(embedded(smiles), nitrogen=nitrogen))
    assert (ligand.read_as, ligand.smiles, ligand.notes) == ("mol2", Chem.CanonSmiles(smiles), ())


@pytest.mark.fault("I4")
@pytest.mark.parametrize("smiles", AZOLES.values(), ids=AZOLES.keys())
def test_a_hydrogen_that_the_file_lacks_is_found(tmp_path: Path, smiles: str) -> None:
    ligand = read(tmp_path, mol2(embedded(smiles), hydrogens=False))
    lacking = smiles.count("[nH]")
    assert ligand.read_as == ("hydrogens added to the mol2" if lacking else "mol2")
    assert ligand.smiles.count("[nH]") == lacking  # of imidazole and purine another tautomer is as good
    assert formula(ligand.smiles) == formula(smiles)
    note = f"{lacking} aromatic nitrogens given the hydrogen that the file lacks"
    assert ligand.notes[:1] == ((note,) if lacking else ())


def test_a_sound_file_goes_before_one_that_lacks_hydrogens(tmp_path: Path) -> None:
    mol = embedded("Cc1c[nH]cn1")
    bare = Chem.MolToMolBlock(Chem.RemoveHs(mol), kekulize=False).replace("MRV_IMPLICIT_H", "LOST")
    (tmp_path / "x.sdf").write_text(bare + "$$$$\n")
    (tmp_path / "x.mol2").write_text(mol2(mol))
    assert read_ligand([tmp_path / "x.sdf", tmp_path / "x.mol2"]).read_as == "mol2"
    assert read_ligand([tmp_path / "x.sdf"]).read_as == "hydrogens added to the sdf"


@pytest.mark.parametrize("smiles", ["C[n+]1ccncc1", "Cn1cc[n+](C)c1"])
def test_an_aromatic_sdf_without_its_charges(tmp_path: Path, smiles: str) -> None:
    text = Chem.MolToMolBlock(Chem.RemoveHs(embedded(smiles)), kekulize=False)
    text = "\n".join(line for line in text.split("\n") if not line.startswith("M  CHG"))
    ligand = read(tmp_path, text, "x.sdf")
    assert (ligand.read_as, ligand.smiles) == ("sdf", Chem.CanonSmiles(smiles))


@pytest.mark.fault("I5")
@pytest.mark.parametrize("smiles", ["NS(=O)(=O)c1ccccc1", "NC(=O)c1ccccc1", "Nc1ccccc1", "CCN", "CCO"])
def test_a_mol2_without_hydrogens_has_no_charges(tmp_path: Path, smiles: str) -> None:
    assert read(tmp_path, mol2(embedded(smiles), hydrogens=False)).smiles == Chem.CanonSmiles(smiles)


def test_bonds_that_ask_for_a_ring_are_no_queries(tmp_path: Path) -> None:
    text = Chem.MolToMolBlock(embedded("c1ccc2[nH]ccc2c1"))
    lines = text.split("\n")
    first, count = 4 + int(lines[3][:3]), int(lines[3][3:6])
    asking = [line[:9] + "  0  0  1" for line in lines[first : first + count]]
    v2000 = "\n".join([*lines[:first], *asking, *lines[first + count :]])
    assert read(tmp_path, v2000, "x.sdf").smiles == "c1ccc2[nH]ccc2c1"
    bonds = False
    v3000 = []
    for line in Chem.MolToV3KMolBlock(embedded("c1ccc2[nH]ccc2c1")).split("\n"):
        bonds = line == "M  V30 BEGIN BOND" or (bonds and line != "M  V30 END BOND")
        v3000.append(line + " TOPO=1" if bonds and line[7:8].isdigit() else line)
    assert sum("TOPO" in line for line in v3000) == count
    assert read(tmp_path, "\n".join(v3000), "y.sdf").smiles == "c1ccc2[nH]ccc2c1"


METHANOL = """@<TRIPOS>MOLECULE
{name}
{atoms} {bonds} 0 0 0
SMALL
NO_CHARGES

@<TRIPOS>ATOM
{comment}1 C1 0.0 0.1 0.2 C.3
2 O1 1.4 0.0 0.0 O.3
{more_atoms}@<TRIPOS>BOND
1 1 2 1
{more_bonds}"""


def methanol(**changes: object) -> str:
    plain = {"name": "methanol", "atoms": 2, "bonds": 1, "comment": "", "more_atoms": "", "more_bonds": ""}
    return METHANOL.format(**plain | changes)


def test_lone_pairs_are_no_atoms(tmp_path: Path) -> None:
    pairs = {"more_atoms": "3 LP1 1.8 0.5 0.0 LP\n4 LP2 1.8 -0.5 0.1 LP\n", "more_bonds": "2 2 3 1\n3 2 4 1\n"}
    ligand = read(tmp_path, methanol(atoms=4, bonds=3, **pairs))
    assert (ligand.smiles, len(ligand.atoms)) == ("CO", 2)


def test_a_dummy_atom_has_no_charge(tmp_path: Path) -> None:
    dummy = {"more_atoms": "3 DU 1.8 1.1 0.0 Du\n", "more_bonds": "2 2 3 1\n"}
    assert read(tmp_path, methanol(atoms=3, bonds=2, **dummy)).smiles == "*OC"


def test_comments_between_atoms_are_no_atoms(tmp_path: Path) -> None:
    assert read(tmp_path, methanol(comment="# made by hand\n")).smiles == "CO"


def test_a_byte_order_mark_and_a_name_of_stars_mean_nothing(tmp_path: Path) -> None:
    ligand = read(tmp_path, "\ufeff" + methanol(name="*****"), "pose.mol2")
    assert (ligand.smiles, ligand.name) == ("CO", "pose")


def test_a_nitro_group_of_mixed_oxygen_types(tmp_path: Path) -> None:
    atoms = "3 N1 -0.7 1.3 0.1 N.pl3\n4 O2 -1.9 1.2 0.0 O.2\n5 O3 -0.1 2.4 0.2 O.co2\n"
    ligand = read(tmp_path, methanol(atoms=5, bonds=4, more_atoms=atoms, more_bonds="2 1 3 1\n3 3 4 2\n4 3 5 1\n"))
    assert ligand.smiles == Chem.CanonSmiles("OC[N+](=O)[O-]")


def test_atoms_without_bonds_are_refused(tmp_path: Path) -> None:
    text = methanol(bonds=0).replace("1 1 2 1\n", "")
    with pytest.raises(LigandError, match="2 atoms and no bonds; expected bond orders"):
        read(tmp_path, text)


@pytest.mark.parametrize("kind", ["sdf", "mol2"])
def test_damage_is_none(kind: str) -> None:
    assert parse_ligand("not a molecule\n", kind) is None
