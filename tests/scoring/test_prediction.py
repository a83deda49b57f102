"""A prediction as a row and as a sentence."""

from __future__ import annotations

from typing import Any

import pytest

from src.scoring.prediction import COLUMNS, Prediction, sentence


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
    assert f"pK {pk:.2f} " in sentence(one)
    assert f"Kd about {words}, ΔG {dg:.1f} kcal/mol at 298.15 K" in sentence(one).replace("ΔG -0.0", "ΔG 0.0")


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
    assert sentence(one).endswith("kcal/mol at 298.15 K, SD over 2 models 0.28, SD over jittered copies 0.05")
    assert "SD over 2 models 0.28 (6.80, 7.20), SD over jittered" in sentence(one, per_model=True)
    assert sentence(one, with_place=True).startswith("a (l.sdf, molecule 3): pK 7.00")
    assert "SD" not in sentence(prediction(7.0, members=(7.0,)), per_model=True)
