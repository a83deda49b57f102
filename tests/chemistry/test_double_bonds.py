import math
from itertools import combinations

import numpy as np
import pytest

from src.chemistry import double_bonds
from src.chemistry.double_bonds import NoPlaceError, place_double_bonds


def brute_force(bonds, alone):
    """The smallest cost of all sets of bonds without a common atom."""
    best = math.inf
    for count in range(len(alone) // 2 + 1):
        for chosen in combinations(bonds, count):
            atoms = [atom for pair in chosen for atom in pair]
            if len(atoms) == len(set(atoms)):
                rest = sum(alone[atom] for atom in alone if atom not in atoms)
                best = min(best, rest + sum(bonds[pair] for pair in chosen))
    return best


@pytest.mark.parametrize("seed", range(60))
def test_the_cheapest_is_that_of_brute_force(seed):
    draw = np.random.default_rng(seed)
    size = int(draw.integers(2, 9))
    pairs = [pair for pair in combinations(range(size), 2) if draw.random() < 0.4]
    bonds = {pair: float(draw.integers(-5, 9)) for pair in pairs}
    alone = {atom: math.inf if draw.random() < 0.3 else float(draw.integers(-2, 9)) for atom in range(size)}
    expected = brute_force(bonds, alone)
    rank = {atom: atom for atom in alone}
    if math.isinf(expected):
        with pytest.raises(NoPlaceError, match="Kekulé"):
            place_double_bonds(bonds, alone, rank)
        return
    found = place_double_bonds(bonds, alone, rank)
    atoms = [atom for pair in found for atom in pair]
    assert len(atoms) == len(set(atoms))
    assert sum(bonds[pair] for pair in found) + sum(alone[a] for a in alone if a not in atoms) == expected


def chain(size):
    return {(n, n + 1): 0.0 for n in range(size - 1)}, dict.fromkeys(range(size), math.inf), {n: n for n in range(size)}


def test_a_group_that_is_too_large_is_named(monkeypatch):
    monkeypatch.setattr(double_bonds, "MAX_ATOMS", 10)
    assert len(place_double_bonds(*chain(10))) == 5
    with pytest.raises(NoPlaceError, match="12 atoms are one group"):
        place_double_bonds(*chain(12))


def test_the_search_ends():
    """Pairs of 41 atoms, an odd number, so that there is no answer, and billions of ways to look for one."""
    size = 41
    bonds = dict.fromkeys(combinations(range(size), 2), 0.0)
    search = double_bonds._Search(
        neighbours_of(bonds, size), dict.fromkeys(range(size), math.inf), dict(enumerate(range(size)))
    )
    with pytest.raises(NoPlaceError):
        search.cheapest(list(range(size)))
    # What was begun is ended, at most a look at each atom for each atom on the way back.
    assert search.work < double_bonds.MAX_WORK + size**3


def neighbours_of(bonds, size):
    found = {atom: {} for atom in range(size)}
    for (i, j), cost in bonds.items():
        found[i][j] = found[j][i] = cost
    return found
