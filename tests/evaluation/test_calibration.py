"""Intervals from errors on a validation set: counted by hand, and held by new draws as often as promised."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from src.checkpoint import CheckpointError
from src.evaluation.calibration import (
    FACTS,
    LEAST_ERRORS,
    Calibration,
    calibrate,
    calibrate_by_facts,
    conformal_half_width,
    coverage,
    ensemble_half_widths,
    read_calibration,
)
from src.system.storage import read_plain, write_plain

SLOPES = np.array([-0.8, 0.0, 0.5])  # of the logarithm of the size of an error by each of FACTS
NOTHING = np.zeros((0, len(FACTS))), np.zeros(0)


def drawn(seed: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Facts and errors whose size follows from them."""
    draw = np.random.default_rng(seed)
    facts = draw.normal(size=(count, len(FACTS)))
    return facts, draw.laplace(size=count) * np.exp(0.3 + facts @ SLOPES)


@pytest.mark.parametrize(
    ("count", "expected"),
    [(8, None), (9, 9.0), (10, 10.0), (19, 18.0), (99, 90.0)],  # ceil(0.9 * (n + 1)) of the errors 1 to n
)
def test_the_half_width_is_the_kth_smallest_error(count: int, expected: float | None) -> None:
    errors = np.arange(1.0, count + 1) * np.where(np.arange(count) % 2, 1, -1)
    assert conformal_half_width(np.random.default_rng(0).permutation(errors)) == expected


def test_new_draws_lie_in_the_interval_as_often_as_promised() -> None:
    draw = np.random.default_rng(0)
    shares = []
    for _ in range(300):
        half_width = conformal_half_width(draw.standard_t(3, 60))
        shares.append(np.mean(np.abs(draw.standard_t(3, 200)) <= half_width))
    assert 0.90 <= np.mean(shares) <= 0.92  # between level and level + 1 / (n + 1)


def test_coverage_by_hand() -> None:
    found = coverage(np.array([1.0, 2.0, 3.0, 4.0]), np.array([1.5, 2.0, 4.1, 3.0]), np.full(4, 1.0))
    assert (found.share, found.count, found.half_width) == (0.75, 4, 1.0)
    # Wilson: (0.75 + 3.841459 / 8 -+ 1.959964 * sqrt(0.75 * 0.25 / 4 + 3.841459 / 64)) / (1 + 3.841459 / 4)
    assert (found.low, found.high) == pytest.approx((0.3006, 0.9544), abs=1e-4)
    assert math.isnan(found.by_width)


def test_coverage_says_whether_wide_intervals_are_those_of_large_errors() -> None:
    errors = np.array([0.1, 0.2, 0.3, 0.4, 3.0, 4.0])
    found = coverage(errors, np.zeros(6), np.array([1.0, 1.1, 1.2, 1.3, 2.0, 5.0]))
    assert (found.share, found.half_width) == (pytest.approx(5 / 6), pytest.approx(11.6 / 6))
    assert found.by_width == pytest.approx(np.corrcoef(errors, [1.0, 1.1, 1.2, 1.3, 2.0, 5.0])[0, 1])
    assert found.thirds == pytest.approx((math.sqrt(0.025), math.sqrt(12.5)))


def test_the_share_hangs_on_whole_groups() -> None:
    """What one group of many holds or not counts once."""
    inside = np.repeat([0.0, 2.0, 0.0, 0.0], 25)
    alone = coverage(inside, np.zeros(100), np.ones(100))
    grouped = coverage(inside, np.zeros(100), np.ones(100), np.repeat(np.arange(4), 25))
    assert alone.share == grouped.share == 0.75
    assert grouped.high - grouped.low > 2 * (alone.high - alone.low)
    assert coverage(inside, np.zeros(100), np.ones(100), ["one"] * 100) == pytest.approx(alone, nan_ok=True)


def test_one_width_is_that_of_the_errors_that_are_known() -> None:
    errors = np.append(np.linspace(0.1, 0.9, 9), np.nan)
    found = calibrate(errors)
    assert found.half_widths(np.full((2, len(FACTS)), np.nan)) == pytest.approx([0.9, 0.9])
    assert calibrate(errors[1:]) is None
    assert np.isfinite(calibrate(np.zeros(9)).constant)


def test_the_size_of_an_error_is_found_by_what_is_known_of_the_complex() -> None:
    found, factor = calibrate_by_facts(*drawn(0, 4000), *drawn(1, 400))
    assert found.slopes == pytest.approx(SLOPES, abs=0.06)
    # of a Laplace distribution of this size 90 % lie within ln(10) sizes
    assert found.constant == pytest.approx(0.3 + math.log(math.log(10)), abs=0.1)
    assert factor == pytest.approx(1.0, abs=0.15)


