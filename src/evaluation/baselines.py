"""Labels and plain facts of the training set -> predictions that know nothing of contacts, to judge a model against."""

from __future__ import annotations

import numpy as np
from scipy import stats

RIDGE = 1.0  # regularisation, added to the diagonal of the similarity matrix
NUM_NEIGHBOURS = 5
MAX_RIDGE_LIGANDS = 5000  # the ligand-only ridge needs the square of this number in memory: 200 MB


def linear_baseline(train_x: np.ndarray, train_pk: np.ndarray, test_x: np.ndarray) -> np.ndarray | None:
    """A straight line through one fact of each complex, such as its number of heavy atoms; None if that is constant."""
    if np.ptp(train_x) == 0:
        return None
    fit = stats.linregress(np.asarray(train_x, dtype=float), train_pk)
    return fit.intercept + fit.slope * np.asarray(test_x, dtype=float)


def ridge_baseline(known: np.ndarray, train_pk: np.ndarray, queries: np.ndarray) -> np.ndarray:
    """Kernel ridge regression by the similarity of training complexes to each other [T, T], and of test to training."""
    weights = np.linalg.solve(known + RIDGE * np.eye(len(known)), train_pk - train_pk.mean())
    return train_pk.mean() + queries @ weights


def neighbour_baseline(queries: np.ndarray, train_pk: np.ndarray, num_neighbours: int = NUM_NEIGHBOURS) -> np.ndarray:
    """Mean label of the most similar training complexes, by similarity [Q, T], 0 to 1; of all where none is alike."""
    num_neighbours = min(num_neighbours, queries.shape[1])
    nearest = np.argsort(-queries, axis=1, kind="stable")[:, :num_neighbours]
    weights = np.take_along_axis(queries, nearest, axis=1)
    total = weights.sum(1)
    blend = (weights * train_pk[nearest]).sum(1) / np.where(total > 0, total, 1.0)
    return np.where(total > 0, blend, train_pk.mean())


def ridge_ligands(num_train: int) -> slice:
    """Which training ligands the ridge knows: every n-th of a set too large for a table of all pairs."""
    return slice(None, None, -(-num_train // MAX_RIDGE_LIGANDS))


def baseline_predictions(
    train_pk: np.ndarray,
    num_test: int,
    *,
    facts: dict[str, tuple[np.ndarray, np.ndarray]],
    ligands: tuple[np.ndarray, np.ndarray] | None = None,
    nearest: np.ndarray | None = None,
) -> dict[str, np.ndarray]:
    """What can be predicted without knowing what touches what; a model that is no better learned no chemistry.

    Args:
        train_pk: labels of the T training complexes.
        facts: name -> one number for each training and each test complex, such as its heavy atoms.
        ligands: similarity of ligands, that of ridge_ligands(T) to each other [K, K], and test to training [Q, T].
        nearest: number of the training complex most alike to each test complex, -1 where none is alike at all, [Q].

    Returns:
        name -> pK of each test complex, [Q]: the mean, a line through each fact, ridge and nearest neighbours on
        the ligands alone, and the label of the nearest training complex.
    """
    predictions = {"predict the mean": np.full(num_test, train_pk.mean())}
    for name, (known, asked) in facts.items():
        line = linear_baseline(known, train_pk, asked)
        if line is not None:
            predictions[f"{name} only"] = line
    if ligands is not None:
        known, queries = ligands
        kept = ridge_ligands(len(train_pk))
        predictions["ligand only"] = ridge_baseline(known, train_pk[kept], queries[:, kept])
        predictions["nearest ligands"] = neighbour_baseline(queries, train_pk)
    if nearest is not None:
        predictions["nearest training complex"] = np.where(nearest >= 0, train_pk[nearest], train_pk.mean())
    return predictions
