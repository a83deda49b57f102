"""Aromatic bonds of a file (SDF type 4, MOL2 `ar`) -> single and double ones, charges and missing hydrogens.

Such bonds say nothing of where hydrogens and charges are. An aromatic nitrogen with three neighbours is neutral in
pyridone and charged in pyridinium; one with two has a hydrogen in pyrrole and none in pyridine. The hydrogens of the
file decide; where they do not, a neutral form goes before a hydrogen that the file lacks, and that before a charge.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from rdkit import Chem

from src.chemistry.double_bonds import Pair, connected_groups, place_double_bonds

# Costs, in no unit: only their order and a few sums matter.
_CHARGE = 100.0  # of an atom whose double bond in the ring makes it a cation
_PROTON = 0.6  # of the cost of a charge, where it goes with the hydrogen
_HYDROGEN = 10.0  # of a nitrogen that gets a hydrogen which the file does not have
_HYDROGEN_OF_AZOLE = 6.0  # so the hydrogen of a purine is on its small ring
_BESIDE_CARBONYL = -5.0  # so a lactam has it beside its oxygen
_BESIDE_AMINE = 1.0  # so cytosine has it at N1
# Tried where a ring is not aromatic with the first: pyrazinium has a charge, phthalhydrazide two hydrogens.
_OTHER_PREFERENCES = ({"hydrogen": -12.0}, {"charge": 5.0})
_AGAINST_FILE = 30.0  # of a hydrogen or charge of the file which the double bonds do not respect

OPEN_OXIDE = "_open_oxide"  # property of S and P whose bonds to terminal atoms were aromatic ones

_CHALCOGENS = frozenset((8, 16, 34, 52))
_TETRAVALENT = frozenset((6, 14, 32))
_PNICTOGENS = frozenset((7, 15, 33))
_AROMATIC = Chem.BondType.AROMATIC


def has_aromatic_bonds(mol: Chem.Mol) -> bool:
    return any(bond.GetBondType() == _AROMATIC for bond in mol.GetBonds())


def resolve_aromatic_bonds(mol: Chem.RWMol) -> tuple[Chem.RWMol, int]:
    """The same molecule without aromatic bonds, and the number of nitrogens that get a hydrogen for it.

    Args:
        mol: not sanitised, hydrogens of the file included.

    Raises:
        NoPlaceError: the bonds have no Kekulé structure.
    """
    mol = Chem.RWMol(mol)
    _separate_oxides(mol)
    rank = canonical_rank(mol)
    costs = _Costs(mol)
    groups = _open_groups(mol)
    answers = [costs.solve(group, rank) for group in groups]
    fewest = _num_not_aromatic(_written(mol, groups, answers), groups)
    for preference in _OTHER_PREFERENCES if any(fewest) else ():
        others = [
            costs.solve(group, rank, **preference) if number else answer
            for group, number, answer in zip(groups, fewest, answers, strict=True)
        ]
        numbers = _num_not_aromatic(_written(mol, groups, others), groups)
        for place, number in enumerate(numbers):
            if number < fewest[place]:
                fewest[place], answers[place] = number, others[place]
    return _written(mol, groups, answers), sum(len(answer.lacking) for answer in answers)


@dataclass(frozen=True)
class _Answer:
    """Where the double bonds of a group of aromatic bonds are, and which of its nitrogens get a hydrogen."""

    doubles: frozenset[Pair]
    lacking: frozenset[int]


def _open_groups(mol: Chem.Mol) -> list[list[Pair]]:
    """The aromatic bonds, those that hang together in one list."""
    neighbours: dict[int, list[int]] = {}
    for bond in mol.GetBonds():
        if bond.GetBondType() == _AROMATIC:
            neighbours.setdefault(bond.GetBeginAtomIdx(), []).append(bond.GetEndAtomIdx())
            neighbours.setdefault(bond.GetEndAtomIdx(), []).append(bond.GetBeginAtomIdx())
    return [
        sorted({(min(i, j), max(i, j)) for i in group for j in neighbours[i]}) for group in connected_groups(neighbours)
    ]


def _written(mol: Chem.Mol, groups: list[list[Pair]], answers: list[_Answer]) -> Chem.RWMol:
    mol = Chem.RWMol(mol)
    for group, answer in zip(groups, answers, strict=True):
        for pair in group:
            order = Chem.BondType.DOUBLE if pair in answer.doubles else Chem.BondType.SINGLE
            mol.GetBondBetweenAtoms(*pair).SetBondType(order)
        for number in answer.lacking:
            mol.GetAtomWithIdx(number).SetNumExplicitHs(1)
    for each in (*mol.GetBonds(), *mol.GetAtoms()):
        each.SetIsAromatic(False)
    return mol


def _num_not_aromatic(resolved: Chem.Mol, groups: list[list[Pair]]) -> list[int]:
    """How many ring atoms of each group are aromatic no longer; a file that calls them so knows."""
    mol = Chem.RWMol(resolved)
    for atom in mol.GetAtoms():
        bonds = sum(bond.GetBondTypeAsDouble() for bond in atom.GetBonds())
        if atom.GetAtomicNum() == 7 and bonds == 4:
            atom.SetFormalCharge(1)
    mol.UpdatePropertyCache(strict=False)
    Chem.SanitizeMol(mol, Chem.SanitizeFlags.SANITIZE_SYMMRINGS | Chem.SanitizeFlags.SANITIZE_SETAROMATICITY)
    lost = {atom.GetIdx() for atom in mol.GetAtoms() if atom.IsInRing() and not atom.GetIsAromatic()}
    return [len(lost & {number for pair in group for number in pair}) for group in groups]


def canonical_rank(mol: Chem.Mol) -> dict[int, int]:
    """Place of each heavy atom, whatever the order, bond orders, charges and hydrogens of the file."""
    heavy = [atom.GetIdx() for atom in mol.GetAtoms() if atom.GetAtomicNum() != 1]
    place = {number: new for new, number in enumerate(heavy)}
    skeleton = Chem.RWMol()
    for number in heavy:
        skeleton.AddAtom(Chem.Atom(mol.GetAtomWithIdx(number).GetAtomicNum()))
    for bond in mol.GetBonds():
        ends = [place.get(bond.GetBeginAtomIdx()), place.get(bond.GetEndAtomIdx())]
        if None not in ends:
            skeleton.AddBond(*ends, Chem.BondType.SINGLE)
    skeleton.UpdatePropertyCache(strict=False)
    Chem.FastFindRings(skeleton)
    return dict(zip(heavy, Chem.CanonicalRankAtoms(skeleton), strict=True))


def num_hydrogens(atom: Chem.Atom) -> int:
    """Those that the file has."""
    return atom.GetNumExplicitHs() + sum(other.GetAtomicNum() == 1 for other in atom.GetNeighbors())


def num_heavy(atom: Chem.Atom) -> int:
    return sum(other.GetAtomicNum() != 1 for other in atom.GetNeighbors())


def _separate_oxides(mol: Chem.RWMol) -> None:
    """Aromatic or double bonds from aromatic N, and aromatic ones from S and P, to a terminal atom are single.

    Charges of N-oxides are set here; which of the others are double is found later (src/chemistry/resonance.py).
    """
    for atom in mol.GetAtoms():
        element = atom.GetAtomicNum()
        bonds = [bond for bond in atom.GetBonds() if num_heavy(bond.GetOtherAtom(atom)) == 1]
        if element in (15, 16, 33, 34) and num_heavy(atom) > 2:
            for bond in bonds:
                if bond.GetBondType() == _AROMATIC:
                    bond.SetBondType(Chem.BondType.SINGLE)
                    atom.SetBoolProp(OPEN_OXIDE, True)
        elif element == 7 and num_heavy(atom) == 3:
            oxides = [bond for bond in bonds if bond.GetOtherAtom(atom).GetAtomicNum() in _CHALCOGENS]
            ring = [bond for bond in atom.GetBonds() if bond not in oxides and bond.GetBondType() == _AROMATIC]
            open_oxides = [b for b in oxides if b.GetBondType() in (_AROMATIC, Chem.BondType.DOUBLE)]
            if len(oxides) == 1 and ring and open_oxides:
                _charge_oxide(atom, oxides[0])
            elif len(oxides) > 1 and any(bond.GetBondType() == _AROMATIC for bond in oxides):
                for bond in oxides:
                    _charge_oxide(atom, bond)
                oxides[0].SetBondType(Chem.BondType.DOUBLE)
                oxides[0].GetOtherAtom(atom).SetFormalCharge(0)


def _charge_oxide(nitrogen: Chem.Atom, bond: Chem.Bond) -> None:
    bond.SetBondType(Chem.BondType.SINGLE)
    nitrogen.SetFormalCharge(1)
    bond.GetOtherAtom(nitrogen).SetFormalCharge(-1)


class _Costs:
    """What it costs an atom to have a double bond among the aromatic ones, and to have none."""

    def __init__(self, mol: Chem.Mol):
        self.mol = mol
        self.charge, self.hydrogen = _CHARGE, 0.0
        self.has_hydrogens = any(atom.GetAtomicNum() == 1 for atom in mol.GetAtoms())
        self.small = {number for ring in Chem.GetSymmSSSR(mol) if len(ring) == 5 for number in ring}

    def solve(
        self, group: list[Pair], rank: dict[int, int], *, charge: float = _CHARGE, hydrogen: float = 0.0
    ) -> _Answer:
        """The cheapest double bonds of a group, with another cost of a charge and more for a hydrogen."""
        self.charge, self.hydrogen = charge, hydrogen
        atoms = {number: self.mol.GetAtomWithIdx(number) for pair in group for number in pair}
        matched = {number: self.matched(atom) for number, atom in atoms.items()}
        alone = {number: self.alone(atom) for number, atom in atoms.items()}
        bonds = {(i, j): matched[i] + matched[j] for i, j in group if math.isfinite(matched[i] + matched[j])}
        doubles = place_double_bonds(bonds, alone, rank)
        doubled = {number for pair in doubles for number in pair}
        lacking = {number for number, atom in atoms.items() if self.lacks_hydrogen(atom)} - doubled
        return _Answer(frozenset(doubles), frozenset(lacking))

    def matched(self, atom: Chem.Atom) -> float:
        element, charge = atom.GetAtomicNum(), atom.GetFormalCharge()
        if self._has_multiple_bond(atom) or charge < 0:
            return math.inf
        if element in _TETRAVALENT:
            return math.inf if atom.GetDegree() + atom.GetNumExplicitHs() > 3 else 0.0
        if not atom.IsInRing():
            # Of a carboxylate or an amidine; a hydrogen that is one too many there goes with its charge.
            too_many = num_hydrogens(atom) > 2 - num_heavy(atom) if element == 7 else num_hydrogens(atom) > 0
            return _AGAINST_FILE / 3 * too_many + self._charge(atom) - _is_of_cyanamide(atom)
        if element in _PNICTOGENS:
            if num_heavy(atom) == 2 and not num_hydrogens(atom):
                return 0.0
            return self._charge(atom)
        if element in _CHALCOGENS and num_heavy(atom) <= 2:
            return 2 * self._charge(atom)
        return 2 * self.charge if element == 5 else math.inf

    def alone(self, atom: Chem.Atom) -> float:
        element, charge = atom.GetAtomicNum(), atom.GetFormalCharge()
        if self._has_multiple_bond(atom):
            return 0.0
        if element in _TETRAVALENT:
            needs = atom.GetDegree() + atom.GetNumExplicitHs() <= 3 and charge == 0
            return math.inf if needs else 0.0
        if self.lacks_hydrogen(atom):
            return self._hydrogen(atom)
        if element == 7 and self.has_hydrogens and not atom.IsInRing():
            # Of an amidine; in a file with hydrogens the nitrogen without has the double bond.
            return _HYDROGEN / 2 if num_heavy(atom) + num_hydrogens(atom) < 3 else 0.0
        return _AGAINST_FILE if charge > 0 else self._lost_oxide(atom)

    def lacks_hydrogen(self, atom: Chem.Atom) -> bool:
        """Whether a nitrogen or phosphorus of a ring without a double bond needs a hydrogen that the file lacks."""
        of_ring = atom.GetAtomicNum() in _PNICTOGENS and atom.IsInRing() and atom.GetFormalCharge() == 0
        return of_ring and num_heavy(atom) == 2 and not num_hydrogens(atom) and not self._has_multiple_bond(atom)

    def _charge(self, atom: Chem.Atom) -> float:
        if atom.GetFormalCharge() > 0:
            return 0.0
        if atom.GetAtomicNum() in _PNICTOGENS:
            if num_heavy(atom) > 2:
                return _HYDROGEN / 2 if self._lost_oxide(atom) else self.charge
            # A charge that goes with a hydrogen is no charge of the neutral form.
            return _PROTON * self.charge if atom.IsInRing() and num_hydrogens(atom) else 0.0
        return self.charge if num_heavy(atom) > 1 else 0.0

    def _lost_oxide(self, atom: Chem.Atom) -> float:
        """Of a nitrogen beside a terminal oxygen without hydrogen: an N-oxide goes before an N-hydroxide."""
        if atom.GetAtomicNum() != 7 or num_heavy(atom) != 3:
            return 0.0
        bare = [o for o in atom.GetNeighbors() if o.GetAtomicNum() == 8 and o.GetDegree() == 1]
        return _HYDROGEN if any(not num_hydrogens(other) for other in bare) else 0.0

    def _hydrogen(self, atom: Chem.Atom) -> float:
        cost = _HYDROGEN_OF_AZOLE if atom.GetIdx() in self.small else _HYDROGEN
        beside = [other for other in atom.GetNeighbors() if other.GetAtomicNum() == 6]
        cost += _BESIDE_CARBONYL * any(self._has_multiple_bond(other) for other in beside)
        return cost + self.hydrogen + _BESIDE_AMINE * any(_has_amine(other) for other in beside)

    def _has_multiple_bond(self, atom: Chem.Atom) -> bool:
        return any(bond.GetBondType() in (Chem.BondType.DOUBLE, Chem.BondType.TRIPLE) for bond in atom.GetBonds())


def _is_of_cyanamide(atom: Chem.Atom) -> bool:
    """Whether it is the nitrogen beside a cyano group, which has the double bond of a cyanoguanidine."""
    bonds = (bond for other in atom.GetNeighbors() if atom.GetAtomicNum() == 7 for bond in other.GetBonds())
    return any(bond.GetBondType() == Chem.BondType.TRIPLE for bond in bonds)


def _has_amine(carbon: Chem.Atom) -> bool:
    singles = [bond for bond in carbon.GetBonds() if bond.GetBondType() == Chem.BondType.SINGLE]
    return any(bond.GetOtherAtom(carbon).GetAtomicNum() == 7 for bond in singles)
