"""Models of one structure file -> those that stand for molecules of their own.

The models of an ensemble (NMR, frames of a simulation) show one molecule several times in one place: the first is read.
Those of a biological assembly are its chains, each in its own place: all are read.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

CELL = 1.5  # Å
# Share of the heavy atoms of a model in cubes that hold atoms of the models before it: at random 0.15 where two
# molecules lie in one place, at most 0.003 for 1,123 chains that touch others.
MAX_SHARED = 0.03
RIGID = 1.0  # Å; by so much distances in the copies of a chain differ at the median, those of disordered models more
LEAST_REPEATED = 0.5  # share of the atoms of a model whose names stand in the first model too


class ModelStart(NamedTuple):
    row: int
    # Whether the file says that a model begins. After END alone may stand the rest of the molecule: it is another model
    # when it shows the same atoms once more.
    is_said: bool


def models_to_read(starts: Sequence[ModelStart], identity: np.ndarray, pos: np.ndarray, notes: list[str]) -> np.ndarray:
    """Which of n heavy atoms belong to models that are read, [n] bool; what was decided goes to notes.

    Args:
        starts: of the models, the first one at row 0.
        identity: [n] the same value for the same atom in another model.
        pos: [n, 3], Å.
    """
    read = np.ones(len(pos), dtype=bool)
    ends = [*(start.row for start in starts[1:]), len(pos)]
    starts = [start for start, end in zip(starts, ends, strict=True) if end > start.row]
    if len(starts) < 2:  # the others have hydrogens alone
        return read
    bounds = [*(start.row for start in starts), len(pos)]
    same_atom = _same_atoms(np.repeat(np.arange(len(starts)), np.diff(bounds)), identity)
    first = _First(same_atom[: bounds[1]], pos)
    cells = cube_numbers(pos, CELL)
    taken: set[int] = set(cells[: bounds[1]].tolist())
    num_models = num_read = 1
    for start, end in zip(starts[1:], bounds[2:], strict=True):
        rows = slice(start.row, end)
        here = cells[rows].tolist()
        overlaps = sum(map(taken.__contains__, here)) > MAX_SHARED * len(here)
        repeats, is_rigid = first.compare(same_atom[rows], pos[rows])
        is_same = (overlaps or (repeats and not is_rigid)) if start.is_said else (overlaps and repeats)
        num_models += start.is_said or is_same
        num_read += start.is_said and not is_same
        if is_same:
            read[rows] = False
        else:
            taken.update(here)
    if num_models > 1:
        notes.append(_note(num_models, num_read))
    return read


def cube_numbers(pos: np.ndarray, edge: float) -> np.ndarray:
    """[n] int64: one number for each of the cubes that space is divided into, by the atom in it."""
    cell = np.floor(pos / edge).astype(np.int64)
    return (cell[:, 0] << 42) + (cell[:, 1] << 21) + cell[:, 2]


class _First:
    """The first model, which the others are compared with."""

    def __init__(self, same_atom: np.ndarray, pos: np.ndarray):
        self.order = np.argsort(same_atom)
        self.sorted = same_atom[self.order]
        self.pos = pos

    def compare(self, same_atom: np.ndarray, pos: np.ndarray) -> tuple[bool, bool]:
        """Whether another model shows atoms of the first once more, and whether these form the same body."""
        place = np.minimum(np.searchsorted(self.sorted, same_atom), len(self.sorted) - 1)
        repeated = self.sorted[place] == same_atom
        if repeated.mean() < LEAST_REPEATED:
            return False, False
        return True, _is_rigid(self.pos[self.order[place[repeated]]], pos[repeated])


def _note(num_models: int, num_read: int) -> str:
    if num_read == 1:
        return f"{num_models} models, first used"
    if num_read == num_models:
        return f"{num_models} models that lie apart, all used"
    return f"{num_models} models, {num_read} that lie apart used"


def _same_atoms(model: np.ndarray, identity: np.ndarray) -> np.ndarray:
    """[n] int, equal for the same atom of two models; an atom that a model has twice counts as two atoms."""
    code = np.unique(identity, return_inverse=True)[1].ravel().astype(np.int64)
    order = np.lexsort((code, model))
    new = np.ones(len(order), dtype=bool)
    new[1:] = (np.diff(code[order]) != 0) | (np.diff(model[order]) != 0)
    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = np.arange(len(order)) - np.flatnonzero(new)[np.cumsum(new) - 1]
    return code * (rank.max() + 1) + rank


def _is_rigid(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether two models of the same atoms, [n, 3] each, are one body in two places."""
    anchors = [0, len(one) // 2, len(one) - 1]
    change = [
        np.linalg.norm(one - one[anchor], axis=1) - np.linalg.norm(other - other[anchor], axis=1) for anchor in anchors
    ]
    return float(np.median(np.abs(change))) <= RIGID
