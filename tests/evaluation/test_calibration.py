"""Intervals from errors on a validation set: counted by hand, and held by new draws as often as promised."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from src.checkpoint import CheckpointError
from src.evaluation.calibration import (
    calibrate,
    conformal_half_width,
    coverage,
    ensemble_half_width,
    read_calibration,
)
from src.system.storage import read_plain, write_plain


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
        shares.append(coverage(draw.standard_t(3, 200), np.zeros(200), half_width).share)
    assert 0.90 <= np.mean(shares) <= 0.92  # between level and level + 1 / (n + 1)


def test_coverage_by_hand() -> None:
    found = coverage(np.array([1.0, 2.0, 3.0, 4.0]), np.array([1.5, 2.0, 4.1, 3.0]), 1.0)
    assert (found.share, found.count, found.half_width) == (0.75, 4, 1.0)
    # Wilson: (0.75 + 3.841459 / 8 -+ 1.959964 * sqrt(0.75 * 0.25 / 4 + 3.841459 / 64)) / (1 + 3.841459 / 4)
    assert (found.low, found.high) == pytest.approx((0.3006, 0.9544), abs=1e-4)


def test_what_was_not_predicted_does_not_count() -> None:
    one = calibrate(["a", "b", "c"], np.array([1.0, np.nan, 3.0]), np.array([2.0, 2.0, 1.0]))
    assert one.codes == ("a", "c")
    assert one.errors.tolist() == [-1.0, 2.0]


def test_errors_of_one_validation_set_cancel_in_the_mean_of_models() -> None:
    codes, errors = [str(number) for number in range(19)], np.linspace(0.1, 1.9, 19)
    one, other = calibrate(codes, errors, np.zeros(19)), calibrate(codes, -errors + 0.2, np.zeros(19))
    assert ensemble_half_width([one, other]) == pytest.approx(0.1)
    apart = calibrate([f"x{code}" for code in codes], errors, np.zeros(19))
    assert ensemble_half_width([one, apart]) == pytest.approx(one.half_width)
    assert ensemble_half_width([one, None]) is None
    assert ensemble_half_width([None]) is None


def test_it_comes_back_from_a_file(tmp_path: Path) -> None:
    one = calibrate(["a", "b"], np.array([1.25, 2.0]), np.zeros(2))
    write_plain(tmp_path / "c.pth.tar", {"calibration": one.state_dict()})
    read = read_calibration(read_plain(tmp_path / "c.pth.tar"))
    assert (read.codes, read.errors.tolist()) == (one.codes, one.errors.tolist())
    assert read_calibration({}) is None


@pytest.mark.fault("K4")
@pytest.mark.parametrize(
    "odd",
    [
        {},
        {"codes": ["a"], "errors": torch.zeros(2)},
        {"codes": ["a"], "errors": torch.full((1,), torch.nan)},
        {"codes": ["a"], "errors": torch.zeros(1, dtype=torch.int64)},
        {"codes": [1], "errors": torch.zeros(1)},
        {"codes": "a", "errors": torch.zeros(1)},
    ],
)
def test_an_odd_calibration_is_refused(odd: dict[str, Any]) -> None:
    with pytest.raises(CheckpointError, match="calibration"):
        read_calibration({"calibration": odd})
