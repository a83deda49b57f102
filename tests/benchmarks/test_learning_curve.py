"""Smaller training sets within larger ones, and the straight line through the errors of several sizes."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.learning_curve import Curve, nested


def test_a_smaller_training_set_is_part_of_a_larger_one_and_hangs_on_the_seed_alone() -> None:
    codes = [f"{number}abc" for number in range(100)]
    sets = [set(nested(codes, 1, size)) for size in (10, 40, 100)]
    assert [len(one) for one in sets] == [10, 40, 100]
    assert sets[0] < sets[1] < sets[2]
    assert nested(codes, 1, 10) == nested(codes, 1, 10) != nested(codes, 2, 10)


def test_the_line_goes_on_by_doublings_and_its_interval_is_that_of_the_resamples() -> None:
    sizes = np.array([500.0, 1000.0, 2000.0])
    falling, level = [1.5, 1.4, 1.3], [1.4, 1.4, 1.4]
    curve = Curve(sizes, np.array(falling), np.array([falling, level]))
    slope, there = curve.by_doubling(), curve.at(8000)
    assert (slope.value, slope.low, slope.high) == pytest.approx((-0.1, -0.0975, -0.0025))  # of -0.1 and 0
    assert (there.value, there.low, there.high) == pytest.approx((1.1, 1.1075, 1.3925))  # of 1.1 and 1.4
