"""Poses -> their graphs, with what is said of each; a pose that cannot be used has its reason instead."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from src.chemistry.atoms import ResidueId, StructureError
from src.chemistry.ligands import Ligand, LigandError, ligand_of
from src.chemistry.proteins import incomplete_residues, read_protein
from src.data_processing import GraphError, Receptor, build_graph
from src.graph import ComplexGraph
from src.scoring.pose_warnings import geometry_warnings, incomplete_warnings, metal_warnings, pocket_warnings
from src.scoring.poses import Pose
from src.settings import GraphSettings
from src.similarity.applicability import UNKNOWN_DOMAIN, Applicability, Domain

JITTER = 0.1  # Å, standard deviation of each coordinate: what two refinements of one crystal structure differ by
MAX_RECEPTORS = 4  # kept in memory; in a table of pairs those of one protein mostly follow each other


@dataclass(frozen=True)
class PoseGraphs:
    """What the network needs of one pose, and what else is said about it."""

    ligand: str  # name of the molecule
    failure: str = ""
    warnings: tuple[str, ...] = ()
    applicability: Applicability = UNKNOWN_DOMAIN
    graphs: tuple[ComplexGraph, ...] = ()  # graph of the pose, then those of its jittered copies


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
