"""Figures are SVG that takes its colours from the page, whatever the numbers are."""

from __future__ import annotations

import warnings
from xml.etree import ElementTree

import numpy as np
import pytest

from src.evaluation import figures
from src.evaluation.metrics import Interval
from tests.findings import history, judged

pytest.importorskip("matplotlib")

NOTHING = Interval(np.nan, np.nan, np.nan)


def drawings(count: int) -> dict[str, str]:
    one = judged(count)
    rows = {"this model": dict.fromkeys(("rmse", "pearson"), Interval(1.0, 0.9, 1.1))}
    rows["flat"] = {"rmse": Interval(2.0, 1.9, 2.1), "pearson": NOTHING}
    return {
        "learning": figures.learning_curves(history()),
        "parity": figures.parity(one.predicted, one.measured, one.codes),
        "residuals": figures.residuals(one.predicted, one.measured, one.heavy_atoms, one.kinds),
        "intervals": figures.intervals(rows),
        "molecule_drawing": figures.molecule_drawing("CC(=O)Nc1ccc(O)cc1"),
    }


@pytest.mark.parametrize("count", [1, 2, 7, 60])
def test_every_figure_is_an_element_for_the_page(count: int) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        drawn = drawings(count)
    for name, svg in drawn.items():
        assert svg.startswith('<svg role="img" aria-label="'), name
        assert ElementTree.fromstring(svg) is not None  # well formed
        assert "http" not in svg, name
        assert "<script" not in svg, name
        assert "var(--ink)" in svg, name
        assert not any(colour in svg for colour in figures.PAGE_COLOURS), name


def test_the_same_numbers_are_the_same_text() -> None:
    assert drawings(20) == drawings(20)


def test_a_point_for_each_complex() -> None:
    one = judged(25)
    tree = ElementTree.fromstring(figures.parity(one.predicted, one.measured, one.codes))
    assert len(tree.findall(".//*[@id='PathCollection_1']//use")) == 25


def test_a_name_is_text_and_no_markup_or_formula() -> None:
    name = "<b>&$x_1$"
    one = judged(20, kinds=(name,) * 20)
    svg = figures.residuals(one.predicted, one.measured, one.heavy_atoms, one.kinds)
    assert "&lt;b&gt;&amp;$x_1$" in svg
    assert "<b>" not in svg


def test_numbers_that_are_missing_leave_a_gap() -> None:
    rows = [{**row, "validation_pearson": float("nan")} for row in history()]
    assert figures.learning_curves(rows)
    assert figures.learning_curves([{"epoch": 1, "validation_rmse": float("nan")}])


@pytest.mark.parametrize("smiles", ["", "not a molecule"])
def test_a_ligand_that_cannot_be_read_has_no_drawing(smiles: str) -> None:
    assert figures.molecule_drawing(smiles) is None
