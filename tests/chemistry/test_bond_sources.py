"""Which bond orders are believed of atoms without any."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

import pytest
from rdkit import Chem

from src.chemistry.bond_sources import (
    BondOrderError,
    assign_bonds,
    conect_hydrogens,
    conect_orders,
    conect_pairs,
    fitted,
    molecule_of_smiles,
    named_bonds,
)
from src.chemistry.complex_files import LigandSite, find_ligand
from tests.complex_texts import complex_text, conect_lines, ligand_lines, molecule, without_hydrogens

SHIFT = (60.0, 0.0, 0.0)


def site_of(mol: Chem.Mol, *, hydrogens: bool = True) -> LigandSite:
    lines = ligand_lines(mol, shift=SHIFT)
    return find_ligand(complex_text(lines if hydrogens else without_hydrogens(lines)).encode(), "LIG")


def smiles_of(mol: Chem.Mol) -> str:
    mol = Chem.RemoveHs(mol)
    Chem.AssignStereochemistryFrom3D(mol)
    return Chem.MolToSmiles(mol)


def scrambled(smiles: str) -> Chem.Mol:
    count = Chem.MolFromSmiles(smiles).GetNumAtoms()
    return molecule(smiles, order=[*range(1, count, 2), *range(0, count, 2)])


@pytest.mark.parametrize(
    "smiles",
    [
        "CC(=O)Nc1ccc(O)cc1",
        "C[C@H](N)C(=O)O",
        "O=[N+]([O-])c1ccc(Cl)cc1Br",
        "C/C=C/C#N",
        "NS(=O)(=O)c1ccc2[nH]ccc2c1",
        "C1C2CC1C2",
        "O",
    ],
)
@pytest.mark.parametrize("hydrogens", [False, True])
def test_a_smiles_is_laid_on_atoms_in_any_order(smiles: str, hydrogens: bool) -> None:
    mol = scrambled(smiles) if smiles != "O" else molecule(smiles)
    site = site_of(mol, hydrogens=hydrogens) if smiles != "O" else LigandSite("x", site_of(molecule("CO")).heavy[1:2])
    found, notes = fitted(molecule_of_smiles(smiles), site)
    assert smiles_of(found) == Chem.CanonSmiles(smiles)
    assert notes == ()
    assert [atom.GetAtomicNum() for atom in found.GetAtoms()] == [atom.element for atom in site.heavy]
    assert found.GetConformer().GetPositions().tolist() == [list(atom.pos) for atom in site.heavy]


@pytest.mark.parametrize(
    ("smiles", "message"),
    [
        ("NC(=O)c1ccccc1C", "heavy atoms are C8NO, the file has C7NO"),
        ("O=C(N)C1=CC=CC=CC1", "heavy atoms are"),
        ("OC(=N)c1ccccc1", ""),
        ("O=CNc1ccccc1", "bonded in another way"),
        ("Nc1ccccc1C=O", "bonded in another way"),
        ("no", "is no SMILES"),
    ],
)
def test_another_molecule_does_not_fit(smiles: str, message: str) -> None:
    site = site_of(molecule("NC(=O)c1ccccc1"), hydrogens=False)
    if not message:  # a tautomer has the same graph: what the user says counts
        assert smiles_of(fitted(molecule_of_smiles(smiles), site)[0]) == Chem.CanonSmiles(smiles)
        return
    with pytest.raises(BondOrderError, match=message):
        fitted(molecule_of_smiles(smiles), site)


def test_of_ways_to_lay_it_the_double_bond_is_on_the_shortest() -> None:
    mol = molecule("C=C(C)c1ccccc1")
    lengths = [bond.GetBondTypeAsDouble() for bond in mol.GetBonds()][:2]
    assert lengths == [2.0, 1.0]
    for order in ((0, 1, 2), (2, 1, 0)):
        drawn = molecule("C=C(C)c1ccccc1", order=[*order, *range(3, 9)])
        found, _ = fitted(molecule_of_smiles("CC(=C)c1ccccc1"), site_of(drawn, hydrogens=False))
        double = found.GetSubstructMatch(Chem.MolFromSmarts("[CH2]=[C]"))
        assert double == (order.index(0), 1)


def test_inverted_centres_are_told() -> None:
    _, notes = fitted(molecule_of_smiles("C[C@@H](N)C(=O)O"), site_of(molecule("C[C@H](N)C(=O)O")))
    assert "another stereo" in notes[0]


def bond_rows(mol: Chem.Mol) -> list[tuple[str, str, str, str]]:
    names = [f"{atom.GetSymbol().upper()}{atom.GetIdx() + 1}" for atom in mol.GetAtoms()]
    orders = {1.0: "SING", 1.5: "AROM", 2.0: "DOUB", 3.0: "TRIP"}
    return [
        ("LIG", names[b.GetBeginAtomIdx()], names[b.GetEndAtomIdx()], orders[b.GetBondTypeAsDouble()])
        for b in mol.GetBonds()
    ]


def test_named_bonds_fit_only_where_the_atoms_are() -> None:
    mol = molecule("N#Cc1cncnc1N")
    site, rows = site_of(mol, hydrogens=False), bond_rows(mol)
    found, notes = named_bonds(site, rows, {})
    assert smiles_of(found) == "N#Cc1cncnc1N"
    assert notes == ()
    swapped = [(r, *({"C2": "C4", "C4": "C2"}.get(n, n) for n in names), o) for r, *names, o in rows]
    with pytest.raises(BondOrderError, match="not between the atoms that lie near"):
        named_bonds(site, swapped, {})
    with pytest.raises(BondOrderError, match=r"in parts|nearer to each other"):
        named_bonds(site, [row for row in rows if row[1:3] != ("C2", "C3")], {})
    with pytest.raises(BondOrderError, match="has no LIG"):
        named_bonds(site, [("ALA", "N", "CA", "SING")], {})
    lacking = LigandSite(site.name, site.atoms[1:])
    assert "1 heavy atoms of B:LIG:1 are not in the file: N1" in named_bonds(lacking, rows, {})[1]


def test_conect_records_have_orders_or_all_hydrogens_or_say_nothing() -> None:
    mol = molecule("O=C(/C=C/c1ccccc1)N1CCNCC1")
    expected = Chem.CanonSmiles("O=C(/C=C/c1ccccc1)N1CCNCC1")
    site = site_of(mol)
    doubled, once = (
        conect_pairs(site, "\n".join(conect_lines(mol, orders=orders)).encode()) for orders in (True, False)
    )
    assert smiles_of(conect_orders(site, doubled)[0]) == expected
    with pytest.raises(BondOrderError, match="orders are not told"):
        conect_orders(site, once)
    assert smiles_of(conect_hydrogens(site, once)[0]) == expected
    bare = site_of(mol, hydrogens=False)
    heavy = conect_pairs(bare, "\n".join(conect_lines(mol, orders=False)).encode())
    with pytest.raises(BondOrderError, match="hydrogens of carbon are not in the file"):
        conect_hydrogens(bare, heavy)


@pytest.mark.parametrize("smiles", ["C[NH2+]CCc1ccccc1", "CC(=O)[O-]", "C[n+]1ccccc1", "O=[N+]([O-])c1ccccc1"])
def test_charges_are_found_with_all_hydrogens(smiles: str) -> None:
    mol = molecule(smiles)
    site = site_of(mol)
    pairs = conect_pairs(site, "\n".join(conect_lines(mol, orders=False)).encode())
    assert smiles_of(conect_hydrogens(site, pairs)[0]) == Chem.CanonSmiles(smiles)


def test_a_missing_hydrogen_is_no_double_bond() -> None:
    mol = Chem.RWMol(molecule("CCCCO"))
    for atom in (mol.GetAtomWithIdx(0), mol.GetAtomWithIdx(1)):  # one hydrogen each
        mol.RemoveAtom(next(other.GetIdx() for other in atom.GetNeighbors() if other.GetAtomicNum() == 1))
    site = site_of(mol.GetMol())
    pairs = conect_pairs(site, "\n".join(conect_lines(mol, orders=False)).encode())
    with pytest.raises(BondOrderError, match="do not agree with the hydrogens"):
        conect_hydrogens(site, pairs)


def test_the_first_source_that_fits_is_taken_and_geometry_is_none() -> None:
    site = site_of(molecule("NC(=O)c1ccccc1"), hydrogens=False)

    def source(smiles: str) -> tuple:
        return smiles, lambda: fitted(molecule_of_smiles(smiles), site)

    asked: list[str] = []

    def noted(sources: Sequence[tuple]) -> chain:
        return chain.from_iterable(([asked.append(one[0])] * 0 or [one]) for one in sources)

    mol, name, _ = assign_bonds(site, noted([source("CCO"), source("NC(=O)c1ccccc1"), source("OC(=N)c1ccccc1")]))
    assert (name, asked) == ("NC(=O)c1ccccc1", ["CCO", "NC(=O)c1ccccc1"])
    assert smiles_of(mol) == "NC(=O)c1ccccc1"
    with pytest.raises(BondOrderError, match=r"B:LIG:1: nothing states its bond orders; give its SMILES with --smiles"):
        assign_bonds(site, [])
