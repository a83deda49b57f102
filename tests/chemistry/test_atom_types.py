"""One molecule with the atom types of many programs: the elements are those of Sybyl, or the molecule is refused."""

from __future__ import annotations

import numpy as np
import pytest

from src.chemistry.atom_types import LONE_PAIR, AtomTypeError, elements
from src.chemistry.residues import ATOMIC_NUMBER

# 2-chlorophenyl methyl ether with a methylamino group: C6H3Cl(OCH3)(NHCH3), a ring, then O, C, N, C, Cl, H of N.
SYMBOLS = ["C", "C", "C", "C", "C", "C", "O", "C", "N", "C", "Cl", "H"]
NUMBERS = [ATOMIC_NUMBER[symbol.upper()] for symbol in SYMBOLS]
NAMES = ["C1", "C2", "C3", "C4", "C5", "C6", "O7", "C8", "N9", "C10", "CL11", "H12"]
PAIRS = [(0, 1), (1, 2), (2, 3), (3, 4), (4, 5), (5, 0), (0, 6), (6, 7), (1, 8), (8, 9), (2, 10), (8, 11)]
_RING = [[1.39 * np.cos(n * np.pi / 3), 1.39 * np.sin(n * np.pi / 3), 0.0] for n in range(6)]
POS = np.array([*_RING, [2.75, 0, 0], [3.4, 1.2, 0.1], [1.4, 2.4, 0], [1.0, 3.8, 0.2], [-1.55, 2.7, 0], [2.4, 2.2, 0]])

PROGRAMS = {
    "Sybyl": ["C.ar"] * 6 + ["O.3", "C.3", "N.pl3", "C.3", "Cl", "H"],
    "Sybyl in capitals": ["C.AR"] * 6 + ["O.3", "C.3", "N.PL3", "C.3", "CL", "H"],
    "Sybyl in small letters": ["c.ar"] * 6 + ["o.3", "c.3", "n.pl3", "c.3", "cl", "h"],
    "elements": SYMBOLS,
    "GAFF": ["ca"] * 6 + ["os", "c3", "nh", "c3", "cl", "hn"],
    "GAFF2": ["ca"] * 6 + ["os", "c3", "nu", "c3", "cl", "hn"],
    "Amber": ["CA"] * 6 + ["OS", "CT", "N2", "CT", "Cl", "H"],
    "CGenFF": ["CG2R61"] * 6 + ["OG301", "CG331", "NG311", "CG331", "CLGR1", "HGP1"],
    "CHARMM22": ["CA"] * 6 + ["OS", "CT3", "NH1", "CT3", "CLA", "H"],
    "OPLS": ["CA"] * 6 + ["OS", "CT", "NT", "CT", "Cl", "H"],
    "OPLS numbers": [f"opls_{n}" for n in (145, 145, 145, 145, 145, 145, 179, 181, 900, 906, 264, 909)],
    "BCC numbers": ["16"] * 6 + ["31", "11", "23", "11", "72", "91"],
    "MMFF94": ["CB"] * 6 + ["OC=C", "CR", "NC=C", "CR", "CL", "HNCC"],
    "Open Babel": ["Car"] * 6 + ["O3", "C3", "Npl", "C3", "Cl", "H"],
    "UFF": ["C_R"] * 6 + ["O_3", "C_3", "N_R", "C_3", "Cl", "H_"],
    "AutoDock": ["A"] * 6 + ["OA", "C", "N", "C", "Cl", "HD"],
    "GROMOS": ["CAro"] * 6 + ["OE", "CH3", "N", "CH3", "CL", "H"],
}


@pytest.mark.parametrize("types", PROGRAMS.values(), ids=PROGRAMS.keys())
def test_elements_by_the_tables_of_many_programs(types: list[str]) -> None:
    found, note = elements(types, NAMES, PAIRS, POS)
    assert found == NUMBERS
    assert bool(note) == (types[0].upper() not in ("C", "C.AR"))


@pytest.mark.parametrize("names", [[""] * 12, ["X"] * 12, NAMES, [f"{s.upper()}A" for s in SYMBOLS]])
def test_names_alone_do_not_decide(names: list[str]) -> None:
    """Aromatic carbon is no calcium whatever it is called, since its bonds are too short."""
    assert elements(["ca"] * 6, names[:6], PAIRS[:6], POS[:6])[0] == [6] * 6


def test_calcium_stays_calcium() -> None:
    assert elements(["Ca"], ["CA"], [], POS[:1])[0] == [20]
    assert elements(["Ca.x", "O.3"], ["CA", "O"], [(0, 1)], np.array([[0, 0, 0], [2.4, 0, 0]]))[0] == [20, 8]


@pytest.mark.parametrize(
    ("place", "kind"), [(0, "qq"), (6, "c.2x3y"), (8, "@"), (11, "7"), (3, "Ca1"), (7, "c9z"), (10, "chlorine")]
)
@pytest.mark.parametrize("program", ["GAFF", "Amber", "CGenFF", "MMFF94"])
def test_one_unknown_type_refuses_the_molecule(program: str, place: int, kind: str) -> None:
    types = list(PROGRAMS[program])
    types[place] = kind
    with pytest.raises(AtomTypeError, match=r"no Sybyl type, and no other table fits the whole molecule; expected"):
        elements(types, NAMES, PAIRS, POS)


def test_a_type_that_is_another_program_s_is_no_metal() -> None:
    with pytest.raises(AtomTypeError, match=r"'C.ar. can be Sybyl's and another program's"):
        elements(["C.ar", "ca"] * 3, NAMES[:6], PAIRS[:6], POS[:6])


def test_chlorine_in_capitals_is_no_carbon() -> None:
    assert elements(["C", "CL"], ["C1", "CL2"], [(0, 1)], np.array([[0, 0, 0], [1.74, 0, 0]])) == ([6, 17], "")


def test_two_programs_in_one_molecule_are_refused() -> None:
    for mixed in (["ca"] * 6 + PROGRAMS["CGenFF"][6:], PROGRAMS["Sybyl"][:6] + PROGRAMS["GAFF"][6:]):
        with pytest.raises(AtomTypeError):
            elements(mixed, NAMES, PAIRS, POS)


def test_numbers_without_names_are_refused() -> None:
    with pytest.raises(AtomTypeError):
        elements(PROGRAMS["BCC numbers"], ["A1"] * 12, PAIRS, POS)


@pytest.mark.parametrize(
    ("kind", "number"), [("Du", 0), ("Du.C", 0), ("Any", 0), ("Hev", 0), ("Zz", 0), ("LP", LONE_PAIR)]
)
def test_dummies_and_lone_pairs_of_sybyl(kind: str, number: int) -> None:
    assert elements(["C.3", kind], ["C1", "X"], [(0, 1)], POS[:2]) == ([6, number], "")