def test_new_complexes_lie_in_their_own_interval_as_often_as_promised() -> None:
    shares, third = [], []
    for seed in range(20):
        found, _ = calibrate_by_facts(*drawn(seed, 300), *NOTHING)
        facts, errors = drawn(1000 + seed, 1000)
        judged = coverage(errors, np.zeros(1000), found.half_widths(facts))
        shares.append(judged.share)
        third.append(judged.thirds[1] / judged.thirds[0])
    assert np.mean(shares) == pytest.approx(0.9, abs=0.015)
    assert min(third) > 1.25


def test_what_the_whole_model_does_better_makes_all_intervals_narrower() -> None:
    facts, errors = drawn(0, 2000)
    whole = drawn(1, 500)
    found, factor = calibrate_by_facts(facts, errors, whole[0], 0.5 * whole[1])
    before, _ = calibrate_by_facts(facts, errors, *NOTHING)
    assert factor == pytest.approx(0.5, abs=0.06)
    assert found.half_widths(facts) == pytest.approx(factor * before.half_widths(facts))
    one = np.array([0.0]), np.array([100.0])
    few, factor = calibrate_by_facts(facts, errors, facts[:1], one[1])
    assert factor < 100 / 2  # a single complex is weighed against the belief that both err alike
    assert few.half_widths(facts).max() < 100 * before.half_widths(facts).max()


def test_the_thirds_part_the_complexes_in_three() -> None:
    facts, errors = drawn(0, 300)
    found, _ = calibrate_by_facts(facts, errors, *NOTHING)
    place = np.searchsorted(found.thirds, found.half_widths(facts))
    assert np.bincount(place).tolist() == [100, 100, 100]


def test_few_errors_are_no_width_and_hardly_more_are_one_for_nearly_all() -> None:
    facts, errors = drawn(0, LEAST_ERRORS - 1)
    assert calibrate_by_facts(facts, errors, *drawn(1, 50)) == (None, 1.0)
    facts, errors = drawn(0, LEAST_ERRORS)
    found, _ = calibrate_by_facts(facts, errors, *NOTHING)
    assert np.abs(found.slopes).max() < np.abs(SLOPES).max()  # drawn to 0
    alike, _ = calibrate_by_facts(np.ones((30, len(FACTS))), np.linspace(-1, 1, 30), *NOTHING)
    assert alike.slopes == (0.0,) * len(FACTS)
    assert np.isfinite(alike.half_widths(np.zeros((1, len(FACTS))))).all()


def test_models_that_disagree_make_the_interval_wider() -> None:
    members = np.array([[1.0, 1.0], [1.4, 1.4]])
    apart = ensemble_half_widths(members, np.array([[3.0, 6.0], [8.7, 6.0]]))
    assert apart[0] >= 6  # so that it holds both
    assert apart[1] == pytest.approx(1.2)
    assert ensemble_half_widths(members[:1], np.array([[3.0, 6.0]])) == pytest.approx(members[0])


def test_it_comes_back_from_a_file(tmp_path: Path) -> None:
    one, _ = calibrate_by_facts(*drawn(0, 50), *NOTHING)
    write_plain(tmp_path / "c.pth.tar", {"calibration": one.state_dict()})
    assert read_calibration(read_plain(tmp_path / "c.pth.tar")) == one
    assert read_calibration({"calibration": Calibration(0.1).state_dict()}) == Calibration(0.1)
    assert read_calibration({}) is None


@pytest.mark.fault("K4")
@pytest.mark.parametrize(
    "odd",
    [
        {"constant": None},
        {"constant": 1},
        {"constant": math.nan},
        {"slopes": [0.0]},
        {"slopes": [0.0, math.inf, 0.0]},
        {"slopes": 0.0},
        {"thirds": [2.0, 1.0]},
        {"thirds": [math.nan, 1.0]},
        {"thirds": ["a", "b"]},
    ],
)
def test_an_odd_calibration_is_refused(odd: dict[str, Any]) -> None:
    with pytest.raises(CheckpointError, match="calibration"):
        read_calibration({"calibration": {**Calibration(0.0).state_dict(), **odd}})


def test_the_errors_of_an_earlier_release_are_no_calibration() -> None:
    with pytest.raises(CheckpointError, match="this release"):
        read_calibration({"calibration": {"codes": ["a"], "errors": [1.0]}})
