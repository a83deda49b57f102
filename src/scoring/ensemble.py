"""A checkpoint, or several as an ensemble, and the graphs of poses -> a prediction for each pose, failures included."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from itertools import islice
from pathlib import Path

import numpy as np
import torch

from src.checkpoint import BEST, ENDING, FOR_PREDICTION, CheckpointError, load_checkpoint
from src.data.batching import Budget, in_order
from src.data.dataset import Example
from src.data_processing import DATA_PROCESSING_VERSION, other_version_text
from src.evaluation.calibration import Calibration, ensemble_half_width, read_calibration
from src.gaussian_process.joined_model import ScoringModel, join_stored
from src.hardware.device import choose_device
from src.hardware.inference import predict_batches
from src.model import ModelError, rebuild_model
from src.scoring.pose_graphs import PoseGraphs, PoseReader
from src.scoring.poses import Pose, iter_poses
from src.scoring.prediction import COLUMNS, ENSEMBLE_COLUMN, JITTER_COLUMN, MEMBER_COLUMN, Prediction
from src.settings import GraphSettings, ModelSettings, SettingsError, settings_from_dict
from src.similarity.applicability import Domain, read_domain

log = logging.getLogger(__name__)

MAX_ATOMS_PER_BATCH = {"cpu": 20_000, "cuda": 60_000}  # larger batches are run in parts


@dataclass(frozen=True)
class Scorer:
    """A trained model with everything that it needs to see a complex as it did in training."""

    model: ScoringModel
    graph_settings: GraphSettings
    device: torch.device
    trained_on_synthetic_data: bool
    calibration: Calibration | None = None
    domain: Domain | None = field(default=None, repr=False)
    checkpoint: Path | None = None

    def score(self, protein_path: Path, ligand_path: Path, *, batch_size: int = 16) -> Iterator[Prediction]:
        """Score every molecule of a ligand file against one protein, in the order of the file.

        Raises:
            StructureError: when the protein or the ligand file as a whole cannot be read.
        """
        return Ensemble((self,)).score(protein_path, ligand_path, batch_size=batch_size)


@dataclass(frozen=True)
class Ensemble:
    """One or more trained models that see a complex in the same way; the score is the mean of theirs."""

    scorers: tuple[Scorer, ...]

    @property
    def models(self) -> tuple[ScoringModel, ...]:
        return tuple(scorer.model for scorer in self.scorers)

    @property
    def graph_settings(self) -> GraphSettings:
        return self.scorers[0].graph_settings

    @property
    def device(self) -> torch.device:
        return self.scorers[0].device

    @property
    def trained_on_synthetic_data(self) -> bool:
        return any(scorer.trained_on_synthetic_data for scorer in self.scorers)

    def columns(self, *, per_model: bool = False, jitter: bool = False) -> list[str]:
        """Of a table of its predictions."""
        many = len(self.scorers) > 1
        members = [MEMBER_COLUMN.format(number) for number in range(1, len(self.scorers) + 1)]
        return [*COLUMNS, *[ENSEMBLE_COLUMN] * many, *members * (many and per_model), *[JITTER_COLUMN] * jitter]

    def reader(self, *, num_jitters: int = 0, one_receptor: bool = True) -> PoseReader:
        """What builds the graphs; where models differ in what they were trained on, the first one's counts."""
        domain = self.scorers[0].domain
        return PoseReader(self.graph_settings, domain, num_jitters=num_jitters, one_receptor=one_receptor)

    def score(self, protein_path: Path, ligand_path: Path, *, batch_size: int = 16) -> Iterator[Prediction]:
        """As Scorer.score."""
        poses, reader = iter_poses(protein_path, [ligand_path]), self.reader()
        chunk, is_first = list(islice(poses, batch_size)), True
        while chunk:
            following = list(islice(poses, batch_size))
            yield from self.predict(chunk, reader.read(chunk, is_all=is_first and not following))
            chunk, is_first = following, False

    def predict(self, poses: Sequence[Pose], read: Sequence[PoseGraphs]) -> list[Prediction]:
        """A prediction for each of the poses, which need not fit into memory together."""
        graphs = [graph for one in read for graph in one.graphs]
        table, too_large = self._scores([Example(graph, math.nan) for graph in graphs])
        half_width = ensemble_half_width([scorer.calibration for scorer in self.scorers])
        predictions, place = [], 0
        for pose, one in zip(poses, read, strict=True):
            mine = slice(place, place + len(one.graphs))
            failure = one.failure or _fault(one, table[:, mine], place in too_large)
            predictions.append(self._prediction(pose, one, table[:, mine], failure, half_width))
            place = mine.stop
        return predictions

    def _scores(self, examples: Sequence[Example]) -> tuple[np.ndarray, set[int]]:
        """pK by every model, [models, examples], NaN for those that do not fit into memory, whose places follow."""
        if not examples:
            return np.zeros((len(self.scorers), 0)), set()
        budget = Budget(max_atoms=MAX_ATOMS_PER_BATCH.get(self.device.type, MAX_ATOMS_PER_BATCH["cpu"]))
        batches, left_out, rows = list(in_order(examples, len(examples), budget)), [], []
        for model in self.models:
            rows.append(predict_batches(model, batches, self.device, left_out=left_out)[0])
        return np.stack(rows).astype(np.float64), set(left_out)

    def _prediction(
        self, pose: Pose, one: PoseGraphs, table: np.ndarray, failure: str, half_width: float | None
    ) -> Prediction:
        where = {"protein_file": str(pose.protein), "ligand_file": str(pose.ligand), "molecule": pose.number}
        if failure:
            return Prediction(pose.title or one.ligand, **where, pk=None, warnings=(), failure=failure)
        pk, copies = float(table[:, 0].mean()), table[:, 1:].mean(axis=0)
        domain = self.scorers[0].domain
        applicability = domain.judge_pk(pk, one.applicability) if domain else one.applicability
        return Prediction(
            one.ligand,
            **where,
            pk=pk,
            warnings=one.warnings,
            half_width=half_width,
            members=tuple(table[:, 0].tolist()),
            jitter_sd=float(copies.std(ddof=1)) if len(copies) > 1 and np.isfinite(copies).all() else None,
            applicability=applicability.text,
            unlike=applicability.reasons,
        )


