"""A PDB or mmCIF file with its ligand inside -> the atoms of the molecule that is the ligand.

Which molecule: the one that the user names; else the only candidate. Candidates are whole molecules that are no
polymer, water, ion, additive of the crystal or glycan; cofactors are candidates where there is no other. A residue with
a backbone, or one that is bonded to that of a neighbour, belongs to its chain whatever its record says. Size decides
nothing.
"""

from __future__ import annotations

import contextlib
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import combinations
from typing import NamedTuple

import numpy as np
from scipy.spatial import cKDTree

from src.chemistry.atoms import ResidueId, StructureError, clean_name
from src.chemistry.conformers import MOST_WITH_LETTERS, refuse_crowd
from src.chemistry.double_bonds import connected_groups
from src.chemistry.hetero_names import ADDITIVES, COFACTORS, GLYCANS
from src.chemistry.mmcif_records import is_mmcif, mmcif_columns, records_of
from src.chemistry.pdb_records import pdb_atom_lines, pdb_table
from src.chemistry.residue_names import table_name
from src.chemistry.residues import classify
from src.graph import Side
from src.system.terminal import listed

LINK = 1.9  # Å between bonded atoms of two residues of one molecule; S-C has 1.8
LINK_OF_CHAIN = 1.65  # Å to the residue before or after in a chain; P-O has 1.6
MAX_LINKS = 2  # bonds between two residues; more such pairs are two molecules in one place
POCKET = 5.0  # Å from the ligand, of the atoms whose confidence is told

_ONLY_NAMED = 2  # the rank of what is no ligand unless the user says so
_MORE_COLUMNS = {
    **{f"label_{name}": (f"label_{name}_id",) for name in ("asym", "comp", "seq")},
    "b_factor": ("b_iso_or_equiv",),
    "serial": ("id",),
    "charge": ("pdbx_formal_charge",),
}
_CHAIN_ATOMS = frozenset(["C", "N", "P", "O3'", "O3*"])


class SiteAtom(NamedTuple):
    chain: str  # this and what follows as in Record
    number: int
    insertion: str
    residue: str
    name: str
    element: int
    altloc: str
    occupancy: float
    pos: tuple[float, float, float]
    label: tuple[str, str, str] = ("", "", "")  # chain, name and number of mmCIF's label_ columns
    b_factor: float = 0.0
    serial: str = ""
    charge: int = 0

    @property
    def id(self) -> ResidueId:
        return ResidueId(self.chain, self.residue, self.number, self.insertion)


@dataclass
class Residue:
    id: ResidueId
    label: tuple[str, str, str]
    atoms: list[SiteAtom] = field(default_factory=list)

    @cached_property
    def heavy(self) -> list[SiteAtom]:
        return [atom for atom in self.atoms if atom.element != 1]

    @cached_property
    def side(self) -> Side:
        names = {atom.name: atom.element for atom in self.heavy}
        return classify(table_name(self.id.name, names), names)[0]

    @property
    def number(self) -> str:
        return f"{self.id.number}{self.id.insertion}"


@dataclass(frozen=True)
class LigandSite:
    """The atoms of one molecule of a file in one conformer, hydrogens last."""

    name: str  # such as A:Q4H:301
    atoms: tuple[SiteAtom, ...]
    pocket_b_factor: float | None = None  # mean over the atoms of polymers around it

    @property
    def heavy(self) -> tuple[SiteAtom, ...]:
        return tuple(atom for atom in self.atoms if atom.element != 1)


Molecule = Sequence[Residue]


