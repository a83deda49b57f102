"""Drawings of one molecule -> one drawing: charges by the bonds of an atom, and charges that another drawing lacks.

S, P and their heavier kin have double bonds (S=O, P=O, S=N, P=C), nitrogen has charges (nitro groups, N-oxides, azides,
diazo groups), and a positive and a negative charge that a chain of double bonds can carry together are gone.
"""

from __future__ import annotations

from collections.abc import Iterator

from rdkit import Chem

from src.chemistry.aromatic_bonds import OPEN_OXIDE, num_heavy, num_hydrogens
from src.chemistry.residues import METALS

_SINGLE, _DOUBLE, _TRIPLE = Chem.BondType.SINGLE, Chem.BondType.DOUBLE, Chem.BondType.TRIPLE
_NEXT = {_SINGLE: _DOUBLE, _DOUBLE: _TRIPLE}
_LOWER = {_DOUBLE: _SINGLE, _TRIPLE: _DOUBLE}
_SULFUR, _PHOSPHORUS = (16, 34, 52), (15, 33, 51)
# Of double bonds by the number of heavy neighbours; less is a drawing that has lost some.
_WANTED = {(e, 3): 1 for e in _SULFUR} | {(e, 4): 2 for e in _SULFUR} | {(e, 4): 1 for e in _PHOSPHORUS}
_WANTED[6, 3] = 1  # of a carboxylate with two
_VALENCES = {6: (4,), **dict.fromkeys(_SULFUR, (2, 4, 6)), **dict.fromkeys(_PHOSPHORUS, (3, 5))}
# (element, sum of bond orders) of atoms that have no neutral form.
_CHARGED = {(5, 4): -1, (8, 3): 1, **{(e, 3): 1 for e in _SULFUR}, **{(e, 4): 1 for e in _PHOSPHORUS}}
_COMPLETED = "_completed"  # property of S, P and N that got a double bond
_FIRST = {8: 0, 16: 1, 34: 2, 52: 2, 7: 3, 6: 4}  # which neighbour takes a double bond or a charge


def settle_charges(mol: Chem.RWMol, *, states_charges: bool) -> list[str]:
    """Bring an unsanitised molecule to the one drawing, hydrogens of the file included; notes on repairs.

    Charging atoms is no repair where the file could not have stated charges, as a MOL2 cannot.
    """
    for atom in mol.GetAtoms():
        if atom.GetAtomicNum() == 7 and atom.GetFormalCharge() == 0 and _valence(atom) == 5:
            _separate(atom)
    while pair := _opposite_neighbours(mol):
        _join(*pair)
    given = sum(_complete(atom) for atom in mol.GetAtoms())
    _remove_hydrogens(mol, [atom for atom in mol.GetAtoms() if atom.HasProp(_COMPLETED)])
    notes = [f"{given} double bonds of S, P, N or C set as their groups have them"] if given else []
    nitrogens, others = _charge_by_bonds(mol)
    if states_charges and nitrogens:
        notes.append(f"{nitrogens} four-valent nitrogens charged +1")
    if states_charges and others:
        notes.append(f"{others} atoms charged that have no neutral form with their bonds")
    for atom in mol.GetAtoms():
        if atom.GetAtomicNum() == 7 and atom.GetFormalCharge() == 1:
            _settle_terminal(atom)
    while path := next(_conjugated_charges(mol), None):
        _shift(mol, path)
        for end in (path[0], path[-1]):
            mol.GetAtomWithIdx(end).SetFormalCharge(0)
    for path in _charges_beside_hydrogens(mol):
        _shift(mol, path)
        mol.GetAtomWithIdx(path[0]).SetFormalCharge(0)
        mol.GetAtomWithIdx(path[-1]).SetFormalCharge(1)
    return notes


