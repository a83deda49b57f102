"""The whole state of a training run <-> a `.pth.tar` file (a zip, not a tar), and which to resume from."""

from __future__ import annotations

import contextlib
import logging
import os
import random
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from types import NoneType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from src.system.errors import UserError
from src.system.storage import (
    StorageError,
    cause,
    read_plain,
    remove_temporaries,
    temporary_path,
    tensors_in,
    to_plain,
    write_plain,
)

log = logging.getLogger(__name__)

FORMAT_NUMBER = 1
ENDING = ".pth.tar"
LATEST, BEST = "checkpoint.pth.tar", "model_best.pth.tar"
SET_ASIDE = "before-"  # begins the name of a folder with what an earlier run left
INTERRUPTED, CRASHED = "INTERRUPTED.pth.tar", "CRASHED.pth.tar"

# Top-level keys of a full checkpoint and the types each may have. Keys beyond these are allowed if plain.
SCHEMA: dict[str, tuple[type, ...]] = {
    "format": (int,),  # FORMAT_NUMBER, written by save_checkpoint
    "versions": (dict,),  # library -> version: python, torch, rdkit, data_processing, ...
    "config": (dict,),  # the user's settings of the run, for the record
    "model_settings": (dict,),  # what builds the model
    "graph_settings": (dict,),  # what builds its input
    "kernels": (str,),  # 'plain', 'compiled' or 'triton': how the message passing of the run is computed
    "processes": (int,),  # that share the batches; with as many a run that goes on has the same bits
    "data_version": (str,),  # data_processing_version of the graphs
    "model": (dict,),  # parameter name -> tensor
    "ema": (dict, NoneType),  # moving average of the same parameters
    "optimizer": (dict,),
    "scheduler": (dict, NoneType),
    "scaler": (dict, NoneType),  # state of the gradient scaler, with fp16
    "rng": (dict,),  # rng_state()
    "progress": (dict,),  # epoch and next_batch (from 0), step, best score, skips, history
    "split": (dict,),  # part -> PDB codes
    "dataset": (dict,),  # name of the data set, and a fingerprint of its codes and labels
    "calibration": (dict, NoneType),  # how wide the interval of a prediction is
    "domain": (dict, NoneType),  # what the training set holds: elements, kinds of residues, ranges
    "process": (dict, NoneType),  # the Gaussian process beside the network, its share, series, measured ligands
}
CONTENTS = {"model": Tensor, "ema": Tensor, "versions": str, "split": list}
# A checkpoint without these is resumed and predicts all the same.
OPTIONAL = frozenset({"calibration", "domain", "process", "processes"})
FULL = frozenset(SCHEMA) - OPTIONAL
FOR_PREDICTION = frozenset({"format", "model_settings", "graph_settings", "data_version", "model", "split"})
# Nothing of the machine it was trained on.
PUBLISHED = (FOR_PREDICTION | OPTIONAL | {"versions", "dataset"}) - {"processes"}
MEMBERS = "members"  # key of a file that holds several models


class CheckpointError(UserError):
    """A checkpoint cannot be written, read or trusted; the message names the file and the cause."""


def save_checkpoint(path: Path, state: dict[str, Any], *, keep_previous: bool = False) -> None:
    """Write `state` so that at every instant, power cuts included, a whole checkpoint lies in the folder.

    Args:
        path: Where to, in an existing folder. A failed save leaves what was there.
        state: All keys of SCHEMA ("format" is added). Tensors on any device; parameters become tensors.
        keep_previous: Keep what lies at `path` as `previous_path(path)` if one could resume from it.

    Raises:
        CheckpointError: The state holds something that is not plain, or the disk does not take the file.
    """

    def before_replace() -> None:
        if keep_previous and path.exists():
            _keep_as_previous(path)

    with _as_checkpoint_errors():
        plain = to_plain({**state, "format": FORMAT_NUMBER})
        _check_schema(plain, FULL)
        write_plain(path, plain, before_replace=before_replace)


