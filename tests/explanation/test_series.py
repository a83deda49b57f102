"""A series of ligands: what sets one apart from the reference, which values count, and the page that shows it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rdkit import Chem

from src.data_processing import build_graph
from src.explanation import series, series_page
from src.explanation.attribution import Attribution
from src.explanation.explainer import PoseAttributions, explain
from src.explanation.page import _flat, layout
from src.explanation.series import (
    Measured,
    Series,
    SeriesError,
    SeriesLigand,
    agreements,
    change,
    molecular_weight,
    same_places,
)
from src.explanation.series_page import SeriesPage
from src.pdbbind.user_table import label_reader
from src.scoring.conditioning import Known
from src.scoring.poses import Pose, iter_poses
from src.scoring.prediction import Prediction
from src.scoring.trust import Trust
from tests.complexes import GRAPH_SETTINGS
from tests.complexes import sdf_text as ligand_sdf
from tests.explanation.models import random_model, read

EVIL = "<script>alert('x')</script>&"


@pytest.fixture
def explained(tmp_path: Path) -> Attribution:
    return explain([random_model()], *read(tmp_path), GRAPH_SETTINGS)


def poses_of(folder: Path, names: Sequence[str], given: Sequence[tuple[str, ...]] = ()) -> list[Pose]:
    read(folder, sdf="".join(ligand_sdf(name, (0.1 * n, 0.0, 0.0)) for n, name in enumerate(names)))
    poses = list(iter_poses(folder / "p.pdb", [folder / "l.sdf"]))
    return [replace(pose, given=cells) for pose, cells in zip(poses, given or [()] * len(poses), strict=True)]


def scored(pose: Pose, pk: float | None, **changes: object) -> Prediction:
    return Prediction(pose.name, str(pose.protein), str(pose.ligand), pk, warnings=(), **changes)


def series_of(poses: Sequence[Pose], **how: object) -> Series:
    """Scored as the model does it, the first ligand last."""
    attributions = PoseAttributions([random_model()], GRAPH_SETTINGS, "cpu")
    found = Series(attributions, **how)
    for pose in reversed(poses):
        found.add(pose, scored(pose, attributions.of(pose).pk))
    return found


# What makes the difference


def test_the_difference_to_the_reference_is_shared_out_by_atoms_and_by_residues(explained: Attribution) -> None:
    moved = explained.ligand.pos.copy()
    moved[3] += 3.0
    other = replace(
        explained, ligand=replace(explained.ligand, pos=moved), contact_pk=explained.contact_pk * 0.5 + 0.01
    )
    assert same_places(other, explained).tolist() == [0, 1, 2, -1]
    found = change(other, explained)
    theirs, ours = explained.of_ligand_atoms(), other.of_ligand_atoms()
    assert found.new_atoms == pytest.approx(ours[3])
    assert found.lost_atoms == pytest.approx(-theirs[3])
    assert found.same_place == pytest.approx((ours - theirs)[:3].sum())
    total = other.pk - explained.pk
    assert found.new_atoms + found.lost_atoms + found.same_place == pytest.approx(total)
    assert sum(pk for _, pk in found.residues) + found.other_residues == pytest.approx(total)
    by_name = {f"{r.name} {r.number} {r.chain}": 0.0 for r in explained.pocket.residue_ids}
    for one, sign in ((other, 1), (explained, -1)):
        for share in one.residue_shares():
            by_name[f"{share.residue.name} {share.residue.number} {share.residue.chain}"] += sign * share.pk
    assert dict(found.residues) == pytest.approx({name: by_name[name] for name, _ in found.residues})


def test_residues_of_two_files_are_the_same_whatever_their_chains_are_called(explained: Attribution) -> None:
    ids = tuple(residue._replace(chain="Z") for residue in explained.pocket.residue_ids)
    other = replace(explained, pocket=replace(explained.pocket, residue_ids=ids))
    assert {pk for _, pk in change(other, explained, same_file=False).residues} == {0.0}
    assert any(abs(pk) > 0.01 for _, pk in change(other, explained).residues)


def test_no_two_atoms_stand_in_one_place(explained: Attribution) -> None:
    crowd = replace(explained, ligand=replace(explained.ligand, pos=np.zeros((4, 3)) + explained.ligand.pos[0]))
    assert (same_places(crowd, explained) >= 0).sum() == 1


def test_a_drawing_is_turned_and_mirrored_like_the_reference(explained: Attribution) -> None:
    place = layout(explained)
    mirrored = place[:, ::-1] * 1.0 + 3.0  # mirrored along the diagonal, and moved
    mol = Chem.Mol(explained.mol)
    partly = np.where(np.arange(len(place))[:, None] == 3, np.nan, mirrored)
    assert _flat(mol, partly).GetConformer().GetPositions()[:, :2] == pytest.approx(mirrored, abs=0.05)


# Measured values


def ligands_of(score: Sequence[float], measured: Sequence[Measured | None], weights: Sequence[float]) -> list:
    pose = Pose(Path("p.pdb"), Path("l.sdf"), 1, None)
    rows = zip(score, measured, weights, strict=True)
    return [SeriesLigand(pose, scored(pose, pk), value, round(weight / 10), weight) for pk, value, weight in rows]


def test_score_and_size_are_judged_on_the_same_ligands() -> None:
    values = [Measured(pk) for pk in (5.0, 6.0, 7.0, 8.0, 9.0, 10.0)]
    no_evidence = [Measured(1.0, is_known=True), Measured(1.0, 1), None]
    ligands = ligands_of([*range(6), 9, 9, 9], [*values, *no_evidence], [300, 310, 330, 320, 340, 350, 1, 1, 1])
    found = agreements(ligands)
    assert (found.count, [row.name for row in found.rows]) == (6, ["score", "molecular weight", "heavy atoms"])
    assert (found.rows[0].rank.value, found.rows[0].r.value) == pytest.approx((1.0, 1.0))
    assert found.rows[0].rmse == pytest.approx(np.sqrt(np.mean((np.arange(5, 11) - np.arange(6)) ** 2)))
    assert found.rows[1].rank.value == pytest.approx(1 - 6 * 2 / (6 * 35))  # Spearman's, one pair swapped
    assert "better than size" in found.verdict


def test_a_size_is_judged_by_a_line_through_the_other_ligands() -> None:
    values = [Measured(pk) for pk in (5.0, 6.0, 8.0)]
    found = agreements(ligands_of([5, 6, 8], values, [300, 310, 320]))
    # Each from the line through the other two: 4 against 5, 6.5 against 6, 7 against 8.
    assert found.rows[1].rmse == pytest.approx(np.sqrt((1 + 0.25 + 1) / 3))
    assert "3 values are too few" in found.verdict


@pytest.mark.parametrize(
    ("score", "verdict"),
    [
        ([1, 3, 2, 5, 4, 6], "ranks no better than size (rank correlation 0.89; molecular weight 1.00)"),
        ([1, 2, 3, 4, 5, 6], "ranks no better than size (rank correlation 1.00"),
        ([1, 1, 1, 1, 1, 1], "the score ranks nothing"),
    ],
)
def test_the_page_says_when_size_ranks_as_well(score: list[int], verdict: str) -> None:
    values = [Measured(float(pk)) for pk in range(6)]
    assert verdict in agreements(ligands_of(score, values, [300, 310, 320, 330, 340, 350])).verdict


def test_a_gain_over_size_that_chance_explains_is_called_so() -> None:
    values = [Measured(float(pk)) for pk in range(6)]
    found = agreements(ligands_of([1, 2, 3, 4, 6, 5], values, [300, 310, 330, 320, 350, 340]))
    assert "better than size, by no more than chance may do" in found.verdict


def test_a_value_that_scores_are_conditioned_on_is_no_evidence(tmp_path: Path) -> None:
    poses = poses_of(tmp_path, ["a", "b"], [("6.5",), ("",)])
    ligand, protein = read(tmp_path, sdf=ligand_sdf("a"))
    graph, _ = build_graph("a", ligand, protein, GRAPH_SETTINGS)
    label = label_reader(tmp_path / "pairs.csv", ["pK"])
    known = [Known("a", tmp_path / "p.pdb", graph, pk, 0) for pk in (7.0, 8.0)]
    found = series_of(poses, label=label, known=known)
    assert [one.measured for one in found.ligands] == [Measured(7.5, 0, True), Measured(6.5, 0, True)]
    assert agreements(found.ligands).count == 0
    assert found.label_faults[0].startswith("b: no label")
    elsewhere = [one._replace(protein=tmp_path / "other.pdb") for one in known]
    assert [one.measured for one in series_of(poses, known=elsewhere).ligands] == [None, None]
    assert [one.measured for one in series_of(poses, label=label).ligands] == [None, Measured(6.5)]
    told = series_of(poses, label=label, told=["a"])
    assert [one.measured for one in told.ligands] == [None, Measured(6.5, 0, True)]


def test_a_weight_has_its_hydrogens() -> None:
    assert molecular_weight("CC(N)=O") == pytest.approx(59.07, abs=0.01)
    assert np.isnan(molecular_weight(""))
    assert np.isnan(molecular_weight("no SMILES"))


# The reference, and what is bounded


def test_the_reference_is_the_best_measured_ligand_else_the_best_or_the_one_asked_for(tmp_path: Path) -> None:
    poses = poses_of(tmp_path, ["a", "b", "c"])

    def reference(values: Sequence[Measured | None], name: str | None = None) -> str:
        found = Series(PoseAttributions([], GRAPH_SETTINGS, "cpu"), reference=name)
        found.ligands = [
            SeriesLigand(pose, scored(pose, pk), value)
            for pose, pk, value in zip(poses, (5.0, 7.0, 6.0), values, strict=True)
        ]
        return found.reference()[0].prediction.ligand

    assert reference([None, None, None]) == "b"
    assert reference([Measured(4.0), None, Measured(6.0)]) == "c"
    assert reference([Measured(4.0), None, Measured(9.0, -1)]) == "a"  # at most 9 may be anything
    assert reference([Measured(4.0), None, None], "b") == "b"
    with pytest.raises(SeriesError, match=r"--reference d: no scored ligand has this name; there are: b, c, a"):
        reference([None, None, None], "d")


def test_a_page_has_its_bounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(series, "MAX_LIGANDS", 4)
    for module in (series, series_page):
        monkeypatch.setattr(module, "MAX_EXPLAINED", 1)
    found = series_of(poses_of(tmp_path, "abcdef"), reference="d")
    text = SeriesPage(tmp_path / "s.html", found, "m").close().read_text(encoding="utf-8")
    assert len(found.ligands) == 4
    assert "the first 4 ligands; 2 more are not on this page" in text
    assert text.count("<svg") == len({found.scored[0].prediction.ligand, "d"})
    assert "The 1 ligands with the highest pK have drawings" in text


# The page


def test_the_page_is_sorted_whole_and_escaped(tmp_path: Path) -> None:
    poses = poses_of(tmp_path, ["a", "b", EVIL])
    found = series_of(poses)
    failed = replace(poses[0], record=None, failure=EVIL)
    found.add(failed, scored(failed, None, failure=EVIL))
    for one in found.ligands[:2]:
        one.prediction = replace(one.prediction, half_width=1.0, trust=Trust("low", EVIL), warnings=(EVIL,))
        one.measured, one.fault = Measured(6.0, 1), EVIL
    text = SeriesPage(tmp_path / "s.html", found, EVIL, [EVIL]).close().read_text(encoding="utf-8")
    assert "<script" not in text
    assert text.count("&lt;script&gt;") > 8
    assert not re.findall(r"src=|@import|(?:href|url)\W{1,2}http", text)
    pks = sorted((one.prediction.pk for one in found.ligands if one.prediction.pk is not None), reverse=True)
    assert re.findall(r"<td><b>(\d+\.\d\d)</b>", text) == [f"{pk:.2f}" for pk in pks]
    assert text.count("<svg") == 3
    assert text.count("<b>≥ 6.00</b>") == 2
    assert "<h2>Not scored</h2>" in text
    assert text.count(">reference</span>") == 1


def test_a_series_of_which_nothing_was_scored_has_its_reasons(tmp_path: Path) -> None:
    (pose,) = poses_of(tmp_path, ["a"])
    found = Series(PoseAttributions([random_model()], GRAPH_SETTINGS, "cpu"))
    found.add(pose, scored(pose, None, failure="has no atoms"))
    text = SeriesPage(tmp_path / "s.html", found, "m").close().read_text(encoding="utf-8")
    assert "has no atoms" in text
    assert "No measured values" in text
