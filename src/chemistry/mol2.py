"""Text of one MOL2 record, as any program writes it -> RDKit molecule without charges, bonds as the file has them.

Format: Tripos Mol2 File Format (2005), https://www.tripos.com/mol2/mol2_format3.html. Formal charges, which other
sections than ATOM and BOND may hold, are not read: they follow from bonds (src/chemistry/resonance.py).
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np
from rdkit import Chem
from rdkit.Geometry import Point3D

from src.chemistry.atom_types import LONE_PAIR, AtomTypeError, elements
from src.system.errors import UserError

_ORDERS = {
    **dict.fromkeys(("1", "am", "du"), Chem.BondType.SINGLE),
    **dict.fromkeys(("ar", "4"), Chem.BondType.AROMATIC),
    **{"2": Chem.BondType.DOUBLE, "3": Chem.BondType.TRIPLE},
}
_NOT_CONNECTED = "nc"
_NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?", re.ASCII)
_INTEGER = re.compile(r"[-+]?\d+", re.ASCII)
_SHOWN = 80  # characters of a line in a message


class Mol2Error(UserError):
    """A MOL2 record cannot be understood; the message names the line, the cause and what would be right."""


def parse_mol2(text: str) -> tuple[Chem.Mol, str]:
    """The molecule of a record, hydrogens included, nothing sanitised, and a note on how its elements were found.

    Raises:
        Mol2Error: a line, an atom type or the number of atoms or bonds cannot be understood.
    """
    sections = _sections(text)
    atoms = [_atom(number, line) for number, line in sections["ATOM"]]
    place = {identifier: number for number, (identifier, *_) in enumerate(atoms)}
    if len(place) < len(atoms):
        raise Mol2Error("two atoms have one number; expected each atom once")
    bonds = [bond for number, line in sections["BOND"] if (bond := _bond(number, line, place))]
    _require_counts(sections, len(atoms), len(sections["BOND"]))
    pos = np.array([xyz for _, _, xyz, _ in atoms], dtype=float).reshape(-1, 3)
    try:
        found, note = elements(
            [kind for *_, kind in atoms], [name for _, name, _, _ in atoms], [(i, j) for i, j, _ in bonds], pos
        )
    except AtomTypeError as error:
        raise Mol2Error(str(error)) from error
    mol = _molecule(found, pos, _with_open_groups([kind.lower() for *_, kind in atoms], bonds))
    mol.SetProp("_Name", sections["MOLECULE"][0][1].strip() if sections["MOLECULE"] else "")
    return mol, note


def _with_open_groups(
    types: list[str], bonds: list[tuple[int, int, Chem.BondType]]
) -> list[tuple[int, int, Chem.BondType]]:
    """Bonds of equal order at C.cat and to O.co2 as aromatic ones: such a group resonates, and says so by its types.

    PDBbind's files have guanidines with single bonds only, and carboxylates with two double bonds.
    """
    groups: dict[int, list[int]] = {}
    for place, (i, j, _) in enumerate(bonds):
        for centre, end in ((i, j), (j, i)):
            if types[end].startswith("o.co2") or (types[centre] == "c.cat" and types[end].startswith("n.")):
                groups.setdefault(centre, []).append(place)
    bonds = list(bonds)
    for places in groups.values():
        if len(places) > 1 and len({bonds[place][2] for place in places}) == 1:
            for place in places:
                bonds[place] = (*bonds[place][:2], Chem.BondType.AROMATIC)
    return bonds


def _molecule(found: list[int], pos: np.ndarray, bonds: list[tuple[int, int, Chem.BondType]]) -> Chem.Mol:
    mol = Chem.RWMol()
    conformer = Chem.Conformer(len(found))
    for number, element in enumerate(found):
        mol.AddAtom(Chem.Atom(max(element, 0)))
        conformer.SetAtomPosition(number, Point3D(*pos[number].tolist()))
    for i, j, order in bonds:
        if i == j or mol.GetBondBetweenAtoms(i, j):
            raise Mol2Error(f"atoms {i + 1} and {j + 1} are bonded twice, or an atom with itself")
        mol.AddBond(i, j, order)
        if order == Chem.BondType.AROMATIC:
            mol.GetBondBetweenAtoms(i, j).SetIsAromatic(True)
            for atom in (i, j):
                mol.GetAtomWithIdx(atom).SetIsAromatic(True)
    mol.AddConformer(conformer, assignId=True)
    with mol:
        for number, element in enumerate(found):
            if element == LONE_PAIR:
                mol.RemoveAtom(number)
    return mol.GetMol()


def _sections(text: str) -> dict[str, list[tuple[int, str]]]:
    """Section -> (line number, line), without comments, with lines that end in a backslash joined to the next."""
    sections: dict[str, list[tuple[int, str]]] = {"MOLECULE": [], "ATOM": [], "BOND": []}
    name = ""
    lines = enumerate(text.split("\n"), start=1)
    for number, line in lines:
        if line.startswith("@"):
            name = line.strip().upper().removeprefix("@<TRIPOS>")
            if name in ("ATOM", "BOND") and sections[name]:
                raise Mol2Error(f"line {number}: a second {name} section; expected one molecule")
        elif name == "MOLECULE":
            # Its first line is the name, whatever stands there.
            sections[name].append((number, line))
        elif name in sections and line.strip() and not line.lstrip().startswith("#"):
            while line.rstrip().endswith("\\") and (following := next(lines, None)):
                line = line.rstrip().removesuffix("\\") + " " + following[1]
            sections[name].append((number, line))
    return sections


def _atom(number: int, line: str) -> tuple[int, str, tuple[float, ...], str]:
    """(identifier, name, coordinates, type) of `id name x y z type ...`, where the name may have blanks, or be missing.

    Raises:
        Mol2Error: no three columns can be the coordinates, or several can.
    """
    words = line.split()
    places = list(_coordinate_columns(words))
    dotted = [first for first in places if all("." in word for word in words[first : first + 3])]
    places = dotted or places
    if len(places) != 1 or not _INTEGER.fullmatch(words[0]):
        cause = "several columns can be the coordinates" if len(places) > 1 else "no coordinates before an atom type"
        raise Mol2Error(f"{_quoted(number, line)}: {cause}; expected number, name, x, y, z and atom type")
    first = places[0]
    xyz = tuple(float(word) for word in words[first : first + 3])
    return int(words[0]), " ".join(words[1:first]), xyz, words[first + 3]


def _coordinate_columns(words: list[str]) -> Iterator[int]:
    """Where three numbers stand before what can be an atom type."""
    for first in range(1, len(words) - 3):
        numbers, kind = words[first : first + 3], words[first + 3]
        if all(map(_NUMBER.fullmatch, numbers)):
            # Some force fields have numbers for types; they are whole, and coordinates are not.
            is_number = _INTEGER.fullmatch(kind) and all("." in word for word in numbers)
            if is_number or not _NUMBER.fullmatch(kind):
                yield first


def _bond(number: int, line: str, place: dict[int, int]) -> tuple[int, int, Chem.BondType] | None:
    words = line.split()
    if len(words) < 4 or not all(map(_INTEGER.fullmatch, words[:3])):
        raise Mol2Error(f"{_quoted(number, line)}: is no bond; expected number, two atoms and bond type")
    kind = words[3].lower()
    if kind == _NOT_CONNECTED:
        return None
    if kind not in _ORDERS:
        raise Mol2Error(f"{_quoted(number, line)}: unknown bond type {words[3]!r}; expected 1, 2, 3, am or ar")
    first, second = (place.get(int(word)) for word in words[1:3])
    if first is None or second is None:
        raise Mol2Error(f"{_quoted(number, line)}: names an atom that is not there")
    return first, second, _ORDERS[kind]


def _require_counts(sections: dict[str, list[tuple[int, str]]], num_atoms: int, num_bonds: int) -> None:
    counts = sections["MOLECULE"][1][1].split()[:2] if len(sections["MOLECULE"]) > 1 else []
    for count, found, name in zip(counts, (num_atoms, num_bonds), ("atoms", "bonds"), strict=False):
        if not _INTEGER.fullmatch(count) or int(count) != found:
            raise Mol2Error(f"has {found} {name} where its counts say {count[:_SHOWN]!r}; expected a complete record")
    if not counts or not num_atoms:
        raise Mol2Error("has no atoms; expected a complete record")


def _quoted(number: int, line: str) -> str:
    return f"line {number} of the molecule, {line.strip()[:_SHOWN]!r}"
