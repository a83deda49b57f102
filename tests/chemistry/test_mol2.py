"""Lines of MOL2 files as programs write them; what cannot be understood is refused with its line."""

from __future__ import annotations

import numpy as np
import pytest
from rdkit import Chem

from src.chemistry.mol2 import Mol2Error, parse_mol2

ATOMS = ["1 C1 0.0 0.1 0.2 C.3 1 LIG 0.0", "2 O1 1.4 0.0 0.0 O.3 1 LIG -0.4", "3 H1 1.7 0.9 0.0 H 1 LIG 0.4"]
BONDS = ["1 1 2 1", "2 2 3 1"]
POS = [[0.0, 0.1, 0.2], [1.4, 0.0, 0.0], [1.7, 0.9, 0.0]]


def record(
    atoms: list[str] = ATOMS, bonds: list[str] = BONDS, *, counts: str = "3 2 1 0 0", between: str = "", end: str = ""
) -> str:
    head = ["@<TRIPOS>MOLECULE", "methanol", counts, "SMALL", "NO_CHARGES", "", "@<TRIPOS>ATOM"]
    return "\n".join([*head, *atoms, *([between] if between else []), "@<TRIPOS>BOND", *bonds, end])


def assert_is_methanol(mol: Chem.Mol) -> None:
    assert [atom.GetSymbol() for atom in mol.GetAtoms()] == ["C", "O", "H"]
    np.testing.assert_allclose(mol.GetConformer().GetPositions(), POS)
    assert [(b.GetBeginAtomIdx(), b.GetEndAtomIdx(), str(b.GetBondType())) for b in mol.GetBonds()] == [
        (0, 1, "SINGLE"),
        (1, 2, "SINGLE"),
    ]


@pytest.mark.parametrize(
    "names", [("C 1", "O 1", "H 1"), ("C", "O'' 1", "1 H 2 3"), ("C 10", "O 0.5", "H -1"), ("", "", "")]
)
def test_names_may_have_blanks_or_be_missing(names: tuple[str, ...]) -> None:
    lines = [
        line.replace(f" {old} ", f" {new} ", 1) for line, old, new in zip(ATOMS, ("C1", "O1", "H1"), names, strict=True)
    ]
    assert_is_methanol(parse_mol2(record(lines))[0])


@pytest.mark.parametrize(
    "tail",
    [
        "",
        " 1",
        " 1 LIG",
        " 1 LIG A 1",
        " 1 MY LIGAND 0.1",
        " 1 LIG1 0.1234 BACKBONE|DICT",
        " **** **** 0.0",
        " 1 <0> -1.2",
    ],
)
def test_what_follows_the_type_does_not_matter(tail: str) -> None:
    lines = [line.partition(" 1 LIG")[0] + tail for line in ATOMS]
    assert_is_methanol(parse_mol2(record(lines))[0])


