import numpy as np
import pytest
from rdkit import Chem
from rdkit.Chem import Conformer

from src.chemistry.ligand_typing import bond_types, heavy_form, ligand_features
from src.chemistry.residues import (
    ATOMIC_NUMBER,
    IONS,
    METALS,
    MODIFIED,
    SYMBOLS,
    atom_features,
    atomic_number,
    classify,
    lacks_heavy_atoms,
    residue_bonds,
)
from src.graph import FEATURE_COLUMN, MAX_CHARGE, NODE_FEATURES, RESIDUE_TYPES, BondType, Side

AMINO_ACIDS = dict(zip("ARNDCQEGHILKMFPSTWYV", RESIDUE_TYPES[1:21], strict=True))
HEAVY_ATOMS = dict(
    zip("ARNDCQEGHILKMFPSTWYV", [5, 11, 8, 8, 6, 9, 9, 4, 10, 8, 8, 9, 8, 11, 7, 6, 7, 14, 12, 7], strict=True)
)


def features_of(residue, atom, element, side=Side.PROTEIN):
    row = atom_features(residue, atom, element, side, 0)
    return dict(zip(NODE_FEATURES, row, strict=True))


def test_symbols_are_those_of_rdkit():
    table = Chem.GetPeriodicTable()
    assert SYMBOLS[1:] == [table.GetElementSymbol(number) for number in range(1, 119)]


def name_of(atom):
    return atom.GetPDBResidueInfo().GetName().strip()


@pytest.mark.parametrize("letter", AMINO_ACIDS)
def test_table_agrees_with_rdkit_on_a_peptide(letter):
    """X of Gly-X-Gly typed by the table and, as a ligand, by RDKit: all facts and all bonds."""
    mol = Chem.MolFromSequence(f"G{letter}G")
    mol.AddConformer(Conformer(mol.GetNumAtoms()))
    heavy, _ = heavy_form(mol)
    facts = ligand_features(heavy)
    # RDKit's sequences hang CD1 of isoleucine on CG2; in the PDB (and in crystal structures) it is on CG1.
    renamed = {"CG1": "CG2", "CG2": "CG1"} if letter == "I" else {}
    members = {
        a.GetIdx(): renamed.get(name_of(a), name_of(a))
        for a in heavy.GetAtoms()
        if a.GetPDBResidueInfo().GetResidueNumber() == 2
    }
    assert len(members) == HEAVY_ATOMS[letter]
    residue = AMINO_ACIDS[letter]
    for number, name in members.items():
        expected = facts[number].tolist()
        expected[FEATURE_COLUMN["side"]] = Side.PROTEIN
        assert list(atom_features(residue, name, expected[0], Side.PROTEIN, 0)) == expected, (residue, name)
    expected_bonds = {
        (frozenset((members[i], members[j])), kind) for i, j, kind in bond_types(heavy) if {i, j} <= members.keys()
    }
    found = {(frozenset((a, b)), kind) for a, b, kind in residue_bonds(residue, Side.PROTEIN) if "OXT" not in (a, b)}
    assert found == expected_bonds


@pytest.mark.fault("H10")
@pytest.mark.parametrize(
    ("residue", "atom", "element", "expected"),
    [
        ("SEP", "O1P", 8, {"charge": MAX_CHARGE - 1, "acceptor": 1, "donor": 0}),
        ("SEP", "OG", 8, {"donor": 0, "acceptor": 1}),
        ("SER", "OG", 8, {"donor": 1, "acceptor": 1}),
        ("KCX", "OQ1", 8, {"charge": MAX_CHARGE - 1}),
        ("ALA", "OXT", 8, {"charge": MAX_CHARGE - 1}),
        ("MSE", "CG", 6, {"hybridisation": 3}),
        ("MSE", "SE", 34, {"element": 34, "hybridisation": 3}),
        ("LLP", "NZ", 7, {"charge": MAX_CHARGE + 1}),
        ("LLP", "C2'", 6, {"hybridisation": 0, "acceptor": 0}),  # of the cofactor on it: by element
        ("DA", "OP1", 8, {"charge": MAX_CHARGE - 1}),
        ("DA", "N1", 7, {"donor": 1, "acceptor": 1, "charge": MAX_CHARGE}),
    ],
)
def test_facts_of_modified_residues_and_nucleotides(residue, atom, element, expected):
    facts = features_of(residue, atom, element)
    assert {name: facts[name] for name in expected} == expected


def test_modified_residue_has_the_bonds_of_its_parent_and_its_own():
    bonds = {frozenset(bond[:2]) for bond in residue_bonds("SEP", Side.PROTEIN)}
    parent = {frozenset(bond[:2]) for bond in residue_bonds("SER", Side.PROTEIN)}
    assert bonds - parent == {frozenset(pair) for pair in (("OG", "P"), ("P", "O1P"), ("P", "O2P"), ("P", "O3P"))}
    assert parent <= bonds
    assert ("C", "O", BondType.DOUBLE) in residue_bonds("XYZ", Side.PROTEIN)
    assert residue_bonds("HEM", Side.COFACTOR) == () == residue_bonds("DA", Side.PROTEIN)


@pytest.mark.fault("H10")
@pytest.mark.parametrize(("name", "element", "charge"), [("ZN", 30, 2), ("CL", 17, -1), ("NA", 11, 1), ("FE", 26, 3)])
def test_ions(name, element, charge):
    assert IONS[name] == (element, charge)
    assert features_of(name, name, element, Side.ION)["charge"] == MAX_CHARGE + charge


