"""What is kept when the usual save is not possible: after a fault of the program, and while the disk is full."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from torch import Tensor

from src.checkpoint import has_finite_weights, save_checkpoint

log = logging.getLogger(__name__)

NAME = "CRASHED.pth.tar"


@contextlib.contextmanager
def saved_if_it_crashes(
    folder: Path,
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
            _save(folder / NAME, last_whole_state())
        except Exception:  # the fault that came through here is the one that must be seen
            log.exception("%s: not saved", folder / NAME)
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
