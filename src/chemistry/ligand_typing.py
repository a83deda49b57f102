"""RDKit molecule of any protonation state -> its neutral heavy-atom form, typed as at pH 7.4.

Rules for charge, donor and acceptor look at heavy atoms and at the hydrogens of the neutral form only:
- Acids (carboxylic, phosphoric, phosphonic, sulfonic, sulfinic, sulfuric): every terminal oxygen -1,
  acceptor.
- Amines whose neighbours are all sp3 carbons: +1, donor. Both nitrogens of a piperazine, too: atoms are
  typed one by one.
- Amidines and guanidines (not acylated, not bonded to a heteroatom): terminal nitrogens +1, without any the
  NH ones; all are sp2 and none accepts.
- Nitro groups: no charges. Any other charge of the file stays if no hydrogen can explain it (quaternary N,
  N-oxide).
- Azoles with an NH and another ring nitrogen: the hydrogen may sit on each, so each gives and accepts.
- Donor: N or O with hydrogen. Acceptor: O outside aromatic rings; imine, nitrile and pyridine N, sp3 N that
  is no amine of the above and no sulfonamide; terminal S.
Bonds inside acid, nitro and amidine groups are OTHER, since a file draws the double bond at either atom.
"""

from __future__ import annotations

from enum import Enum
from itertools import chain

import numpy as np
from rdkit import Chem

from src.chemistry.aromatic_bonds import has_aromatic_bonds, num_hydrogens, resolve_aromatic_bonds
from src.chemistry.double_bonds import NoPlaceError
from src.chemistry.lost_bonds import LostBondOrdersError, contradictions, refusal, restore_bond_orders
from src.chemistry.resonance import charge_oxides, settle_charges
from src.chemistry.shape import HYDROGENS
from src.graph import FEATURE_COLUMN, MAX_CHARGE, NODE_FEATURES, BondType, Hybridisation, Side
from src.system.errors import UserError


class MissingHydrogenError(UserError):
    """Aromatic nitrogens without the hydrogen that their ring needs; another file of the molecule may have it."""


class Sanitisation(Enum):
    """How much is done so that a molecule can be sanitised, the least first; the value names what was read."""

    SOUND = ""
    COMPLETED = "hydrogens added to the "  # of aromatic nitrogens, which a file without hydrogens does not show
    RESTORED = "bond orders restored in the "  # by the shape of the molecule
    PARTIAL = "partial sanitisation of the "  # without the checks of valence and the assignment of double bonds


_SP = Chem.HybridizationType
_HYBRIDISATION = {
    **{_SP.SP: Hybridisation.SP, _SP.SP2: Hybridisation.SP2, _SP.SP3: Hybridisation.SP3},
    **dict.fromkeys((_SP.UNSPECIFIED, _SP.S), Hybridisation.UNKNOWN),
}
_BOND_TYPE = {getattr(Chem.BondType, name): BondType[name] for name in ("SINGLE", "DOUBLE", "TRIPLE", "AROMATIC")}
_PARTIAL_STEPS = (
    Chem.SanitizeFlags.SANITIZE_CLEANUP
    | Chem.SanitizeFlags.SANITIZE_SYMMRINGS
    | Chem.SanitizeFlags.SANITIZE_SETAROMATICITY
    | Chem.SanitizeFlags.SANITIZE_SETCONJUGATION
    | Chem.SanitizeFlags.SANITIZE_SETHYBRIDIZATION
)

