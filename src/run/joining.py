"""A trained network and its data -> its checkpoint, joined with a Gaussian process of the training set."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from src.checkpoint import load_checkpoint, save_checkpoint
from src.data.batching import batch_budget, in_order
from src.data.dataset import Dataset
from src.evaluation.calibration import calibrate
from src.evaluation.metrics import rmse
from src.gaussian_process.joined_model import JoinedModel, best_share
from src.gaussian_process.process import fit_gaussian_process
from src.hardware.inference import predict_batches
from src.scoring.ensemble import load_scorer
from src.settings import Settings

log = logging.getLogger(__name__)


def join_process(checkpoint: Path, settings: Settings, dataset: Dataset, split: Mapping[str, Sequence[str]]) -> None:
    """Put a process of the training set into a network's checkpoint; one that has a process stays as it is.

    The validation set decides the shares of the two, and calibrates the interval around their mean.

    Raises:
        CheckpointError: the checkpoint cannot be read or written.
    """
    state = load_checkpoint(checkpoint)
    train, validation = dataset.judged(split["train"]), dataset.judged(split["validation"])
    if state.get("process") is not None or not train:
        return
    started = time.monotonic()
    scorer, budget, size = load_scorer(checkpoint, settings.training.device), batch_budget(settings.training), 32
    process = fit_gaussian_process(in_order(train, size, budget), settings.graph.interaction_cutoff).to(scorer.device)
    left_out: list[int] = []
    by_network, by_process = (
        predict_batches(model, in_order(validation, size, budget), scorer.device, left_out=left_out)[0]
        for model in (scorer.model, process)
    )
    measured = np.array([example.pk for example in validation])
    kept = np.isfinite(by_network) & np.isfinite(by_process)
    share = best_share(by_network[kept], by_process[kept], measured[kept])
    model = JoinedModel(scorer.model, process, share)
    joined = model.mean(torch.from_numpy(by_network), torch.from_numpy(by_process)).numpy()
    calibration = calibrate([example.graph.code for example in validation], joined, measured)
    facts = {"process": {**process.state_facts(), "share": share}, "calibration": calibration.state_dict()}
    save_checkpoint(checkpoint, {**state, **facts})
    errors = (rmse(predicted[kept], measured[kept]) for predicted in (by_network, by_process, joined))
    log.info(
        "Gaussian process of %d complexes in %.0f s, its share %.2f: validation rmse %.3f by the network, %.3f by the "
        "process, %.3f by both",
        *(len(train), time.monotonic() - started, share, *errors),
    )
