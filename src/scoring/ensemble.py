"""A checkpoint, or several as an ensemble, and the graphs of poses -> a prediction for each pose, failures included."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

from src.checkpoint import BEST, ENDING, SET_ASIDE, CheckpointError, load_members
from src.chemistry.structure_ligands import COLUMNS as FOUND_COLUMNS
from src.data.batching import Budget, in_order
from src.data.dataset import Example
from src.data_processing import DATA_PROCESSING_VERSION, other_version_text
from src.evaluation.calibration import Calibration, read_calibration
from src.gaussian_process.joined_model import JUDGED, Judge, ScoringModel, join_stored
from src.hardware.device import choose_device
from src.hardware.inference import begin_prediction
from src.model import ModelError, rebuild_model
from src.scoring.pose_graphs import PoseGraphs, PoseReader
from src.scoring.poses import Pose, iter_poses
from src.scoring.prediction import BEST_POSE_COLUMNS, COLUMNS, ENSEMBLE_COLUMN, JITTER_COLUMN, MEMBER_COLUMN, Prediction
from src.scoring.trust import half_width, trust
from src.settings import GraphSettings, ModelSettings, SettingsError, settings_from_dict
from src.similarity.applicability import Domain, read_domain

log = logging.getLogger(__name__)

MAX_ATOMS_PER_BATCH = {"cpu": 20_000, "cuda": 60_000}  # larger batches are run in parts
SYNTHETIC = (
    "this model was trained on the synthetic demo set: its numbers show that the program works, "
    "they say nothing about real complexes"
)


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

    def columns(
        self, *, per_model: bool = False, jitter: bool = False, best_pose: bool = False, structures: bool = False
    ) -> list[str]:
        """Of a table of its predictions.

        Args:
            structures: with those of ligands whose bond orders were found, and of what programs say of a pose.
        """
        many = len(self.scorers) > 1
        members = [MEMBER_COLUMN.format(number) for number in range(1, len(self.scorers) + 1)]
        models = [*[ENSEMBLE_COLUMN] * many, *members * (many and per_model)]
        found = FOUND_COLUMNS * structures
        return [*COLUMNS, *models, *[JITTER_COLUMN] * jitter, *BEST_POSE_COLUMNS * best_pose, *found]

    def reader(self, **how: Any) -> PoseReader:
        """What builds the graphs; where models differ in what they were trained on, the first one's counts."""
        return PoseReader(self.graph_settings, self.scorers[0].domain, **how)

    def score(self, protein_path: Path, ligand_path: Path, *, batch_size: int = 16) -> Iterator[Prediction]:
        poses, reader = iter_poses(protein_path, [ligand_path]), self.reader()
        chunk, is_first = list(islice(poses, batch_size)), True
        while chunk:
            following = list(islice(poses, batch_size))
            yield from self.predict(chunk, reader.read(chunk, is_all=is_first and not following))
            chunk, is_first = following, False

    def predict(self, poses: Sequence[Pose], read: Sequence[PoseGraphs]) -> list[Prediction]:
        """A prediction for each of the poses, which need not fit into memory together."""
        return self.begin(poses, read)()

    def begin(self, poses: Sequence[Pose], read: Sequence[PoseGraphs]) -> Callable[[], list[Prediction]]:
        """`predict`, whose predictions are asked for when a GPU has had time to make them."""
        scores = self._begin_scores([Example(graph, math.nan) for one in read for graph in one.graphs])

        def predictions() -> list[Prediction]:
            (table, too_large), found, place = scores(), [], 0
            for pose, one in zip(poses, read, strict=True):
                mine = slice(place, place + len(one.graphs))
                failure = one.failure or _fault(one, table[:, mine], place in too_large)
                found.append(self._prediction(pose, one, table[:, mine], failure))
                place = mine.stop
            return found

        return predictions

    def _begin_scores(self, examples: Sequence[Example]) -> Callable[[], tuple[np.ndarray, set[int]]]:
        """What every model says, [models, examples, len(JUDGED)], NaN where memory is short; the places of those."""
        if not examples:
            return lambda: (np.zeros((len(self.scorers), 0, len(JUDGED))), set())
        budget = Budget(max_atoms=MAX_ATOMS_PER_BATCH.get(self.device.type, MAX_ATOMS_PER_BATCH["cpu"]))
        batches, left_out = list(in_order(examples, len(examples), budget)), []
        begun = [begin_prediction(Judge(model), batches, self.device, left_out=left_out) for model in self.models]
        return lambda: (np.stack([read()[0] for read in begun]).astype(np.float64), set(left_out))

    def _prediction(self, pose: Pose, one: PoseGraphs, table: np.ndarray, failure: str) -> Prediction:
        where = {"protein_file": str(pose.protein), "ligand_file": str(pose.ligand), "molecule": pose.number}
        where |= {"pose": one.pose, "modelled": one.modelled, "found": one.found}
        if failure:
            return Prediction(pose.title or one.ligand, **where, pk=None, warnings=(), failure=failure)
        told, copies = table[:, 0], table[:, 1:, 0].mean(axis=0)
        pk, domain = float(told[:, 0].mean()), self.scorers[0].domain
        unseen = (*one.unseen, *(domain.unseen_pk(pk) if domain else ()))
        calibrations = [scorer.calibration for scorer in self.scorers]
        return Prediction(
            one.ligand,
            **where,
            pk=pk,
            warnings=one.warnings,
            half_width=half_width(told, calibrations),
            members=tuple(told[:, 0].tolist()),
            jitter_sd=float(copies.std(ddof=1)) if len(copies) > 1 and np.isfinite(copies).all() else None,
            trust=trust(told, self.models, calibrations, unseen),
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
        inside = [best] if best.is_file() else sorted([*_of_runs(path), *path.glob(f"[!.]*{ENDING}")])
        if not inside:
            raise CheckpointError(f"{path}: this folder has no {BEST}, nor has one of its subfolders")
        found += inside
    return list(dict.fromkeys(found))


def _of_runs(folder: Path) -> list[Path]:
    return [path for path in folder.glob(f"*/{BEST}") if not path.parent.name.startswith(SET_ASIDE)]


def load_ensemble(paths: Sequence[Path], device: str = "auto") -> Ensemble:
    """Rebuild the models of several checkpoints.

    Raises:
        CheckpointError: as load_scorer, or when two of them see a complex in different ways.
    """
    scorers = [scorer_of(state, path, device) for path in paths for state in _members(path)]
    for scorer in scorers:
        path = scorer.checkpoint
        if scorer.graph_settings != scorers[0].graph_settings:
            raise CheckpointError(f"{path}: its graphs have other settings than those of {paths[0]}: score them apart")
        if scorer.trained_on_synthetic_data != scorers[0].trained_on_synthetic_data:
            raise CheckpointError(
                f"{path} and {paths[0]}: one was trained on the synthetic demo set, the other on real complexes: "
                "score with one of the two"
            )
    return Ensemble(tuple(scorers))


def load_scorer(path: Path, device: str = "auto") -> Scorer:
    """Rebuild the model of a checkpoint; nothing is read from config.py.

    Raises:
        CheckpointError: when the file is damaged, unsafe or incomplete, or when this program builds other graphs
            than those the model was trained on.
    """
    members = _members(path)
    if len(members) > 1:
        raise CheckpointError(f"{path}: holds {len(members)} models that score together; the file of one is needed")
    return scorer_of(members[0], path, device)


def scorer_of(state: Mapping[str, Any], path: Path, device: str = "auto") -> Scorer:
    """The same of what was read from a checkpoint. Raises CheckpointError: as load_scorer."""
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


def _members(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        raise CheckpointError(f"{path}: there is no such file; train with main.py first, or give another --checkpoint")
    return load_members(path)


def _fault(one: PoseGraphs, table: np.ndarray, is_too_large: bool) -> str:
    """Why a pose that was read has no score; '' when it has one."""
    if is_too_large:
        return f"{one.graphs[0].num_atoms} atoms do not fit into memory; try --device cpu"
    return "" if np.isfinite(table[:, 0, 0]).all() else "the model gave a number that is not finite"


def _warn_of_other_rdkit(state: Mapping[str, object]) -> None:
    trained_with = state.get("versions", {}).get("rdkit")
    here = metadata.version("rdkit")
    if trained_with and trained_with != here:
        log.warning("trained with RDKit %s, this is %s: aromaticity and so scores may differ", trained_with, here)