def publish_checkpoint(source: Path, path: Path) -> None:
    """Write what scoring needs of a checkpoint: the averaged weights, without optimizer, config and paths.

    Raises:
        CheckpointError: `source` cannot be read or its weights are not finite, or the disk does not take `path`.
    """
    state = _load_resumable(source)
    with _as_checkpoint_errors():
        write_plain(path, to_plain({**_published(state), "model": state["ema"] or state["model"]}))


def load_checkpoint(path: Path, *, required: Collection[str] = FULL) -> dict[str, Any]:
    """Read a checkpoint onto the CPU; no file, however made, runs code or fills memory beyond twice its size.

    Args:
        path: The file.
        required: Keys of SCHEMA that must be there; FOR_PREDICTION for scoring.

    Raises:
        CheckpointError: Not a file, damaged, made by a newer version, incomplete, or not plain data.
    """
    with _as_checkpoint_errors():
        state = read_plain(path)
    with _named(path):
        _check_schema(state, required)
    return state


def save_members(path: Path, states: Sequence[dict[str, Any]]) -> None:
    """Write models that score together as one file, from which nothing can be trained on.

    Raises:
        CheckpointError: the disk does not take the file.
    """
    with _as_checkpoint_errors():
        write_plain(path, to_plain({"format": FORMAT_NUMBER, MEMBERS: [_published(state) for state in states]}))


def load_members(path: Path) -> list[dict[str, Any]]:
    """What scoring needs of each model in a file: of the one of a run, or of several that score together.

    Raises:
        CheckpointError: as load_checkpoint.
    """
    state = load_checkpoint(path, required={"format"})
    members = state.get(MEMBERS, [state])
    if type(members) is not list or not members:
        raise CheckpointError(f"{path}: damaged: its models are not a list")
    for member in members:
        with _named(path):
            _check_schema(member if type(member) is dict else {}, FOR_PREDICTION)
    return members


def newest_checkpoint(folder: Path) -> tuple[Path, dict[str, Any]] | None:
    """The full checkpoint to resume from and its content: the furthest by the counters stored inside.

    Names and times of files do not count; on a tie `checkpoint.pth.tar` wins. Damaged files and those with
    non-finite weights are named in one warning and stay where they are. Remains of interrupted saves are
    removed, so only one run at a time may use the folder.

    Returns:
        None when the folder has no checkpoint at all or does not exist.

    Raises:
        CheckpointError: There are checkpoints, but none can be used.
    """
    remove_temporaries(folder, f"*{ENDING}")
    best: tuple[Path, dict[str, Any]] | None = None
    refused = []
    paths = [path for path in folder.glob(f"[!.]*{ENDING}") if path.is_file()]
    for path in sorted(paths, key=lambda path: (path.name != LATEST, path.name)):
        try:
            state = _load_resumable(path)
        except CheckpointError as error:
            refused.append(str(error))
            continue
        if best is None or progress_of(state) > progress_of(best[1]):
            best = path, state
    if refused and best is None:
        raise CheckpointError("no checkpoint can be used:\n  " + "\n  ".join(refused))
    if refused:
        log.warning("checkpoints not used:\n  %s", "\n  ".join(refused))
    return best


def has_finite_weights(state: dict[str, Any]) -> bool:
    """False if training could not go on: NaN or Inf in the weights, their average or the optimizer."""
    parts = (state["model"], state.get("ema"), state.get("optimizer"))
    return all(bool(torch.isfinite(tensor).all()) for part in parts for tensor in tensors_in(part))


def progress_of(state: dict[str, Any]) -> tuple[int, int]:
    """(epoch, next_batch), both counted from 0: the position of the next batch to train on."""
    return state["progress"]["epoch"], state["progress"]["next_batch"]


def previous_path(path: Path) -> Path:
    """`checkpoint.pth.tar` -> `checkpoint_previous.pth.tar`."""
    return path.with_name(path.name.removesuffix(ENDING) + f"_previous{ENDING}")


