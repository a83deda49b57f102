"""Where a training run stands (position, sums of the epoch, skips, best score), and how a user sees it."""

from __future__ import annotations

import contextlib
import json
import logging
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import datetime, timedelta
from pathlib import Path
from types import NoneType
from typing import Any

import torch
from tqdm import tqdm

from src.checkpoint import CheckpointError
from src.settings import OutputSettings
from src.system.storage import StorageError, write_csv, write_text
from src.system.terminal import listed

log = logging.getLogger(__name__)

OUTLOOK_AFTER_S = 20  # of training steps; the first ones are slower


@dataclass
class Progress:
    """With weights, optimizer, scheduler, scaler and random numbers this is all that a resume needs."""

    epoch: int = 0  # counted from 0
    next_batch: int = 0  # batches of this epoch that are done, used or skipped
    step: int = 0  # optimizer steps
    best_rmse: float = math.inf
    best_epoch: int = -1
    epochs_without_improvement: int = 0
    squared_error: float = 0.0  # sums over this epoch begin here; errors of exact labels alone, no bounds or decoys
    num_judged: int = 0
    num_skipped: int = 0  # batches
    num_overflows: int = 0  # optimizer steps
    seconds: float = 0.0
    skipped_in_a_row: int = 0
    skipped_codes: dict[str, int] = field(default_factory=dict)  # over the whole run
    edge_limit: int | None = None  # a batch with more is run in parts; learned when memory ran out
    history: list[dict] = field(default_factory=list)  # one row for each epoch

    @property
    def train_rmse(self) -> float:
        return math.sqrt(self.squared_error / self.num_judged) if self.num_judged else math.nan

    @property
    def skipped_most(self) -> list[str]:
        """The codes of what was not used, those met most often first."""
        return sorted(self.skipped_codes, key=lambda code: (-self.skipped_codes[code], code))

    def add_skipped(self, codes: Iterable[str]) -> None:
        self.num_skipped += 1
        self.skipped_in_a_row += 1
        for code in codes:
            self.skipped_codes[code] = self.skipped_codes.get(code, 0) + 1

    def judge(self, validation_rmse: float) -> bool:
        """Whether this epoch is the best so far; a score that is not finite never is."""
        if validation_rmse < self.best_rmse:
            self.best_rmse, self.best_epoch, self.epochs_without_improvement = validation_rmse, self.epoch, 0
            return True
        self.epochs_without_improvement += 1
        return False

    def add_row(self, validation: dict[str, float], learning_rate: float, *, left_out: int = 0) -> dict:
        """
        Args:
            left_out: complexes of the validation set that the scores do not count, because they do not fit into memory.
        """
        row = {
            "epoch": self.epoch + 1,
            "step": self.step,
            "learning_rate": learning_rate,
            "train_rmse": self.train_rmse,
            **{f"validation_{name}": value for name, value in validation.items()},
            "validation_left_out": left_out,
            "skipped_batches": self.num_skipped,
            "fp16_overflows": self.num_overflows,
            "seconds": round(self.seconds, 2),
        }
        self.history.append(row)
        return row

    def start_epoch(self, epoch: int) -> None:
        self.epoch, self.next_batch = epoch, 0
        self.squared_error, self.num_judged, self.num_skipped, self.num_overflows, self.seconds = 0.0, 0, 0, 0, 0.0


# What a field of Progress may hold in a checkpoint, by its annotation; a bool is no number.
_KINDS: dict[str, tuple[type, ...]] = {
    "int": (int,),
    "float": (int, float),
    "int | None": (int, NoneType),
    "dict[str, int]": (dict,),
    "list[dict]": (list,),
}


def read_progress(values: Mapping[str, Any]) -> Progress:
    """The progress that a checkpoint holds. Raises CheckpointError: naming what this program does not write."""
    kinds = {one.name: _KINDS[str(one.type)] for one in fields(Progress)}
    odd = [name for name, value in values.items() if type(value) not in kinds.get(name, ())]
    if not odd:
        contents = {"skipped_codes": (int, values.get("skipped_codes", {}).values())}
        contents["history"] = dict, values.get("history", [])
        odd = [name for name, (kind, parts) in contents.items() if any(type(part) is not kind for part in parts)]
    if odd:
        raise CheckpointError(f"the progress stored in the checkpoint has odd entries: {', '.join(map(ascii, odd))}")
    return Progress(**values)