def find_checkpoints(paths: Sequence[Path]) -> list[Path]:
    """Files as they are given; of a folder of a run its best model, else those of its subfolders and all files in it.

    Raises:
        CheckpointError: a folder has none.
    """
    found: list[Path] = []
    for path in paths:
        if not path.is_dir():
            found.append(path)
            continue
        best = path / BEST
        inside = [best] if best.is_file() else sorted([*path.glob(f"*/{BEST}"), *path.glob(f"[!.]*{ENDING}")])
        if not inside:
            raise CheckpointError(f"{path}: this folder has no {BEST}, nor has one of its subfolders")
        found += inside
    return list(dict.fromkeys(found))


def load_ensemble(paths: Sequence[Path], device: str = "auto") -> Ensemble:
    """Rebuild the models of several checkpoints.

    Raises:
        CheckpointError: as load_scorer, or when two of them see a complex in different ways.
    """
    scorers = [load_scorer(path, device) for path in paths]
    for path, scorer in zip(paths, scorers, strict=True):
        if scorer.graph_settings != scorers[0].graph_settings:
            raise CheckpointError(f"{path}: its graphs have other settings than those of {paths[0]}: score them apart")
    return Ensemble(tuple(scorers))


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
        raise CheckpointError(f"{path}: {other_version_text(state['data_version'])}")
    try:
        model_settings = settings_from_dict(ModelSettings, state["model_settings"], source=str(path))
        graph_settings = settings_from_dict(GraphSettings, state["graph_settings"], source=str(path))
        weights = state.get("ema") or state["model"]
        model = rebuild_model(model_settings, weights)
    except (SettingsError, ModelError, RuntimeError) as error:
        raise CheckpointError(f"{path}: the model cannot be rebuilt: {error}") from error
    try:
        joined, calibration, domain = join_stored(model, state), read_calibration(state), read_domain(state)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error
    _warn_of_other_rdkit(state)
    chosen = choose_device(device)
    synthetic = bool(state.get("dataset", {}).get("synthetic"))
    return Scorer(joined.to(chosen).eval(), graph_settings, chosen, synthetic, calibration, domain, path)


def _fault(one: PoseGraphs, table: np.ndarray, is_too_large: bool) -> str:
    """Why a pose that was read has no score; '' when it has one."""
    if is_too_large:
        return f"{one.graphs[0].num_atoms} atoms do not fit into memory; try --device cpu"
    return "" if np.isfinite(table[:, 0]).all() else "the model gave a number that is not finite"


def _warn_of_other_rdkit(state: Mapping[str, object]) -> None:
    trained_with = state.get("versions", {}).get("rdkit")
    here = metadata.version("rdkit")
    if trained_with and trained_with != here:
        log.warning("trained with RDKit %s, this is %s: aromaticity and so scores may differ", trained_with, here)
