"""Atoms without bond orders and what may state them -> a molecule, by the first source that fits the atoms.

A source states a molecule, as a SMILES does, or bonds between named or numbered atoms. It fits where its heavy atoms
and bonds are those of the coordinates as a graph: as many bonds as it states are those between the atoms that lie
nearest for their elements. Where several ways to lay it on the atoms are left, its shorter bonds get the higher orders.
Coordinates alone never make a bond order.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
from rdkit import Chem, rdBase
from rdkit.Chem import rdDetermineBonds
from scipy.spatial import cKDTree
from scipy.spatial.distance import pdist

from src.chemistry.atoms import StructureError, clean_name
from src.chemistry.complex_files import LINK, LigandSite, SiteAtom
from src.chemistry.residues import SYMBOLS
from src.chemistry.resonance import settle_charges
from src.chemistry.shape import Shape

MAX_LIGAND_ATOMS = 500  # heavy; a chain that was named by mistake has more
STRETCH = 0.6  # Å beyond the covalent radii that a bond may have; atoms two bonds apart have 0.8 more
MAX_MATCHES = 2000  # ways to lay a molecule on the atoms that are looked at
CHARGES = (0, 1, -1, 2, -2)  # of a molecule with all hydrogens, the likeliest first
PYRAMID = 0.3  # Å of an atom over the plane of its three neighbours; 0.5 in a tetrahedron, 0.1 in motion
MAX_ITERATIONS = 20_000  # of the search for its bond orders
_ORDERS = {
    "SING": Chem.BondType.SINGLE,
    "DOUB": Chem.BondType.DOUBLE,
    "TRIP": Chem.BondType.TRIPLE,
    "AROM": Chem.BondType.AROMATIC,
    "DELO": Chem.BondType.AROMATIC,
}
_BY_COUNT = {1: Chem.BondType.SINGLE, 2: Chem.BondType.DOUBLE, 3: Chem.BondType.TRIPLE}

Pair = tuple[int, int]
Source = tuple[str, Callable[[], tuple[Chem.Mol, tuple[str, ...]]]]  # what it is, and what makes the molecule and notes


class BondOrderError(StructureError):
    """A source does not fit the atoms, or none does; the message says why."""


def assign_bonds(
    site: LigandSite, sources: Iterable[Source], *, is_given: bool = False
) -> tuple[Chem.Mol, str, tuple[str, ...]]:
    """The molecule in the order of the site's atoms with their coordinates, the source of its bonds, and notes.

    Args:
        is_given: the only source is what the user said the molecule is.

    Raises:
        BondOrderError: no source fits; the message has the reason of each.
    """
    if unknown := [atom.name for atom in site.heavy if not atom.element]:
        raise BondOrderError(f"{site.name}: unknown element of atom {clean_name(unknown[0])}")
    if not 0 < len(site.heavy) <= MAX_LIGAND_ATOMS:
        raise BondOrderError(f"{site.name} has {len(site.heavy)} heavy atoms; a ligand has 1 to {MAX_LIGAND_ATOMS}")
    reasons = []
    for name, make in sources:
        try:
            with rdBase.BlockLogs():
                mol, notes = make()
        except (ValueError, RuntimeError) as error:  # all of RDKit's own exceptions are one of these
            reasons.append(f"{name}: {str(error).strip().splitlines()[0]}")
        else:
            return mol, name, notes
    if is_given:
        raise BondOrderError(f"{site.name} is not what --smiles says: {'; '.join(reasons)}")
    tried = f" ({'; '.join(reasons)})" if reasons else ""
    raise BondOrderError(f"{site.name}: nothing states its bond orders{tried}; give its SMILES with --smiles")


def molecule_of_smiles(smiles: str) -> Chem.Mol:
    with rdBase.BlockLogs():
        mol = Chem.MolFromSmiles(smiles)
    if mol is None or not mol.GetNumAtoms():
        raise BondOrderError(f"{clean_name(smiles)!r} is no SMILES")
    return mol


def fitted(template: Chem.Mol, site: LigandSite) -> tuple[Chem.Mol, tuple[str, ...]]:
    """The largest part of a template laid on the heavy atoms of a site.

    Raises:
        BondOrderError: it is another molecule.
    """
    template = Chem.RemoveAllHs(max(Chem.GetMolFrags(template, asMols=True), key=Chem.Mol.GetNumHeavyAtoms))
    elements = [atom.element for atom in site.heavy]
    wanted = [atom.GetAtomicNum() for atom in template.GetAtoms()]
    if sorted(elements) != sorted(wanted):
        raise BondOrderError(f"heavy atoms are {_formula(wanted)}, the file has {_formula(elements)}")
    ends = [(bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()) for bond in template.GetBonds()]
    skeleton = _skeleton(elements, nearest_pairs(site.heavy, len(ends)))
    ways = skeleton.GetSubstructMatches(_skeleton(wanted, ends), uniquify=False, maxMatches=MAX_MATCHES)
    if not ways:
        raise BondOrderError("the same atoms are bonded in another way in the file")
    matches, pos = np.array(ways), np.array([atom.pos for atom in site.heavy])
    first, last = np.array(ends, dtype=int).reshape(-1, 2).T
    orders = np.array([bond.GetBondTypeAsDouble() for bond in template.GetBonds()])
    lengths = np.linalg.norm(pos[matches[:, first]] - pos[matches[:, last]], axis=2)
    place = matches[(lengths @ orders).round(6).argmin()]
    Chem.Kekulize(template, clearAromaticFlags=True)
    mol = _with_positions(Chem.RenumberAtoms(template, np.argsort(place).tolist()), pos)
    return mol, _stereo_notes(mol, template)


def named_bonds(
    site: LigandSite, rows: Sequence[tuple[str, ...]], charges: Mapping[tuple[str, str], int]
) -> tuple[Chem.Mol, tuple[str, ...]]:
    """
    Args:
        rows: of _chem_comp_bond: component, two names of atoms, order (SING, DOUB, ...), in any letter case.
        charges: of _chem_comp_atom, by component and name.

    Raises:
        BondOrderError: the rows are of another molecule than the atoms.
    """
    atoms = site.atoms
    place = {(atom.id, atom.name): number for number, atom in enumerate(atoms)}
    near = cKDTree([atom.pos for atom in site.heavy]).query_pairs(LINK)
    links = [(i, j) for i, j in near if atoms[i].id != atoms[j].id]
    bonds, missing = dict.fromkeys(links, Chem.BondType.SINGLE), set()
    for residue in dict.fromkeys(atom.id for atom in atoms):
        mine = [map(str.upper, row[1:]) for row in rows if row[0].upper() == residue.name]
        if not mine and len([atom for atom in site.heavy if atom.id == residue]) > 1:
            raise BondOrderError(f"has no {clean_name(residue.name)}")
        for one, other, order in mine:
            ends = [place.get((residue, name)) for name in (one, other)]
            if None not in ends:
                bonds[min(ends), max(ends)] = _ORDERS.get(order, Chem.BondType.SINGLE)
            missing |= {name for name, end in zip((one, other), ends, strict=True) if end is None}
    missing = {name for name in missing if name.lstrip("0123456789")[:1] not in "HD"}  # hydrogens may be missing
    _require_graph(site, bonds)
    mol = _drawn(atoms, bonds, {n: charges.get((atom.residue, atom.name), 0) for n, atom in enumerate(atoms)})
    note = f"{len(missing)} heavy atoms of {site.name} are not in the file: {', '.join(sorted(missing)[:5])}"
    return mol, (clean_name(note),) * bool(missing)


def conect_pairs(site: LigandSite, data: bytes) -> Counter[Pair]:
    """How often the CONECT records of a PDB file join two atoms of the site, which is the order of their bond."""
    place = {atom.serial: number for number, atom in enumerate(site.atoms)}
    ways: Counter[Pair] = Counter()
    for line in data.decode("latin-1").splitlines():
        if line[:6].upper() == "CONECT":
            one, *others = [line[start : start + 5].strip() for start in range(6, min(len(line.rstrip()), 31), 5)]
            ways.update((place[one], place[other]) for other in others if {one, other} <= place.keys() and one != other)
    pairs: Counter[Pair] = Counter()
    for (i, j), count in ways.items():
        pairs[min(i, j), max(i, j)] = max(count, ways[j, i])
    return pairs


def conect_orders(site: LigandSite, pairs: Counter[Pair]) -> tuple[Chem.Mol, tuple[str, ...]]:
    """A bond is double where its record stands twice, as Maestro, RDKit and others write it."""
    if max(pairs.values(), default=1) < 2:
        raise BondOrderError("every bond is written once, so that orders are not told")
    bonds = {pair: _BY_COUNT[min(count, 3)] for pair, count in pairs.items()}
    _require_graph(site, bonds)
    return _drawn(site.atoms, bonds, {number: atom.charge for number, atom in enumerate(site.atoms)}), ()


def conect_hydrogens(site: LigandSite, pairs: Counter[Pair]) -> tuple[Chem.Mol, tuple[str, ...]]:
    """With all hydrogens valence leaves one set of orders, but for resonance; no double bond is at a pyramid."""
    atoms = site.atoms
    ends = {(atoms[i].element, atoms[j].element) for pair in pairs for i, j in (pair, pair[::-1])}
    if (6, 1) not in ends:
        raise BondOrderError("the hydrogens of carbon are not in the file")
    bonds = dict.fromkeys(pairs, Chem.BondType.SINGLE)
    _require_graph(site, bonds)
    for charge in CHARGES:
        mol = _drawn(atoms, bonds, {})
        try:
            rdDetermineBonds.DetermineBondOrders(mol, charge=charge, embedChiral=False, maxIterations=MAX_ITERATIONS)
            Chem.SanitizeMol(mol)
        except (ValueError, RuntimeError):
            continue
        carbons = [atom for atom in mol.GetAtoms() if atom.GetAtomicNum() == 6]
        if any(a.GetNumRadicalElectrons() for a in mol.GetAtoms()) or any(a.GetFormalCharge() for a in carbons):
            continue
        if any(a.GetDegree() == 3 and Shape(mol).height(a.GetIdx()) > PYRAMID for a in carbons):
            break
        Chem.Kekulize(mol, clearAromaticFlags=True)
        return mol, ()
    raise BondOrderError("valence and shape do not agree with the hydrogens of the file")


def nearest_pairs(atoms: Sequence[SiteAtom], count: int) -> set[Pair]:
    """The pairs of heavy atoms that lie nearest for their elements, as many as a molecule has bonds.

    Raises:
        BondOrderError: there are not so many that can be bonded.
    """
    table = Chem.GetPeriodicTable()
    radius = np.array([table.GetRcovalent(atom.element) for atom in atoms])
    rows, columns = np.triu_indices(len(atoms), 1)
    stretch = pdist(np.array([atom.pos for atom in atoms])) - radius[rows] - radius[columns]
    order = np.argsort(stretch, kind="stable")
    if count > len(order) or (count and stretch[order[count - 1]] > STRETCH):
        raise BondOrderError("atoms that it has bonded are too far apart in the file")
    if count < len(order) and stretch[order[count]] < 0:
        raise BondOrderError("the file has atoms nearer to each other than bonds that it does not have")
    return {(int(rows[place]), int(columns[place])) for place in order[:count]}


def _require_graph(site: LigandSite, bonds: Iterable[Pair]) -> None:
    heavy = {tuple(sorted(pair)) for pair in bonds if max(pair) < len(site.heavy)}
    if heavy != nearest_pairs(site.heavy, len(heavy)):
        raise BondOrderError("its bonds are not between the atoms that lie near each other")
    if len(Chem.GetMolFrags(_skeleton((atom.element for atom in site.heavy), heavy))) > 1:
        raise BondOrderError("its bonds leave the molecule in parts")


def _skeleton(elements: Iterable[int], pairs: Iterable[Pair]) -> Chem.Mol:
    """Elements and neighbours alone."""
    mol = Chem.RWMol()
    for element in elements:
        mol.AddAtom(Chem.Atom(element))
    for i, j in pairs:
        mol.AddBond(i, j, Chem.BondType.SINGLE)
    return mol.GetMol()


def _drawn(atoms: Sequence[SiteAtom], bonds: Mapping[Pair, Chem.BondType], charges: Mapping[int, int]) -> Chem.Mol:
    mol = Chem.RWMol()
    for number, atom in enumerate(atoms):
        mol.AddAtom(Chem.Atom(atom.element))
        mol.GetAtomWithIdx(number).SetFormalCharge(charges.get(number, 0))
    for (i, j), kind in bonds.items():
        mol.AddBond(i, j, kind)
        if kind == Chem.BondType.AROMATIC:
            mol.GetBondBetweenAtoms(i, j).SetIsAromatic(True)
            mol.GetAtomWithIdx(i).SetIsAromatic(True)
            mol.GetAtomWithIdx(j).SetIsAromatic(True)
    mol = Chem.RWMol(_with_positions(mol, np.array([atom.pos for atom in atoms])))
    lone = [atom.GetIdx() for atom in mol.GetAtoms() if atom.GetAtomicNum() == 1 and not atom.GetDegree()]
    for number in reversed(lone):  # a hydrogen that nothing joins
        mol.RemoveAtom(number)
    if Chem.BondType.AROMATIC not in bonds.values():
        settle_charges(mol, states_charges=False)
    return mol.GetMol()


def _with_positions(mol: Chem.Mol, pos: np.ndarray) -> Chem.Mol:
    conformer = Chem.Conformer(len(pos))
    conformer.SetPositions(np.asarray(pos, dtype=np.float64))
    conformer.Set3D(True)
    mol = Chem.Mol(mol)
    mol.RemoveAllConformers()
    mol.AddConformer(conformer)
    return mol


def _stereo_notes(mol: Chem.Mol, template: Chem.Mol) -> tuple[str, ...]:
    """Whether the coordinates have another stereo than the template draws."""
    try:
        posed, drawn = Chem.Mol(mol), Chem.Mol(template)
        for each in (posed, drawn):
            Chem.SanitizeMol(each)
        Chem.AssignStereochemistryFrom3D(posed)
        if posed.HasSubstructMatch(drawn, useChirality=True):
            return ()
    except (ValueError, RuntimeError):  # what is wrong with it is said where it is read as a ligand
        return ()
    return ("the pose has another stereo than the given molecule: centres or double bonds are inverted",)


def _formula(elements: Iterable[int]) -> str:
    counts = Counter(SYMBOLS[number] for number in elements)
    return "".join(f"{symbol}{counts[symbol] if counts[symbol] > 1 else ''}" for symbol in sorted(counts))
