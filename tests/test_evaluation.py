"""Metrics against numbers worked out by hand, intervals, and baselines that see no contact."""

from __future__ import annotations

import math
import warnings
from dataclasses import replace

import numpy as np
import pytest

from src.evaluation import (
    Interval,
    baseline_predictions,
    mae,
    metrics,
    metrics_with_intervals,
    pearson,
    results_table,
    rmse,
    spearman,
)
from src.graph import ComplexGraph
from tests.synthetic import random_complex

MEASURED = np.array([4.0, 5.0, 6.0, 7.0])
# Errors +1, -1, +1, +3: squares 1 + 1 + 1 + 9 = 12 over 4, absolute 6 over 4.
PREDICTED = np.array([5.0, 4.0, 7.0, 10.0])


def test_errors_by_hand() -> None:
    assert rmse(PREDICTED, MEASURED) == pytest.approx(math.sqrt(3.0))
    assert mae(PREDICTED, MEASURED) == pytest.approx(1.5)


def test_correlations_by_hand() -> None:
    # Deviations -1.5 -0.5 0.5 1.5 and -1.5 -2.5 0.5 3.5: products 2.25 + 1.25 + 0.25 + 5.25 = 9, squares 5 and 21.
    assert pearson(PREDICTED, MEASURED) == pytest.approx(9 / math.sqrt(5 * 21))
    # Ranks 2 1 3 4 against 1 2 3 4: 1 - 6 * (1 + 1) / (4 * 15).
    assert spearman(PREDICTED, MEASURED) == pytest.approx(0.8)


def test_the_best_model_is_perfect() -> None:
    assert metrics(MEASURED, MEASURED) == pytest.approx({"rmse": 0.0, "mae": 0.0, "pearson": 1.0, "spearman": 1.0})


@pytest.mark.parametrize(
    ("predicted", "measured"),
    [(np.full(4, 5.0), MEASURED), (PREDICTED, np.full(4, 5.0)), (np.ones(1), np.ones(1))],
    ids=["constant prediction", "constant label", "one complex"],
)
def test_a_correlation_with_a_constant_is_not_defined(predicted: np.ndarray, measured: np.ndarray) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        values = metrics(predicted, measured)
        table = metrics_with_intervals(predicted, measured, num_resamples=10)
    assert math.isnan(values["pearson"])
    assert math.isnan(values["spearman"])
    assert math.isfinite(values["rmse"])
    assert str(table["pearson"]) == "n/a"


def test_an_almost_constant_prediction_warns_nobody() -> None:
    almost = np.array([8.1234567, 8.1234577, 8.1234567, 8.1234567], dtype=np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert math.isfinite(metrics(almost, MEASURED.astype(np.float32))["rmse"])


def test_no_complex_gives_no_number_and_no_crash() -> None:
    empty = np.zeros(0)
    assert all(math.isnan(value) for value in metrics(empty, empty).values())
    assert {str(interval) for interval in metrics_with_intervals(empty, empty).values()} == {"n/a"}


def test_intervals_hold_the_value_and_are_the_same_each_time() -> None:
    rng = np.random.default_rng(0)
    measured = rng.normal(6.0, 1.5, 60)
    predicted = measured + rng.normal(0.0, 1.0, 60)
    table = metrics_with_intervals(predicted, measured, num_resamples=200)
    for name, interval in table.items():
        assert interval.low < interval.value < interval.high, name
        assert interval.value == metrics(predicted, measured)[name]
    assert metrics_with_intervals(predicted, measured, num_resamples=200) == table
    assert metrics_with_intervals(predicted, measured, num_resamples=200, seed=1) != table
    # The standard error of a mean of 60 absolute errors of sd 0.6 is 0.08: an interval of about +-0.15.
    assert 0.15 < table["mae"].high - table["mae"].low < 0.6


def test_more_complexes_give_narrower_intervals() -> None:
    rng = np.random.default_rng(0)
    error = rng.normal(0.0, 1.0, 1000)
    few = metrics_with_intervals(error[:20], np.zeros(20), num_resamples=200)["mae"]
    many = metrics_with_intervals(error, np.zeros(1000), num_resamples=200)["mae"]
    assert many.high - many.low < 0.5 * (few.high - few.low)


# Baselines


def ligand(smiles: str, size: int) -> ComplexGraph:
    return replace(random_complex(0, num_ligand_atoms=size, num_pocket_atoms=0), smiles=smiles)


ALKANES = [ligand("C" * size, size) for size in (2, 4, 6, 8)]


def test_the_mean_and_the_size_by_hand() -> None:
    pk = np.array([3.0, 5.0, 7.0, 9.0])  # 1 + number of atoms
    predictions = baseline_predictions(ALKANES, pk, [ligand("CCCCC", 5), ligand("C" * 10, 10)])
    assert predictions["predict the mean"] == pytest.approx([6.0, 6.0])
    assert predictions["ligand size only"] == pytest.approx([6.0, 11.0])


def test_the_ligand_baseline_by_hand() -> None:
    # Two ligands that share no fragment: K + I = 2 I, so each weight is half the deviation from the mean, +-1.
    train, pk = [ligand("CC", 2), ligand("O=O", 2)], np.array([4.0, 8.0])
    predictions = baseline_predictions(train, pk, [ligand("CC", 2), ligand("O=O", 2), ligand("N#N", 2)])
    assert predictions["ligand only"] == pytest.approx([5.0, 7.0, 6.0])
    assert "ligand size only" not in predictions  # one size has no slope


def test_a_ligand_without_smiles_is_predicted_as_the_mean() -> None:
    pk = np.array([3.0, 5.0, 7.0, 9.0])
    for unreadable in ("", "not a molecule"):
        prediction = baseline_predictions(ALKANES, pk, [ligand(unreadable, 5)])["ligand only"]
        assert prediction == pytest.approx([6.0])


def test_baselines_of_no_test_complex_are_empty() -> None:
    predictions = baseline_predictions(ALKANES, np.array([3.0, 5.0, 7.0, 9.0]), [])
    assert {len(values) for values in predictions.values()} == {0}


def test_the_table_is_aligned_and_says_where_there_is_no_number() -> None:
    row = dict.fromkeys(("rmse", "mae", "pearson", "spearman"), Interval(1.25, 1.0, 1.5))
    text = results_table({"this model": row, "other": {**row, "pearson": Interval(math.nan, math.nan, math.nan)}})
    header, first, second = text.splitlines()
    assert first.startswith("this model  1.250 [1.000, 1.500]")
    assert "n/a" in second
    assert header.index("mae") == first.index("1.250", header.index("rmse") + 1)
