"""A SMILES, crystal ligands and their pocket -> a pose of the molecule on the crystal ligand that it fits best.

The common core with the crystal ligand gets its coordinates there, a few conformers of the rest are built, and each is
relaxed among the atoms of the pocket, which stand still. Of all, the pose with the lowest sum of three terms is taken:
energy of its contacts (src/chemistry/contact_energy.py), energy of its force field, and the share of its atoms that lie
on atoms of the crystal ligand. Every step has a fixed seed. Weights and limits were chosen on crystal poses that were
predicted from other complexes of the same protein (benchmarks/posing.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain

import numpy as np
from rdkit import Chem, rdBase
from rdkit.Chem import rdFMCS, rdForceFieldHelpers, rdMolAlign
from rdkit.Chem.EnumerateStereoisomers import EnumerateStereoisomers, StereoEnumerationOptions
from rdkit.Chem.rdDistGeom import EmbedMultipleConfs, EmbedParameters, ETKDGv3
from rdkit.Geometry import Point3D
from scipy.spatial.distance import cdist

from src.chemistry.contact_energy import Sites, can_bond, classify, interaction_energy
from src.system.errors import UserError

LEAST_CORE = 6  # heavy atoms; a ring
LEAST_SHARE = 1 / 3  # of the molecule's heavy atoms in the core; of so few, two thirds of the poses are wrong
MAX_ATOMS = 150  # heavy atoms; larger ones take minutes
MAX_TEMPLATES = 3  # those with the largest cores
MAX_CORES = 4  # ways in which one core lies on one template
MAX_ISOMERS = 4  # of a molecule with undrawn stereocentres
NUM_CONFORMERS, LEAST_CONFORMERS = 12, 3  # of a molecule on a template; of each isomer and core
NUM_RELAXED = 4  # conformers with the best contacts
SEED = 7
# Against endless searches alone: what is found must not hang on the speed of the machine.
MCS_TIMEOUT_S, EMBEDDING_TIMEOUT_S = 10, 30
MAX_CORE_RMSD = 0.3  # Å, of a conformer that was built on it; what bends more has another stereo
MAX_MOVED = 1.5  # Å, RMSD of the core from its place after relaxation
MAX_ATTEMPTS = 10  # of a conformer
MAX_STEPS = 100  # of the force field
CORE_SLACK, CORE_FORCE = 0.3, 20.0  # Å that an atom of the core may move freely; kcal/(mol Å²) beyond
WALL_FORCE = 10.0  # kcal/(mol Å²), for a pair nearer than its least distance
WALL, POLAR_WALL = 0.4, 0.8  # Å that two atoms, or donor and acceptor, may come nearer than their radii say
HYDROGEN_WALL, POLAR_HYDROGEN_WALL = 2.4, 1.7  # Å from a hydrogen to an atom of the pocket, and to an acceptor
ON_AN_ATOM = 1.0  # Å
STRAIN_WEIGHT, OVERLAP_WEIGHT = 0.05, 10.0  # per kcal/mol of the force field; kcal/mol

_RINGS = {"ringMatchesRingOnly": True, "completeRingsOnly": True, "timeout": MCS_TIMEOUT_S}
# First like atoms on like ones, then any on any, so that a pyridine lies on a benzene and chlorine on methyl.
_COMPARISONS = (rdFMCS.AtomCompare.CompareElements, rdFMCS.AtomCompare.CompareAny)
_Core = dict[int, int]  # atom of the molecule -> atom of the template


class PosingError(UserError):
    """There is no pose of a molecule on these templates; the message says why."""


@dataclass(frozen=True)
class Template:
    """A crystal ligand and what lies around it."""

    name: str
    mol: Chem.Mol  # heavy atoms with their coordinates
    pocket: Sites


@dataclass(frozen=True)
class ModelledPose:
    mol: Chem.Mol  # with hydrogens and one conformer, charges and stereo as drawn
    template: str
    num_core: int  # heavy atoms that lie as in the template
    num_atoms: int  # heavy atoms
    notes: tuple[str, ...]


@dataclass(frozen=True)
class _Candidate:
    """A conformer of an isomer with hydrogens, the heavy atoms first."""

    mol: Chem.Mol
    conformer: int
    core: _Core
    sites: Sites
    score: float


def pose_analogue(smiles: str, templates: Sequence[Template]) -> ModelledPose:
    """The best pose on one of the templates.

    Raises:
        PosingError: the SMILES cannot be read, no template shares enough of it, or it cannot be built on the core.
    """
    with rdBase.BlockLogs():
        drawn, notes = read_smiles(smiles)
        found = [(template, _cores(drawn, template.mol)) for template in templates]
        largest = [max(map(len, cores), default=0) for _, cores in found]
        least = max(LEAST_CORE, LEAST_SHARE * drawn.GetNumAtoms())
        order = [place for place in np.argsort(-np.array(largest), kind="stable") if largest[place] >= least]
        if not order:
            best = int(np.argmax(largest))
            raise PosingError(
                f"the common core with {templates[best].name} has {largest[best]} of {drawn.GetNumAtoms()} heavy "
                f"atoms; at least {LEAST_CORE} and a third are needed: give a more similar --template, or dock it"
            )
        isomers, more = _isomers(drawn)
        best, chosen = None, None
        for template, cores in (found[place] for place in order[:MAX_TEMPLATES]):
            cores = [core for core in cores if len(core) >= least]
            for pose in _relaxed(_conformers(isomers, cores, template), template):
                if best is None or pose.score < best.score:
                    best, chosen = pose, template
    if best is None:
        name = templates[order[0]].name
        raise PosingError(f"with the stereo as drawn there is no room for it on its core with {name}")
    mol = Chem.Mol(best.mol, False, best.conformer)
    return ModelledPose(mol, chosen.name, len(best.core), drawn.GetNumAtoms(), (*notes, *more))


def read_smiles(smiles: str) -> tuple[Chem.Mol, list[str]]:
    """The largest fragment of a molecule as drawn, and notes.

    Raises:
        PosingError: RDKit cannot read it, or it is no whole molecule.
    """
    mol = Chem.MolFromSmiles(smiles)
    if mol is None or not mol.GetNumAtoms():
        raise PosingError(f"RDKit cannot read the SMILES {smiles[:200]!r}")
    fragments = sorted(Chem.GetMolFrags(mol, asMols=True), key=lambda one: -one.GetNumHeavyAtoms())
    mol, notes = Chem.RemoveHs(fragments[0]), []
    if len(fragments) > 1:
        notes.append(f"{len(fragments)} fragments, largest of {mol.GetNumAtoms()} heavy atoms posed")
    if any(atom.GetAtomicNum() == 0 for atom in mol.GetAtoms()):
        raise PosingError(f"the SMILES {smiles[:200]!r} has an atom without an element (*)")
    if mol.GetNumAtoms() > MAX_ATOMS:
        raise PosingError(f"{mol.GetNumAtoms()} heavy atoms; at most {MAX_ATOMS} can be posed")
    return mol, notes


def _isomers(mol: Chem.Mol) -> tuple[list[Chem.Mol], list[str]]:
    """The molecule as drawn, or its isomers at the centres and double bonds that are not drawn."""
    options = StereoEnumerationOptions(onlyUnassigned=True, unique=True, maxIsomers=MAX_ISOMERS, rand=SEED)
    isomers = sorted(EnumerateStereoisomers(mol, options=options), key=Chem.MolToSmiles)
    if len(isomers) < 2:
        return [mol], []
    return isomers, [f"stereo is not drawn everywhere: of {len(isomers)} isomers the one that fits best was posed"]


def _cores(mol: Chem.Mol, template: Chem.Mol) -> list[_Core]:
    """Ways in which the largest common cores lie on the template; of equivalent ones the first."""
    ranks = list(Chem.CanonicalRankAtoms(mol, breakTies=False))
    cores: dict[frozenset, _Core] = {}
    for compare in _COMPARISONS:
        query = rdFMCS.FindMCS([template, mol], atomCompare=compare, **_RINGS).queryMol
        if query is None or not query.GetNumAtoms():
            continue
        places = template.GetSubstructMatches(query, maxMatches=MAX_CORES)
        matches = mol.GetSubstructMatches(query, uniquify=False, maxMatches=1000)
        found: dict[frozenset, _Core] = {}
        for place in places:
            for match in matches:
                key = frozenset(zip(place, (ranks[atom] for atom in match), strict=True))
                found.setdefault(key, dict(zip(match, place, strict=True)))
        # What a larger core says too need not be tried.
        cores = {key: core for key, core in cores.items() if not any(key < other for other in found)}
        cores |= dict(list(found.items())[:MAX_CORES])
    return list(cores.values())


def _conformers(isomers: Iterable[Chem.Mol], cores: Sequence[_Core], template: Template) -> list[_Candidate]:
    """Those whose contacts are best, on the core and with the stereo as drawn."""
    pool: list[_Candidate] = []
    pairs = [(isomer, core) for isomer in isomers for core in cores]
    count = max(NUM_CONFORMERS // max(len(pairs), 1), LEAST_CONFORMERS)
    for isomer, largest in pairs:
        mol, core = _built(isomer, largest, template.mol, count)
        radius, classes = classify(mol)
        for conformer in mol.GetConformers():
            number, atom_map = conformer.GetId(), list(core.items())
            off = rdMolAlign.AlignMol(mol, template.mol, prbCid=number, atomMap=atom_map)
            sites = Sites(conformer.GetPositions()[: len(radius)], radius, *classes)
            score = interaction_energy(sites, template.pocket) + off * len(core) ** 0.5
            pool.append(_Candidate(mol, number, core, sites, score))
    return sorted(pool, key=lambda one: one.score)[:NUM_RELAXED]


def _built(isomer: Chem.Mol, core: _Core, template: Chem.Mol, count: int) -> tuple[Chem.Mol, _Core]:
    """With hydrogens and some conformers as drawn, and the core that they keep.

    Where the template has another stereo the core is cut there; where nothing else is possible the shape is free.
    """
    for with_torsions in (True, False):
        mol = _embedded(isomer, core, template, count, with_torsions=with_torsions)
        if mol.GetNumConformers():
            return mol, core
    mol = _embedded(isomer, {}, template, count, with_torsions=True)
    if mol.GetNumConformers():
        kept = _in_agreement(mol, core, template)
        if LEAST_CORE <= len(kept) < len(core):
            return _built(isomer, kept, template, count)
    return mol, core


def _embedded(mol: Chem.Mol, core: _Core, template: Chem.Mol, count: int, *, with_torsions: bool) -> Chem.Mol:
    mol, pos = Chem.AddHs(mol), template.GetConformer().GetPositions()
    how: EmbedParameters = ETKDGv3()
    how.randomSeed, how.maxIterations, how.timeout = SEED, MAX_ATTEMPTS, EMBEDDING_TIMEOUT_S
    if core:
        how.SetCoordMap({atom: Point3D(*pos[place]) for atom, place in core.items()})
    if not with_torsions:
        how.useExpTorsionAnglePrefs = how.useBasicKnowledge = False
        how.ignoreSmoothingFailures = True
    how.useRandomCoords = not (core and with_torsions)
    # The first shows whether the others can be built at all.
    if min(EmbedMultipleConfs(mol, 1, how), default=-1) >= 0:
        EmbedMultipleConfs(mol, count, how)
    for number in [conformer.GetId() for conformer in mol.GetConformers()]:
        atom_map = list(core.items())
        is_off = core and rdMolAlign.AlignMol(mol, template, prbCid=number, atomMap=atom_map) > MAX_CORE_RMSD
        if is_off or not _is_as_drawn(mol, number):
            mol.RemoveConformer(number)
    return mol


def _in_agreement(mol: Chem.Mol, core: _Core, template: Chem.Mol) -> _Core:
    """The core without the smaller side of each centre and double bond that the template has the other way round."""
    here, there = mol.GetConformers()[0].GetPositions(), template.GetConformer().GetPositions()
    links = Chem.RWMol(mol)
    for bond in mol.GetBonds():
        if not {bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()} <= core.keys():
            links.RemoveBond(bond.GetBeginAtomIdx(), bond.GetEndAtomIdx())
    near = {atom: [other.GetIdx() for other in links.GetAtomWithIdx(atom).GetNeighbors()] for atom in core}
    for atom, others in near.items():
        if mol.GetAtomWithIdx(atom).GetChiralTag() and len(others) > 2:
            one, other = (
                np.linalg.det([pos[at[number]] - pos[at[atom]] for number in others[:3]])
                for pos, at in ((here, range(len(here))), (there, core))
            )
            if one * other < 0:
                for number in others:
                    links.RemoveBond(atom, number)
                sides = sorted((s for s in Chem.GetMolFrags(links) if set(s) & set(others)), key=len, reverse=True)
                return {number: core[number] for number in (atom, *chain(*sides[:2]))}
    for bond in mol.GetBonds():
        a, b = bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()
        if bond.GetStereo() > Chem.BondStereo.STEREOANY and {a, b} <= core.keys():
            ends = [number for number in near[a] if number != b][:1], [number for number in near[b] if number != a][:1]
            if all(ends):
                four = ends[0][0], a, b, ends[1][0]
                if _is_cis(here[list(four)]) != _is_cis(there[[core[number] for number in four]]):
                    links.RemoveBond(a, b)
                    side = max(Chem.GetMolFrags(links), key=lambda one: len(set(one) & core.keys()))
                    return {number: core[number] for number in {*side, a, b}}
    return core


def _is_cis(pos: np.ndarray) -> bool:
    """Whether the first and the last of four atoms, [4, 3], lie on one side of the bond between the others."""
    axis = pos[2] - pos[1]
    return bool(np.cross(axis, pos[0] - pos[1]) @ np.cross(axis, pos[3] - pos[2]) > 0)


def _relaxed(candidates: Iterable[_Candidate], template: Template) -> Iterator[_Candidate]:
    template_pos = template.mol.GetConformer().GetPositions()
    for one in candidates:
        least = _least_distances(one, template.pocket)
        energy = _relax(one, template.pocket, least)
        if energy is None or not _is_as_drawn(one.mol, one.conformer):
            continue
        pos = one.mol.GetConformer(one.conformer).GetPositions()[: len(one.sites.radius)]
        atoms, places = np.array(list(one.core.items())).T
        if np.sqrt(((pos[atoms] - template_pos[places]) ** 2).sum(axis=1).mean()) > MAX_MOVED:
            continue
        overlap = np.mean(cdist(pos, template_pos).min(axis=1) < ON_AN_ATOM)
        contacts = interaction_energy(replace(one.sites, pos=pos), template.pocket)
        yield replace(one, score=contacts + STRAIN_WEIGHT * energy - OVERLAP_WEIGHT * overlap)


def _relax(one: _Candidate, pocket: Sites, least: np.ndarray) -> float | None:
    """Energy, kcal/mol, after some steps of MMFF, or of UFF for what MMFF does not know; None where neither does.

    Atoms of the pocket are points that stand still; a pair that comes nearer than least, [n, m] Å, is pushed apart.
    Charges are left out: in a vacuum they fold a molecule on itself.
    """
    properties = rdForceFieldHelpers.MMFFGetMoleculeProperties(one.mol)
    if properties is not None:
        properties.SetMMFFEleTerm(False)
        field = rdForceFieldHelpers.MMFFGetMoleculeForceField(one.mol, properties, confId=one.conformer)
        hold = field.MMFFAddPositionConstraint
    elif rdForceFieldHelpers.UFFHasAllMoleculeParams(one.mol):
        field = rdForceFieldHelpers.UFFGetMoleculeForceField(one.mol, confId=one.conformer)
        hold = field.UFFAddPositionConstraint
    else:
        return None
    field.Initialize()
    for atom in one.core:
        hold(atom, CORE_SLACK, CORE_FORCE)
    distance = cdist(one.mol.GetConformer(one.conformer).GetPositions(), pocket.pos)
    atoms, places = np.nonzero(distance < least + 1.0)
    points = {place: field.AddExtraPoint(*pocket.pos[place].tolist(), fixed=True) - 1 for place in np.unique(places)}
    field.Initialize()
    for atom, place in zip(atoms.tolist(), places.tolist(), strict=True):
        field.AddDistanceConstraint(points[place], atom, float(least[atom, place]), 1000.0, WALL_FORCE)
    field.Minimize(maxIts=MAX_STEPS)
    return field.CalcEnergy()


def _least_distances(one: _Candidate, pocket: Sites) -> np.ndarray:
    """[n, m] Å between atoms of the ligand, hydrogens last, and of the pocket."""
    heavy = one.sites.radius[:, None] + pocket.radius - np.where(can_bond(one.sites, pocket), POLAR_WALL, WALL)
    hydrogen = np.where(pocket.acceptor, POLAR_HYDROGEN_WALL, HYDROGEN_WALL)
    return np.vstack([heavy, np.tile(hydrogen, (one.mol.GetNumAtoms() - len(heavy), 1))])


def _is_as_drawn(mol: Chem.Mol, conformer: int) -> bool:
    """Whether a conformer has the centres and double bonds that the molecule says, where it says any."""
    shape = Chem.Mol(mol, False, conformer)
    drawn = _stereo(shape)
    Chem.AssignStereochemistryFrom3D(shape)
    return drawn.items() <= _stereo(shape).items()


def _stereo(mol: Chem.Mol) -> dict[tuple[str, int], str]:
    Chem.AssignStereochemistry(mol, cleanIt=True, force=True)
    centres = {("atom", a.GetIdx()): a.GetProp("_CIPCode") for a in mol.GetAtoms() if a.HasProp("_CIPCode")}
    known = (bond for bond in mol.GetBonds() if bond.GetStereo() > Chem.BondStereo.STEREOANY)
    return centres | {("bond", bond.GetIdx()): str(bond.GetStereo()) for bond in known}