BACKBONE = {"N": 7, "CA": 6, "C": 6, "O": 8}


@pytest.mark.fault("H10")
@pytest.mark.parametrize(
    ("residue", "elements", "side", "kind"),
    [
        ("ASP", BACKBONE, Side.PROTEIN, "ASP"),
        ("ASP", {"CA": 6}, Side.PROTEIN, "ASP"),
        ("XYZ", BACKBONE, Side.PROTEIN, "other"),
        ("XYZ", {"C1": 6, "N": 7}, Side.COFACTOR, "none"),
        ("DG", {"P": 15}, Side.PROTEIN, "nucleotide"),
        ("HOH", {"O": 8}, Side.WATER, "none"),
        ("ZN", {"ZN": 30}, Side.ION, "none"),
        ("CLA", {"CL": 17}, Side.ION, "none"),
        ("CLA", {"MG": 12, "CHA": 6}, Side.COFACTOR, "none"),  # chlorophyll in the PDB, chloride in CHARMM
        ("XX1", {"RU": 44}, Side.ION, "none"),
        ("XX1", {"O1": 8}, Side.COFACTOR, "none"),
        *[(name, {"CA": 6}, Side.PROTEIN, parent) for name, parent in MODIFIED.items()],
    ],
)
def test_classify(residue, elements, side, kind):
    assert classify(residue, elements) == (side, RESIDUE_TYPES.index(kind))


@pytest.mark.fault("H7", "H10")
@pytest.mark.parametrize(
    ("atom", "residue", "element", "expected"),
    [
        (" CA ", "ALA", "", "C"),
        (" CA ", "ALA", "CA", "C"),
        ("CA  ", " CA", "", "Ca"),
        ("CA  ", " CA", "CA", "Ca"),
        (" HG ", "SER", "HG", "H"),
        ("HG  ", " HG", "", "Hg"),
        ("1HB ", "ALA", "", "H"),
        ("HG11", "VAL", "", "H"),
        (" D  ", "ALA", "D", "H"),
        (" H1 ", "LIG", "D", "H"),
        ("CL1 ", "LIG", "", "Cl"),
        (" CL ", "LIG", "", "C"),
        (" C1 ", "LIG", "", "C"),
        ("CL1 ", "LIG", "cl", "Cl"),
        ("CL1 ", "LIG", "Cl", "Cl"),
        ("BR1 ", "LIG", "BR", "Br"),
        ("SE  ", "MSE", "", "Se"),
        ("SE  ", "MSE", "SE", "Se"),
        (" O  ", "HOH", "", "O"),
        ("ZN  ", " ZN", "ZN", "Zn"),
        (" N  ", "ALA", "1", "N"),
        (" X1 ", "LIG", "X", "*"),
        (" Q  ", "LIG", "", "*"),
        ("    ", "LIG", "", "*"),
        (" QQ ", "ALA", "", "*"),
    ],
)
def test_atomic_number(atom, residue, element, expected):
    number = atomic_number(atom, residue, element)
    assert number == (0 if expected == "*" else ATOMIC_NUMBER[expected.upper()])


@pytest.mark.parametrize("letter", AMINO_ACIDS)
def test_an_amino_acid_without_any_one_of_its_atoms_is_incomplete(letter):
    peptide = Chem.MolFromSequence(f"G{letter}G")
    names = [name_of(a) for a in peptide.GetAtoms() if a.GetPDBResidueInfo().GetResidueNumber() == 2]
    assert len(names) == HEAVY_ATOMS[letter]
    residue = AMINO_ACIDS[letter]
    assert not lacks_heavy_atoms(residue, names)
    assert not lacks_heavy_atoms(residue, [*names, "OXT"])
    for name in names:
        assert lacks_heavy_atoms(residue, [one for one in names if one != name])
        assert lacks_heavy_atoms(residue, [one for one in names if one != name] + ["OXT"])


@pytest.mark.parametrize(
    ("residue", "names", "lacks"),
    [
        ("ILE", "N CA C O CB CG1 CG2 CD", False),  # CHARMM
        ("GLY", "N CA C OT1 OT2", False),
        ("GLY", "N CA C O1 O2", False),
        ("HIE", "N CA C O CB", True),
        ("CYX", "N CA C O CB SG", False),
        ("MSE", "CA", False),  # modified residues, and what is no amino acid, are not counted
        ("HOH", "O", False),
        ("DG", "P", False),
    ],
)
def test_names_of_other_programs_are_no_missing_atoms(residue, names, lacks):
    assert lacks_heavy_atoms(residue, names.split()) == lacks


def test_metals():
    metals = {SYMBOLS[number] for number in METALS}
    assert metals >= {"Li", "Na", "Mg", "Al", "K", "Ca", "Mn", "Fe", "Co", "Ni", "Cu", "Zn", "Cd", "Pt", "Hg", "Gd"}
    assert not metals & {
        "*",
        "H",
        "He",
        "B",
        "C",
        "N",
        "O",
        "F",
        "Si",
        "P",
        "S",
        "Cl",
        "As",
        "Se",
        "Br",
        "Te",
        "I",
        "Xe",
    }


def test_features_fit_their_sizes():
    sizes = np.array(list(NODE_FEATURES.values()))
    for name in IONS:
        assert (np.array(atom_features(name, name, IONS[name][0], Side.ION, 0)) < sizes).all()
