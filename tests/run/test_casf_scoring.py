"""CASF folders scored by a model that knows the answer, so that every power is known beforehand."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from src.chemistry.atoms import StructureError
from src.evaluation.casf_files import CasfError
from src.run.casf_scoring import score_casf
from src.scoring.prediction import Prediction
from tests.casf_folder import CORE, write_casf


class Known:
    """Stands for a Scorer: the poses and scores of a ligand file are written in the file."""

    def score(self, protein: Path, ligands: Path) -> Iterator[Prediction]:
        if not ligands.is_file() or ligands.read_text() == "damaged":
            raise StructureError(f"{ligands}: cannot be read")
        for line in ligands.read_text().splitlines():
            name, pk = line.split()
            number = None if pk == "failed" else float(pk)
            yield Prediction(name, str(protein), str(ligands), number, (), "" if number else "no contact")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_casf(tmp_path)
    (tmp_path / "CoreSet.dat").write_text(CORE)
    for code, pk in (("3ui7", 8.0), ("3uuo", 7.5)):
        (tmp_path / "coreset" / code / f"{code}_ligand.mol2").write_text(f"{code} {pk}\n")
    (tmp_path / "decoys_docking" / "3ui7_decoys.mol2").write_text("3ui7_100 7.0\n3ui7_101 9.0\n")
    (tmp_path / "decoys_screening" / "3ui7" / "3ui7_3uuo.mol2").write_text("3uuo_1 6.0\n3uuo_2 9.0\n3uuo_3 failed\n")
    (tmp_path / "decoys_screening" / "3ui7" / "3ui7_5c2h.mol2").write_text("5c2h_1 failed\n")
    return tmp_path


def test_the_powers_of_what_is_there(root: Path) -> None:
    found = score_casf(Known(), root, trained_on=set())
    powers = found.powers
    assert list(powers) == [
        "scoring power, 2 complexes",
        "ranking power, 2 complexes",
        "docking power, 1 complexes with the native pose",
        "forward screening power, 1 targets",
        "reverse screening power, 2 ligands",
    ]
    assert powers["scoring power, 2 complexes"]["R"].value == pytest.approx(1.0)
    assert powers["ranking power, 2 complexes"]["Kendall"].value == pytest.approx(1.0)
    docking = powers["docking power, 1 complexes with the native pose"]
    assert docking["top 1"].value == 0.0  # the decoy at 4.5 Å scores 9
    assert docking["top 2"].value == 1.0  # then the native pose
    assert powers["forward screening power, 1 targets"]["EF 10%"].value == 0.0  # a tenth of one candidate is none
    assert [(row.code, row.stage) for row in found.skipped] == [
        ("5c2h", "scoring power"),  # has no folder
        ("3uuo", "docking power"),  # has no list of RMSD
        ("5c2h", "screening power"),  # has no poses
        ("3ui7", "screening power"),  # none of the poses of one ligand can be scored
    ]


@pytest.mark.parametrize(
    ("damaged", "stage", "left"),
    [
        ("coreset/3ui7/3ui7_ligand.mol2", "scoring power", "scoring power, 1 complexes"),
        ("decoys_docking/3ui7_decoys.mol2", "docking power", "docking power, 0 complexes with the native pose"),
        ("decoys_screening/3ui7/3ui7_3uuo.mol2", "screening power", "forward screening power, 0 targets"),
    ],
)
def test_a_damaged_file_costs_its_complex_and_has_a_row(root: Path, damaged: str, stage: str, left: str) -> None:
    (root / damaged).write_text("damaged")
    found = score_casf(Known(), root, trained_on=set())
    assert left in found.powers
    assert len(found.powers) == 5
    (row,) = [row for row in found.skipped if row.stage == stage and damaged in row.reason]
    assert row.code == "3ui7"


def test_complexes_that_were_trained_on_are_called_so(root: Path) -> None:
    powers = score_casf(Known(), root, trained_on={"3UI7", "1abc"}).powers
    assert list(powers) == [
        "scoring power, 2 complexes, 1 OF THEM TRAINED ON",
        "ranking power, 2 complexes, 1 OF THEM TRAINED ON",
        "docking power, 1 complexes with the native pose, 1 OF THEM TRAINED ON",
        "forward screening power, 1 targets, 1 OF THEM TRAINED ON",
        "reverse screening power, 2 ligands, 1 OF THEM TRAINED ON",
    ]
    # The ligand of a target that was trained on is known there.
    powers = score_casf(Known(), root, trained_on={"3uuo"}).powers
    assert "forward screening power, 1 targets, 1 OF THEM TRAINED ON" in powers


def test_decoys_that_are_not_there_are_not_asked_for(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("decoys_docking", "decoys_screening"):
        (root / name).rename(root / f"not_{name}")
    with caplog.at_level(logging.INFO):
        assert len(score_casf(Known(), root, trained_on=set()).powers) == 2


def test_a_folder_that_is_no_benchmark_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CasfError, match="decoys_docking"):
        score_casf(Known(), tmp_path, trained_on=set())
