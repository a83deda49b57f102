"""Baselines that see no contact, against numbers worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from src.evaluation.baselines import baseline_predictions, linear_baseline, neighbour_baseline, ridge_baseline

PK = np.array([3.0, 5.0, 7.0, 9.0])
SIZES = np.array([2, 4, 6, 8])  # pK is 1 + size


def test_the_mean_and_the_line_by_hand() -> None:
    predictions = baseline_predictions(PK, 2, facts={"ligand size": (SIZES, np.array([5, 10]))})
    assert predictions["predict the mean"] == pytest.approx([6.0, 6.0])
    assert predictions["ligand size only"] == pytest.approx([6.0, 11.0])


def test_one_size_has_no_line() -> None:
    assert linear_baseline(np.full(4, 7), PK, np.array([7])) is None
    assert list(baseline_predictions(PK, 1, facts={"ligand size": (np.full(4, 7), np.array([7]))})) == [
        "predict the mean"
    ]


def test_the_ridge_by_hand() -> None:
    # Two ligands with nothing in common: K + I = 2 I, so each weight is half the deviation from the mean, +-1.
    queries = np.array([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]])
    assert ridge_baseline(np.eye(2), np.array([4.0, 8.0]), queries) == pytest.approx([5.0, 7.0, 6.0])


def test_neighbours_by_hand() -> None:
    queries = np.array([[0.1, 0.9, 0.3, 0.0], [0.0, 0.0, 0.0, 0.0]])
    assert neighbour_baseline(queries, PK, 1) == pytest.approx([5.0, 6.0])
    assert neighbour_baseline(queries, PK, 2) == pytest.approx([(0.9 * 5 + 0.3 * 7) / 1.2, 6.0])
    assert neighbour_baseline(queries, PK, 99) == pytest.approx([(0.1 * 3 + 0.9 * 5 + 0.3 * 7) / 1.3, 6.0])


def test_the_nearest_complex_has_its_label() -> None:
    similarity = np.array([[0.2, 0.3, 0.9, 0.1]])
    predictions = baseline_predictions(PK, 1, facts={}, ligands=(np.eye(4), similarity), nearest=np.array([2]))
    assert predictions["nearest training complex"] == pytest.approx([7.0])
    alone = baseline_predictions(PK, 2, facts={}, nearest=np.array([-1, 3]))
    assert alone["nearest training complex"] == pytest.approx([6.0, 9.0])  # the mean where none is alike
    assert set(predictions) == {"predict the mean", "ligand only", "nearest ligands", "nearest training complex"}


def test_a_large_training_set_is_thinned_for_the_ridge(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("src.evaluation.baselines.MAX_RIDGE_LIGANDS", 2)
    predictions = baseline_predictions(PK, 1, facts={}, ligands=(np.eye(2), np.array([[0.0, 1.0, 0.0, 1.0]])))
    assert predictions["ligand only"] == pytest.approx([5.0])  # the mean of 3 and 7, the first and the third


def test_no_test_complex_gives_no_prediction() -> None:
    nothing = np.zeros((0, 4))
    predictions = baseline_predictions(
        PK, 0, facts={"ligand size": (SIZES, np.zeros(0))}, ligands=(np.eye(4), nothing), nearest=np.zeros(0, int)
    )
    assert {len(values) for values in predictions.values()} == {0}
