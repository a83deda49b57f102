"""Poses -> their graphs, with what a chemist should know of each; a pose that cannot be used has its reason instead."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from src.chemistry.atoms import Atoms, ResidueId, StructureError, clean_name
from src.chemistry.ligands import Ligand, LigandError, ligand_of
from src.chemistry.proteins import Protein, incomplete_residues, read_protein
from src.chemistry.residues import METALS
from src.data_processing import GraphError, Receptor, build_graph, residue_distances
from src.graph import FEATURE_COLUMN, ComplexGraph
from src.scoring.poses import Pose
from src.settings import GraphSettings
from src.similarity.applicability import UNKNOWN_DOMAIN, Applicability, Domain

CUT_MARGIN = 0.5  # Å; the outermost residue of a pocket that was cut at a radius lies a little inside it
CLASH_DISTANCE = 2.0  # Å between heavy atoms that are not bonded
METAL_BOND = 2.6  # Å; N, O and S lie 1.9 to 2.5 Å from the metals of proteins, and at least METAL_CLASH
METAL_CLASH = 1.6
COORDINATING = (7, 8, 15, 16, 34)  # elements of a ligand that bind metals; any other so near is a clash
JITTER = 0.1  # Å, standard deviation of each coordinate: what two refinements of one crystal structure differ by
MAX_RECEPTORS = 4  # kept in memory; in a table of pairs those of one protein mostly follow each other

_METAL_TABLE = np.isin(np.arange(256), list(METALS))  # by atomic number


@dataclass(frozen=True)
class PoseGraphs:
    """What the network needs of one pose, and what else is said about it."""

    ligand: str  # name of the molecule
    failure: str = ""
    warnings: tuple[str, ...] = ()
    applicability: Applicability = UNKNOWN_DOMAIN
    graphs: tuple[ComplexGraph, ...] = ()  # of the pose, then of its jittered copies


@dataclass(frozen=True)
class _Known:
    """A protein that was read, and what is found out once for all poses in it."""

    receptor: Receptor
    incomplete: frozenset[ResidueId]


class PoseReader:
    """Builds the graphs of poses; a protein is read once, and what lies around a pose is cut out of it."""

    def __init__(
        self, settings: GraphSettings, domain: Domain | None = None, *, num_jitters: int = 0, one_receptor: bool = True
    ):
        """
        Args:
            num_jitters: copies of each pose with noise of JITTER on the ligand's coordinates.
            one_receptor: a protein that cannot be read is an error, not the reason why one pose of many fails.
        """
        self.settings, self.domain = settings, domain
        self.num_jitters, self.one_receptor = num_jitters, one_receptor
        self._receptors: dict[Path, _Known | StructureError] = {}
        self._identities: dict[Path, float] = {}

    def read(self, poses: Sequence[Pose], *, is_all: bool = False) -> list[PoseGraphs]:
        """
        Args:
            is_all: nothing follows, so that of a protein only what is near these poses need be parsed.

        Raises:
            StructureError: the protein cannot be read, and there is one_receptor.
        """
        ligands = [self._ligand(pose) for pose in poses]
        if is_all:
            self._read_near(poses, ligands)
        return [self._graphs(pose, ligand) for pose, ligand in zip(poses, ligands, strict=True)]

    def _ligand(self, pose: Pose) -> Ligand | LigandError:
        return LigandError(pose.failure) if pose.record is None else ligand_of(pose.record)

    def _graphs(self, pose: Pose, ligand: Ligand | LigandError) -> PoseGraphs:
        if isinstance(ligand, LigandError):
            return PoseGraphs(f"{pose.ligand.name}, molecule {pose.number}", str(ligand))
        try:
            return self._build(ligand, self._receptor(pose.protein), pose.protein)
        except GraphError as error:
            return PoseGraphs(ligand.name, str(error))
        except StructureError as error:
            if self.one_receptor:
                raise
            return PoseGraphs(ligand.name, str(error))

    def _build(self, ligand: Ligand, known: _Known, path: Path) -> PoseGraphs:
        receptor, radius = known.receptor, self.settings.pocket_radius
        near = receptor.around(ligand.atoms.pos, radius)
        graph, notes = build_graph(ligand.name, ligand, near, self.settings)
        partly = (f"the ligand is read by {ligand.read_as}",) if "partial" in ligand.read_as else ()
        cut = pocket_warnings(near, ligand, self.settings) if graph.contacts.shape[1] else ()
        copies = [
            build_graph(ligand.name, one, receptor.around(one.atoms.pos, radius), self.settings)[0]
            for one in jittered(ligand, self.num_jitters)
        ]
        return PoseGraphs(
            ligand.name,
            warnings=(
                *geometry_warnings(graph, self.settings),
                *metal_warnings(graph, near.atoms, ligand),
                *cut,
                *incomplete_warnings(near.atoms, known.incomplete, ligand.atoms.pos),
                *partly,
                *notes,
            ),
            applicability=self.domain.judge(graph, self._identity(path)) if self.domain else UNKNOWN_DOMAIN,
            graphs=(graph, *copies),
        )

    def _receptor(self, path: Path) -> _Known:
        if path not in self._receptors:
            self._keep(path, None)
        found = self._receptors[path]
        if isinstance(found, StructureError):
            raise found
        return found

    def _keep(self, path: Path, near: np.ndarray | None) -> None:
        while len(self._receptors) >= MAX_RECEPTORS:
            self._receptors.pop(next(iter(self._receptors)))
        # Jittered atoms reach a little farther.
        radius = self.settings.pocket_radius + (1.0 if self.num_jitters else 0.0)
        try:
            protein = read_protein(path, near=near, radius=radius)
            self._receptors[path] = _Known(Receptor(protein), incomplete_residues(protein.atoms))
        except StructureError as error:
            self._receptors[path] = error

    def _read_near(self, poses: Sequence[Pose], ligands: Sequence[Ligand | LigandError]) -> None:
        near: dict[Path, list[np.ndarray]] = {}
        for pose, ligand in zip(poses, ligands, strict=True):
            if isinstance(ligand, Ligand):
                near.setdefault(pose.protein, []).append(ligand.atoms.pos)
        if len(near) <= MAX_RECEPTORS:
            for path, positions in near.items():
                self._keep(path, np.concatenate(positions))

    def _identity(self, path: Path) -> float:
        if path not in self._identities:
            self._identities[path] = self.domain.nearest_protein(path)
        return self._identities[path]


def jittered(ligand: Ligand, count: int) -> Iterable[Ligand]:
    """Copies of a pose with normal noise of JITTER, Å, on every coordinate; the same noise in every run."""
    for number in range(count):
        noise = np.random.default_rng([0, number]).normal(0.0, JITTER, ligand.atoms.pos.shape)
        yield replace(ligand, atoms=replace(ligand.atoms, pos=ligand.atoms.pos + noise))


def geometry_warnings(graph: ComplexGraph, settings: GraphSettings) -> Iterable[str]:
    """What a chemist should know about the pose before believing its score."""
    if not graph.contacts.shape[1]:
        yield f"no protein atom within {settings.interaction_cutoff:g} Å: the pK says nothing about this pose"
        return
    atom, pocket, distance = _contacts(graph)
    is_bond = _is_metal(graph)[pocket] & _coordinates(graph, atom)
    closest = float(distance.min(initial=np.inf, where=~is_bond))
    if closest < CLASH_DISTANCE:
        yield f"ligand and protein atoms are only {closest:.1f} Å apart (a clash or a covalent bond)"


def metal_warnings(graph: ComplexGraph, protein: Atoms, ligand: Ligand) -> Iterable[str]:
    """Which metals of the protein file the ligand is bound to, and whether it is too near.

    Args:
        protein: what lies around the ligand; the graph does not know the names.
    """
    is_metal = _is_metal(graph)
    if not is_metal[graph.num_ligand_atoms :].any():
        return
    atom, pocket, distance = _contacts(graph)
    is_bound = is_metal[pocket] & _coordinates(graph, atom) & (distance < METAL_BOND)
    for metal in np.unique(pocket[is_bound]):
        place = graph.pos[metal].numpy() + ligand.atoms.pos.mean(axis=0)
        residue = protein.residue_index[np.linalg.norm(protein.pos - place, axis=1).argmin()]
        name, closest = _name(protein.residue_ids[residue]), distance[is_bound & (pocket == metal)].min()
        if closest < METAL_CLASH:
            yield f"the ligand is only {closest:.1f} Å from the metal of {name}, nearer than a bond"
        else:
            yield f"bound to {name} ({closest:.1f} Å)"


def incomplete_warnings(pocket: Atoms, incomplete: frozenset[ResidueId], ligand_pos: np.ndarray) -> Iterable[str]:
    """Which amino acids around the ligand lack heavy atoms, the nearest first.

    Args:
        incomplete: residues of the whole protein.
        ligand_pos: [m, 3], Å.
    """
    if incomplete.isdisjoint(pocket.residue_ids):
        return
    found = [number for number, residue in enumerate(pocket.residue_ids) if residue in incomplete]
    nearest = sorted(found, key=residue_distances(pocket, ligand_pos).__getitem__)
    count = "1 residue of the pocket lacks" if len(found) == 1 else f"{len(found)} residues of the pocket lack"
    named = ", ".join([_name(pocket.residue_ids[one]) for one in nearest[:3]] + ["..."] * (len(found) > 3))
    yield f"{count} heavy atoms ({named}): the score misses their contacts"


def pocket_warnings(protein: Protein, ligand: Ligand, settings: GraphSettings) -> Iterable[str]:
    """Whether the protein file may be a pocket that was cut nearer to the ligand than the model looks."""
    if not protein.is_whole:  # something lies farther away
        return
    reach = residue_distances(protein.atoms, ligand.atoms.pos).max()
    if reach < settings.pocket_radius - CUT_MARGIN:
        yield (
            f"the protein file ends {reach:.1f} Å from the ligand and the model looks {settings.pocket_radius:g} Å "
            "far: if this is a pocket that was cut too small, give the whole protein"
        )


def _contacts(graph: ComplexGraph) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Ligand atom and pocket atom of each contact, and their distance, Å; all [C]."""
    ligand, pocket = graph.contacts.long().numpy()
    pos = graph.pos.numpy()
    return ligand, pocket, np.linalg.norm(pos[ligand] - pos[pocket], axis=1)


def _is_metal(graph: ComplexGraph) -> np.ndarray:
    """[atoms] bool."""
    return _METAL_TABLE[graph.features[:, FEATURE_COLUMN["element"]].numpy()]


def _coordinates(graph: ComplexGraph, atom: np.ndarray) -> np.ndarray:
    """Whether these atoms can bind a metal, bool as atom."""
    return np.isin(graph.features[:, FEATURE_COLUMN["element"]].numpy()[atom], COORDINATING)


def _name(residue: ResidueId) -> str:
    """Such as ASP A 189."""
    return clean_name(f"{residue.name} {residue.chain} {residue.number}{residue.insertion}")
