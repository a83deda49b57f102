"""The same conditions wherever the tests run: one thread for each process, signals that arrive, one trained model.

Threads only wait for each other on tiny batches, and the tests run in as many processes as there are cores. A shell
that starts the tests in the background lets them, and all programs they start, ignore Ctrl+C, and nohup does the same
with SIGHUP; tests send both.
"""

from __future__ import annotations

import gc
import os
import shutil
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from filelock import FileLock

if TYPE_CHECKING:  # torch takes seconds to load, and the process that hands out the tests needs none of it
    from tests.training_runs import Run

MAX_PROCESSES = 8  # each takes 0.5 GB

# Before torch is imported; programs and workers that tests start inherit both.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
signal.signal(signal.SIGINT, signal.default_int_handler)
if hasattr(signal, "SIGHUP"):
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def pytest_xdist_auto_num_workers() -> int:
    """Processes that share the tests: the cores that this one may use; more than eight only wait for the longest."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, MAX_PROCESSES) if cores > 1 else 0


def pytest_collection_finish() -> None:
    """Let the garbage collector pass over all that was imported, which takes it longer than most tests take.

    Whenever memory runs out or is measured, the program asks for a full collection.
    """
    if not gc.get_freeze_count():
        gc.collect()
        gc.freeze()


@pytest.fixture(scope="session")
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """A run of main.py that has ended, for all tests in all processes: nobody changes its files."""
    from tests.complexes import write_dataset
    from tests.training_runs import CODES, Run

    folder = tmp_path_factory.getbasetemp()
    if hasattr(request.config, "workerinput"):  # of pytest-xdist, whose processes have a folder each in a common one
        folder = folder.parent
    run, is_trained = Run(folder / "trained"), folder / "is_trained"
    with FileLock(folder / "trained.lock"):
        if not is_trained.exists():
            shutil.rmtree(run.folder, ignore_errors=True)
            write_dataset(run.folder / "data", CODES)
            assert run.train() == 0
            is_trained.touch()
    before = _stamps(run.folder)
    yield run
    assert _stamps(run.folder) == before


@pytest.fixture
def pinned(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """Batches go to a CUDA GPU as if it were there; the thread that pinned each, and the GPU that is current in it."""
    import torch

    from src.graph import Batch

    current = threading.local()
    found: list[tuple[str, int]] = []

    def pin(batch: Batch) -> Batch:
        found.append((threading.current_thread().name, current.number))
        return batch

    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    monkeypatch.setattr(torch.cuda, "set_device", lambda number: setattr(current, "number", number))
    monkeypatch.setattr(Batch, "pin_memory", pin)
    return found


def _stamps(folder: Path) -> dict[Path, tuple[int, int]]:
    stats = {path: path.stat() for path in folder.rglob("*")}
    return {path: (stat.st_size, stat.st_mtime_ns) for path, stat in stats.items()}


@pytest.fixture
def finished(trained: Run, tmp_path: Path) -> Run:
    """A copy of that run, to go on with."""
    shutil.copytree(trained.folder, tmp_path / "finished")
    return type(trained)(tmp_path / "finished")