def skipped_text(progress: Progress, most: int = 20) -> str:
    """The complexes whose batches were skipped and how often; empty when all were used."""
    codes = progress.skipped_most
    if not codes:
        return ""
    named = listed([f"{code} {progress.skipped_codes[code]}x" for code in codes], most)
    return (
        f"{len(codes)} complexes were in batches that were skipped, or were left out alone: {named}. "
        "Those met most often are the likely cause: look at their structures, "
        "or take them out of the index"
    )


def epoch_line(row: dict, epochs: int, *, is_best: bool) -> str:
    return (
        f"epoch {row['epoch']:>3}/{epochs}  train rmse {row['train_rmse']:.3f}  "
        f"validation rmse {row['validation_rmse']:.3f}  pearson {row['validation_pearson']:.3f}  "
        f"lr {row['learning_rate']:.1e}  {row['seconds']:.1f} s"
        + (f"  validated without {row['validation_left_out']}" if row.get("validation_left_out") else "")
        + (f"  skipped {row['skipped_batches']}" if row["skipped_batches"] else "")
        + ("  best" if is_best else "")
    )


class Outlook:
    """Says once, after the first batches, how long the run will take."""

    def __init__(self, num_batches: Sequence[int]) -> None:
        """
        Args:
            num_batches: in each epoch.
        """
        self.num_batches = num_batches
        self._num_done, self._seconds, self._is_told = 0, 0.0, False

    def add(self, progress: Progress, num_done: int, seconds: float) -> None:
        """Take note of batches and of the seconds that they took."""
        self._num_done, self._seconds = self._num_done + num_done, self._seconds + seconds
        if self._is_told or self._seconds < OUTLOOK_AFTER_S:
            return
        self._is_told = True
        num_left = sum(self.num_batches[progress.epoch :]) - progress.next_batch
        left = timedelta(seconds=round(num_left * self._seconds / self._num_done))
        text = "%d batches are left; with validation they take a little more than %s, until about %s"
        log.info(text, num_left, left, f"{datetime.now() + left:%A, %H:%M}")


def write_history(folder: Path, history: list[dict]) -> None:
    """history.csv and history.jsonl, written whole each time, so that a resumed run leaves no row twice."""
    folder.mkdir(parents=True, exist_ok=True)
    names = list(history[0])
    write_csv(folder / "history.csv", names, [[row[name] for name in names] for row in history])
    lines = [{name: None if value != value else value for name, value in row.items()} for row in history]  # no NaN
    write_text(folder / "history.jsonl", "".join(json.dumps(line) + "\n" for line in lines))


def tensorboard_writer(output: OutputSettings, history: Iterable[dict], *, wanted: bool) -> Callable[[dict], None]:
    """What takes a row of the history for TensorBoard; nothing does without the setting or the package.

    Args:
        history: rows of the run so far, which are written first: what an earlier process wrote is removed.
    """
    if not (output.tensorboard and wanted):
        return lambda row: None
    try:
        from torch.utils.tensorboard import SummaryWriter  # a package of its own, which few have
    except ImportError:
        log.warning("tensorboard = True writes nothing: the package is missing (pip install tensorboard)")
        return lambda row: None
    folder = Path(output.results_dir) / "tensorboard"
    for path in folder.glob("events.*"):
        path.unlink()
    writer = SummaryWriter(str(folder))

    def write(row: dict) -> None:
        for name, value in row.items():
            writer.add_scalar(name, value, row["epoch"])
        writer.flush()

    for row in history:
        write(row)
    return write


def progress_bar(progress: Progress, num_batches: int, epochs: int, *, shown: bool = True) -> tqdm:
    title, disabled = f"epoch {progress.epoch + 1}/{epochs}", None if shown else True
    return tqdm(total=num_batches, initial=progress.next_batch, desc=title, unit="batch", leave=False, disable=disabled)


def step_profiler(output: OutputSettings, step: int, *, wanted: bool = True) -> contextlib.AbstractContextManager:
    """With `profile` on, a profiler of five of the first steps of a run, which writes profile.txt; else nothing."""
    if not (output.profile and wanted) or step:
        return contextlib.nullcontext()
    path = Path(output.results_dir) / "profile.txt"

    def write(profiler: torch.profiler.profile) -> None:
        try:
            write_text(path, profiler.key_averages().table(sort_by="self_cpu_time_total", row_limit=40))
        except StorageError as error:  # a full disk; the profile is no part of the training
            log.error("%s; training goes on without a profile", error)
        else:
            log.info("where the time of five steps went: %s", path)

    schedule = torch.profiler.schedule(wait=1, warmup=1, active=5, repeat=1)
    return torch.profiler.profile(schedule=schedule, on_trace_ready=write)
