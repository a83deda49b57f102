"""A prediction as a row and as a sentence."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from src.scoring.prediction import COLUMNS, Prediction, sentence
from src.scoring.trust import HIGH, LOW, Trust


def prediction(pk: float | None, **changes: Any) -> Prediction:
    values = {"ligand": "a", "protein_file": "p.pdb", "ligand_file": "l.sdf", "warnings": (), **changes}
    return Prediction(pk=pk, **values)


@pytest.mark.parametrize(
    ("pk", "kd_nm", "dg", "words"),
    [
        (9.0, 1.0, -12.28, "1 nM"),  # 1.987204259e-3 * 298.15 * 2.302585 = 1.36424 kcal/mol for one unit
        (6.0, 1000.0, -8.19, "1 µM"),
        (3.0, 1e6, -4.09, "1 mM"),
        (4.5, 31622.7766, -6.14, "31.6 µM"),
        (10.0, 0.1, -13.64, "100 pM"),
        (0.0, 1e9, 0.0, "1e+03 mM"),
    ],
)
def test_kd_and_free_energy_by_hand(pk: float, kd_nm: float, dg: float, words: str) -> None:
    one = prediction(pk)
    assert one.kd_nm == pytest.approx(kd_nm)
    assert one.dg_kcal_mol == pytest.approx(dg, abs=0.005)
    assert f"pK {pk:.2f}, Kd {words}, ΔG {dg:.1f}" in sentence(one).replace("ΔG -0.0", "ΔG 0.0")


@pytest.mark.parametrize("pk", [-400.0, 400.0])
def test_absurd_numbers_do_not_overflow(pk: float) -> None:
    assert prediction(pk).row()["pK"] == pk
    assert sentence(prediction(pk))


def test_a_row_has_every_column() -> None:
    scored = prediction(6.54321, warnings=("one", "two")).row()
    assert tuple(scored) == COLUMNS
    assert (scored["pK"], scored["Kd_nM"], scored["dG_kcal_mol_298K"]) == (6.543, 286.3, -8.93)
    assert (scored["status"], scored["warnings"]) == ("ok", "one; two")
    failed = prediction(None, failure="no atoms").row()
    assert (failed["pK"], failed["Kd_nM"], failed["dG_kcal_mol_298K"]) == (None, None, None)
    assert failed["status"] == "failed: no atoms"


def test_a_sentence_says_how_far_models_and_jittered_copies_lie_apart() -> None:
    one = prediction(7.0, members=(6.8, 7.2), jitter_sd=0.05, molecule=3, ligand_file="deep/l.sdf")
    assert sentence(one).endswith(", SD of 2 models 0.28, SD of jittered copies 0.05")
    assert "SD of 2 models 0.28 (6.80, 7.20), SD of jittered" in sentence(one, per_model=True)
    assert sentence(one, with_place=True).startswith("a (l.sdf, molecule 3): pK 7.00")
    assert "SD" not in sentence(prediction(7.0, members=(7.0,)), per_model=True)


def test_a_score_is_one_line_of_100_columns_and_says_more_where_trust_is_not_high() -> None:
    sure = prediction(7.0, members=(6.8, 7.2), half_width=1.25, trust=Trust(HIGH, "a training complex is like it"))
    line = sentence(replace(sure, ligand="CHEMBL1234567"))
    assert line == "CHEMBL1234567: pK 7.00 [5.8, 8.2], Kd 100 nM, ΔG -9.5, SD of 2 models 0.28, trust high"
    assert len(line) <= 100
    unsure = replace(sure, trust=Trust(LOW, "no relative"), warnings=("clash",))
    assert sentence(unsure).splitlines()[1:] == ["  no relative", "  warning: clash"]
    assert sentence(replace(sure, warnings=("clash",))).splitlines()[1:] == ["  warning: clash"]


def test_a_row_of_a_table_is_called_as_the_user_calls_it() -> None:
    assert sentence(prediction(7.0), row="A-17").startswith("A-17 (a): pK 7.00")
    assert sentence(prediction(7.0), row="a").startswith("a: pK 7.00")
    assert sentence(prediction(None, failure="no atoms"), row="A-17") == "A-17 (a): not scored: no atoms"