def find_ligand(data: bytes, word: str = "") -> LigandSite:
    """The ligand of a complex.

    Args:
        data: the text of a PDB or mmCIF file.
        word: CHAIN:NAME:NUMBER of its residue or any part of it, in any letter case; '' for the only candidate.

    Raises:
        StructureError: nothing can be the ligand, or several molecules can; the message lists them.
    """
    residues = read_residues(data)
    found, chains = _molecules(residues)
    if word:
        found = [molecule for molecule in found if any(_is_named(residue, word) for residue in molecule)]
        found = found or [chain for chain in chains if all(_is_named(residue, word) for residue in chain)]
    ranks = [_rank({residue.id.name for residue in molecule}) for molecule in found]
    best = [molecule for molecule, rank in zip(found, ranks, strict=True) if rank == min(ranks)]
    if not best or (min(ranks) == _ONLY_NAMED and not word):
        raise StructureError(_nothing(residues, word))
    if len(best) > 1:
        names = listed([f"{_name(one)} ({len(one_conformer(one, hydrogens=False))} heavy atoms)" for one in best])
        example = _name(best[0]).split(",")[0]
        raise StructureError(f"several molecules can be the ligand: {names}; choose, as --ligand_residue {example}")
    return LigandSite(_name(best[0]), tuple(one_conformer(best[0])), _around(best[0], residues))


def read_residues(data: bytes) -> list[Residue]:
    """All residues of the first model, in the order of the file; what occurs once more is a residue of its own."""
    residues: list[Residue] = []
    seen: set[tuple[str, str]] = set()
    for atom in _cif_atoms(data) if is_mmcif(data) else _pdb_atoms(data):
        if not residues or atom.id != residues[-1].id or (atom.name, atom.altloc) in seen:
            residues.append(Residue(atom.id, atom.label))
            seen = set()
        seen.add((atom.name, atom.altloc))
        residues[-1].atoms.append(atom)
    return residues


def one_conformer(molecule: Molecule, *, hydrogens: bool = True) -> list[SiteAtom]:
    """Atoms without a letter of alternative locations, and those of the letter with the highest occupancy in each
    residue; hydrogens last."""
    found = []
    for residue in molecule:
        weight: Counter[str] = Counter()
        for atom in residue.atoms:
            weight[atom.altloc] += atom.occupancy
        letter = max(sorted(filter(None, weight)), key=weight.__getitem__, default="")
        found += [atom for atom in residue.atoms if atom.altloc in ("", letter)]
    found.sort(key=lambda atom: atom.element == 1)
    return found if hydrogens else [atom for atom in found if atom.element != 1]


def _pdb_atoms(data: bytes) -> Iterator[SiteAtom]:
    lines, numbers, starts = pdb_atom_lines(data)
    end = next((start.row for start in starts[1:] if start.is_said), len(lines))
    table = pdb_table(lines[:end], numbers[:end], needs_protein=False)
    rows = zip(*(column.tolist() for column in table[1:]), strict=True)
    for text, (pos, number, name, element) in zip(table.text, rows, strict=True):
        line = bytes(text).decode("ascii")
        chain, atom, insertion, altloc, serial = (
            line[first:last].strip() for first, last in ((21, 22), (12, 16), (26, 27), (16, 17), (6, 11))
        )
        record = chain, number, insertion, name, atom, element, altloc, _float(line[54:60], 1.0), tuple(pos)
        yield SiteAtom(*record, (chain, name, str(number)), _float(line[60:66], 0.0), serial, _charge(line[78:80]))


def _cif_atoms(data: bytes) -> Iterator[SiteAtom]:
    columns = mmcif_columns(data, _MORE_COLUMNS)
    more = zip(*(columns[name] for name in ("model", *_MORE_COLUMNS)), strict=True)
    for record, (model, *label, b_factor, serial, charge) in zip(records_of(columns), more, strict=True):
        if model == columns["model"][0]:
            yield SiteAtom(*record, tuple(label), _float(b_factor, 0.0), serial, _charge(charge))


def _float(text: str, missing: float) -> float:
    with contextlib.suppress(ValueError):
        return number if math.isfinite(number := float(text.split("(")[0])) else missing
    return missing


def _charge(text: str) -> int:
    digits = "".join(filter(str.isdigit, text))
    return int(digits or 0) * (-1 if "-" in text else 1)


