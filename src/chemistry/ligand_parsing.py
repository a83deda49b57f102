"""Text of one SDF or MOL2 record, as any program writes it -> RDKit molecule."""

from __future__ import annotations

import re
from collections import Counter

from rdkit import Chem, rdBase

from src.chemistry.mol2 import parse_mol2
from src.chemistry.residues import ATOMIC_NUMBER, SYMBOLS
from src.system.errors import UserError

MAX_BONDS_PER_ATOM = 3  # 2.5 in a carborane; the search for rings of a dense graph takes RDKit minutes, or kills it

_SHOWN = 80  # characters of a line in a message
_LONE_PAIR = "Ts"  # stands for LP, which is no atom
_ATOM_V3000 = re.compile(r"(M  V30 +\d+ +)((?:NOT *)?\[[^\]]*\]|\S+)(.*)", re.DOTALL)
_COORDINATE = re.compile(r"[-+]?(?:(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?|nan|inf)", re.ASCII | re.IGNORECASE)
_QUERIES_V3000 = re.compile(r" (?:STBOX|HCOUNT|UNSAT|SUBST|RBCNT)=-?\d+")


class DenseGraphError(UserError):
    """A record has far more bonds than a molecule can have."""


class SdfError(UserError):
    """A record of an SDF says what is no molecule; the message names the cause and what would be right."""


def parse_ligand(text: str, kind: str) -> tuple[Chem.Mol | None, list[str]]:
    """The molecule of a record as it stands there, nothing sanitised, and notes; None for damage.

    Args:
        kind: 'sdf' or 'mol2'.

    Raises:
        Mol2Error: a MOL2 record cannot be understood; the message says why.
        SdfError: a coordinate is no number.
        DenseGraphError: there are too many bonds.
    """
    if kind == "mol2":
        mol, note = parse_mol2(text)
        _require_sparse(mol.GetNumAtoms(), mol.GetNumBonds())
        return mol, [note] * bool(note)
    text = _with_known_symbols(text)
    with rdBase.BlockLogs():
        try:
            mol = Chem.MolFromMolBlock(text, sanitize=False, removeHs=False)
        except (ValueError, RuntimeError):  # RDKit returns None for most damage and raises for some
            return None, []
    return mol and _without_lone_pairs(mol), []


def _require_coordinates(words: list[str], line: str) -> None:
    """RDKit takes 1 for 1,5 and 0 for what is no number."""
    if not all(_COORDINATE.fullmatch(word.strip()) for word in words):
        raise SdfError(f"{line.strip()[:_SHOWN]!r}: has a coordinate that is no number; expected such as -1.2345")


def _without_lone_pairs(mol: Chem.Mol) -> Chem.Mol:
    with Chem.RWMol(mol) as edited:
        for atom in edited.GetAtoms():
            if atom.GetSymbol() == _LONE_PAIR:
                edited.RemoveAtom(atom.GetIdx())
    return edited.GetMol()


def _with_known_symbols(text: str) -> str:
    """A mol block with elements in their usual letter case, '*' for what is no element, and no queries.

    'Bond is in a ring' and 'atom has one hydrogen at least' are questions to a data base, which RDKit takes for that:
    it sees no aromatic ring, and writes the atoms as patterns.
    """
    lines = text.split("\n")
    if len(lines) < 4:
        return text
    if "V3000" in lines[3]:
        return "\n".join(_with_known_symbols_v3000(lines))
    num_atoms, num_bonds = (int(part) if part.strip().isdigit() else 0 for part in (lines[3][:3], lines[3][3:6]))
    _require_sparse(num_atoms, num_bonds)
    for number in range(4, min(4 + num_atoms, len(lines))):
        line = lines[number]
        _require_coordinates([line[:10], line[10:20], line[20:30]], line)
        line = line[:31] + _symbol(line[31:34]).ljust(3) + line[34:]
        lines[number] = line[:39] + "  0  0  0" + line[48:] if line[39:48].strip() else line
    for number in range(4 + num_atoms, min(4 + num_atoms + num_bonds, len(lines))):
        line = lines[number]
        lines[number] = line[:15] + "  0" + line[18:] if line[15:18].strip() else line
    return "\n".join(lines)


def _with_known_symbols_v3000(lines: list[str]) -> list[str]:
    """The same in the ATOM and BOND blocks alone; lines that end in '-' are continued there.

    The configuration of bonds goes too: coordinates tell it, and Open Babel writes numbers that V3000 does not have.
    """
    edited: list[str] = []
    block = ""
    continued = False
    sizes = Counter()
    for line in lines:
        words = line.split()
        if words[:2] == ["M", "V30"] and words[2:3] in (["BEGIN"], ["END"]):
            block = " ".join(words[3:4]) if words[2] == "BEGIN" else ""
        elif block == "ATOM" and not continued and (match := _ATOM_V3000.fullmatch(line)):
            _require_coordinates(match[3].split()[:3], line)
            line = match[1] + _symbol(match[2]) + _QUERIES_V3000.sub("", match[3])
        elif block == "BOND":
            line = re.sub(r" (?:TOPO|CFG)=\d+", "", line)
        sizes[block] += not continued and words[2:3] != ["BEGIN"]
        continued = line.rstrip().endswith("-")
        edited.append(line)
    _require_sparse(sizes["ATOM"], sizes["BOND"])
    return edited


def _require_sparse(num_atoms: int, num_bonds: int) -> None:
    if num_bonds > MAX_BONDS_PER_ATOM * num_atoms:
        raise DenseGraphError(
            f"{num_bonds:,} bonds between {num_atoms:,} atoms; no molecule has more than {MAX_BONDS_PER_ATOM} for each"
        )


def _symbol(text: str) -> str:
    """'*' for what is no element."""
    if text.strip().upper() == "LP":
        return _LONE_PAIR
    number = ATOMIC_NUMBER.get(text.strip().upper(), 0)
    return SYMBOLS[number] if number else "*"
