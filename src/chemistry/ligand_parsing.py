"""Text of one SDF or MOL2 record, as any program writes it -> RDKit molecule."""

from __future__ import annotations

import re

from rdkit import Chem, rdBase

from src.chemistry.residues import ATOMIC_NUMBER, SYMBOLS

_PLACEHOLDER = "Og"  # stands for unknown elements in MOL2, whose reader knows no dummy atom
_LONE_PAIR = "Ts"  # stands for Sybyl's LP, which is no atom


def parse_ligand(text: str, kind: str) -> Chem.Mol | None:
    """The molecule of a record as it stands there, hydrogens included and nothing sanitised; None for damage.

    Args:
        kind: 'sdf' or 'mol2'.
    """
    with rdBase.BlockLogs():
        try:
            if kind == "sdf":
                return Chem.MolFromMolBlock(_with_known_symbols(text), sanitize=False, removeHs=False)
            text = _with_known_types(text)
            options = {"sanitize": False, "removeHs": False}
            # RDKit's correction of Sybyl types refuses a nitro group that Open Babel wrote.
            mol = Chem.MolFromMol2Block(text, **options)
            mol = mol or Chem.MolFromMol2Block(text, cleanupSubstructures=False, **options)
        except (ValueError, RuntimeError):  # RDKit returns None for most damage and raises for some
            return None
    return mol and _without_stand_ins(mol)


def _without_stand_ins(mol: Chem.Mol) -> Chem.Mol:
    """Without lone pairs, and with element 0 for what is no element; RDKit guessed charges from the bonds to them."""
    mol = Chem.RWMol(mol)
    mol.BeginBatchEdit()
    for atom in mol.GetAtoms():
        if atom.GetSymbol() == _PLACEHOLDER:
            atom.SetAtomicNum(0)
            atom.SetFormalCharge(0)
        elif atom.GetSymbol() == _LONE_PAIR:
            for neighbour in atom.GetNeighbors():
                neighbour.SetFormalCharge(0)
            mol.RemoveAtom(atom.GetIdx())
    mol.CommitBatchEdit()
    return mol.GetMol()


def _with_known_symbols(text: str) -> str:
    """A mol block with elements in their usual letter case, '*' for what is no element, and no topology of bonds.

    'Bond is in a ring' is a question to a data base; RDKit takes such a bond for a query and sees no aromatic ring.
    """
    lines = text.split("\n")
    if len(lines) < 4:
        return text
    if "V3000" in lines[3]:
        return "\n".join(map(_with_known_symbol_v3000, lines))
    num_atoms, num_bonds = (int(part) if part.strip().isdigit() else 0 for part in (lines[3][:3], lines[3][3:6]))
    for number in range(4, min(4 + num_atoms, len(lines))):
        line = lines[number]
        lines[number] = line[:31] + _symbol(line[31:34], "*").ljust(3) + line[34:]
    for number in range(4 + num_atoms, min(4 + num_atoms + num_bonds, len(lines))):
        line = lines[number]
        lines[number] = line[:15] + "  0" + line[18:] if line[15:18].strip() else line
    return "\n".join(lines)


def _with_known_symbol_v3000(line: str) -> str:
    if line.startswith("M  V30 ") and " TOPO=" in line:
        return re.sub(r" TOPO=\d+", "", line)
    words = line.split()
    # M  V30 index type x y z ...; a bond line has four numbers and no letters there
    if len(words) < 8 or words[:2] != ["M", "V30"] or not words[2].isdigit() or not words[3][:1].isalpha():
        return line
    words[3] = _symbol(words[3], "*")
    return f"M  V30 {' '.join(words[2:])}"


def _with_known_types(text: str) -> str:
    """A MOL2 block with atom types in their usual letter case, stand-ins for what is no element, and no comments."""
    lines = []
    section = ""
    for line in text.split("\n"):
        if line.startswith("@<TRIPOS>"):
            section = line.strip()
        elif line.startswith("#") and section in ("@<TRIPOS>ATOM", "@<TRIPOS>BOND"):
            continue
        elif section == "@<TRIPOS>ATOM" and len(words := line.split()) >= 6:
            element, dot, hybridisation = words[5].partition(".")
            stand_in = _LONE_PAIR if element.upper() == "LP" else _PLACEHOLDER
            words[5] = _symbol(element, stand_in) + dot + hybridisation.lower()
            line = " ".join(words)
        lines.append(line)
    return "\n".join(lines)


def _symbol(text: str, unknown: str) -> str:
    number = ATOMIC_NUMBER.get(text.strip().upper(), 0)
    return SYMBOLS[number] if number else unknown
