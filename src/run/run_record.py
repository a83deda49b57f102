"""Settings, data and split -> what every checkpoint says about its run, and whether a run may be continued."""

from __future__ import annotations

import logging
import platform
from collections.abc import Sequence
from datetime import datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from src import __version__
from src.checkpoint import ENDING, SET_ASIDE, CheckpointError
from src.data_processing import DATA_PROCESSING_VERSION, other_version_text
from src.settings import Settings, as_dict
from src.system.terminal import listed

log = logging.getLogger(__name__)

# Settings that may differ between a checkpoint and the run that continues it: they do not change a training step.
FREE_KEYS = frozenset(
    [
        *("dataset_path", "index_file", "structure", "max_failed_fraction"),
        *("processed_data_dir", "processing_num_workers", "processing_timeout_s", "processing_memory_gb"),
        *("epochs", "early_stopping_patience", "max_skipped_in_a_row", "max_skipped_fraction", "gaussian_process"),
        *("device", "message_passing", "cpu_processes", "loader_num_workers"),
        *("checkpoint_dir", "results_dir", "checkpoint_every_batches", "manual_save_trigger_file"),
        *("profile", "tensorboard", "members"),
    ]
)
CHECKPOINT_FILES = (f"*{ENDING}",)
RESULT_FILES = (
    *("history.csv", "history.jsonl", "run.json", "profile.txt", "metrics.json", "*_predictions.csv"),
    *("tensorboard", "skipped.csv", "splits.json", "model_card.md", "report.html"),
)
LIBRARIES = ("torch", "rdkit", "numpy", "scipy", "biopython")


def run_facts(
    settings: Settings,
    split: dict[str, list[str]],
    *,
    dataset_fingerprint: str,
    synthetic: bool,
    lost: Sequence[str] = (),
    processes: int = 1,
) -> dict[str, Any]:
    """The part of a checkpoint that stays the same from the first batch to the last, as plain values.

    Args:
        lost: codes that could not be used for what may be the machine's fault.
        processes: ranks that share the batches.
    """
    versions = {name: metadata.version(name) for name in LIBRARIES}
    return {
        "versions": {"program": __version__, "python": platform.python_version(), **versions},
        "config": settings.config,
        "model_settings": as_dict(settings.model),
        "graph_settings": as_dict(settings.graph),
        "kernels": "plain",
        "processes": processes,
        "data_version": DATA_PROCESSING_VERSION,
        "split": split,
        "dataset": {"fingerprint": dataset_fingerprint, "synthetic": synthetic, "lost": sorted(lost)},
    }


def lost_codes(state: dict[str, Any], path: Path) -> frozenset[str]:
    """The complexes that the run of a checkpoint had lost when it began; they stay out of it.

    Raises:
        CheckpointError: this program does not write such a list.
    """
    codes = state["dataset"].get("lost", [])
    if type(codes) is not list or any(type(code) is not str for code in codes):
        raise CheckpointError(f"{path}: odd entries in what it says of its data set: {codes!a:.100}")
    return frozenset(codes)


def stored_split(state: dict[str, Any], path: Path) -> dict[str, list[str]]:
    """The codes of each part in the training of a checkpoint.

    Raises:
        CheckpointError: this program does not write such a split.
    """
    split = state["split"]
    parts = [split.get(part) for part in ("train", "validation", "test")]
    if any(type(codes) is not list or any(type(code) is not str for code in codes) for codes in parts):
        raise CheckpointError(f"{path}: its split must be lists of codes named train, validation and test")
    return split


def check_same_settings(settings: Settings, state: dict[str, Any], path: Path) -> None:
    """Refuse what `check_same_run` would refuse for its settings, before the data are read.

    Numbers that batch_size 'auto' stands for are those of the checkpoint, so they cannot differ.

    Raises:
        CheckpointError: naming each difference, old -> new.
    """
    auto = {"batch_size", "gradient_accumulation_steps"} if settings.training.batch_size == "auto" else set()
    faults = _breaking_changes(state["config"], {**settings.config, **{key: state["config"].get(key) for key in auto}})
    if state["data_version"] != DATA_PROCESSING_VERSION:
        faults.append(other_version_text(state["data_version"]))
    _require_none(faults, path)


def check_same_run(facts: dict[str, Any], state: dict[str, Any], path: Path) -> None:
    """Refuse to continue a run with other settings or data; changes that do not matter are logged.

    Raises:
        CheckpointError: naming each difference, old -> new.
    """
    old, new = state["config"], facts["config"]
    faults = _breaking_changes(old, new)
    if state["data_version"] != facts["data_version"]:
        faults.append(other_version_text(state["data_version"]))
    was, now = state["dataset"], facts["dataset"]
    is_same = all(was.get(key) == now[key] for key in ("fingerprint", "synthetic"))
    if not is_same or state["split"] != facts["split"]:
        gone = sorted({code for codes in state["split"].values() for code in codes}.intersection(now["lost"]))
        hint = f"; {listed(gone)} could not be read now, see skipped.csv" if gone else ""
        faults.append(f"codes, labels or their split: data set {was.get('fingerprint')} -> {now['fingerprint']}{hint}")
    _require_none(faults, path)
    if free := _changes(old, new):
        log.info("changed since the checkpoint was written: %s", "; ".join(free.values()))
    then, now = ({**versions, "program": None} for versions in (state["versions"], facts["versions"]))
    if libraries := _changes(then, now):
        text = "libraries changed since the checkpoint was written, so sums may differ by rounding: %s"
        log.warning(text, "; ".join(libraries.values()))


def set_aside(within: Path, patterns: Sequence[str] = CHECKPOINT_FILES) -> Path | None:
    """Move what an earlier run left into a dated subfolder, so that a new one overwrites nothing.

    Returns:
        The subfolder, None when there was nothing to move.
    """
    files = sorted({path for pattern in patterns for path in within.glob(pattern)})
    if not files:
        return None
    folder = within / f"{SET_ASIDE}{datetime.now():%Y%m%d-%H%M%S-%f}"
    folder.mkdir()
    for path in files:
        path.rename(folder / path.name)
    return folder


def _breaking_changes(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    return [text for key, text in _changes(old, new).items() if key not in FREE_KEYS]


def _changes(old: dict[str, Any], new: dict[str, Any]) -> dict[str, str]:
    """key -> 'key: old -> new' for each value that differs; a key that is not there counts as None."""
    keys = [key for key in sorted({*old, *new}) if old.get(key) != new.get(key)]
    return {key: f"{key}: {old.get(key)!r} -> {new.get(key)!r}" for key in keys}


def _require_none(faults: list[str], path: Path) -> None:
    if faults:
        raise CheckpointError(
            f"{path} belongs to another run:\n  " + "\n  ".join(faults) + "\nGo back to its settings, choose "
            "another checkpoint_dir, or add --fresh to the same command to start over (the old files are kept)"
        )
