"""The best pose of each ligand: which poses are of one ligand, which is the best, and the spread over them."""

from __future__ import annotations

from pathlib import Path

import pytest

from src.chemistry.ligands import LigandRecord
from src.scoring.best_poses import BestPoses, ligand_name
from src.scoring.poses import Pose
from src.scoring.prediction import Prediction, sentence
from src.scoring.screening import Tally
from tests.complexes import MOL2, sdf_text

ITEM = "> <compound>\n{}\n\n$$$$\n"


def pose(title: str, number: int = 1, *, protein: str = "p.pdb", compound: str | None = None) -> Pose:
    text = sdf_text(title).replace("$$$$\n", "" if compound is None else ITEM.format(compound))
    return Pose(Path(protein), Path("l.sdf"), number, LigandRecord(Path("l.sdf"), "sdf", number, text))


def prediction(pk: float | None, number: int = 1) -> Prediction:
    return Prediction("x", "p.pdb", "l.sdf", pk, (), "" if pk else f"failed {number}", molecule=number)


def kept(best: BestPoses, poses: list[tuple[Pose, float | None]]) -> list[tuple[str, int, float | None, int | None]]:
    for number, (one, pk) in enumerate(poses, start=1):
        best.add(one, prediction(pk, number))
    return [(pose.title, one.molecule, one.pk, one.num_poses) for pose, one in best.rows()]


def test_poses_of_one_title_are_of_one_ligand_in_any_order() -> None:
    poses = [(pose("a"), 5.0), (pose("b"), 7.0), (pose("a"), 6.0), (pose("b"), 6.5), (pose("a"), 6.0)]
    assert kept(BestPoses(), poses) == [("a", 3, 6.0, 3), ("b", 2, 7.0, 2)]  # of equal scores the earlier pose


def test_the_spread_is_the_standard_deviation_over_the_poses_and_is_in_row_and_sentence() -> None:
    best = BestPoses()
    kept(best, [(pose("a"), 5.0), (pose("a"), 7.0), (pose("b"), 5.0)])
    (_, first), (_, second) = best.rows()
    assert first.poses_sd == pytest.approx(2**0.5)  # of 5 and 7, over n - 1
    assert (first.row()["num_poses"], first.row()["pK_sd_poses"]) == (2, 1.414)
    assert (second.row()["num_poses"], second.row()["pK_sd_poses"]) == (1, None)
    assert "best of 2 poses, SD 1.41" in sentence(first)
    assert "best of" not in sentence(second)


def test_a_ligand_is_known_by_a_property_if_one_is_named() -> None:
    poses = [(pose("1", compound="c7"), 5.0), (pose("2", compound=" c7 "), 6.0), (pose("2", compound="c8"), 5.5)]
    assert kept(BestPoses("compound"), poses) == [("2", 2, 6.0, 2), ("2", 3, 5.5, 1)]


def test_poses_without_a_name_are_ligands_of_their_own_and_counted() -> None:
    best = BestPoses()
    assert kept(best, [(pose("", 1), 5.0), (pose("", 2), 6.0)]) == [("", 1, 5.0, 1), ("", 2, 6.0, 1)]
    tally = Tally(0, BestPoses("compound"))
    for number in (1, 2):
        tally.add(pose("a", number), prediction(5.0))
    assert "2 poses without the property compound are ligands of their own" in tally.text(1.0)


@pytest.mark.parametrize(("by", "name"), [("", "acetamide"), ("compound", "")])
def test_mol2_has_a_title_and_no_properties(by: str, name: str) -> None:
    record = LigandRecord(Path("l.mol2"), "mol2", 1, MOL2)
    assert ligand_name(Pose(Path("p.pdb"), Path("l.mol2"), 1, record), by) == name


def test_one_title_in_two_proteins_is_two_ligands() -> None:
    poses = [(pose("a", protein="p.pdb"), 5.0), (pose("a", protein="q.pdb"), 6.0)]
    assert kept(BestPoses(), poses) == [("a", 1, 5.0, 1), ("a", 2, 6.0, 1)]


def test_poses_that_failed_lose_to_any_score_and_are_not_counted() -> None:
    poses = [(pose("a"), None), (pose("a"), 4.0), (pose("b"), None), (pose("b"), None)]
    assert kept(BestPoses(), poses) == [("a", 2, 4.0, 1), ("b", 3, None, 0)]


def test_molecules_are_kept_only_where_they_are_needed() -> None:
    for keeps in (True, False):
        best = BestPoses(keeps_molecules=keeps)
        best.add(pose("a"), prediction(5.0))
        assert [one.record is not None for one, _ in best.rows()] == [keeps]


def test_the_highest_of_the_best_poses() -> None:
    tally = Tally(2, BestPoses())
    for title, pk in [("a", 5.0), ("b", 7.0), ("a", 6.0), ("c", None), ("d", 6.0), ("b", 6.9)]:
        tally.add(pose(title), prediction(pk))
    assert [(pose.title, one.pk) for pose, one in tally.best] == [("b", 7.0), ("a", 6.0)]
    assert tally.text(1.0).splitlines()[1] == "4 ligands, a row for the best pose of each"


def test_one_is_no_plural() -> None:
    tally = Tally(0, BestPoses("compound"))
    tally.add(pose("a"), prediction(5.0))
    lines = tally.text(1.0).splitlines()[1:]
    unnamed = "1 pose without the property compound is a ligand of its own"
    assert lines == ["1 ligand, a row for the best pose of each", unnamed]
