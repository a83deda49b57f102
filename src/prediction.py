"""A checkpoint and structure files -> a stream of rows, one for each ligand, failures included."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from importlib import metadata
from itertools import islice
from pathlib import Path

import numpy as np
import torch

from src.checkpoint import FOR_PREDICTION, CheckpointError, load_checkpoint
from src.data_processing import DATA_PROCESSING_VERSION, GraphError, build_graph
from src.dataset import Example, collate
from src.graph import ComplexGraph
from src.inference import choose_device, predict_batches
from src.ligands import Ligand, LigandError, iter_ligands
from src.model import AffinityModel, ModelError, build_model
from src.settings import GraphSettings, ModelSettings, SettingsError, settings_from_dict
from src.structures import Protein, read_protein

log = logging.getLogger(__name__)

# kcal/mol for one unit of pK at 298.15 K: R * T * ln(10) with R = 1.987204259e-3 kcal/(mol K) (CODATA 2018)
KCAL_PER_PK = 1.987204259e-3 * 298.15 * math.log(10)
CLASH_DISTANCE = 2.0  # Å between heavy atoms that are not bonded
COLUMNS = ("ligand", "pK", "Kd_nM", "dG_kcal_mol_298K", "status", "warnings", "protein_file", "ligand_file")


@dataclass(frozen=True)
class Prediction:
    """One scored ligand, or the reason why it has no score."""

    ligand: str
    protein_file: str
    ligand_file: str
    pk: float | None
    warnings: tuple[str, ...]
    failure: str = ""

    @property
    def kd_nm(self) -> float | None:
        """The dissociation constant that belongs to the pK, nmol/L; 0 or infinite where it leaves float's range."""
        return None if self.pk is None else 10.0 ** min(9.0 - self.pk, 308.0)

    @property
    def dg_kcal_mol(self) -> float | None:
        """Binding free energy -RT ln(10) pK at 298.15 K, kcal/mol."""
        return None if self.pk is None else -KCAL_PER_PK * self.pk

    def row(self) -> dict[str, object]:
        """The columns of COLUMNS, as they go into a CSV or JSON file."""
        values = (
            self.ligand,
            None if self.pk is None else round(self.pk, 3),
            None if self.kd_nm is None else float(f"{self.kd_nm:.4g}"),
            None if self.dg_kcal_mol is None else round(self.dg_kcal_mol, 2),
            f"failed: {self.failure}" if self.failure else "ok",
            "; ".join(self.warnings),
            self.protein_file,
            self.ligand_file,
        )
        return dict(zip(COLUMNS, values, strict=True))


@dataclass(frozen=True)
class Scorer:
    """A trained model with everything that it needs to see a complex as it did in training."""

    model: AffinityModel
    graph_settings: GraphSettings
    device: torch.device
    trained_on_synthetic_data: bool

    def score(self, protein_path: Path, ligand_path: Path, *, batch_size: int = 16) -> Iterator[Prediction]:
        """Score every molecule of a ligand file against one protein, in the order of the file.

        Raises:
            StructureError: when the protein or the ligand file as a whole cannot be read.
        """
        ligands = iter_ligands(ligand_path)
        chunk = list(islice(ligands, batch_size))
        near = [ligand.atoms.pos for ligand in chunk if isinstance(ligand, Ligand)]
        # A short file needs the surroundings of its poses only; what is read there is the same.
        is_short = len(chunk) < batch_size and bool(near)
        radius = self.graph_settings.pocket_radius
        protein = read_protein(protein_path, near=np.concatenate(near) if is_short else None, radius=radius)
        while chunk:
            yield from self._score_chunk([self._prepare(one, protein, protein_path, ligand_path) for one in chunk])
            chunk = list(islice(ligands, batch_size))

    def _prepare(
        self, ligand: Ligand | LigandError, protein: Protein, protein_path: Path, ligand_path: Path
    ) -> tuple[Prediction, ComplexGraph | None]:
        files = {"protein_file": str(protein_path), "ligand_file": str(ligand_path)}
        if isinstance(ligand, LigandError):
            return Prediction(ligand_path.name, **files, pk=None, warnings=(), failure=str(ligand)), None
        try:
            graph, notes = build_graph(ligand.name, ligand, protein, self.graph_settings)
        except GraphError as error:
            return Prediction(ligand.name, **files, pk=None, warnings=(), failure=str(error)), None
        partly = (f"the ligand is read by {ligand.road}",) if "partial" in ligand.road else ()
        warnings = (*geometry_warnings(graph, self.graph_settings), *partly, *notes)
        return Prediction(ligand.name, **files, pk=None, warnings=warnings), graph

    def _score_chunk(self, chunk: Sequence[tuple[Prediction, ComplexGraph | None]]) -> Iterator[Prediction]:
        graphs = [graph for _, graph in chunk if graph is not None]
        batches = [collate([Example(graph, math.nan) for graph in graphs])] if graphs else []
        scores = iter(predict_batches(self.model, batches, self.device)[0].tolist())
        for prediction, graph in chunk:
            if graph is None:
                yield prediction
                continue
            pk = next(scores)
            if math.isfinite(pk):
                yield replace(prediction, pk=pk)
            else:
                yield replace(prediction, failure="the model gave a number that is not finite")