def _molecules(residues: Sequence[Residue]) -> tuple[list[Molecule], list[Molecule]]:
    """The molecules that are no polymer, water or ion; and the chains of polymers."""
    owners = [n for n, one in enumerate(residues) if one.side in (Side.COFACTOR, Side.PROTEIN) for _ in one.heavy]
    atoms = [atom for number in dict.fromkeys(owners) for atom in residues[number].heavy]
    pos = np.array([atom.pos for atom in atoms]).reshape(-1, 3)
    refuse_crowd(pos, MOST_WITH_LETTERS)
    links: Counter[tuple[int, int]] = Counter()
    in_chain = {number for number in owners if residues[number].side == Side.PROTEIN}
    grown = set(in_chain)
    for i, j in cKDTree(pos).query_pairs(LINK):
        one, other = sorted((owners[i], owners[j]))
        if one == other or (atoms[i].altloc and atoms[j].altloc and atoms[i].altloc != atoms[j].altloc):
            continue
        if (one in in_chain) == (other in in_chain):
            links[one, other] += 1
        elif np.linalg.norm(pos[i] - pos[j]) < LINK_OF_CHAIN:
            inside, outside = (i, j) if owners[i] in in_chain else (j, i)
            grown |= {owners[outside]} if atoms[inside].name in _CHAIN_ATOMS else set()
    bonded = [pair for pair, count in links.items() if count <= MAX_LINKS]
    found = []
    for members in (set(owners) - grown, in_chain):
        neighbours: dict[int, list[int]] = {number: [] for number in members}
        for one, other in bonded:
            if one in members and other in members:
                neighbours[one].append(other)
                neighbours[other].append(one)
        found.append([[residues[number] for number in sorted(group)] for group in connected_groups(neighbours)])
    return found[0], found[1]


def _is_named(residue: Residue, word: str) -> bool:
    parts = [part.strip().casefold() for part in word.split(":")]
    for names in ((residue.id.chain, residue.id.name, residue.number), residue.label):
        whole = [name.casefold() for name in names]
        if len(parts) == len(whole) and all(part in ("", one) for part, one in zip(parts, whole, strict=True)):
            return True
        if parts in map(list, combinations(whole, len(parts))):
            return True
    return False


def _rank(names: set[str]) -> int:
    """0 of a ligand, 1 of a cofactor, _ONLY_NAMED of what is a ligand only if it is named."""
    return _ONLY_NAMED if names <= ADDITIVES or names <= GLYCANS else int(bool(names & COFACTORS))


def _name(molecule: Molecule) -> str:
    return clean_name(listed([f"{one.id.chain}:{one.id.name}:{one.number}" for one in molecule], 3))


def _nothing(residues: Sequence[Residue], word: str) -> str:
    there = listed(sorted({_name([one]) for one in residues if one.side == Side.COFACTOR}), 8) or "none"
    what = f"is {clean_name(word)!r} (CHAIN:NAME:NUMBER or a part of it)" if word else "can be the ligand"
    return (
        f"no molecule {what}; beside chains, water and ions: {there}. What is taken for an additive, a glycan or part "
        "of a chain is named with --ligand_residue"
    )


def _around(molecule: Molecule, residues: Sequence[Residue]) -> float | None:
    """Mean B factor of the atoms of polymers around a molecule; None where there are none."""
    tree = cKDTree([atom.pos for residue in molecule for atom in residue.heavy])
    others = [one for one in residues if one.side == Side.PROTEIN and not any(one is member for member in molecule)]
    atoms = [atom for residue in others for atom in residue.heavy]
    distance = tree.query(np.array([atom.pos for atom in atoms]).reshape(-1, 3), distance_upper_bound=POCKET)[0]
    values = [atom.b_factor for atom, one in zip(atoms, distance, strict=True) if np.isfinite(one)]
    return float(np.mean(values)) if values else None
