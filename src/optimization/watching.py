"""What a user sees of a run: a bar while an epoch runs, where the time of the first steps goes, and the results."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from pathlib import Path

import torch
from tqdm import tqdm

from src.optimization.progress import Progress
from src.settings import OutputSettings
from src.system.storage import StorageError, write_text
from src.system.terminal import printable

log = logging.getLogger(__name__)


def show(text: str) -> None:
    """Write to standard output; a reader that has gone (`| head`) takes nothing from a run, whose files are written."""
    with contextlib.suppress(BrokenPipeError):
        print(printable(text), flush=True)


def let_go_of_output() -> None:
    """Drop what nobody reads any more, or Python would fail on it at its end and change the exit code to 120."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def progress_bar(progress: Progress, num_batches: int, epochs: int) -> tqdm:
    return tqdm(
        total=num_batches,
        initial=progress.next_batch,
        desc=f"epoch {progress.epoch + 1}/{epochs}",
        unit="batch",
        leave=False,
        disable=None,
    )


def step_profiler(output: OutputSettings, step: int) -> contextlib.AbstractContextManager:
    """With `profile` on, a profiler of five of the first steps of a run, which writes profile.txt; else nothing."""
    if not output.profile or step:
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
