"""Records of atoms -> residues: one conformer of each, and every copy that lies elsewhere.

Residues that share chain letter, number and insertion code are alternatives of one residue when they overlap in space
or carry different altloc letters. Otherwise they are residues of their own: two chains may have one letter or none.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from src.chemistry.atoms import StructureError, clean_name
from src.chemistry.models import cube_numbers
from src.chemistry.pdb_records import Record
from src.chemistry.residue_names import ATOM_NAMES, WATERS, table_name
from src.chemistry.residues import SYMBOLS, is_polymer, num_unknown_names
from src.system.terminal import counted

OVERLAP_DISTANCE = 1.1  # Å; shorter than any bond between heavy atoms
BOND_DISTANCE = 2.1  # Å; longer than the bonds of a residue between heavy atoms, shorter than other distances
FEW_ATOMS = 4  # heavy atoms; the names in a residue with fewer tell little
CROWD = 2.0  # Å, edge of a cube; in 4,113 proteins none held more than 5 atoms of one conformer
MOST_WITHOUT_LETTERS, MOST_WITH_LETTERS = 30, 300  # heavy atoms in such a cube
# Pairs of atoms that are near each other in residues that are bonded, and never bonded inside one.
_BETWEEN_RESIDUES = frozenset(map(frozenset, [("C", "N"), ("O", "N"), ("O3'", "P"), ("O3*", "P")]))
_ANCHORS = frozenset(["CA", "C1'", "C1*"])  # one of which every residue of a polymer has
_ELEMENTS = frozenset(symbol.upper() for symbol in SYMBOLS)

Part = list[Record]  # atoms with one residue name, in one place


class Residue(NamedTuple):
    known: str  # the name by which the tables know it
    names: list[str]  # of its atoms, likewise
    atoms: list[Record]


def resolve_residues(records: Iterable[Record], notes: list[str]) -> list[Residue]:
    """One conformer of every residue, in canonical order; atoms sorted by name, each name once.

    Raises:
        StructureError: the atoms of a residue of a polymer are named by their elements alone or by numbers, or more
            atoms lie in one place than in any structure.
    """
    sites: dict[tuple[str, int, str], list[Record]] = defaultdict(list)
    for record in records:
        sites[record.chain, record.number, record.insertion].append(record)
    counts: Counter[str] = Counter()
    found = []
    for site in sorted(sites):
        copies: Counter[str] = Counter()
        for name, atoms in _at_one_site(sites[site], counts, notes):
            residue = _once_each(name, atoms)
            counts["duplicates"] += len(atoms) - len(residue.atoms)
            if len(atoms) >= FEW_ATOMS and (num_unknown := num_unknown_names(residue.known, residue.names)):
                if 2 * num_unknown > len(residue.names):
                    raise _unknown_names(atoms)
                counts["unknown"] += num_unknown
            chain, number, insertion = site
            found.append(((chain, copies[name], number, insertion, name), residue))
            copies[name] += 1
    if counts["alternatives"]:
        notes.append(
            f"{counted(counts['alternatives'], 'residue')} with alternative locations, one conformer of each used"
        )
    if counts["duplicates"]:
        notes.append(f"{counted(counts['duplicates'], 'duplicate atom')}, first used")
    if counts["unknown"]:
        unknown = counted(counts["unknown"], "atom of an amino acid", "atoms of amino acids")
        notes.append(f"{unknown} with an unknown name: nothing but the element is used")
    found.sort(key=lambda one: one[0])
    return [residue for _, residue in found]


def refuse_crowd(pos: np.ndarray, most: int = MOST_WITHOUT_LETTERS) -> None:
    """More atoms than `most` in a cube, of pos [n, 3] in Å, are no structure; looking at all pairs would take hours."""
    if len(pos) <= most:
        return
    _, first, counts = np.unique(cube_numbers(pos, CROWD), return_index=True, return_counts=True)
    if counts.max() > most:
        x, y, z = pos[first[counts.argmax()]]
        raise StructureError(
            f"{counts.max()} heavy atoms lie within {CROWD:g} Å of ({x:g}, {y:g}, {z:g}); expected one "
            "atom in one place, alternative locations marked by letters, and MODEL before each model of an ensemble"
        )


def _at_one_site(members: list[Record], counts: Counter, notes: list[str]) -> Iterator[tuple[str, list[Record]]]:
    """The residues (name, atoms of one conformer) that have one chain letter, number and insertion code."""
    name = members[0].residue
    if all(record.residue == name and not record.altloc for record in members) and not _has_twice(members):
        yield name, members
        return
    refuse_crowd(np.array([record.pos for record in members]), MOST_WITH_LETTERS)
    groups, repeated = _groups(members)
    counts["duplicates"] += repeated
    for group in groups:
        counts["alternatives"] += any(record.altloc for part in group for record in part)
        yield from _one_conformer(group, notes).items()


def _groups(members: list[Record]) -> tuple[list[list[Part]], int]:
    """The records of one site as parts, those of one residue together, and how many atoms were there twice."""
    of_name: dict[str, list[Record]] = defaultdict(list)
    for record in members:
        of_name[record.residue].append(record)
    parts, repeated = [], 0
    for name, records in of_name.items():
        found, dropped = _parts(name, records)
        parts += found
        repeated += dropped
    if len(parts) == 1:
        return [parts], repeated
    pairs = _overlapping(parts)
    if len(parts) == len(of_name):
        pairs += _by_letters(parts)
    return _joined(parts, pairs), repeated


def _parts(name: str, records: list[Record]) -> tuple[list[Part], int]:
    """The places where the atoms of one residue name lie, in the order of the file."""
    if not _has_twice(records):
        return [records], 0
    once = _without_repeats(records)
    repeated = len(records) - len(once)
    if not _has_twice(once):
        return [once], repeated
    pairs = sorted(cKDTree([record.pos for record in once]).query_pairs(BOND_DISTANCE))
    if not is_polymer(table_name(name, {record.name for record in once})):
        return _joined(once, pairs), repeated
    names = [(once[i].name, once[j].name) for i, j in pairs]
    together = zip(pairs, map(frozenset, names), strict=True)
    bonded = [pair for pair, both in together if len(both) == 2 and both not in _BETWEEN_RESIDUES]
    parts = _with_anchors(_joined(once, bonded))
    if (("C", "C") in names and not any(record.name in _ANCHORS for record in once)) or any(map(_is_bare, parts)):
        raise _unknown_names(once)
    return parts, repeated


def _has_twice(records: list[Record]) -> bool:
    """Whether an atom stands there twice, or with a letter and without: one conformer has it once."""
    if len({record.name for record in records}) == len(records):
        return False
    keys = {(record.name, record.altloc) for record in records}
    without_letter = {name for name, letter in keys if not letter}
    return len(keys) < len(records) or any(letter and name in without_letter for name, letter in keys)


def _without_repeats(records: list[Record]) -> list[Record]:
    """Without atoms that have the name and the place of one before them."""
    repeats: set[int] = set()
    for i, j in sorted(cKDTree([record.pos for record in records]).query_pairs(OVERLAP_DISTANCE)):
        one, other = records[i], records[j]
        if i not in repeats and (one.name, one.altloc) == (other.name, other.altloc):
            repeats.add(j)
    return [record for number, record in enumerate(records) if number not in repeats]


def _is_bare(part: Part) -> bool:
    """Whether other carbons than the one of the carbonyl are called C; two conformers of that one lie nearer."""
    carbons = np.array([record.pos for record in part if record.name == "C"])
    anchors = sum(record.name in _ANCHORS for record in part)
    return len(carbons) > max(anchors, 1) and np.ptp(carbons, axis=0).max() > BOND_DISTANCE


def _with_anchors(parts: list[Part]) -> list[Part]:
    """Pieces that are cut off, since an atom is missing in between, belong to the nearest part that is a residue."""
    anchored = [part for part in parts if any(record.name in _ANCHORS for record in part)]
    if not anchored or len(anchored) == len(parts):
        return parts
    owner = np.repeat(np.arange(len(anchored)), [len(part) for part in anchored])
    tree = cKDTree([record.pos for part in anchored for record in part])
    whole = [list(part) for part in anchored]
    for piece in parts:
        if not any(record.name in _ANCHORS for record in piece):
            distance, place = tree.query([record.pos for record in piece])
            whole[owner[place[distance.argmin()]]] += piece
    return whole


def _overlapping(parts: list[Part]) -> list[tuple[int, int]]:
    """Pairs of parts that lie in one place."""
    owner = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
    tree = cKDTree([record.pos for part in parts for record in part])
    pairs = owner[tree.query_pairs(OVERLAP_DISTANCE, output_type="ndarray")]
    return pairs[pairs[:, 0] != pairs[:, 1]].tolist()


def _by_letters(parts: list[Part]) -> list[tuple[int, int]]:
    """Pairs of parts of different names that are alternatives by their letters: no letter is common to all."""
    letters = [{record.altloc for record in part} for part in parts]
    lettered = [number for number, found in enumerate(letters) if "" not in found]
    if len(lettered) < 2 or set.intersection(*(letters[number] for number in lettered)):
        return []
    return [(lettered[0], number) for number in lettered[1:]]


def _joined(things: Sequence, pairs: Sequence[tuple[int, int]]) -> list[list]:
    """Things that are connected by pairs of their numbers, together; all in the order they came in."""
    ones, others = np.array(pairs, dtype=int).reshape(-1, 2).T
    links = coo_matrix((np.ones(len(ones)), (ones, others)), shape=(len(things), len(things)))
    found: dict[int, list] = defaultdict(list)
    for group, thing in zip(connected_components(links, directed=False)[1].tolist(), things, strict=True):
        found[group].append(thing)
    return list(found.values())


def _one_conformer(group: list[Part], notes: list[str]) -> dict[str, list[Record]]:
    """Atoms by residue name: those of the altloc letter with the highest occupancy, of one residue of a polymer."""
    records = [record for part in group for record in part]
    occupancy: Counter[str] = Counter()
    for record in records:
        if record.altloc:
            occupancy[record.altloc] += record.occupancy
    if occupancy:
        # Rounded, so that the order of summation cannot decide a tie.
        best = min(occupancy, key=lambda letter: (-round(occupancy[letter], 4), letter))
        records = [record for record in records if record.altloc in ("", best)]
    of_name: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        of_name[record.residue].append(record)
    if len(of_name) > 1:
        polymers = [n for n, atoms in of_name.items() if is_polymer(table_name(n, {atom.name for atom in atoms}))]
        for name in polymers[1:]:
            del of_name[name]
            used, dropped = clean_name(polymers[0]), clean_name(name)
            notes.append(f"two residues at {_place(records[0])}: {used} used, {dropped} dropped")
    return of_name


def _once_each(name: str, records: list[Record]) -> Residue:
    """Atoms in the order of their names, the first of each name; all of a molecule that has elements for names."""
    known = table_name(name, {record.name for record in records})
    names = ATOM_NAMES.get(known, {})
    first_of: dict[str, Record] = {}
    for record in records:
        first_of.setdefault(names.get(record.name, record.name), record)
    nameless = len(first_of) < len(records) and first_of.keys() <= _ELEMENTS
    if nameless and not is_polymer(known) and known not in WATERS:
        atoms = sorted(records, key=lambda record: (record.name, record.pos))
        return Residue(known, [atom.name for atom in atoms], atoms)
    order = sorted(first_of)
    return Residue(known, order, [first_of[atom] for atom in order])


def _unknown_names(records: list[Record]) -> StructureError:
    first, names = records[0], dict.fromkeys(clean_name(record.name) for record in records)
    return StructureError(
        f"the atoms of residue {clean_name(first.residue)} {_place(first)} are named {', '.join([*names][:6])}; a "
        "protein needs the names of the PDB (N, CA, C, O, CB, ...): take the file from before it was converted"
    )


def _place(record: Record) -> str:
    return clean_name(f"{record.chain}:{record.number}{record.insertion}")
