"""Residue name and atom name -> chemical facts: element, hybridisation, charge, donor, acceptor, ring, bonds.

Charges are those of pH 7 spread over equivalent atoms: both oxygens of ASP and GLU -1, NH1 and NH2 of ARG
+1, NZ of LYS +1, every terminal oxygen of a phosphate -1. HIS is neutral and both its nitrogens give and
take hydrogen bonds, because heavy atoms do not tell its tautomer. A backbone N is an amide N wherever it
stands: a cropped pocket does not know where its chain began.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from functools import lru_cache

from rdkit import Chem

from src.chemistry.residue_names import (
    END_RESIDUES,
    MAYBE_POLYMERS,
    NUCLEOTIDES,
    PROTONATION,
    WATERS,
    is_cap,
    table_name,
)
from src.graph import MAX_CHARGE, RESIDUE_TYPES, BondType, Hybridisation, Side

SYMBOLS = [Chem.GetPeriodicTable().GetElementSymbol(number) for number in range(119)]  # '*' is 0
ATOMIC_NUMBER = {symbol.upper(): number for number, symbol in enumerate(SYMBOLS) if number} | {"D": 1, "T": 1}

# Atoms are NAME:facts with 2 or 3 for sp2 or sp3, a aromatic, r in a ring that is not, d donor, c acceptor,
# + and - formal charge. Bonds are A-B single, A=B double, A~B aromatic, A:B in a group that resonates over
# equivalent atoms.
_BACKBONE = "N:2d CA:3 C:2 O:2c OXT:2c- N-CA CA-C C=O C:OXT"
_SIDE_CHAIN = {
    "ALA": "CB:3 CA-CB",
    "ARG": "CB:3 CG:3 CD:3 NE:2d CZ:2 NH1:2d+ NH2:2d+ CA-CB CB-CG CG-CD CD-NE NE:CZ CZ:NH1 CZ:NH2",
    "ASN": "CB:3 CG:2 OD1:2c ND2:2d CA-CB CB-CG CG=OD1 CG-ND2",
    "ASP": "CB:3 CG:2 OD1:2c- OD2:2c- CA-CB CB-CG CG:OD1 CG:OD2",
    "CYS": "CB:3 SG:3c CA-CB CB-SG",
    "GLN": "CB:3 CG:3 CD:2 OE1:2c NE2:2d CA-CB CB-CG CG-CD CD=OE1 CD-NE2",
    "GLU": "CB:3 CG:3 CD:2 OE1:2c- OE2:2c- CA-CB CB-CG CG-CD CD:OE1 CD:OE2",
    "GLY": "",
    "HIS": "CB:3 CG:2a ND1:2adc CD2:2a CE1:2a NE2:2adc CA-CB CB-CG CG~ND1 ND1~CE1 CE1~NE2 NE2~CD2 CD2~CG",
    "ILE": "CB:3 CG1:3 CG2:3 CD1:3 CA-CB CB-CG1 CB-CG2 CG1-CD1",
    "LEU": "CB:3 CG:3 CD1:3 CD2:3 CA-CB CB-CG CG-CD1 CG-CD2",
    "LYS": "CB:3 CG:3 CD:3 CE:3 NZ:3d+ CA-CB CB-CG CG-CD CD-CE CE-NZ",
    "MET": "CB:3 CG:3 SD:3 CE:3 CA-CB CB-CG CG-SD SD-CE",
    "PHE": "CB:3 CG:2a CD1:2a CD2:2a CE1:2a CE2:2a CZ:2a CA-CB CB-CG CG~CD1 CD1~CE1 CE1~CZ CZ~CE2 CE2~CD2 CD2~CG",
    "PRO": "N:2r CA:3r CB:3r CG:3r CD:3r CA-CB CB-CG CG-CD CD-N",
    "SER": "CB:3 OG:3dc CA-CB CB-OG",
    "THR": "CB:3 OG1:3dc CG2:3 CA-CB CB-OG1 CB-CG2",
    "TRP": "CB:3 CG:2a CD1:2a CD2:2a NE1:2ad CE2:2a CE3:2a CZ2:2a CZ3:2a CH2:2a CA-CB CB-CG CG~CD1 CD1~NE1 "
    "NE1~CE2 CE2~CD2 CD2~CG CE2~CZ2 CZ2~CH2 CH2~CZ3 CZ3~CE3 CE3~CD2",
    "TYR": "CB:3 CG:2a CD1:2a CD2:2a CE1:2a CE2:2a CZ:2a OH:2dc CA-CB CB-CG CG~CD1 CD1~CE1 CE1~CZ CZ~CE2 "
    "CE2~CD2 CD2~CG CZ-OH",
    "VAL": "CB:3 CG1:3 CG2:3 CA-CB CB-CG1 CB-CG2",
}

# Modified residues, their parents, and what the modification adds or changes. An atom in neither gets the facts of
# its element alone.
_PHOSPHATE = "P:3 O1P:2c- O2P:2c- O3P:2c- P:O1P P:O2P P:O3P"
_MODIFIED = {
    "ASP": {"BFD": ""},
    "CYS": {"CME": "", "OCS": "", "CSD": "", "CAS": "", "CSO": "OD:3dc SG-OD"},
    "GLU": {"PCA": "", "CGU": ""},
    "LYS": {
        "LLP": "",
        "KCX": "NZ:2d CX:2 OQ1:2c- OQ2:2c- NZ-CX CX:OQ1 CX:OQ2",
        "MLY": "CH1:3 CH2:3 NZ-CH1 NZ-CH2",
        "M3L": "NZ:3+ CM1:3 CM2:3 CM3:3 NZ-CM1 NZ-CM2 NZ-CM3",
        "ALY": "NZ:2d CH:2 OH:2c CH3:3 NZ-CH CH=OH CH-CH3",
    },
    "ARG": {"CIR": ""},
    "MET": {"MSE": "SE:3 CG-SE SE-CE", "FME": "", "MHO": ""},
    "PRO": {"HYP": "OD1:3dc CG-OD1"},
    "SER": {"SEP": f"OG:3c {_PHOSPHATE} OG-P"},
    "THR": {"TPO": f"OG1:3c {_PHOSPHATE} OG1-P"},
    "TYR": {"TYS": "", "PTR": f"OH:2c {_PHOSPHATE} OH-P"},
}
_SAME_HEAVY_ATOMS = PROTONATION | END_RESIDUES
MODIFIED = {name: parent for parent, names in _MODIFIED.items() for name in names} | _SAME_HEAVY_ATOMS

_CAPS = {
    "ACE": "C:2 O:2c CH3:3 C=O C-CH3",
    **dict.fromkeys(["NME", "NMA", "NAC"], "N:2d C:3 CH3:3 CA:3 N-C N-CH3 N-CA"),
    **dict.fromkeys(["NH2", "NHE"], "N:2d"),
}
_NUCLEOTIDE_FACTS = "P:3 OP1:2c- OP2:2c- OP3:2c- O1P:2c- O2P:2c- O3P:2c-"
# Residue name -> element and charge of a lone ion: names of the PDB and of force fields.
IONS = {
    name: (ATOMIC_NUMBER[symbol.upper()], charge)
    for charge, names in {
        -1: "F:F CL:Cl BR:Br IOD:I CLA:Cl F-:F CL-:Cl BR-:Br I-:I CIO:Cl IM:Cl",
        1: "LI:Li NA:Na K:K RB:Rb CS:Cs AG:Ag AU:Au TL:Tl CU1:Cu SOD:Na POT:K CES:Cs LIT:Li RUB:Rb LI+:Li NA+:Na K+:K "
        "RB+:Rb CS+:Cs IP:Na",
        2: "MG:Mg CA:Ca SR:Sr BA:Ba MN:Mn FE2:Fe CO:Co NI:Ni CU:Cu ZN:Zn CD:Cd HG:Hg PB:Pb PT:Pt PD:Pd CAL:Ca ZN2:Zn "
        "MG2:Mg CAD:Cd BAR:Ba MG2+:Mg CA2+:Ca SR2+:Sr BA2+:Ba MN2+:Mn FE2+:Fe CO2+:Co NI2+:Ni CU2+:Cu ZN2+:Zn CD2+:Cd",
        3: "AL:Al FE:Fe MN3:Mn 3CO:Co 3NI:Ni CR:Cr GA:Ga IN:In Y:Y YT3:Y LA:La CE:Ce PR:Pr SM:Sm EU3:Eu "
        "GD:Gd GD3:Gd TB:Tb YB:Yb LU:Lu BS3:Bi IR3:Ir",
    }.items()
    for name, symbol in (entry.split(":") for entry in names.split())
}

# Two-letter elements recognised in an atom name that starts in the first column, when no element is given.
_TWO_LETTER = frozenset(["CL", "BR", "ZN", "FE", "MG", "MN", "SE", "CU", "NI", "SI", "PT", "AU", "AS"])
# Places of charge without mass, which water models (EPW, MW, LP1) and lone pairs have: left out as hydrogen is.
_MASSLESS = frozenset(["EP", "LP"])
_MASSLESS_OF_WATERS = frozenset("EML")
_POLYMER_ELEMENTS = frozenset(["H", "D", "T", "C", "N", "O", "S", "P", "SE", "F", "CL", "BR", "I", "B"])
_NONMETALS = frozenset({0, 1, 2, 5, 6, 7, 8, 9, 10, 14, 15, 16, 17, 18, 33, 34, 35, 36, 52, 53, 54, 85, 86})
_NONMETALS_OF_MOLECULES = frozenset({0, 5, 6, 7, 8, 14, 15, 16, 34})
_BOND = {"-": BondType.SINGLE, "=": BondType.DOUBLE, "~": BondType.AROMATIC, ":": BondType.OTHER}

METALS = frozenset(range(len(SYMBOLS))) - _NONMETALS  # atomic numbers; without metalloids

Facts = tuple[int, int, int, int, int, int]  # charge + MAX_CHARGE, hybridisation, aromatic, donor, acceptor, ring
Bond = tuple[str, str, BondType]


def parent_of(residue: str) -> str | None:
    """The amino acid of the twenty that a residue name is or was made from; None for everything else."""
    return residue if residue in _SIDE_CHAIN else MODIFIED.get(residue)


def lacks_heavy_atoms(residue: str, names: Iterable[str]) -> bool:
    """Whether one of the twenty amino acids has fewer heavy atoms than it should; False for every other residue.

    An atom with a name of another program (CD of ILE, OT1 and OT2 of the last residue) stands for one that is missed.
    OXT is never missed.
    """
    residue = table_name(residue, frozenset(names := list(names)))
    if residue not in _SIDE_CHAIN and residue not in _SAME_HEAVY_ATOMS:
        return False
    expected, found = _facts(residue).keys() - {"OXT"}, set(names) - {"OXT"}
    return len(expected - found) > len(found - expected)


def num_unknown_names(residue: str, names: Collection[str]) -> int:
    """How many heavy atoms of one of the twenty amino acids have names that no table knows; 0 for other residues."""
    if residue not in _SIDE_CHAIN and residue not in _SAME_HEAVY_ATOMS:
        return 0
    return len(names) - sum(map(_facts(residue).__contains__, names))


def is_polymer(residue: str) -> bool:
    """Whether the name is that of an amino acid (one of the twenty or modified) or of a nucleotide."""
    return parent_of(residue) is not None or residue in NUCLEOTIDES


def classify(residue: str, elements: dict[str, int]) -> tuple[Side, int]:
    """Side and residue type (place in RESIDUE_TYPES) of a residue from its name and its atoms.

    A residue with an unknown name and a backbone (N, CA, C, O) is an amino acid of type 'other', and so is the cap
    of a chain; a lone atom of an ion's name or of a metal is an ion; what is left is a cofactor.

    Args:
        residue: as table_name gives it.
        elements: atom name -> atomic number of the heavy atoms.
    """
    parent = parent_of(residue)
    if parent is not None:
        return Side.PROTEIN, RESIDUE_TYPES.index(parent)
    if residue in WATERS:
        return Side.WATER, 0
    if residue in NUCLEOTIDES:
        return Side.PROTEIN, RESIDUE_TYPES.index("nucleotide")
    if len(elements) == 1 and (residue in IONS or not _NONMETALS_OF_MOLECULES & set(elements.values())):
        return Side.ION, 0
    if elements.keys() >= {"N", "CA", "C", "O"} or is_cap(residue, elements.keys()):
        return Side.PROTEIN, RESIDUE_TYPES.index("other")
    return Side.COFACTOR, 0


@lru_cache(maxsize=65536)
def atom_features(residue: str, atom: str, atomic_number: int, side: Side, residue_type: int) -> tuple[int, ...]:
    """One row of node features, in the order of NODE_FEATURES.

    Atoms without an entry in a table get facts by element: O accepts, N gives and accepts (its hydrogens are
    unknown), nothing else; hybridisation UNKNOWN, charge 0 except for a named ion.
    """
    facts = _facts(residue).get(atom) if side == Side.PROTEIN else None
    if facts is None:
        charge = IONS[residue][1] if side == Side.ION and residue in IONS else 0
        hybridisation = Hybridisation.SP3 if side == Side.WATER else Hybridisation.UNKNOWN
        donor = int(atomic_number == 7 or side == Side.WATER)
        facts = (charge + MAX_CHARGE, int(hybridisation), 0, donor, int(atomic_number in (7, 8)), 0)
    return (atomic_number, int(side), residue_type, *facts)


@lru_cache(maxsize=4096)
def residue_bonds(residue: str, side: Side) -> tuple[Bond, ...]:
    """Bonds inside a residue as (atom name, atom name, BondType); none for what no table describes."""
    if side != Side.PROTEIN or residue in NUCLEOTIDES:
        return ()
    return tuple(_parse(_text(residue))[1])


@lru_cache(maxsize=65536)
def atomic_number(atom: str, residue: str, element: str) -> int:
    """Atomic number of an atom of a structure file; 1 for hydrogen and deuterium, 0 for an unknown element.

    The tables decide for atoms they name (CA of ALA is carbon, whatever the element column says), then the
    element column in any letter case, then the atom name.

    Args:
        atom: the name, four columns wide when it comes from a PDB file: one that starts in the first column may begin
            with a two-letter element ('CL1 '), one that starts in the second does not (' CL ').
        element: the element column; empty or '?' when the file has none.
    """
    name, residue = atom.strip().upper(), residue.strip().upper()
    # RU is ruthenium too.
    polymer = is_polymer(residue) or (residue in MAYBE_POLYMERS and name != residue)
    if (polymer and name in _facts(residue)) or (residue in WATERS and name in ("O", "OW", "OH2")):
        return _by_first_letters(name)
    symbol = "".join(filter(str.isalpha, element.upper()))
    if symbol in _MASSLESS or (residue in WATERS and name[:1] in _MASSLESS_OF_WATERS):
        return 1
    if polymer or residue in WATERS:
        # Some programs write HG (mercury) for the hydrogen HG of SER: only elements of polymers are believed.
        return ATOMIC_NUMBER[symbol] if symbol in _POLYMER_ELEMENTS else _by_first_letters(name)
    letters = "".join(filter(str.isalpha, name))
    if residue in IONS and (name == residue or (not symbol and letters == SYMBOLS[IONS[residue][0]].upper())):
        return IONS[residue][0]
    if symbol:
        return ATOMIC_NUMBER.get(symbol, 0)
    if atom[:1].isalpha() and letters[:2] in _TWO_LETTER:
        return ATOMIC_NUMBER[letters[:2]]
    return ATOMIC_NUMBER.get(letters[:1], 0)


def _by_first_letters(name: str) -> int:
    letters = "".join(filter(str.isalpha, name))
    return ATOMIC_NUMBER["SE"] if letters == "SE" else ATOMIC_NUMBER.get(letters[:1], 0)


def _text(residue: str) -> str:
    if residue in _CAPS:
        return _CAPS[residue]
    parent = parent_of(residue)
    if parent is None:
        return _BACKBONE
    return f"{_BACKBONE} {_SIDE_CHAIN[parent]} {_MODIFIED.get(parent, {}).get(residue, '')}"


@lru_cache(maxsize=4096)
def _facts(residue: str) -> dict[str, Facts]:
    return _parse(_NUCLEOTIDE_FACTS if residue in NUCLEOTIDES else _text(residue))[0]


def _parse(text: str) -> tuple[dict[str, Facts], list[Bond]]:
    facts, bonds = {}, []
    for word in text.split():
        sign = ":" if ":" in word else next(mark for mark in "-=~" if mark in word)
        left, right = word.split(sign)
        if right[0] in "23":
            charge = ("+" in right) - ("-" in right)
            hybridisation = Hybridisation.SP2 if right[0] == "2" else Hybridisation.SP3
            flags = ("a" in right, "d" in right, "c" in right, "a" in right or "r" in right)
            facts[left] = (charge + MAX_CHARGE, int(hybridisation), *map(int, flags))
        else:
            bonds.append((left, right, _BOND[sign]))
    return facts, bonds
