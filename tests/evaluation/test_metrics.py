"""Metrics against numbers worked out by hand and SciPy's, their intervals, groups and paired differences."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
from scipy import stats

from src.evaluation.metrics import (
    METRICS,
    Interval,
    _resampled_metrics,
    compare,
    concordance,
    kendall,
    mae,
    metrics,
    metrics_by_group,
    metrics_with_intervals,
    partial_pearson,
    pearson,
    resampling_weights,
    results_table,
    rmse,
    spearman,
    weighted_pearson,
)

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
    # Of 6 pairs the first alone is in the wrong order.
    assert kendall(PREDICTED, MEASURED) == pytest.approx(4 / 6)
    assert concordance(PREDICTED, MEASURED) == pytest.approx(5 / 6)


def test_ties_in_the_concordance_index_by_hand() -> None:
    # The labels tie pair (0, 1), which does not count; the predictions tie (1, 2): 4 right and a half, of 5.
    assert concordance(np.array([1.0, 2.0, 2.0, 3.0]), np.array([5.0, 5.0, 6.0, 7.0])) == pytest.approx(4.5 / 5)
    assert concordance(np.full(4, 1.0), MEASURED) == 0.5
    assert math.isnan(concordance(MEASURED, np.full(4, 1.0)))
    assert math.isnan(concordance(np.array([5.0, math.nan, 7.0, 10.0]), MEASURED))  # no prediction is no tie


def test_the_concordance_index_is_that_of_every_pair() -> None:
    rng = np.random.default_rng(0)
    predicted, measured = rng.integers(0, 9, 80).astype(float), rng.integers(0, 9, 80).astype(float)
    right, pairs = 0.0, 0
    for i in range(80):
        for j in range(80):
            if measured[i] > measured[j]:
                pairs += 1
                right += (predicted[i] > predicted[j]) + 0.5 * (predicted[i] == predicted[j])
    assert concordance(predicted, measured) == pytest.approx(right / pairs, rel=1e-12)


def test_the_best_model_is_perfect() -> None:
    assert metrics(MEASURED, MEASURED) == pytest.approx(
        {"rmse": 0.0, "mae": 0.0, "pearson": 1.0, "spearman": 1.0, "kendall": 1.0, "concordance": 1.0}
    )


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
    # The standard error of a mean of 60 absolute errors of sd 0.6 is 0.08: an interval of about +-0.15.
    assert 0.15 < table["mae"].high - table["mae"].low < 0.6


def test_more_complexes_give_narrower_intervals() -> None:
    rng = np.random.default_rng(0)
    error = rng.normal(0.0, 1.0, 1000)
    few = metrics_with_intervals(error[:20], np.zeros(20), num_resamples=200)["mae"]
    many = metrics_with_intervals(error, np.zeros(1000), num_resamples=200)["mae"]
    assert many.high - many.low < 0.5 * (few.high - few.low)


@pytest.mark.parametrize("ties", [False, True])
def test_resampled_metrics_are_those_of_the_drawn_complexes(ties: bool) -> None:
    """A resample written as weights is the same as repeating the complexes, by SciPy."""
    rng = np.random.default_rng(3)
    measured, predicted = rng.normal(6, 2, 30), rng.normal(6, 2, 30)
    if ties:
        measured, predicted = measured.round(), predicted.round()
    for draw in range(5):
        weights = resampling_weights(30, num_resamples=1, seed=draw)
        assert weights.sum() == 30
        drawn = np.repeat(np.arange(30), weights[0].astype(int))
        expected = metrics(predicted[drawn], measured[drawn])
        table = _resampled_metrics(weights, predicted, measured)
        assert {name: value.item() for name, value in table.items()} == pytest.approx(expected, rel=1e-9)
    assert metrics(predicted, measured)["kendall"] == pytest.approx(stats.kendalltau(predicted, measured).statistic)


def test_nineteen_of_twenty_intervals_hold_the_truth() -> None:
    rng = np.random.default_rng(0)
    truth = math.sqrt(1 / (1 + 0.5**2))  # of a label with variance 1 and an error with deviation 0.5
    held = 0
    for _ in range(100):
        measured = rng.normal(0, 1, 100)
        table = metrics_with_intervals(measured + rng.normal(0, 0.5, 100), measured, num_resamples=200)
        held += table["rmse"].low < 0.5 < table["rmse"].high and table["pearson"].low < truth < table["pearson"].high
    assert 80 <= held <= 99  # both at once: 90 if they were independent


def test_whole_clusters_are_drawn_and_widen_the_interval() -> None:
    clusters = np.repeat(np.arange(10), 10)
    weights = resampling_weights(100, clusters=clusters)
    assert (weights.reshape(-1, 10, 10) == weights.reshape(-1, 10, 10)[:, :, :1]).all()
    assert (weights.sum(1) == 100).all()
    error = np.random.default_rng(0).normal(0, 1, 10)[clusters]  # one error for a whole target
    single = metrics_with_intervals(error, np.zeros(100))["rmse"]
    whole = metrics_with_intervals(error, np.zeros(100), clusters=clusters)["rmse"]
    assert whole.high - whole.low > 2 * (single.high - single.low)


def test_three_thousand_complexes_take_seconds_and_more_use_fewer_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("src.evaluation.metrics.MAX_PAIRED", 10)
    rng = np.random.default_rng(0)
    predicted, measured = rng.normal(size=(2, 40))
    table = metrics_with_intervals(predicted, measured, num_resamples=800)
    assert all(math.isfinite(interval.low) for interval in table.values())
    assert table["kendall"].low < table["kendall"].value < table["kendall"].high


def test_resamples_of_one_complex_alone_are_left_out() -> None:
    """One resample of 3 complexes in nine draws a single one, which has no correlation; rounding must not make one."""
    for seed in range(20):
        measured, predicted = np.random.default_rng(seed).normal(6, 2, (2, 3))
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            table = metrics_with_intervals(predicted, measured)
            weights = np.array([[3.0, 0.0, 0.0], [0.0, 3.0, 0.0], [0.0, 0.0, 3.0]])
            assert all(np.isnan(weighted_pearson(weights, predicted, measured)))
        assert all(-1 - 1e-9 <= table[name].low <= table[name].high <= 1 + 1e-9 for name in ("pearson", "spearman"))


# Groups


def test_groups_are_sorted_and_small_ones_put_together() -> None:
    measured = np.arange(30.0)
    groups = ["Ki"] * 10 + ["Kd"] * 15 + ["a", "b", "b", "c", "c"]
    rows = metrics_by_group(measured + 1, measured, groups)
    assert [(row.name, row.count) for row in rows] == [("Kd", 15), ("Ki", 10), ("3 groups of fewer than 10", 5)]
    assert rows[0].metrics["rmse"].value == pytest.approx(1.0)
    assert metrics_by_group(np.zeros(0), np.zeros(0), []) == []


# Given ligand size


def test_the_partial_correlation_is_that_of_the_residuals() -> None:
    rng = np.random.default_rng(0)
    size = rng.integers(10, 50, 200).astype(float)
    predicted, measured = 0.1 * size + rng.normal(size=200), 0.1 * size + rng.normal(size=200)

    def rest(values: np.ndarray) -> np.ndarray:
        fit = stats.linregress(size, values)
        return values - fit.intercept - fit.slope * size

    interval = partial_pearson(predicted, measured, size)
    assert interval.value == pytest.approx(stats.pearsonr(rest(predicted), rest(measured)).statistic)
    assert interval.low < 0 < interval.high  # nothing but size is in common
    assert pearson(predicted, measured) > 0.4


@pytest.mark.parametrize(
    ("predicted", "size"),
    [(np.arange(8.0), np.full(8, 20.0)), (np.full(8, 6.0), np.arange(8.0)), (3 * np.arange(8.0), np.arange(8.0))],
    ids=["one size", "one prediction", "a line in size"],
)
def test_what_size_leaves_nothing_of_has_no_partial_correlation(predicted: np.ndarray, size: np.ndarray) -> None:
    measured = np.array([3.0, 1.0, 4.0, 1.0, 5.0, 9.0, 2.0, 6.0])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert str(partial_pearson(predicted, measured, size)) == "n/a"
        assert str(partial_pearson(predicted[:1], measured[:1], size[:1])) == "n/a"


# Paired differences


def test_a_better_model_is_found_better_by_pairs_where_intervals_overlap() -> None:
    rng = np.random.default_rng(0)
    measured = rng.normal(6, 2, 150)
    shared = rng.normal(0, 1, 150)
    ours, theirs = measured + shared, measured + 1.15 * shared + rng.normal(0, 0.1, 150)
    table = compare(ours, theirs, measured)
    assert table["rmse"].value == pytest.approx(rmse(ours, measured) - rmse(theirs, measured))
    assert table["rmse"].high < 0
    assert table["rmse"].p < 0.01
    assert metrics_with_intervals(ours, measured)["rmse"].high > metrics_with_intervals(theirs, measured)["rmse"].low
    back = compare(theirs, ours, measured)
    assert back["rmse"].value == pytest.approx(-table["rmse"].value)
    assert back["rmse"].p == pytest.approx(table["rmse"].p)


def test_models_that_are_alike_differ_by_chance_alone() -> None:
    rng = np.random.default_rng(1)
    measured = rng.normal(6, 2, 150)
    one, other = measured + rng.normal(size=(2, 150))
    assert compare(one, other, measured)["rmse"].p > 0.05
    same = compare(one, one, measured)
    assert all((row.value, row.p) == (0.0, 1.0) for row in same.values())


def test_no_difference_can_be_told_from_nothing_or_of_a_constant() -> None:
    assert {str(row) for row in compare(np.zeros(0), np.zeros(0), np.zeros(0)).values()} == {"n/a"}
    table = compare(np.full(12, 6.0), np.tile(PREDICTED, 3), np.tile(MEASURED, 3))
    assert str(table["pearson"]) == "n/a"
    assert math.isfinite(table["rmse"].p)


def test_the_table_is_aligned_and_says_where_there_is_no_number() -> None:
    row = dict.fromkeys(METRICS, Interval(1.25, 1.0, 1.5))
    text = results_table({"this model": row, "other": {**row, "pearson": Interval(math.nan, math.nan, math.nan)}})
    header, first, second = text.splitlines()
    assert first.startswith("this model  1.250 [1.000, 1.500]")
    assert "n/a" in second
    assert header.index("pearson") == first.index("1.250", header.index("rmse") + 1)
    assert len(first) <= 100


def test_a_number_that_rounds_to_zero_has_no_sign() -> None:
    assert str(Interval(-0.0001, -0.0002, 0.0)) == "0.000 [0.000, 0.000]"


def test_a_few_complexes_have_no_p() -> None:
    rng = np.random.default_rng(0)
    measured = rng.normal(6, 1, 12)
    ours, theirs = measured + rng.normal(0, 0.1, 12), measured + rng.normal(0, 2, 12)
    assert compare(ours, theirs, measured)["rmse"].p < 0.05
    assert math.isnan(compare(ours[:9], theirs[:9], measured[:9])["rmse"].p)
