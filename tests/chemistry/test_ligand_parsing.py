"""Ligand records as several programs write them: they must give the molecule of an ordinary SDF."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from rdkit import Chem
from rdkit.Chem import AllChem
from rdkit.Chem.rdMolDescriptors import CalcMolFormula

from src.chemistry.ligand_parsing import parse_ligand
from src.chemistry.ligands import Ligand, LigandError, iter_ligands, read_ligand
from src.chemistry.mol2 import Mol2Error


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


def v3000(mol: Chem.Mol) -> list[str]:
    return Chem.MolToV3KMolBlock(mol).split("\n")


def with_block(lines: list[str], block: list[str], counts: str = "") -> str:
    """A block after the bonds of a V3000 record, as many S-groups as counts says."""
    place = lines.index("M  V30 END BOND") + 1
    text = "\n".join([*lines[:place], *block, *lines[place:]])
    return re.sub(r"(COUNTS \d+ \d+) 0", rf"\1 {counts}", text) if counts else text


BLOCKS = {
    "data": [
        "M  V30 BEGIN SGROUP",
        'M  V30 1 DAT 0 ATOMS=(1 1) FIELDNAME=note FIELDDATA="x y z w"',
        "M  V30 END SGROUP",
    ],
    "superatom": [
        "M  V30 BEGIN SGROUP",
        "M  V30 1 SUP 1 ATOMS=(2 1 2) XBONDS=(1 2) LABEL=Et ESTATE=E",
        "M  V30 END SGROUP",
    ],
    "data continued": [
        "M  V30 BEGIN SGROUP",
        "M  V30 1 DAT 1 ATOMS=(3 1 2 -",
        "M  V30 3) FIELDNAME=C -",
        'M  V30 FIELDDATA="1 C 0 0 0 0 TOPO=1"',
        "M  V30 END SGROUP",
    ],
    "collection": ["M  V30 BEGIN COLLECTION", "M  V30 MDLV30/STERAC1 ATOMS=(1 2)", "M  V30 END COLLECTION"],
    "highlight": ["M  V30 BEGIN COLLECTION", "M  V30 MDLV30/HILITE ATOMS=(2 1 2) BONDS=(1 1)", "M  V30 END COLLECTION"],
}


@pytest.mark.parametrize("name", BLOCKS)
def test_other_blocks_of_v3000_do_not_matter(tmp_path: Path, name: str) -> None:
    mol = embedded("CCOc1cc[nH]c1")
    text = with_block(v3000(mol), BLOCKS[name], "1" if "SGROUP" in BLOCKS[name][0] else "")
    plain, other = read(tmp_path, "\n".join(v3000(mol)), "x.sdf"), read(tmp_path, text, "y.sdf")
    assert (other.smiles, other.read_as, other.notes) == (plain.smiles, "sdf", ())
    assert other.atoms.features.tolist() == plain.atoms.features.tolist()


def test_atom_lines_of_v3000_may_be_continued_and_hold_more(tmp_path: Path) -> None:
    mol = embedded("CC[NH3+]")
    lines = []
    for line in v3000(mol):
        if line.endswith("CHG=1"):
            lines += [line.removesuffix(" CHG=1") + " -", "M  V30 CHG=1 VAL=4 ATTCHORD=(4 2 Al 5 Br) CLASS=AA"]
        else:
            lines.append(line)
    assert read(tmp_path, "\n".join(lines), "x.sdf").smiles == "CCN"


@pytest.mark.parametrize("code", [" CFG=6", " CFG=1", " TOPO=2 CFG=3"])
def test_configurations_of_v3000_bonds_come_from_the_coordinates(tmp_path: Path, code: str) -> None:
    """Open Babel writes numbers of V2000 there, which V3000 does not have."""
    lines = v3000(embedded("C[C@H](N)O"))
    place = lines.index("M  V30 BEGIN BOND") + 1
    lines[place] = re.sub(r" CFG=\d", "", lines[place]) + code
    assert read(tmp_path, "\n".join(lines), "x.sdf").smiles == "C[C@H](N)O"


@pytest.mark.parametrize("symbol", ["LP", "Lp", "lp"])
def test_lone_pairs_of_an_sdf_are_no_atoms(tmp_path: Path, symbol: str) -> None:
    mol = Chem.RWMol(Chem.RemoveHs(embedded("CO")))
    pair = mol.AddAtom(Chem.Atom("Ts"))
    mol.AddBond(1, pair, Chem.BondType.SINGLE)
    mol.GetConformer().SetAtomPosition(pair, [1.0, 1.0, 1.0])
    mol.UpdatePropertyCache(strict=False)
    for text in (Chem.MolToMolBlock(mol), Chem.MolToV3KMolBlock(mol)):
        ligand = read(tmp_path, text.replace(" Ts ", f" {symbol} "), "x.sdf")
        assert (ligand.smiles, len(ligand.atoms)) == ("CO", 2)


@pytest.mark.parametrize("name", ["x.sdf", "x.mol2"])
@pytest.mark.parametrize("end", ["\r", "\r\n", "\n"])
@pytest.mark.parametrize("last", ["", "\n"])
def test_ends_of_lines(tmp_path: Path, name: str, end: str, last: str) -> None:
    text = (Chem.MolToMolBlock(embedded("CO")) + "$$$$\n" if name == "x.sdf" else methanol()) * 3
    (tmp_path / name).write_bytes(text.rstrip("\n").replace("\n", end).encode() + last.encode())
    assert [ligand.smiles for ligand in iter_ligands(tmp_path / name)] == ["CO"] * 3


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


def test_damage_is_none_or_named() -> None:
    assert parse_ligand("not a molecule\n", "sdf") == (None, [])
    with pytest.raises(Mol2Error, match="no atoms"):
        parse_ligand("not a molecule\n", "mol2")


@pytest.mark.fault("I5")
@pytest.mark.parametrize("word", ["1,2345", "--1.2", "1.2.34", "", "1.2\0", "0x1p3", "1 2", "\u0661.2"])
@pytest.mark.parametrize("v3000", [False, True])
def test_what_is_no_coordinate_is_refused(tmp_path: Path, word: str, v3000: bool) -> None:
    """RDKit takes it for 1, or for 0."""
    text = Chem.MolToMolBlock(embedded("CCO"), forceV3000=v3000)
    lines = text.split("\n")
    row = next(n for n, line in enumerate(lines) if " C " in line)
    old = lines[row].split()[4] if v3000 else lines[row][:10]
    lines[row] = lines[row].replace(old, word or "." if v3000 else word.rjust(10), 1)
    (tmp_path / "x.sdf").write_text("\n".join(lines) + "$$$$\n", encoding="utf-8")
    (error,) = iter_ligands(tmp_path / "x.sdf")
    assert isinstance(error, LigandError)
    assert "has a coordinate that is no number; expected" in str(error) or (v3000 and " " in word)
