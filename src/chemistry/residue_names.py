"""Residue names of the PDB, of Amber, CHARMM, GROMACS and Schrodinger -> the names that the chemistry tables know.

Sources: the chemical components of the PDB; leap's libraries and the .rtp files of Amber, GROMOS and OPLS in GROMACS;
CHARMM's topologies; Schrodinger's names of protonation states.
"""

from __future__ import annotations

from collections.abc import Collection

from src.graph import RESIDUE_TYPES

AMINO_ACIDS = RESIDUE_TYPES[1:21]

# Names that programs give a residue for its protons, its bridge or its united atoms: the heavy atoms are those of
# the parent.
PROTONATION = {
    name: parent
    for parent, names in {
        "ARG": "ARN ARGN",
        "ASN": "ASN1",
        "ASP": "ASH ASPH ASPP",
        "CYS": "CYM CYX CYSH CYS1 CYS2",
        "GLU": "GLH GLUH GLUP",
        "HIS": "HID HIE HIP HSD HSE HSP HISA HISB HISD HISE HISH HISP HIS1 HIS2",
        "LYS": "LYN LYSH LYSN",
        "PHE": "PHEU",
        "TRP": "TRPU",
        "TYR": "TYM TYRU",
    }.items()
    for name in names.split()
}
# Amber writes the first residue of a chain NALA and the last one CALA.
_WITH_ENDS = {name: name for name in AMINO_ACIDS} | {
    "ASH": "ASP", "CYM": "CYS", "CYN": "CYS", "CYX": "CYS", "GLH": "GLU", "HID": "HIS", "HIE": "HIS", "HIP": "HIS",
    "LYN": "LYS", "LYP": "LYS",
}  # fmt: skip
END_RESIDUES = {f"{end}{name}": parent for end in "NC" for name, parent in _WITH_ENDS.items()}

# The same for names that mean another molecule in the PDB, or may: it is an amino acid when it has a backbone.
_WITH_BACKBONE = {
    "AS4": "ASP", "CYN": "CYM", "CYT": "CYM", "GL4": "GLU", "LSN": "LYN", "LYP": "LYS", "SRO": "SER", "THO": "THR",
    "TYO": "TYM",
}  # fmt: skip
_BACKBONE = frozenset(["N", "CA", "C"])

_NUCLEOTIDES = "A C G U I DA DC DG DT DU DI PSU 5MC 5MU OMC OMG OMU 7MG 1MA 2MG 5BU BRU"
NUCLEOTIDES = frozenset(_NUCLEOTIDES.split())
# Names of bases, ions and others too: a nucleotide when it has a sugar. Amber marks the ends of a strand with 5 and 3
# and a nucleotide alone with N.
_WITH_SUGAR = {
    **{f"R{base}{end}": base for base in "ACGU" for end in ("", "5", "3", "N")},
    **{f"{base}{end}": base for base in "ACGU" for end in ("5", "3", "N")},
    **{f"D{base}{end}": f"D{base}" for base in "ACGT" for end in ("5", "3", "N")},
    **{f"+{base}": base for base in "ACGUI"},
    "ADE": "A", "CYT": "C", "GUA": "G", "URA": "U", "THY": "DT", "T": "DT",
    "DADE": "DA", "DCYT": "DC", "DGUA": "DG", "DTHY": "DT", "RADE": "A", "RCYT": "C", "RGUA": "G", "RURA": "U",
}  # fmt: skip
_SUGAR = frozenset(["C1'", "C2'", "C3'", "C4'", "O4'"])
_LEAST_SUGAR = 3  # atoms, for a crystal may not show all

_WATERS = "HOH WAT DOD H2O SOL TIP TP3 TP4 TP5 T3P T4P T5P SPC SPCE TIP2 TIP3 TIP4 TIP5 OH2 HHO"
WATERS = frozenset(_WATERS.split())
_WATER_OXYGENS = frozenset(["O", "OW", "OH2"])

# Caps of a chain, and the names that their heavy atoms have.
CAPS = {
    "ACE": frozenset(["C", "O", "CH3"]),
    **dict.fromkeys(["NME", "NMA", "NAC"], frozenset(["N", "C", "CH3", "CA"])),
    **dict.fromkeys(["NH2", "NHE"], frozenset(["N"])),
}
_LONGEST_CAP = 3  # heavy atoms

# Names of atoms that other programs use -> those of the tables, by the residue name that table_name gives: the last
# oxygens of a chain in CHARMM, GROMOS and Amber's names in GROMACS; CHARMM and GROMACS call CD1 of ILE CD.
_LAST_OXYGENS = {"OT1": "O", "OT2": "OXT", "O1": "O", "O2": "OXT", "OC1": "O", "OC2": "OXT"}
ATOM_NAMES: dict[str, dict[str, str]] = {
    name: _LAST_OXYGENS | ({"CD": "CD1"} if name.endswith("ILE") else {})
    for name in (*AMINO_ACIDS, *PROTONATION, *END_RESIDUES)
}

FOUR_LETTERS = frozenset(
    name for names in (PROTONATION, END_RESIDUES, _WITH_SUGAR, WATERS) for name in names if len(name) == 4
)
MAYBE_POLYMERS = frozenset(_WITH_BACKBONE) | frozenset(_WITH_SUGAR)


def table_name(residue: str, atoms: Collection[str]) -> str:
    """The name by which the tables know a residue: its own, but where its heavy atoms decide what the name means."""
    if residue in _WITH_BACKBONE and set(atoms) >= _BACKBONE:
        return _WITH_BACKBONE[residue]
    if residue in _WITH_SUGAR and len(_SUGAR & {name.replace("*", "'") for name in atoms}) >= _LEAST_SUGAR:
        return _WITH_SUGAR[residue]
    if residue == "OPC" and len(atoms) == 1 and set(atoms) <= _WATER_OXYGENS:  # a lipid has the name too
        return "HOH"
    return residue


def is_cap(residue: str, atoms: Collection[str]) -> bool:
    """Whether a residue is one that closes a chain; the names mean other molecules too."""
    return residue in CAPS and 0 < len(atoms) <= _LONGEST_CAP and CAPS[residue] >= set(atoms)
