"""Costs of double bonds and of atoms without one -> the cheapest places of double bonds, at most one at each atom."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from src.system.errors import UserError

MAX_ATOMS = 200  # of one connected group
MAX_WORK = 100_000  # atoms that the search in one group looks at; C60 takes 1,000

Pair = tuple[int, int]


class NoPlaceError(UserError):
    """No places give every atom that needs a double bond one, or there are too many to look at."""


def place_double_bonds(bonds: Mapping[Pair, float], alone: Mapping[int, float], rank: Mapping[int, int]) -> list[Pair]:
    """The pairs of the smallest sum of costs.

    Args:
        bonds: cost of a double bond at each pair of atoms that may have one.
        alone: cost of each atom without a double bond; infinite where it needs one.
        rank: of the atoms, which decides where costs do not.

    Raises:
        NoPlaceError: there is no such set of pairs, or a group of atoms is too large to find it.
    """
    neighbours: dict[int, dict[int, float]] = {atom: {} for atom in alone}
    for (i, j), cost in bonds.items():
        neighbours[i][j] = neighbours[j][i] = cost
    placed: list[Pair] = []
    for group in connected_groups(neighbours):
        if len(group) > MAX_ATOMS:
            raise NoPlaceError(f"{len(group)} atoms are one group of open bond orders; at most {MAX_ATOMS} can be")
        placed += _Search(neighbours, alone, rank).cheapest(group)
    return sorted(placed)


def connected_groups(neighbours: Mapping[int, Iterable[int]]) -> list[list[int]]:
    """Atoms that hang together."""
    groups, seen = [], set()
    for start in sorted(neighbours):
        if start in seen:
            continue
        seen.add(start)
        group = [start]
        for atom in group:
            for other in neighbours[atom]:
                if other not in seen:
                    seen.add(other)
                    group.append(other)
        groups.append(group)
    return groups


class _Search:
    """Branch and bound; the atom with the fewest ways is decided first, so that most groups need no way back."""

    def __init__(
        self, neighbours: Mapping[int, Mapping[int, float]], alone: Mapping[int, float], rank: Mapping[int, int]
    ):
        self.neighbours, self.alone, self.rank = neighbours, alone, rank
        # What an atom costs at least, half of a bond being on each of its atoms.
        self.least = {atom: min([alone[atom], *(cost / 2 for cost in neighbours[atom].values())]) for atom in alone}
        self.best: list[Pair] | None = None
        self.best_cost = math.inf
        self.work = 0

    def cheapest(self, group: list[int]) -> list[Pair]:
        self._search(set(group), [], 0.0, sum(self.least[atom] for atom in group))
        if self.best is None:
            raise NoPlaceError("the aromatic bonds have no Kekulé structure; can't kekulize")
        return self.best

    def _search(self, free: set[int], placed: list[Pair], cost: float, rest: float) -> None:
        self.work += len(free)
        if self.work > MAX_WORK or cost + rest >= self.best_cost - 1e-9:
            return
        if not free:
            self.best, self.best_cost = list(placed), cost
            return
        ways = {atom: self._ways(atom, free) for atom in free}
        atom = min(free, key=lambda each: (len(ways[each]), self.rank[each]))
        for way, _, other in ways[atom]:
            gone = {atom} if other is None else {atom, other}
            pair = [] if other is None else [(min(atom, other), max(atom, other))]
            left = rest - sum(self.least[each] for each in gone)
            self._search(free - gone, placed + pair, cost + way, left)

    def _ways(self, atom: int, free: set[int]) -> list[tuple[float, int, int | None]]:
        """(cost, rank of the other atom, the other atom), the cheapest first."""
        ways: list[tuple[float, int, int | None]] = [
            (cost, self.rank[other], other) for other, cost in self.neighbours[atom].items() if other in free
        ]
        if math.isfinite(self.alone[atom]):
            ways.append((self.alone[atom], -1, None))
        return sorted(ways, key=lambda way: way[:2])