def load_scorer(path: Path, device: str = "auto") -> Scorer:
    """Rebuild the model of a checkpoint; nothing is read from config.py.

    Raises:
        CheckpointError: when the file is damaged, unsafe or incomplete, or when this program builds other graphs
            than those the model was trained on.
    """
    if not path.is_file():
        raise CheckpointError(f"{path}: there is no such file; train with main.py first, or give another --checkpoint")
    state = load_checkpoint(path, required=FOR_PREDICTION)
    if state["data_version"] != DATA_PROCESSING_VERSION:
        raise CheckpointError(
            f"{path}: trained on graphs of version {state['data_version']}; this program builds version "
            f"{DATA_PROCESSING_VERSION}. Use the program it was trained with, or train again"
        )
    try:
        model_settings = settings_from_dict(ModelSettings, state["model_settings"], source=str(path))
        graph_settings = settings_from_dict(GraphSettings, state["graph_settings"], source=str(path))
        model = build_model(model_settings)
        model.load_state_dict(state.get("ema") or state["model"])
    except (SettingsError, ModelError, RuntimeError) as error:
        raise CheckpointError(f"{path}: the model cannot be rebuilt: {error}") from error
    trained_with = state.get("versions", {}).get("rdkit")
    here = metadata.version("rdkit")
    if trained_with and trained_with != here:
        log.warning("trained with RDKit %s, this is %s: aromaticity and so scores may differ", trained_with, here)
    chosen = choose_device(device)
    return Scorer(model.to(chosen).eval(), graph_settings, chosen, bool(state.get("dataset", {}).get("synthetic")))


def geometry_warnings(graph: ComplexGraph, settings: GraphSettings) -> Iterable[str]:
    """What a chemist should know about the pose before believing its score."""
    if not graph.contacts.shape[1]:
        yield f"no protein atom within {settings.interaction_cutoff:g} Å: the pK says nothing about this pose"
        return
    ligand, pocket = graph.contacts.long().numpy()
    pos = graph.pos.numpy()
    closest = float(np.linalg.norm(pos[ligand] - pos[pocket], axis=1).min())
    if closest < CLASH_DISTANCE:
        yield f"ligand and protein atoms are only {closest:.1f} Å apart (a clash or a covalent bond)"


def sentence(prediction: Prediction) -> str:
    """One line that a person can read."""
    if prediction.pk is None:
        return f"{prediction.ligand}: not scored: {prediction.failure}"
    text = (
        f"{prediction.ligand}: pK {prediction.pk:.2f} (-log10 of the affinity in mol/L), "
        f"Kd about {_concentration(prediction.kd_nm)}, ΔG {prediction.dg_kcal_mol:.1f} kcal/mol at 298.15 K"
    )
    return text + "".join(f"\n  warning: {warning}" for warning in prediction.warnings)


def _concentration(nanomolar: float) -> str:
    for unit, size in (("mM", 1e6), ("µM", 1e3), ("nM", 1.0)):
        if nanomolar >= size:
            return f"{nanomolar / size:.3g} {unit}"
    return f"{nanomolar * 1e3:.3g} pM"
