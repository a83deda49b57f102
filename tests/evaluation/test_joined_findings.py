"""Findings of members and folds put together."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from src.evaluation.findings import LeakageRow, Run, Split
from src.evaluation.joined_findings import join_findings
from tests.findings import findings, judged

WHOLE = Run("2 models", {}, {})
CODES = ("1aaa", "1bbb", "1ccc", "1ddd")


def of_fold(*codes: str, shift: float = 0.0, leaks: int = 1):
    """Measured is the place of the code, predicted `shift` more."""
    places = np.array([CODES.index(code) for code in codes], dtype=float)
    one = judged(len(codes), codes=codes, measured=places, predicted=places + shift)
    one = replace(one, half_widths=np.full(len(codes), 2.0), parts={"network": places - shift})
    split = Split("cluster", {"train": ["x"], "validation": ["y"], "test": list(codes)}, [LeakageRow("leak", leaks, 2)])
    return findings(one, split=split, baselines={"predict the mean": np.full(len(codes), shift)})


def test_members_are_averaged_and_their_disagreement_widens_the_interval() -> None:
    joined = join_findings([of_fold(*CODES, shift=1.0), of_fold(*CODES, shift=2.0)], WHOLE)
    assert joined.judged.codes == CODES
    assert joined.judged.predicted == pytest.approx([1.5, 2.5, 3.5, 4.5])
    assert joined.judged.parts["network"] == pytest.approx([-1.5, -0.5, 0.5, 1.5])
    assert joined.baselines["predict the mean"] == pytest.approx([1.5] * 4)
    assert joined.judged.spread == pytest.approx([0.5**0.5] * 4)
    assert (joined.judged.half_widths > 2.0).all()
    assert joined.part.split.leakage == [LeakageRow("leak", 1, 2)]  # of one test set
    assert joined.ours["rmse"].value == pytest.approx(1.5)


def test_folds_stand_side_by_side_each_complex_by_those_that_held_it_out() -> None:
    joined = join_findings([of_fold("1ddd", "1aaa", shift=1.0), of_fold("1bbb", "1ccc", shift=-1.0, leaks=2)], WHOLE)
    assert joined.judged.codes == CODES
    assert joined.judged.predicted == pytest.approx([1.0, 0.0, 1.0, 4.0])
    assert joined.judged.measured == pytest.approx([0.0, 1.0, 2.0, 3.0])
    assert joined.judged.spread is None
    assert joined.judged.half_widths == pytest.approx([2.0] * 4)
    assert joined.part.split.leakage == [LeakageRow("leak", 3, 4)]
    assert joined.part.split.codes["test"] == list(CODES)


def test_without_intervals_in_one_run_there_are_none() -> None:
    one = of_fold(*CODES)
    other = replace(one, judged=replace(one.judged, half_widths=None))
    assert join_findings([one, other], WHOLE).judged.half_widths is None
