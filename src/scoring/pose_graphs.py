"""Poses -> their graphs, with what is said of each; a pose that cannot be used has its reason instead."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from rdkit import Chem
from scipy.spatial.distance import cdist

from src.chemistry.analogue_poses import PosingError, Template, pose_analogue
from src.chemistry.atoms import ResidueId, StructureError
from src.chemistry.contact_energy import pocket_sites
from src.chemistry.ligands import Ligand, LigandError, LigandRecord, ligand_of
from src.chemistry.proteins import (
    Protein,
    copy_notes,
    drop_ligand_copy,
    incomplete_residues,
    read_protein,
    without_copies,
)
from src.chemistry.structure_ligands import COMPLEX, KINDS, PlacedLigand, place_ligand
from src.data_processing import GraphError, Receptor, build_graph, pocket_atoms
from src.graph import ComplexGraph
from src.scoring import pose_warnings
from src.scoring.poses import Pose
from src.scoring.row_formats import on_a_line
from src.settings import GraphSettings
from src.similarity.applicability import Domain

JITTER = 0.1  # Å, standard deviation of each coordinate: what two refinements of one crystal structure differ by
POSING_RADIUS = 14.0  # Å from a template; of an analogue 14 Å longer than it, what lies beyond is not seen
MODELLED = Path("modelled pose")  # where a record comes from that is in no file
MAX_RECEPTORS = 4  # kept in memory; in a table of pairs those of one protein mostly follow each other


@dataclass(frozen=True)
class PoseGraphs:
    """What the network needs of one pose, and what else is said about it."""

    ligand: str  # name of the molecule
    failure: str = ""
    warnings: tuple[str, ...] = ()
    unseen: tuple[str, ...] = ()  # what of it no training complex had
    graphs: tuple[ComplexGraph, ...] = ()  # graph of the pose, then those of its jittered copies
    pose: str = "given"  # or what it is modelled on
    modelled: LigandRecord | None = None  # that pose, or the one that was given, with the bond orders that were found
    found: Mapping[str, object] = field(default_factory=dict)  # what else the files say


@dataclass(frozen=True)
class _Known:
    """A protein that was read, and what is found out once for all poses in it."""

    receptor: Receptor
    incomplete: frozenset[ResidueId]
    templates: tuple[Template, ...] = ()


class PoseReader:
    """Builds the graphs of poses; a protein is read once, and what lies around a pose is cut out of it."""

    def __init__(
        self,
        settings: GraphSettings,
        domain: Domain | None = None,
        *,
        num_jitters: int = 0,
        one_receptor: bool = True,
        templates: Sequence[LigandRecord] = (),
    ):
        """
        Args:
            num_jitters: copies of each pose with noise of JITTER on the ligand's coordinates.
            one_receptor: a protein that cannot be read is an error, not the reason why one pose of many fails.
            templates: crystal ligands, on which molecules without a pose are modelled.
        """
        self.templates = templates
        self.settings, self.domain = settings, domain
        self.num_jitters, self.one_receptor = num_jitters, one_receptor
        self._receptors: dict[Path, _Known | StructureError] = {}

    def read(self, poses: Sequence[Pose], *, is_all: bool = False) -> list[PoseGraphs]:
        """
        Args:
            is_all: nothing follows, so that of a protein only what is near these poses need be parsed.

        Raises:
            StructureError: a template cannot be used, or the protein cannot be read, and there is one_receptor.
        """
        if self.templates:
            return [self._modelled(pose) for pose in poses]
        placed = [_placed(pose) for pose in poses]
        ligands = [one if isinstance(one, LigandError) else ligand_of(one.record) for one in placed]
        if is_all:
            self._read_near(poses, ligands)
        graphs = [self._graphs(pose, ligand) for pose, ligand in zip(poses, ligands, strict=True)]
        return [_with_source(*one) for one in zip(poses, placed, graphs, strict=True)]

    def _modelled(self, pose: Pose) -> PoseGraphs:
        """Of a molecule as drawn; a pose that clashes is none."""
        if pose.record is None:
            return self._graphs(pose, LigandError(pose.failure))
        templates = self._receptor(pose.protein).templates
        try:
            model = pose_analogue(pose.record.text.split("\n")[1], templates)
        except PosingError as error:
            return PoseGraphs(pose.title, str(error))
        model.mol.SetProp("_Name", on_a_line(pose.title))
        record = LigandRecord(MODELLED, "sdf", pose.number, Chem.MolToMolBlock(model.mol))
        found = self._graphs(pose, ligand_of(record))
        if found.failure:
            return replace(found, ligand=pose.title)
        if clash := pose_warnings.clash_warning(found.graphs[0]):
            return PoseGraphs(pose.title, f"no pose on {model.template} without a clash: {clash}")
        core = f"core {model.num_core} of {model.num_atoms} atoms"
        text = f"modelled on {model.template}, {core}"
        few = ", less than half: it is likely to be wrong" if 2 * model.num_core < model.num_atoms else ""
        warnings = (f"the pose is {text}{few}", *model.notes, *found.warnings)
        return replace(found, warnings=warnings, pose=text, modelled=record)

    def _graphs(self, pose: Pose, ligand: Ligand | LigandError) -> PoseGraphs:
        if isinstance(ligand, LigandError):
            return PoseGraphs(pose.place, str(ligand))
        try:
            return self._build(ligand, self._receptor(pose.protein), is_inside=_is_complex(pose))
        except GraphError as error:
            return PoseGraphs(ligand.name, str(error))
        except StructureError as error:
            if self.one_receptor:
                raise
            return PoseGraphs(ligand.name, str(error))

    def _build(self, ligand: Ligand, known: _Known, *, is_inside: bool = False) -> PoseGraphs:
        """
        Args:
            is_inside: the protein file has the ligand, so that its copy there is worth no word.
        """
        receptor, radius = known.receptor, self.settings.pocket_radius
        near = receptor.around(ligand.atoms.pos, radius)
        atoms, copies = drop_ligand_copy(near.atoms, ligand.atoms)
        near = replace(near, atoms=atoms, notes=near.notes if is_inside else (*near.notes, *copy_notes(copies)))
        graph, notes = build_graph(ligand.name, ligand, near, self.settings)
        partly = (f"the ligand is read by {ligand.read_as}",) if "partial" in ligand.read_as else ()
        copies = [
            build_graph(ligand.name, one, receptor.around(one.atoms.pos, radius), self.settings)[0]
            for one in jittered(ligand, self.num_jitters)
        ]
        warnings = (
            *pose_warnings.geometry_warnings(graph, self.settings),
            *pose_warnings.foreign_warnings(near.atoms, ligand),
            *pose_warnings.metal_warnings(graph, near.atoms, ligand),
            *(pose_warnings.pocket_warnings(near, ligand, self.settings) if graph.contacts.shape[1] else ()),
            *pose_warnings.incomplete_warnings(near.atoms, known.incomplete, ligand.atoms.pos),
        )
        unseen = self.domain.unseen(graph) if self.domain else ()
        if not graph.contacts.shape[1]:
            unseen = ("no protein atom is near it", *unseen)
        return PoseGraphs(ligand.name, "", (*warnings, *partly, *notes), unseen, (graph, *copies))

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
            protein, templates = self._with_templates(protein)
            self._receptors[path] = _Known(Receptor(protein), incomplete_residues(protein.atoms), templates)
        except StructureError as error:
            self._receptors[path] = error

    def _with_templates(self, protein: Protein) -> tuple[Protein, tuple[Template, ...]]:
        """The protein without copies of the templates, which lie where analogues will, and the templates in it.

        Raises:
            StructureError: one of them is not sound, or lies elsewhere.
        """
        ligands = [(record, ligand_of(record)) for record in self.templates]
        for record, ligand in ligands:
            if isinstance(ligand, LigandError):
                raise ligand
            if "partial" in ligand.read_as:
                raise LigandError(f"{record}: a template must be a sound molecule: {'; '.join(ligand.notes)}")
        protein = without_copies(protein, [ligand.atoms for _, ligand in ligands])
        wide, templates = replace(self.settings, pocket_radius=POSING_RADIUS), []
        for record, ligand in ligands:
            sites = pocket_sites(pocket_atoms(ligand, protein, wide))
            if not sites.pos.size or cdist(ligand.atoms.pos, sites.pos).min() >= self.settings.interaction_cutoff:
                raise LigandError(f"{record}: no atom of the protein is near this template; is it in the same frame?")
            templates.append(Template(_template_name(record, ligand), ligand.mol, sites))
        return protein, tuple(templates)

    def _read_near(self, poses: Sequence[Pose], ligands: Sequence[Ligand | LigandError]) -> None:
        near: dict[Path, list[np.ndarray]] = {}
        for pose, ligand in zip(poses, ligands, strict=True):
            if isinstance(ligand, Ligand):
                near.setdefault(pose.protein, []).append(ligand.atoms.pos)
        if len(near) <= MAX_RECEPTORS:
            for path, positions in near.items():
                self._keep(path, np.concatenate(positions))


def _placed(pose: Pose) -> PlacedLigand | LigandError:
    """The record of a pose with bond orders."""
    if pose.record is None:
        return LigandError(pose.failure)
    if pose.record.kind not in KINDS:
        return PlacedLigand(pose.record)
    try:
        return place_ligand(pose.record, pose.smiles, pose.residue)
    except LigandError as error:
        return error


def _is_complex(pose: Pose) -> bool:
    return pose.record is not None and pose.record.kind == COMPLEX


def _with_source(pose: Pose, placed: PlacedLigand | LigandError, graphs: PoseGraphs) -> PoseGraphs:
    if isinstance(placed, LigandError) or not placed.found:
        return graphs
    return replace(graphs, modelled=placed.record, found=placed.found, warnings=(*graphs.warnings, *placed.notes))


def _template_name(record: LigandRecord, ligand: Ligand) -> str:
    """The title, and the file where it says something else."""
    file = record.path.name if record.number == 1 and not record.followed else f"{record.path.name}, {record.number}"
    return file if ligand.name in file else f"{ligand.name} ({file})"


def jittered(ligand: Ligand, count: int) -> Iterable[Ligand]:
    """Copies of a pose with normal noise of JITTER, Å, on every coordinate; the same noise in every run."""
    for number in range(count):
        noise = np.random.default_rng([0, number]).normal(0.0, JITTER, ligand.atoms.pos.shape)
        yield replace(ligand, atoms=replace(ligand.atoms, pos=ligand.atoms.pos + noise))