def seed_rng(seed: int) -> None:
    """Begin the sequences of all global generators: `rng_state` holds those that nothing draws from, too."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)  # and those of the CUDA devices


def rng_state() -> dict[str, Any]:
    """State of the global generators of Python, NumPy, torch and each CUDA device, in plain form."""
    name, keys, *rest = np.random.get_state()
    return {
        "python": random.getstate(),
        "numpy": [name, keys.tolist(), *rest],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def restore_rng(state: dict[str, Any]) -> None:
    """Continue the random sequences where `rng_state` was taken; devices that are not here are left out.

    Raises:
        CheckpointError: `state` is not what `rng_state` returns.
    """
    try:
        random.setstate(state["python"])
        name, keys, *rest = state["numpy"]
        np.random.set_state((name, np.array(keys, dtype=np.uint32), *rest))
        torch.set_rng_state(state["torch"])
        for device, generator_state in enumerate(state["cuda"][: torch.cuda.device_count()]):
            torch.cuda.set_rng_state(generator_state, device)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"the stored random state cannot be restored: {cause(error)}") from error


@contextlib.contextmanager
def _as_checkpoint_errors() -> Iterator[None]:
    try:
        yield
    except StorageError as error:
        raise CheckpointError(str(error)) from error


@contextlib.contextmanager
def _named(path: Path) -> Iterator[None]:
    """Put the name of the file before what is wrong in it."""
    try:
        yield
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error


def _published(state: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in state.items() if key in PUBLISHED}


def _load_resumable(path: Path) -> dict[str, Any]:
    state = load_checkpoint(path)
    if not has_finite_weights(state):
        raise CheckpointError(f"{path}: NaN or Inf in the weights or the optimizer's state")
    return state


def _keep_as_previous(path: Path) -> None:
    try:
        _load_resumable(path)
    except CheckpointError as error:  # must not replace the previous one, perhaps the only good one
        log.warning("overwritten, not kept: %s", error)
        return
    link = temporary_path(path)
    try:
        os.link(path, link)  # so that `path` itself never disappears
        source = link
    except OSError:  # a file system without hard links
        source = path
    try:
        os.replace(source, previous_path(path))
    finally:
        link.unlink(missing_ok=True)


def _check_schema(state: Any, required: Collection[str]) -> None:
    if type(state) is not dict or type(state.get("format")) is not int:
        raise CheckpointError("not a checkpoint of this project (no format number)")
    if state["format"] > FORMAT_NUMBER:
        raise CheckpointError(
            f"made by a newer version: format {state['format']}, this one reads up to {FORMAT_NUMBER}"
        )
    if state["format"] < 1:
        raise CheckpointError(f"made in format {state['format']}, which no version of this program has written")
    missing = sorted(set(required) - state.keys())
    if missing and MEMBERS in state:
        raise CheckpointError("holds models that only score, conditioned on measured ligands; no run goes on from it")
    if missing:
        raise CheckpointError(f"incomplete: no {', '.join(missing)}")
    faults = [
        f"{key} is a {type(state[key]).__name__}"
        for key, kinds in SCHEMA.items()
        if key in state and type(state[key]) not in kinds
    ]
    faults += _wrong_contents(state)
    if faults:
        raise CheckpointError("wrong content: " + "; ".join(faults))


def _wrong_contents(state: dict[str, Any]) -> Iterator[str]:
    for key, kind in CONTENTS.items():
        part = state.get(key)
        values = part.values() if type(part) is dict else part
        if type(part) in (dict, list) and any(type(value) is not kind for value in values):
            yield f"{key} holds something that is not a {kind.__name__}"
    progress = state.get("progress")
    counts = [progress.get(key) for key in ("epoch", "next_batch")] if type(progress) is dict else []
    if any(type(count) is not int or count < 0 for count in counts):
        yield "progress has no counts epoch and next_batch"
