"""Settings, data and split -> what every checkpoint says about its run, and whether a run may be continued."""

from __future__ import annotations

import logging
import platform
from datetime import datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from src.checkpoint import CheckpointError
from src.data_processing import DATA_PROCESSING_VERSION
from src.settings import Settings, as_dict

log = logging.getLogger(__name__)

# Settings that may differ between a checkpoint and the run that continues it: they do not change a step.
FREE_KEYS = frozenset(
    [
        "dataset_path",
        "index_file",
        "structure",
        "processed_data_dir",
        "processing_num_workers",
        "processing_timeout_s",
        "processing_memory_gb",
        "epochs",
        "early_stopping_patience",
        "device",
        "message_passing",
        "loader_num_workers",
        "max_skipped_in_a_row",
        "max_skipped_fraction",
        "checkpoint_dir",
        "results_dir",
        "checkpoint_every_batches",
        "manual_save_trigger_file",
        "profile",
    ]
)
LIBRARIES = ("torch", "rdkit", "numpy", "scipy", "biopython")


def run_facts(
    settings: Settings, split: dict[str, list[str]], *, dataset_fingerprint: str, synthetic: bool
) -> dict[str, Any]:
    """The part of a checkpoint that stays the same from the first batch to the last, as plain values."""
    versions = {name: metadata.version(name) for name in LIBRARIES}
    return {
        "versions": {"python": platform.python_version(), **versions},
        "config": settings.config,
        "model_settings": as_dict(settings.model),
        "graph_settings": as_dict(settings.graph),
        "kernels": "plain",
        "data_version": DATA_PROCESSING_VERSION,
        "split": split,
        "dataset": {"fingerprint": dataset_fingerprint, "synthetic": synthetic},
    }


def check_same_run(facts: dict[str, Any], state: dict[str, Any], path: Path) -> None:
    """Refuse to continue a run with other settings or data; changes that do not matter are logged.

    Raises:
        CheckpointError: naming each difference, old -> new.
    """
    old, new = state["config"], facts["config"]
    changed = [key for key in sorted({*old, *new}) if old.get(key) != new.get(key)]
    faults = [f"{key}: {old.get(key)!r} -> {new.get(key)!r}" for key in changed if key not in FREE_KEYS]
    if state["data_version"] != facts["data_version"]:
        faults.append(f"data_processing_version: {state['data_version']} -> {facts['data_version']}")
    if (state["dataset"], state["split"]) != (facts["dataset"], facts["split"]):
        was, now = state["dataset"].get("fingerprint"), facts["dataset"]["fingerprint"]
        faults.append(f"codes, labels or their split: data set {was} -> {now}")
    if faults:
        raise CheckpointError(
            f"{path} belongs to another run:\n  " + "\n  ".join(faults) + "\nGo back to its settings, choose "
            "another checkpoint_dir, or add --fresh to the same command to start over (the old files are kept)"
        )
    free = [f"{key}: {old.get(key)!r} -> {new.get(key)!r}" for key in changed]
    if free:
        log.info("changed since the checkpoint was written: %s", "; ".join(free))


def set_aside(checkpoint_dir: Path) -> Path | None:
    """Move the checkpoints of an earlier run into a dated subfolder, so that a new one can start."""
    files = sorted(checkpoint_dir.glob("*.pth.tar"))
    if not files:
        return None
    folder = checkpoint_dir / f"before-{datetime.now():%Y%m%d-%H%M%S-%f}"
    folder.mkdir()
    for path in files:
        path.rename(folder / path.name)
    return folder
