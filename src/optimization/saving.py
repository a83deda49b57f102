"""The state of a run -> the checkpoints that it leaves: when one is due, while the disk is full, and after a crash."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from torch import Tensor

from src.checkpoint import BEST, CRASHED, LATEST, CheckpointError, has_finite_weights, rng_state, save_checkpoint
from src.optimization.progress import write_history
from src.settings import OutputSettings
from src.system.distributed import AgreedSignals
from src.system.stop_signals import StopSignals
from src.system.storage import StorageError, cause

log = logging.getLogger(__name__)

MAX_FAILED_SAVES = 3  # saves in a row


class SaveFlag:
    """The file by which a user asks for a save; it is taken away when that is done."""

    def __init__(self, path: Path):
        self.path = path
        self._stays = False

    def is_there(self) -> bool:
        return not self._stays and os.path.exists(self.path)

    def take_away(self) -> None:
        try:
            self.path.unlink(missing_ok=True)
        except OSError as error:  # a folder of this name, or a disk that can only be read
            self._stays = True
            log.error("%s cannot be removed (%s); in this run it asks for no more saves", self.path, cause(error))


class Saver:
    """Decides when the state of a run is saved, and remembers what the disk has not taken yet."""

    def __init__(self, output: OutputSettings, state: Callable[[], dict[str, Any]], *, writes: bool = True):
        """
        Args:
            state: makes a full checkpoint of the run as it stands.
            writes: False for a rank that leaves all files to the main one.
        """
        self._writes = writes
        self._output, self._state = output, state
        self._flag = SaveFlag(Path(output.manual_save_trigger_file))
        self._failed_saves, self._history_is_late = 0, False
        self._unsaved_best: dict[str, Any] | None = None  # best state that a full disk did not take
        self._rng: dict[str, Any] | None = None  # random numbers at the last moment from which a run could go on

    def begin_change(self) -> None:
        """From here to end_change the state is half changed, and no run could go on from it."""
        self._rng = None

    def end_change(self) -> None:
        self._rng = rng_state()

    def save(self, name: str, stop: StopSignals | AgreedSignals) -> None:
        """
        Raises:
            CheckpointError: the disk does not take it.
        """
        if not self._writes:
            return
        with stop.protected():
            if name != BEST:
                self._save_late_best()
            save_checkpoint(self._path(name), self._state(), keep_previous=name == LATEST)

    def save_when_due(self, num_done: int, position: int, num_batches: int, stop: StopSignals | AgreedSignals) -> None:
        """Save every so many batches, and when SAVE_NOW.flag or SIGUSR1 asks for it.

        Args:
            num_done: batches since the last call.
            position: batches of the epoch that are done, of num_batches.
        """
        if not self._writes:
            stop.save_asked = False
            return
        flag, every = self._flag, self._output.checkpoint_every_batches
        asked_by = [flag.path.name] * flag.is_there() + ["SIGUSR1"] * stop.save_asked
        due = every and position // every > (position - num_done) // every and position < num_batches
        if not (asked_by or due):
            return
        saved = self._try_to_save(LATEST, stop)
        stop.save_asked = False
        if asked_by:
            flag.take_away()
            log.info("%s: %s %s", asked_by[0], "saved to" if saved else "not saved to", self._output.checkpoint_dir)

    def save_epoch(self, history: list[dict], stop: StopSignals | AgreedSignals, *, is_best: bool) -> None:
        """The best model first: should the run die between the two files, it is the newest whole state."""
        if not self._writes:
            return
        try:
            write_history(Path(self._output.results_dir), history)
            self._history_is_late = False
        except StorageError as error:  # the checkpoint holds it too
            self._history_is_late = True
            log.error("%s; training goes on", error)
        if is_best:
            self._unsaved_best = None if self._try_to_save(BEST, stop) else on_cpu(self._state())
        self._try_to_save(LATEST, stop)

    def save_what_is_late(self, history: list[dict], stop: StopSignals | AgreedSignals) -> None:
        """At the end of a run: what the disk did not take when it was due.

        Raises:
            CheckpointError: the disk does not take it now.
        """
        if not self._writes:
            return
        if self._failed_saves:
            self.save(LATEST, stop)
        if self._history_is_late:
            write_history(Path(self._output.results_dir), history)

    def saves_a_crash(self, *, no_faults: tuple[type[Exception], ...]) -> contextlib.AbstractContextManager[None]:
        if not self._writes:
            return contextlib.nullcontext()
        path = self._path(CRASHED)
        return saved_if_it_crashes(path, self._last_whole_state, self._save_late_best, no_faults=no_faults)

    def _path(self, name: str) -> Path:
        return Path(self._output.checkpoint_dir) / name

    def _save_late_best(self) -> None:
        """Before any later state: whoever goes on from that would never see this one again."""
        if self._unsaved_best is not None:
            save_checkpoint(self._path(BEST), self._unsaved_best, keep_previous=False)
            self._unsaved_best = None

    def _try_to_save(self, name: str, stop: StopSignals | AgreedSignals) -> bool:
        """Save; a disk that is full for a while does not end the run, and what was saved before is still there."""
        try:
            self.save(name, stop)
        except CheckpointError as error:
            self._failed_saves += 1
            if self._failed_saves >= MAX_FAILED_SAVES:
                raise
            log.error("%s; training goes on (failure %d of %d)", error, self._failed_saves, MAX_FAILED_SAVES)
            return False
        self._failed_saves = 0
        return True

    def _last_whole_state(self) -> dict[str, Any] | None:
        return None if self._rng is None else {**self._state(), "rng": self._rng}


@contextlib.contextmanager
def saved_if_it_crashes(
    path: Path,
    last_whole_state: Callable[[], dict[str, Any] | None],
    save_first: Callable[[], None] = lambda: None,
    *,
    no_faults: tuple[type[Exception], ...],
) -> Iterator[None]:
    """Save a state to go on from when a fault of the program comes through here; the fault goes on its way.

    Args:
        last_whole_state: a full checkpoint, or None where the fault left things half changed.
        save_first: writes what no later state may be on the disk without; where it fails, no state is saved.
        no_faults: exceptions that say what the user can do; a save would not help.
    """
    try:
        yield
    except no_faults:
        raise
    except Exception:  # a bug shows as any type
        try:
            save_first()
            _save(path, last_whole_state())
        except Exception:  # the fault that came through here is the one that must be seen
            log.exception("%s: not saved", path)
        raise


def on_cpu(part: Any) -> Any:
    """A copy of nested dictionaries, lists and tuples, with the tensors in the memory of the CPU."""
    if isinstance(part, Tensor):
        return part.detach().to("cpu", copy=True)
    if isinstance(part, dict):
        return {key: on_cpu(value) for key, value in part.items()}
    if isinstance(part, list | tuple):
        return type(part)(on_cpu(value) for value in part)
    return part


def _save(path: Path, state: dict[str, Any] | None) -> None:
    if state is None:
        log.error("the program failed in the middle of a step; what was saved before is kept")
    elif not has_finite_weights(state):
        log.error("the program failed with NaN or Inf in the weights or the optimizer; what was saved before is kept")
    else:
        save_checkpoint(path, state)
        log.error("the program failed; its state before that is in %s", path)