def charge_oxides(mol: Chem.Mol) -> None:
    """Give the oxygen of every N-oxide, in a molecule without hydrogens, the charge that its conjugate acid lacks."""
    for atom in mol.GetAtoms():
        if atom.GetAtomicNum() == 7 and atom.GetFormalCharge() == 1 and not atom.GetTotalNumHs():
            terminal = [bond.GetOtherAtom(atom) for bond in atom.GetBonds() if bond.GetBondType() == _SINGLE]
            terminal = [other for other in terminal if other.GetAtomicNum() == 8 and other.GetDegree() == 1]
            if terminal and not any(other.GetFormalCharge() < 0 for other in atom.GetNeighbors()):
                terminal[0].SetFormalCharge(-1)
                terminal[0].SetNumExplicitHs(0)


def _valence(atom: Chem.Atom) -> float:
    """Sum of bond orders, hydrogens of the file included; 0 where aromatic bonds are left, which say nothing."""
    if any(bond.GetBondType() == Chem.BondType.AROMATIC for bond in atom.GetBonds()):
        return 0
    return sum(bond.GetBondTypeAsDouble() for bond in atom.GetBonds()) + atom.GetNumExplicitHs()


def _in_order(bonds: list[Chem.Bond], atom: Chem.Atom) -> list[Chem.Bond]:
    """Terminal neighbours first, then by element."""

    def key(bond: Chem.Bond) -> tuple[bool, int]:
        other = bond.GetOtherAtom(atom)
        return num_heavy(other) > 1, _FIRST.get(other.GetAtomicNum(), len(_FIRST))

    return sorted(bonds, key=key)


def _separate(nitrogen: Chem.Atom) -> None:
    """Five-valent nitrogen, such as N(=O)=O, N=N#N and C=N(C)=O, with charges."""
    multiple = [bond for bond in nitrogen.GetBonds() if bond.GetBondType() in _LOWER]
    takers = [b for b in multiple if b.GetBondType() == _TRIPLE and num_heavy(b.GetOtherAtom(nitrogen)) == 1]
    takers += [bond for bond in _in_order(multiple, nitrogen) if bond.GetBondType() == _DOUBLE]
    if takers:
        takers[0].SetBondType(_LOWER[takers[0].GetBondType()])
        takers[0].GetOtherAtom(nitrogen).SetFormalCharge(-1)
        nitrogen.SetFormalCharge(1)


def _opposite_neighbours(mol: Chem.Mol) -> tuple[Chem.Atom, Chem.Bond] | None:
    """S+, P+ or C+ and the bond to its negative neighbour."""
    for atom in mol.GetAtoms():
        if atom.GetFormalCharge() > 0 and atom.GetAtomicNum() in (6, *_SULFUR, *_PHOSPHORUS):
            bonds = [bond for bond in atom.GetBonds() if bond.GetBondType() in _NEXT]
            bonds = [bond for bond in bonds if bond.GetOtherAtom(atom).GetFormalCharge() < 0]
            if bonds:
                return atom, _in_order(bonds, atom)[0]
    return None


def _join(atom: Chem.Atom, bond: Chem.Bond) -> None:
    other = bond.GetOtherAtom(atom)
    bond.SetBondType(_NEXT[bond.GetBondType()])
    atom.SetFormalCharge(atom.GetFormalCharge() - 1)
    other.SetFormalCharge(other.GetFormalCharge() + 1)


