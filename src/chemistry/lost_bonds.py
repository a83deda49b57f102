"""Molecules that have lost bond orders, as in a PDB file -> found by their shape, repaired where one answer exists.

A carbon with single bonds only is tetrahedral; one that lies flat between three neighbours, or in a flat ring, with a
bond much shorter than a single one has lost its double bond. The double bonds that fit the bond lengths best are put
back if no other set fits about as well and makes another molecule of it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from rdkit import Chem

from src.chemistry.aromatic_bonds import canonical_rank
from src.chemistry.double_bonds import NoPlaceError, Pair, place_double_bonds
from src.chemistry.shape import LENGTHS, SLACK, Shape, has_three_nitrogens, is_open
from src.system.errors import UserError

MARGIN = 0.012  # Å², by which the bond lengths must prefer an answer to another
WORSE = 0.05  # Å² that the bond lengths of an aromatic answer may be worse than those of another
KEPT = 0.004  # Å² that a double bond of the drawing counts more than another in the same rings
IMINE = 0.02  # Å² that a double bond from a ring to nitrogen outside counts less, so that anilines stay anilines
IMIDIC = 0.03  # Å² that C=N counts less where the carbon has a terminal oxygen, so that amides stay amides
_CLEAR = 0.04  # Å beyond a double bond that one between atoms of which nothing else says so may have
_DRAWN_DOUBLE = "_drawn_double"  # property of bonds

# No carbonyl beside it that would hold it, as in ascorbic acid.
_ENOL = Chem.MolFromSmarts("[OD1]-[C;!$(C(=C)-C=[O,S]);!$(C=C-C=[O,S])]=[C;!$(C-C=[O,S])]")


class LostBondOrdersError(UserError):
    """The shape of a molecule contradicts its bond orders, and there is not one answer; the message names atoms."""


@dataclass(frozen=True)
class _Typed:
    mol: Chem.Mol
    key: bytes
    num_aromatic: int


def contradictions(mol: Chem.Mol) -> list[int]:
    """Heavy atoms drawn with single bonds alone that their shape, or three nitrogens around them, contradict."""
    shape = Shape(mol)
    found = {number for number in range(mol.GetNumAtoms()) if shape.is_flat_and_short(number)}
    found |= {number for ring in mol.GetRingInfo().AtomRings() for number in shape.lost_in_ring(ring)}
    found |= {atom.GetIdx() for atom in mol.GetAtoms() if atom.GetAtomicNum() == 6 and has_three_nitrogens(atom)}
    found |= {number for pair in (*shape.triples(), *shape.short_between_nitrogens()) for number in pair}
    return sorted(found)


def restore_bond_orders(mol: Chem.Mol, key: Callable[[Chem.Mol], bytes]) -> tuple[Chem.Mol, str]:
    """The molecule with its double and triple bonds, and a note; what contradictions finds must not be empty.

    Args:
        key: what of a sanitised molecule must be equal in two answers so that they count as one.

    Raises:
        LostBondOrdersError: no bonds agree with the shape, or several sets do.
    """
    broken = contradictions(mol)
    drawn = Chem.RWMol(mol)
    shape = Shape(mol)
    Chem.Kekulize(drawn, clearAromaticFlags=True)
    for pair in shape.triples():
        drawn.GetBondBetweenAtoms(*pair).SetBondType(Chem.BondType.TRIPLE)
    _open_rings(drawn, broken)
    bonds, alone = _costs(drawn, set(broken))
    rank = canonical_rank(mol)
    try:
        answer = place_double_bonds(bonds, alone, rank)
    except NoPlaceError as error:
        raise LostBondOrdersError(f"{refusal(mol, broken)}; no double bonds agree with it") from error
    answers = [(_sum(bonds, alone, each), each) for each in (answer, *_others(bonds, alone, rank, answer))]
    found = [(cost, typed) for cost, each in answers if (typed := _typed(drawn, each, key))]
    found = [(cost, typed) for cost, typed in found if cost < min(answers)[0] + WORSE]
    # An answer that is less aromatic than another is none.
    found = [(cost, typed) for cost, typed in found if typed.num_aromatic == max(t.num_aromatic for _, t in found)]
    found = [typed for cost, typed in found if cost < min(cost for cost, _ in found) + MARGIN]
    aromatic = {number for ring in mol.GetRingInfo().AtomRings() if shape.lost_in_ring(ring) for number in ring}
    if len({typed.key for typed in found}) != 1 or not _agrees(found[0].mol, set(broken), aromatic):
        raise LostBondOrdersError(f"{refusal(mol, broken)}; there is not one set of double bonds that agrees with it")
    pairs = zip(_kekule(mol).GetBonds(), _kekule(found[0].mol).GetBonds(), strict=True)
    changed = sum(before.GetBondType() != after.GetBondType() for before, after in pairs)
    return found[0].mol, f"the orders of {changed} bonds restored, which the shape contradicts in the drawing"


def _agrees(mol: Chem.Mol, broken: set[int], aromatic: set[int]) -> bool:
    """Whether these rings are aromatic, and the shape does not contradict what is drawn now."""
    if contradictions(mol) or Shape(mol).is_still_wrong(broken):
        return False
    return all(mol.GetAtomWithIdx(number).GetIsAromatic() for number in aromatic)


def refusal(mol: Chem.Mol, broken: list[int]) -> str:
    names = ", ".join(f"{mol.GetAtomWithIdx(number).GetSymbol()}{number + 1}" for number in broken[:5])
    return (
        f"bond orders are lost: the single bonds drawn at heavy atom {names}{' and others' * (len(broken) > 5)} "
        "contradict its shape or neighbours; expected the double bonds in the file"
    )


def _open_rings(mol: Chem.RWMol, broken: list[int]) -> None:
    """Make the double bonds single in ring systems with a broken atom, and those from them to N and C; remember them.

    Where one double bond of an aromatic ring is lost, the others may stand where they cannot in the whole ring.
    """
    members: set[int] = set(broken)
    rings = [set(ring) for ring in mol.GetRingInfo().AtomRings()]
    while grown := [ring for ring in rings if ring & members and not ring <= members]:
        # Rings that share one atom with a broken one outside of a ring are not fused to it.
        members |= set().union(*grown)
    members &= set().union(*rings) if rings else set()
    for bond in mol.GetBonds():
        ends = bond.GetBeginAtom(), bond.GetEndAtom()
        of_ring = any(atom.GetIdx() in members for atom in ends)
        known = tuple(sorted(atom.GetAtomicNum() for atom in ends)) in LENGTHS
        if of_ring and known and bond.GetBondType() == Chem.BondType.DOUBLE and all(map(_can_open, ends)):
            bond.SetBondType(Chem.BondType.SINGLE)
            bond.SetBoolProp(_DRAWN_DOUBLE, True)
            for atom in ends:
                atom.SetNumExplicitHs(0)
                atom.SetNoImplicit(False)


def _can_open(atom: Chem.Atom) -> bool:
    """Whether a double bond of a ring to it may be wrong; C=O is not."""
    inner = atom.GetAtomicNum() in (6, 16) and atom.GetDegree() > 1
    return not atom.GetFormalCharge() and (inner or atom.GetAtomicNum() == 7)


def _costs(mol: Chem.Mol, broken: set[int]) -> tuple[dict[Pair, float], dict[int, float]]:
    """By how many Å² a double bond fits worse than a single one, for bonds that can be either; and the atoms."""
    shape = Shape(mol)
    opened = [bond for bond in mol.GetBonds() if bond.HasProp(_DRAWN_DOUBLE)]
    ends = [end for bond in opened for end in (bond.GetBeginAtom(), bond.GetEndAtom())]
    needing = broken | {end.GetIdx() for end in ends if end.GetAtomicNum() == 6}
    alone = {a.GetIdx(): math.inf if a.GetIdx() in needing else _alone(a) for a in mol.GetAtoms() if is_open(a)}
    bonds = {}
    for bond in mol.GetBonds():
        i, j = sorted((bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()))
        if i in alone and j in alone and _can_be_double(shape, bond, needing):
            single, double = LENGTHS[shape.elements(i, j)]
            fit = (shape.length(i, j) - double) ** 2 - (shape.length(i, j) - single) ** 2
            bonds[i, j] = fit + _unlikely(bond, shape.elements(i, j))
    return bonds, alone


def _can_be_double(shape: Shape, bond: Chem.Bond, needing: set[int]) -> bool:
    if bond.HasProp(_DRAWN_DOUBLE):
        return True
    i, j = bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()
    if {i, j} & needing:
        return shape.stretch(i, j) < SLACK and shape.can_be_double(i, j)
    # Nothing but its length says that a primary alcohol is an aldehyde.
    is_alcohol = 8 in shape.elements(i, j)
    return not is_alcohol and shape.stretch(i, j) < _CLEAR - shape.half(i, j) and shape.can_be_double(i, j)


def _unlikely(bond: Chem.Bond, elements: tuple[int, ...]) -> float:
    """Å² that a double bond counts less because of its neighbours, or more (below 0) because it was drawn."""
    ends = (bond.GetBeginAtom(), bond.GetEndAtom())
    if elements == (6, 7) and any(end.GetAtomicNum() == 6 and _has_terminal_oxygen(end) for end in ends):
        return IMIDIC
    if elements == (6, 7) and any(end.IsInRing() for end in ends) and not bond.IsInRing():
        return IMINE
    return -KEPT if bond.HasProp(_DRAWN_DOUBLE) else 0.0


def _alone(atom: Chem.Atom) -> float:
    """Å² that an open atom costs without a double bond: the hydrogen of an azaindole is on the small ring."""
    in_six = atom.GetAtomicNum() == 7 and atom.IsInRingSize(6) and not atom.IsInRingSize(5)
    return IMINE if in_six and not any(map(_has_terminal_oxygen, atom.GetNeighbors())) else 0.0


def _has_terminal_oxygen(atom: Chem.Atom) -> bool:
    return any(other.GetAtomicNum() == 8 and other.GetDegree() == 1 for other in atom.GetNeighbors())


def _sum(bonds: dict[Pair, float], alone: dict[int, float], answer: list[Pair]) -> float:
    doubled = {number for pair in answer for number in pair}
    return sum(bonds[pair] for pair in answer) + sum(cost for number, cost in alone.items() if number not in doubled)


def _others(
    bonds: dict[Pair, float], alone: dict[int, float], rank: dict[int, int], answer: list[Pair]
) -> Iterator[list[Pair]]:
    """For each double bond of an answer the best answer without it."""
    for pair in answer:
        try:
            yield place_double_bonds({each: cost for each, cost in bonds.items() if each != pair}, alone, rank)
        except NoPlaceError:
            continue


def _typed(drawn: Chem.Mol, answer: list[Pair], key: Callable[[Chem.Mol], bytes]) -> _Typed | None:
    """None where RDKit finds the answer impossible, or it is the enol of nothing, as of a sugar that lies flat."""
    mol = Chem.RWMol(drawn)
    for i, j in answer:
        mol.GetBondBetweenAtoms(i, j).SetBondType(Chem.BondType.DOUBLE)
    try:
        Chem.SanitizeMol(mol)
    except ValueError:
        return None
    if set(mol.GetSubstructMatches(_ENOL)) - set(drawn.GetSubstructMatches(_ENOL)):
        return None
    return _Typed(mol.GetMol(), key(mol), sum(atom.GetIsAromatic() for atom in mol.GetAtoms()))


def _kekule(mol: Chem.Mol) -> Chem.Mol:
    mol = Chem.RWMol(mol)
    Chem.Kekulize(mol, clearAromaticFlags=True)
    return mol