_ACID = (
    Chem.MolFromSmarts("[OD1]~[#6;D2,D3;!$([#6](=O)=O)]~[OD1]"),
    Chem.MolFromSmarts("[O,S;D1]~[P,As]~[O,S;D1]"),
    Chem.MolFromSmarts("[OD1]~[#16;D3,D4;!$([#16](~[OD1])(~[OD1])([!$([OD1])])[!$([OD1])])]~[OD1]"),
)
_NITRO = Chem.MolFromSmarts("[OD1]~[#7;D3]~[OD1]")
_AMINE = Chem.MolFromSmarts("[N;D1,D2,D3;+0;!$(N~[!#6]);!$(N~[#6;!^3])]")
_AMIDINE_CARBON = Chem.MolFromSmarts(
    "[C;!$(C~[#7]~[!#6]);!$(C~[#7]-C=[O,S]);!$(C~[#7]-C#N);!$(C~[#7;a]);$(C(=[#7])-[#7])]"
)
_SULFONAMIDE = Chem.MolFromSmarts("[N;$(N-[S,P]=O)]")
# A charge that hydrogen explains: beside no opposite charge, on an atom that is bonded to something.
_PROTON_GAINED = Chem.MolFromSmarts("[+1!h0!D0!$([*]~[-1,-2,-3,-4])]")
# MOL2 without hydrogens gives an NH2 a charge of -2, by its free valences.
_PROTON_LOST = Chem.MolFromSmarts("[O,S,N,C,P,o,s,n,c;-1,-2,-3;!D0;!$([*]~[+1,+2,+3,+4])]")

_REMOVE_EVERY_H = Chem.RemoveHsParameters()
for _option in dir(_REMOVE_EVERY_H):
    if _option.startswith("remove"):
        setattr(_REMOVE_EVERY_H, _option, True)
_REMOVE_EVERY_H.showWarnings = False
_REMOVE_EVERY_H.updateExplicitCount = True


def heavy_form(
    mol: Chem.Mol, *, how: Sanitisation = Sanitisation.SOUND, states_charges: bool = True
) -> tuple[Chem.Mol, list[str]]:
    """The largest fragment without hydrogens, isotopes and radicals, neutral where hydrogen explains charge.

    Args:
        mol: as parsed, not sanitised.
        how: how much of the sanitisation is asked for.
        states_charges: whether the format of the file can say formal charges.

    Returns:
        The molecule, heavy atoms in file order with their coordinates, and notes on what was changed.

    Raises:
        ValueError: RDKit cannot sanitise the molecule (its exceptions are subclasses).
        LostBondOrdersError: its shape contradicts its bond orders.
    """
    mol, notes = settled(mol, how=how, states_charges=states_charges)
    sanitise = _sanitise_partly if how is Sanitisation.PARTIAL else Chem.SanitizeMol
    sanitise(mol)
    mol = Chem.RWMol(Chem.RemoveHs(mol, _REMOVE_EVERY_H, sanitize=False))
    for atom in mol.GetAtoms():
        atom.SetIsotope(0)
        if atom.GetAtomicNum() == 0:
            continue
        # A file without hydrogens means that they are implied. In an aromatic ring the place of a hydrogen
        # is a fact that cannot be found again, so it stays.
        atom.SetNoImplicit(False)
        atom.SetNumRadicalElectrons(0)
        if not atom.GetIsAromatic():
            atom.SetNumExplicitHs(0)
    notes += _keep_largest_fragment(mol)
    mol.UpdatePropertyCache(strict=False)
    _neutralise(mol)
    charge_oxides(mol)
    sanitise(mol)
    if broken := contradictions(mol):
        if how is not Sanitisation.RESTORED:
            raise LostBondOrdersError(refusal(mol, broken))
        mol, note = restore_bond_orders(mol, _typed)
        notes.append(note)
    if how is not Sanitisation.PARTIAL:
        Chem.AssignStereochemistryFrom3D(mol)
    return Chem.Mol(mol), notes


def settled(
    mol: Chem.Mol, *, how: Sanitisation = Sanitisation.SOUND, states_charges: bool = True
) -> tuple[Chem.RWMol, list[str]]:
    """The molecule as it is understood, hydrogens included: no aromatic bonds, charges as its bonds have them.

    The arguments are those of heavy_form; the molecule is not sanitised, and notes say what was changed.

    Raises:
        MissingHydrogenError, NoPlaceError: where the bonds are aromatic, and how allows neither to be overlooked.
    """
    mol = Chem.RWMol(mol)
    # Before sanitising, these are those that the file states, and not places of hydrogens that it leaves out.
    radicals = sum(atom.GetNumRadicalElectrons() > 0 for atom in mol.GetAtoms())
    notes = [f"{radicals} radical atoms given hydrogens"] if radicals else []
    _remember_hydrogens(mol)
    if has_aromatic_bonds(mol):
        mol, lacking = _without_aromatic_bonds(mol, how)
        if lacking:
            notes.append(f"{lacking} aromatic nitrogens given the hydrogen that the file lacks")
            if how is Sanitisation.SOUND:
                raise MissingHydrogenError(f"{lacking} aromatic nitrogens lack their hydrogen")
    return mol, notes + settle_charges(mol, states_charges=states_charges)


