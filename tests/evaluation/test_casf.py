"""The powers of CASF-2016 on cases counted by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from src.evaluation.casf import (
    docking_power,
    predictive_index,
    ranking_power,
    reverse_screening_power,
    scoring_power,
    screening_power,
)
from src.evaluation.metrics import resampling_weights


def values(table: dict) -> dict[str, float]:
    return {name: interval.value for name, interval in table.items()}


def test_scoring_power_is_r_and_the_deviation_from_the_line() -> None:
    rng = np.random.default_rng(0)
    predicted = rng.normal(6, 1, 50)
    measured = 2 * predicted + rng.normal(0, 1, 50)
    table = scoring_power(predicted, measured)
    line = np.polynomial.Polynomial.fit(predicted, measured, 1)
    assert table["SD"].value == pytest.approx(math.sqrt(((measured - line(predicted)) ** 2).sum() / 49))
    assert table["R"].value == pytest.approx(np.corrcoef(predicted, measured)[0, 1])
    assert table["SD"].low < table["SD"].value < table["SD"].high


def test_the_interval_of_the_deviation_is_that_of_its_own_resamples() -> None:
    """Labels that are spread by a few far complexes: which are drawn moves the spread as well as R."""
    rng = np.random.default_rng(0)
    predicted = rng.normal(6, 1, 40)
    measured = predicted + rng.normal(0, 1, 40)
    measured[:2] += 8
    rows = [np.repeat(np.arange(40), counts.astype(int)) for counts in resampling_weights(40)]
    resampled = [
        math.sqrt(np.var(measured[row], ddof=1) * (1 - _r(predicted[row], measured[row]) ** 2)) for row in rows
    ]
    table = scoring_power(predicted, measured)
    assert (table["SD"].low, table["SD"].high) == pytest.approx(tuple(np.percentile(resampled, [2.5, 97.5])))


def test_scoring_power_of_one_number_is_not_defined() -> None:
    for predicted, measured in ((np.full(9, 6.0), np.arange(9.0)), (np.ones(1), np.ones(1)), (np.ones(0), np.ones(0))):
        assert {str(interval) for interval in scoring_power(predicted, measured).values()} == {"n/a"}


def _r(predicted: np.ndarray, measured: np.ndarray) -> float:
    return float(np.corrcoef(predicted, measured)[0, 1])


def test_ranking_power_is_the_mean_over_targets() -> None:
    measured = np.array([2.0, 4.0, 6.0, 8.0, 10.0, 3.0, 6.0, 9.0, 5.0])
    predicted = np.array([1.0, 2.0, 3.0, 4.0, 5.0, 3.0, 2.0, 1.0, 0.0])
    targets = ["a"] * 5 + ["b"] * 3 + ["c"]  # one target in the right order, one in the wrong, one alone
    assert values(ranking_power(predicted, measured, targets)) == pytest.approx(
        {"Spearman": 0.0, "Kendall": 0.0, "predictive index": 0.0}
    )


def test_the_predictive_index_weighs_pairs_by_their_difference() -> None:
    # Differences 1 (right), 2 (wrong), 3 (right): (1 - 2 + 3) / 6.
    assert predictive_index(np.array([1.0, 3.0, 2.0]), np.array([4.0, 5.0, 7.0])) == pytest.approx(2 / 6)
    assert predictive_index(np.ones(3), np.array([4.0, 5.0, 7.0])) == 0.0
    assert math.isnan(predictive_index(np.arange(3.0), np.ones(3)))


def test_docking_power_by_hand() -> None:
    rmsd = {
        "a": {"a_1": 0.5, "a_2": 4.0, "a_3": 6.0, "a_4": 8.0, "a_5": 9.0},
        "b": {"b_1": 2.0, "b_2": 3.0, "b_3": 2.5},
        "c": {"c_1": 0.1},
    }
    scores = {
        "a": {"a_1": 9.0, "a_2": 8.0, "a_3": 7.0, "a_4": 6.0, "a_5": 5.0, "unlisted": 99.0},
        "b": {"b_1": 1.0, "b_2": 2.0, "b_3": 3.0},
    }
    table = docking_power(scores, rmsd)  # a: the first; b: the third; c: no score, so not found
    found = {name: value for name, value in values(table).items() if name.startswith("top")}
    assert found == pytest.approx({"top 1": 1 / 3, "top 2": 1 / 3, "top 3": 2 / 3})
    assert table["0-10 Å"].value == pytest.approx(1.0)  # of a alone, the one with five poses
    assert math.isnan(table["0-2 Å"].value)


def test_screening_power_by_hand() -> None:
    # 20 candidates: the best 10% are 2, the best 5% is 1, and of 1% halves would round up to 0.2 -> 0.
    ranked = {f"l{number:02}": 20.0 - number for number in range(20)}
    actives = {"t": ("l01", "l00", "l19", "l18")}
    table = values(screening_power({"t": ranked}, actives))
    assert table["success 1%"] == 0.0
    assert (table["success 5%"], table["EF 5%"]) == (0.0, pytest.approx(1 / (4 * 0.05)))
    assert (table["success 10%"], table["EF 10%"]) == (1.0, pytest.approx(2 / (4 * 0.10)))
    assert set(values(screening_power({}, actives)).values()) == {0.0}


def test_halves_are_rounded_up_as_in_the_published_scripts() -> None:
    ranked = {f"l{number:03}": -float(number) for number in range(285)}
    table = values(screening_power({"t": ranked}, {"t": ("l028",)}))  # the 29th of 285, and 28.5 is 29
    assert table["success 10%"] == 1.0
    assert values(screening_power({"t": ranked}, {"t": ("l029",)}))["success 10%"] == 0.0


def test_reverse_screening_looks_for_the_target_of_a_ligand() -> None:
    scores = {f"t{number}": {"x": float(number), "y": -float(number)} for number in range(10)}
    table = values(reverse_screening_power(scores, {"t9": ("x",), "t5": ("y",)}))
    assert table["success 10%"] == pytest.approx(0.5)  # x is best at t9, y at t0
