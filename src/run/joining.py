"""A trained network and its data -> its checkpoint, joined with a Gaussian process of the training set."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from src.checkpoint import CheckpointError, load_checkpoint, save_checkpoint
from src.data.batching import batch_budget, in_order
from src.data.dataset import Dataset, Example, measured_pk
from src.evaluation.calibration import FACTS, calibrate_by_facts
from src.evaluation.metrics import rmse
from src.gaussian_process.cross_fitting import cross_fit, folds_of
from src.gaussian_process.joined_model import best_share
from src.gaussian_process.process import GaussianProcess, fit_to_profiles, read_process
from src.gaussian_process.profiles import labelled_profiles
from src.gaussian_process.series import fit_series_prior
from src.hardware.inference import predict_batches
from src.scoring.ensemble import scorer_of
from src.settings import Settings
from src.similarity.comparison import Similarity, Thresholds
from src.similarity.splits import cluster_thresholds

log = logging.getLogger(__name__)

BATCH = 32


def join_process(
    checkpoint: Path, settings: Settings, dataset: Dataset, split: Mapping[str, Sequence[str]], similarity: Similarity
) -> None:
    """Put a process of the training set into a network's checkpoint; one that has a process stays as it is.

    The validation set decides the shares of the two. How far a prediction is off, by what is known of a complex, and
    how errors go together within a series, is learned from training complexes that the process predicts without
    their cluster; the validation set says how much better or worse than that the two do together.

    Args:
        similarity: of all examples, as they stand in the data set.

    Raises:
        CheckpointError: the checkpoint cannot be read or written.
    """
    state = load_checkpoint(checkpoint)
    train, validation = dataset.judged(split["train"]), dataset.judged(split["validation"])
    if _is_joined(state) or not train:
        return
    started = time.monotonic()
    plain = {**state, "process": None, "calibration": None}
    scorer, budget = scorer_of(plain, checkpoint, settings.training.device), batch_budget(settings.training)
    cutoff = settings.graph.interaction_cutoff
    known = labelled_profiles(in_order(train, BATCH, budget), cutoff)
    process = fit_to_profiles(known, cutoff)
    clusters, proteins = _groups(dataset, settings, similarity)
    references = known.of(torch.tensor([known.codes.index(code) for code in process.codes]))
    fit = cross_fit(process, references, *([of[code] for code in process.codes] for of in (clusters, proteins)))
    left_out: list[int] = []
    batches = in_order(validation, BATCH, budget)
    by_network = predict_batches(scorer.model, batches, scorer.device, left_out=left_out)[0].astype(np.float64)
    kept = np.isfinite(by_network)
    validation, by_network = [one for one, keep in zip(validation, kept, strict=True) if keep], by_network[kept]
    by_process, facts = _by_process(process, validation, cutoff)
    measured, groups = measured_pk(validation), [clusters[example.graph.code] for example in validation]
    share = best_share(by_network, by_process, measured)
    errors = _cross_fitted_errors(by_network, by_process, measured, groups)
    calibration, factor = calibrate_by_facts(fit.facts, fit.errors, facts, errors)
    prior = fit_series_prior(fit.series).scaled(factor)
    joined = {**process.state_facts(), "share": share, "series": prior.state_dict()}
    save_checkpoint(checkpoint, {**state, "process": joined, "calibration": calibration and calibration.state_dict()})
    seconds = time.monotonic() - started
    log.info(
        "Gaussian process of %d complexes in %.0f s, its share %.2f: validation rmse %.3f by the network, %.3f by the "
        "process, %.3f by both",
        *(len(train), seconds, share),
        *(rmse(predicted, measured) for predicted in (by_network, by_process, measured + errors)),
    )


def _is_joined(state: Mapping[str, Any]) -> bool:
    """With a process as this release writes it; one of an earlier release is made anew."""
    try:
        return read_process(state.get("process")) is not None
    except CheckpointError:
        return False


def _groups(
    dataset: Dataset, settings: Settings, similarity: Similarity
) -> tuple[dict[str, object], dict[str, object]]:
    """Code -> its cluster, and code -> its protein."""
    codes = [example.graph.code for example in dataset.examples]
    clusters = similarity.clusters(cluster_thresholds(settings.data)).tolist()
    same_protein = Thresholds(identity=1.0, tanimoto=1.0, same_protein=settings.data.cluster_same_protein)
    proteins = similarity.clusters(same_protein).tolist()
    return dict(zip(codes, clusters, strict=True)), dict(zip(codes, proteins, strict=True))


def _by_process(process: GaussianProcess, examples: Sequence[Example], cutoff: float) -> tuple[np.ndarray, np.ndarray]:
    """pK [n] by the process, and facts [n, F]."""
    if not examples:
        return np.zeros(0), np.zeros((0, len(FACTS)))
    profiles = labelled_profiles(in_order(examples, BATCH), cutoff).profiles
    likenesses = process.likenesses(profiles)
    facts = process.facts(profiles, likenesses)
    return process.predict(profiles, likenesses).double().numpy(), facts.double().numpy()


def _cross_fitted_errors(
    network: np.ndarray, process: np.ndarray, measured: np.ndarray, groups: Sequence[object]
) -> np.ndarray:
    """[n] predicted minus measured pK, each by the share that all other groups give."""
    if not len(measured):
        return np.zeros(0)
    folds, errors = folds_of(groups), np.zeros(len(measured))
    for number in np.unique(folds):
        out = folds == number
        share = best_share(network[~out], process[~out], measured[~out])
        errors[out] = (1 - share) * network[out] + share * process[out] - measured[out]
    return errors