def _without_aromatic_bonds(mol: Chem.RWMol, how: Sanitisation) -> tuple[Chem.RWMol, int]:
    try:
        return resolve_aromatic_bonds(mol)
    except NoPlaceError:
        if how is Sanitisation.PARTIAL:
            return mol, 0
        raise


def _typed(mol: Chem.Mol) -> bytes:
    """What the model sees of a molecule beside its coordinates."""
    return ligand_features(mol).tobytes() + repr(sorted(bond_types(mol))).encode()


def ligand_features(mol: Chem.Mol) -> np.ndarray:
    """[n, 9] uint8 node features of what heavy_form returns."""
    features = np.zeros((mol.GetNumAtoms(), len(NODE_FEATURES)), dtype=np.uint8)
    column = {name: features[:, place] for name, place in FEATURE_COLUMN.items()}
    groups = _Groups(mol)
    donors_and_acceptors = _azole_nitrogens(mol)
    column["side"][:] = Side.LIGAND
    for atom in mol.GetAtoms():
        number = atom.GetIdx()
        column["element"][number] = atom.GetAtomicNum()
        column["charge"][number] = min(max(groups.charge(atom), -MAX_CHARGE), MAX_CHARGE) + MAX_CHARGE
        resonant = number in groups.acid or number in groups.amidine
        hybridisation = _HYBRIDISATION.get(atom.GetHybridization(), Hybridisation.OTHER)
        column["hybridisation"][number] = Hybridisation.SP2 if resonant else hybridisation
        column["aromatic"][number] = atom.GetIsAromatic()
        column["ring"][number] = atom.IsInRing()
        both = number in donors_and_acceptors
        column["donor"][number] = both or groups.is_donor(atom)
        column["acceptor"][number] = both or groups.is_acceptor(atom)
    return features


def bond_types(mol: Chem.Mol) -> list[tuple[int, int, int]]:
    """(atom, atom, BondType) of what heavy_form returns."""
    resonant = _Groups(mol).bonds
    bonds = []
    for bond in mol.GetBonds():
        pair = (bond.GetBeginAtomIdx(), bond.GetEndAtomIdx())
        kind = _BOND_TYPE.get(bond.GetBondType(), BondType.OTHER)
        bonds.append((*pair, BondType.OTHER if frozenset(pair) in resonant else kind))
    return bonds