@pytest.mark.parametrize(
    "text",
    [
        record(between="@<TRIPOS>UNITY_ATOM_ATTR\n2 1\ncharge -1"),
        record(end="@<TRIPOS>SUBSTRUCTURE\n1 LIG 1 TEMP 0 **** **** 0 ROOT\n@<TRIPOS>SET\nx STATIC ATOMS\n1 1"),
        record(["# atoms", "", *ATOMS], ["# bonds", *BONDS, ""]),
        record([ATOMS[0].replace(" C.3", "\\\n C.3"), *ATOMS[1:]]),
        record([line.replace(" ", "\t") for line in ATOMS]),
        record([f"{10 * int(line[0])}{line[1:]}" for line in ATOMS], ["7 10 20 1", "9 20 30 1"]),
        record(bonds=[*BONDS, "3 1 3 nc"], counts="3 3"),
        record(bonds=["1 1 2 AM", "2 2 3 1 BACKBONE"], counts="3"),
        record([line.replace("1.4 0.0 0.0", "1.4E0 0 .0") for line in ATOMS]),
        record().replace("@<TRIPOS>ATOM", "@<TRIPOS>ATOM  ").replace("@<TRIPOS>BOND", "@<tripos>bond"),
        record([ATOMS[0].replace("C.3", "C.3"), *ATOMS[1:], "4 LP1 1.0 1.0 1.0 LP"], [*BONDS, "3 2 4 1"], counts="4 3"),
    ],
)
def test_other_ways_to_write_methanol(text: str) -> None:
    mol, note = parse_mol2(text)
    assert_is_methanol(mol)
    assert note == ""


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        (record(["1 C1 0.0 0.1 C.3 1 LIG 0.0", *ATOMS[1:]]), r"line 8 .*no coordinates before an atom type"),
        (record([ATOMS[0].replace("0.0 0.1", "-100.1234-200.1234"), *ATOMS[1:]]), r"line 8 .*expected number, name, x"),
        (record(["1 C 1 2 3 4 5 6", *ATOMS[1:]]), r"line 8"),
        (record(["1 1.0 2.0 3.0 4 5.0 6.0 7.0 8 9", *ATOMS[1:]]), r"line 8 .*several columns"),
        (record(["x C1 0.0 0.1 0.2 C.3", *ATOMS[1:]]), r"line 8"),
        (record(["1 C1 nan 0.1 0.2 C.3", *ATOMS[1:]]), r"line 8"),
        (record(["2 C1 0.0 0.1 0.2 C.3", *ATOMS[1:]]), "two atoms have one number"),
        (record(ATOMS[:2], BONDS[:1]), "has 2 atoms where its counts say '3'"),
        (record(bonds=BONDS[:1]), "has 1 bonds where its counts say '2'"),
        (record(counts="three"), "counts say 'three'"),
        (record(bonds=["1 1 2 1", "2 2 9 1"]), r"line 13 .*an atom that is not there"),
        (record(bonds=["1 1 2 1", "2 2 3 un"]), r"unknown bond type 'un'; expected 1, 2, 3, am or ar"),
        (record(bonds=["1 1 2 1", "2 2 x 1"]), "is no bond"),
        (record(bonds=["1 1 2 1", "2 2 1 2"]), "bonded twice"),
        (record(bonds=["1 1 1 1", "2 2 3 1"]), "with itself"),
        (record(end="@<TRIPOS>ATOM"), "a second ATOM section"),
        ("@<TRIPOS>MOLECULE\nx\n", "no atoms"),
    ],
)
def test_what_cannot_be_understood_is_refused(text: str, cause: str) -> None:
    with pytest.raises(Mol2Error, match=cause):
        parse_mol2(text)


def test_a_guanidine_and_a_carboxylate_say_by_their_types_that_they_resonate() -> None:
    """PDBbind's files have single bonds alone in the one, and two double bonds in the other."""
    atoms = ["1 C1 0.0 0.0 0.0 C.cat", "2 N1 1.3 0.0 0.1 N.pl3", "3 N2 -0.7 1.1 0.0 N.pl3", "4 N3 -0.7 -1.1 0.0 N.pl3"]
    mol, _ = parse_mol2(record(atoms, ["1 1 2 1", "2 1 3 1", "3 1 4 1"], counts="4 3"))
    assert {str(bond.GetBondType()) for bond in mol.GetBonds()} == {"AROMATIC"}
    atoms = ["1 C1 0.0 0.0 0.0 C.2", "2 O1 1.2 0.0 0.1 O.co2", "3 O2 -0.7 1.1 0.0 O.co2", "4 C2 -0.7 -1.1 0.0 C.3"]
    mol, _ = parse_mol2(record(atoms, ["1 1 2 2", "2 1 3 2", "3 1 4 1"], counts="4 3"))
    assert [str(bond.GetBondType()) for bond in mol.GetBonds()] == ["AROMATIC", "AROMATIC", "SINGLE"]