def _complete(atom: Chem.Atom) -> int:
    """Give the groups of _WANTED their double bonds to terminal atoms, and take away what is too many; how many.

    Those that were aromatic bonds in the file do not count, since no drawing has lost them.
    """
    wanted = _WANTED.get((atom.GetAtomicNum(), num_heavy(atom)), 0)
    ends = [bond for bond in atom.GetBonds() if _is_end(bond.GetOtherAtom(atom))]
    if atom.GetAtomicNum() == 7 and num_heavy(atom) == 3 and len(ends) > 1 and _valence(atom) == 3:
        wanted = 1
    if atom.GetFormalCharge() or not wanted:
        return 0
    lacking = wanted - sum(int(bond.GetBondTypeAsDouble()) - 1 for bond in atom.GetBonds())
    if lacking < 0 and _valence(atom) in _VALENCES.get(atom.GetAtomicNum(), (4,)):
        return 0  # such as SO3 and N=S(=O)=O
    if lacking > 0 and atom.GetAtomicNum() == 6:
        return 0  # whether a carbon lacks a double bond is a question to its shape
    if lacking < 0:
        bonds = [bond for bond in ends if bond.GetBondType() == _DOUBLE]
        # Beside one C=O it is not known which of the two double bonds is wrong.
        bonds = bonds[lacking:] if len(bonds) > -lacking else []
    else:
        # Those without a hydrogen first; with all hydrogens a phosphate without its double bond is one protonated.
        bonds = [bond for bond in ends if bond.GetBondType() == _SINGLE]
        bonds.sort(
            key=lambda bond: (num_hydrogens(bond.GetOtherAtom(atom)), _FIRST[bond.GetOtherAtom(atom).GetAtomicNum()])
        )
        bonds = bonds[: max(lacking, 0)]
    for bond in bonds:
        end = bond.GetOtherAtom(atom)
        bond.SetBondType(_DOUBLE if lacking > 0 else _SINGLE)
        end.SetFormalCharge(num_hydrogens(end) if lacking > 0 else 0)
    if bonds and lacking > 0:
        atom.SetBoolProp(_COMPLETED, True)
    return 0 if atom.HasProp(OPEN_OXIDE) else len(bonds)


def _remove_hydrogens(mol: Chem.RWMol, atoms: list[Chem.Atom]) -> None:
    """Those that a program gave to P and S where it missed the double bonds."""
    with mol:
        for atom in atoms:
            for other in atom.GetNeighbors():
                if other.GetAtomicNum() == 1 and _valence(atom) not in _VALENCES.get(atom.GetAtomicNum(), (4,)):
                    mol.RemoveAtom(other.GetIdx())


def _is_end(atom: Chem.Atom) -> bool:
    """Terminal O or S."""
    return atom.GetAtomicNum() in (8, *_SULFUR) and num_heavy(atom) == 1


def _charge_by_bonds(mol: Chem.Mol) -> tuple[int, int]:
    """Charge the atoms that have no neutral form with their bonds; how many nitrogens, and how many others.

    Four-valent nitrogen without its charge is the commonest fault of SDF files with explicit hydrogens.
    """
    nitrogens = others = 0
    for atom in mol.GetAtoms():
        if atom.GetFormalCharge():
            continue
        element, valence = atom.GetAtomicNum(), _valence(atom)
        of_metal = any(other.GetAtomicNum() in METALS for other in atom.GetNeighbors())
        if element == 7 and valence == 4:
            atom.SetFormalCharge(1)
            nitrogens += 1
        elif (element, valence) in _CHARGED and not of_metal and (element in (5, 8) or num_heavy(atom) == valence):
            # The last, since a sulfoxide or phosphate that is drawn with a hydrogen too few is no cation.
            atom.SetFormalCharge(_CHARGED[element, valence])
            others += 1
    return nitrogens, others


def _settle_terminal(nitrogen: Chem.Atom) -> None:
    """Azide, diazo and isocyanide groups: X=N+=N- and C-#N+, from X--N+#N, X-N+#N and C#N+."""
    for bond in nitrogen.GetBonds():
        end = bond.GetOtherAtom(nitrogen)
        if num_heavy(end) != 1 or num_hydrogens(end) or end.GetFormalCharge() > 0:
            continue
        if (end.GetAtomicNum(), bond.GetBondType()) in ((7, _DOUBLE), (6, _TRIPLE)):
            end.SetFormalCharge(-1)
        elif end.GetAtomicNum() == 7 and bond.GetBondType() == _TRIPLE:
            for other_bond in nitrogen.GetBonds():
                other = other_bond.GetOtherAtom(nitrogen)
                is_azide = other.GetAtomicNum() == 7 and _valence(other) == 2
                if other_bond.GetBondType() == _SINGLE and (other.GetFormalCharge() < 0 or is_azide):
                    other_bond.SetBondType(_DOUBLE)
                    other.SetFormalCharge(0)
                    bond.SetBondType(_DOUBLE)
                    end.SetFormalCharge(-1)


