"""A table of measured ligands -> models whose scores are conditioned on them, without a training."""

from __future__ import annotations

import logging
import math
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from src.checkpoint import load_members, save_members
from src.data.batching import in_order
from src.data.dataset import Example
from src.gaussian_process.joined_model import JoinedModel
from src.gaussian_process.known_ligands import condition
from src.gaussian_process.process import MAX_REFERENCES
from src.gaussian_process.profiles import labelled_profiles
from src.graph import ComplexGraph
from src.hardware.inference import predict_batches
from src.pdbbind.affinity import PDBbindError
from src.pdbbind.user_table import label_reader
from src.scoring.ensemble import Ensemble, load_ensemble
from src.scoring.poses import read_pairs
from src.scoring.screening import ScreeningOptions, read_graphs
from src.system.errors import UserError
from src.system.terminal import listed

log = logging.getLogger(__name__)

CONTRADICTION = 1.0  # pK between two values of one ligand that no assay's error explains
BATCH = 32


class KnownLigandsError(UserError):
    """Measured ligands that no score can be conditioned on; says which and what would be right."""


class Known(NamedTuple):
    """One measured ligand."""

    name: str
    protein: Path
    graph: ComplexGraph
    pk: float
    bound: int  # 0 the value is exact, 1 the pK is at least it, -1 at most


def condition_models(
    table: Path, checkpoints: Sequence[Path], save_to: Path, device: str, num_workers: int | None
) -> list[Known]:
    """Write the models conditioned on a table of measured ligands as one file, which scores alone; return the ligands.

    Args:
        table: columns protein_path, ligand_path and the affinity as in a training table.

    Raises:
        KnownLigandsError: no row can be used, or a model has no Gaussian process or was conditioned before.
        PoseError: the table cannot be read.
        PDBbindError: it has no column with the affinity.
        CheckpointError: the models cannot be used, or the file cannot be written.
    """
    ensemble = load_ensemble(checkpoints, device)
    for scorer in ensemble.scorers:
        if not isinstance(scorer.model, JoinedModel):
            raise KnownLigandsError(
                f"{scorer.checkpoint}: has no Gaussian process, so measured ligands cannot condition it; train it with "
                "gaussian_process = True"
            )
        if scorer.model.known is not None:
            raise KnownLigandsError(
                f"{scorer.checkpoint}: is conditioned on measured ligands already; give the model that it was made of, "
                "and all measured ligands in one table"
            )
    known = read_known(table, ensemble, num_workers)
    states = [state for path in checkpoints for state in load_members(path)]
    models = [scorer.model for scorer in ensemble.scorers]
    save_members(save_to, [_conditioned(*one, known) for one in zip(states, models, strict=True)])
    return known


def read_known(path: Path, ensemble: Ensemble, num_workers: int | None = None) -> list[Known]:
    """The measured ligands of a table as the models see them; a row that cannot be used is named in a warning.

    Raises:
        KnownLigandsError: there is none, or there are too many.
        PoseError, PDBbindError: the table cannot be read.
    """
    table = read_pairs(path)
    label = label_reader(path, table.columns)
    found, refused = [], []
    options = ScreeningOptions(num_workers=num_workers, one_receptor=False)
    for pose, read in read_graphs(ensemble, table.poses(), options):
        name = pose.title or read.ligand
        try:
            pk, bound = label(pose.given)
        except PDBbindError as error:
            refused.append(f"{name}: {error}")
            continue
        if read.failure:
            refused.append(f"{name}: {read.failure}")
        elif not read.graphs[0].contacts.shape[1]:
            refused.append(f"{name}: no protein atom is near it, so that it says nothing about other poses")
        else:
            found.append(Known(name, pose.protein, read.graphs[0], pk, bound))
    if refused:
        log.warning("%s: %d measured ligands are not used:\n  %s", path, len(refused), "\n  ".join(refused))
    if not found:
        raise KnownLigandsError(f"{path}: none of its rows can be used; expected poses of ligands with their affinity")
    if len(found) > MAX_REFERENCES:
        raise KnownLigandsError(
            f"{path}: {len(found):,} measured ligands; at most {MAX_REFERENCES:,} condition a score: train on so many"
        )
    for text in _oddities(found):
        log.warning("%s: %s", path, text)
    log.info("scores are conditioned on %d measured ligands of %s", len(found), path)
    return found


def _conditioned(state: dict[str, Any], model: JoinedModel, known: Sequence[Known]) -> dict[str, Any]:
    """What a checkpoint of the model holds, with the ligands."""
    examples = [Example(one.graph, one.pk) for one in known]
    device = next(model.parameters()).device
    scores, _ = predict_batches(model, in_order(examples, BATCH), device)
    model = model.cpu()
    profiles = labelled_profiles(in_order(examples, BATCH), model.process.cutoff)
    profiles = profiles._replace(codes=tuple(one.name for one in known))
    errors = np.array([one.pk for one in known]) - scores.astype(np.float64)
    added = condition(model.process, model.prior, profiles, errors, np.array([one.bound for one in known]))
    return {**state, "process": {**state["process"], "known": added.state_facts()}}


def _oddities(known: Sequence[Known]) -> list[str]:
    """What is said of ligands that were measured more than once, and of values that contradict each other."""
    of_ligand: dict[tuple[Path, str], list[Known]] = defaultdict(list)
    for one in known:
        of_ligand[one.protein, one.graph.smiles or one.name].append(one)
    texts = []
    for several in (group for group in of_ligand.values() if len(group) > 1):
        low = max((one.pk for one in several if one.bound >= 0), default=-math.inf)
        high = min((one.pk for one in several if one.bound <= 0), default=math.inf)
        values = listed([f"{one.name} {'≤ ≥'[one.bound + 1].strip()}{one.pk:.2f}" for one in several])
        if low - high > CONTRADICTION:
            texts.append(f"values of one ligand contradict each other, all count: {values}")
        else:
            texts.append(f"one ligand has several values, all count: {values}")
    return texts
