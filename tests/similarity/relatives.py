"""Ligands, and sequences that are related as much as a test asks for."""

from __future__ import annotations

import numpy as np

from src.similarity.comparison import LETTERS

ASPIRIN, PARACETAMOL, CAFFEINE = "CC(=O)Oc1ccccc1C(=O)O", "CC(=O)Nc1ccc(O)cc1", "Cn1cnc2c1c(=O)n(C)c(=O)n2C"


def draw(seed: int, length: int = 120) -> str:
    return "".join(np.random.default_rng(seed).choice(list(LETTERS), length))


def mutated(sequence: str, share: float, seed: int = 0) -> str:
    """Every mutated place gets another residue than it had."""
    rng, letters = np.random.default_rng(seed), list(sequence)
    for place in rng.permutation(len(letters))[: round(share * len(letters))]:
        letters[place] = LETTERS[(LETTERS.index(letters[place]) + rng.integers(1, 20)) % 20]
    return "".join(letters)