def _conjugated_charges(mol: Chem.Mol) -> Iterator[list[int]]:
    """Chains X(-)-A=B-...=Y(+), from the anion on: the charges are one drawing, X=A-B=...-Y the other."""
    cations = {atom.GetIdx() for atom in mol.GetAtoms() if _is_free(atom, 1)}
    if not cations:
        return
    for anion in mol.GetAtoms():
        if anion.GetAtomicNum() not in (7, 8, 16) or not _is_free(anion, -1):
            continue
        paths = [[anion.GetIdx()]]
        seen = {anion.GetIdx()}
        for path in paths:
            order = (_SINGLE, _DOUBLE)[(len(path) + 1) % 2]
            for bond in mol.GetAtomWithIdx(path[-1]).GetBonds():
                other = bond.GetOtherAtomIdx(path[-1])
                if bond.GetBondType() != order or other in seen:
                    continue
                if other in cations and order == _DOUBLE:
                    yield [*path, other]
                    return
                if mol.GetAtomWithIdx(other).GetFormalCharge() == 0:
                    seen.add(other)
                    paths.append([*path, other])


def _is_free(atom: Chem.Atom, charge: int) -> bool:
    """Whether it has this charge and no neighbour of the opposite one, such as in a nitro group."""
    if atom.GetFormalCharge() != charge:
        return False
    return not any(other.GetFormalCharge() * charge < 0 for other in atom.GetNeighbors())


def _charges_beside_hydrogens(mol: Chem.Mol) -> Iterator[list[int]]:
    """Chains from N+ without hydrogen to an NH of the same azole or amidine: the charge goes with the hydrogen."""
    rings = [set(ring) for ring in Chem.GetSymmSSSR(mol) if len(ring) == 5]
    for cation in mol.GetAtoms():
        if cation.GetAtomicNum() != 7 or not _is_free(cation, 1) or num_heavy(cation) != 3 or num_hydrogens(cation):
            continue
        doubles = [bond.GetOtherAtom(cation) for bond in cation.GetBonds() if bond.GetBondType() == _DOUBLE]
        ways = [[cation.GetIdx(), *(atom.GetIdx() for atom in doubles)]] if len(doubles) == 1 else []
        own = [ring for ring in rings if cation.GetIdx() in ring]
        for way in ways:
            order = (_DOUBLE, _SINGLE)[(len(way) + 1) % 2]
            for bond in mol.GetAtomWithIdx(way[-1]).GetBonds():
                other = bond.GetOtherAtom(mol.GetAtomWithIdx(way[-1]))
                if bond.GetBondType() != order or other.GetIdx() in way or other.GetFormalCharge():
                    continue
                in_azole = any({*way, other.GetIdx()} <= ring for ring in own)
                of_amidine = len(way) == 2 and not other.IsInRing()
                bears_hydrogen = other.GetAtomicNum() == 7 and _valence(other) - num_hydrogens(other) < 3
                if order == _SINGLE and bears_hydrogen and (in_azole or of_amidine):
                    yield [*way, other.GetIdx()]
                    ways.clear()
                    break
                if in_azole:
                    ways.append([*way, other.GetIdx()])


def _shift(mol: Chem.RWMol, path: list[int]) -> None:
    for place in range(len(path) - 1):
        bond = mol.GetBondBetweenAtoms(path[place], path[place + 1])
        bond.SetBondType(_SINGLE if bond.GetBondType() == _DOUBLE else _DOUBLE)