class _Groups:
    """Atoms (by number) of the functional groups whose charges do not follow the drawing."""

    def __init__(self, mol: Chem.Mol) -> None:
        acids = [match for pattern in _ACID for match in mol.GetSubstructMatches(pattern)]
        nitros = mol.GetSubstructMatches(_NITRO)
        self.acid = {number for first, _, last in acids for number in (first, last)}
        self.nitro = {number for match in nitros for number in match}
        self.amine = {number for (number,) in mol.GetSubstructMatches(_AMINE)}
        self.sulfonamide = {number for (number,) in mol.GetSubstructMatches(_SULFONAMIDE)}
        self.bonds = {frozenset(pair) for a, b, c in (*acids, *nitros) for pair in ((a, b), (b, c))}
        self.amidine: set[int] = set()
        self.amidinium: set[int] = set()
        for (carbon,) in mol.GetSubstructMatches(_AMIDINE_CARBON):
            nitrogens = [a for a in mol.GetAtomWithIdx(carbon).GetNeighbors() if a.GetAtomicNum() == 7]
            lowest = min(max(atom.GetDegree(), 1) for atom in nitrogens)
            self.amidine |= {atom.GetIdx() for atom in nitrogens}
            self.amidinium |= {atom.GetIdx() for atom in nitrogens if atom.GetDegree() == lowest}
            self.bonds |= {frozenset((carbon, atom.GetIdx())) for atom in nitrogens}

    def charge(self, atom: Chem.Atom) -> int:
        number = atom.GetIdx()
        if number in self.nitro:
            return 0
        if number in self.acid:
            return -1
        return 1 if number in self.amine or number in self.amidinium else atom.GetFormalCharge()

    def is_donor(self, atom: Chem.Atom) -> bool:
        number = atom.GetIdx()
        if number in self.acid or number in self.nitro or atom.GetAtomicNum() not in (7, 8):
            return False
        return number in self.amine or atom.GetTotalNumHs() > 0 or (number in self.amidine and atom.GetDegree() < 3)

    def is_acceptor(self, atom: Chem.Atom) -> bool:
        number, element = atom.GetIdx(), atom.GetAtomicNum()
        if element == 8:
            return not atom.GetIsAromatic()
        if element == 16:
            return atom.GetDegree() == 1
        charged = atom.GetFormalCharge() > 0 or number in self.amine | self.amidine | self.nitro
        if element != 7 or charged or number in self.sulfonamide:
            return False
        if atom.GetIsAromatic():
            return atom.GetDegree() == 2 and atom.GetTotalNumHs() == 0
        multiple = any(bond.GetBondTypeAsDouble() >= 2 for bond in atom.GetBonds())
        return multiple or atom.GetHybridization() == _SP.SP3


def _azole_nitrogens(mol: Chem.Mol) -> set[int]:
    found: set[int] = set()
    for ring in mol.GetRingInfo().AtomRings():
        atoms = [mol.GetAtomWithIdx(number) for number in ring]
        if len(ring) != 5 or not all(atom.GetIsAromatic() for atom in atoms):
            continue
        nitrogens = [atom for atom in atoms if atom.GetAtomicNum() == 7 and atom.GetDegree() == 2]
        if len(nitrogens) > 1 and any(atom.GetTotalNumHs() for atom in nitrogens):
            found |= {atom.GetIdx() for atom in nitrogens}
    return found


def _sanitise_partly(mol: Chem.RWMol) -> None:
    mol.UpdatePropertyCache(strict=False)
    Chem.SanitizeMol(mol, _PARTIAL_STEPS)


def _remember_hydrogens(mol: Chem.Mol) -> None:
    """Write the number of hydrogens to each heavy atom where those of carbon are there, and so all are."""
    if any(atom.GetAtomicNum() == 6 and num_hydrogens(atom) for atom in mol.GetAtoms()):
        for atom in mol.GetAtoms():
            if atom.GetAtomicNum() > 1:
                atom.SetIntProp(HYDROGENS, num_hydrogens(atom))


def _keep_largest_fragment(mol: Chem.RWMol) -> list[str]:
    fragments = sorted(Chem.GetMolFrags(mol), key=len, reverse=True)
    if len(fragments) < 2:
        return []
    with mol:
        for number in chain(*fragments[1:]):
            mol.RemoveAtom(number)
    sizes = ", ".join(str(len(fragment)) for fragment in fragments[1:6])
    return [f"{len(fragments)} fragments, largest of {len(fragments[0])} atoms used, dropped: {sizes} atoms"]


def _neutralise(mol: Chem.RWMol) -> None:
    """Recipe 'Neutralizing Molecules' of the RDKit Cookbook, by Noel O'Boyle."""
    numbers = [match[0] for p in (_PROTON_GAINED, _PROTON_LOST) for match in mol.GetSubstructMatches(p)]
    for number in numbers:
        atom = mol.GetAtomWithIdx(number)
        hydrogens = atom.GetTotalNumHs() - atom.GetFormalCharge()
        atom.SetFormalCharge(0)
        atom.SetNumExplicitHs(hydrogens if atom.GetIsAromatic() else 0)
        atom.UpdatePropertyCache(strict=False)
