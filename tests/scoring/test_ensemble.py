"""A checkpoint and two files -> a pK, by what training does: one row for each ligand, failures included."""

from __future__ import annotations

import csv
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from src.checkpoint import BEST, CheckpointError
from src.chemistry.atoms import StructureError
from src.data.batching import in_order
from src.data.cache import GraphCache, build_cache
from src.data.dataset import Example
from src.hardware.device import DeviceError
from src.hardware.inference import predict_batches
from src.pdbbind.folders import ComplexFiles, locate_complexes
from src.run.run_record import run_facts
from src.scoring.ensemble import Ensemble, Scorer, find_checkpoints, load_scorer
from src.scoring.poses import iter_poses
from src.scoring.prediction import COLUMNS, sentence
from src.settings import Settings
from src.system.storage import read_plain, write_csv
from tests.checkpoints import CODES, make_checkpoint
from tests.complexes import (
    ALA,
    ASP,
    GLY,
    LIGAND,
    LIGAND_BONDS,
    LYS,
    MOL2,
    assert_same_graph,
    pdb_text,
    sdf_text,
    small_settings,
    write_complex,
)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    for number, code in enumerate(CODES):
        write_complex(tmp_path / "data", code, shift=(0.3 * number, 0.0, 0.0))
    return small_settings(tmp_path)


@pytest.fixture
def checkpoint(tmp_path: Path, settings: Settings) -> Path:
    return make_checkpoint(tmp_path / "model.pth.tar", settings)


@pytest.fixture
def scorer(checkpoint: Path) -> Scorer:
    return load_scorer(checkpoint, "cpu")


def pose_files(tmp_path: Path, *texts: str, pdb: str | None = None) -> tuple[Path, Path]:
    (tmp_path / "p.pdb").write_text(pdb or pdb_text())
    (tmp_path / "l.sdf").write_text("".join(texts) or sdf_text())
    return tmp_path / "p.pdb", tmp_path / "l.sdf"


# What training does


@pytest.fixture
def cache(settings: Settings) -> GraphCache:
    return build_cache(
        list(located(settings).values()),
        structure="auto",
        graph_settings=settings.graph,
        processing=settings.processing,
    )


def located(settings: Settings) -> dict[str, ComplexFiles]:
    return locate_complexes(Path(settings.data.dataset_path), CODES)


def test_prediction_sees_the_tensors_that_training_saw(settings: Settings, cache: GraphCache, scorer: Scorer) -> None:
    for code, files in located(settings).items():
        (read,) = Ensemble((scorer,)).reader().read(list(iter_poses(files.pocket, files.ligands[:1])))
        assert_same_graph(replace(read.graphs[0], code=code), cache.graphs[code])


def test_prediction_gives_the_number_that_training_would(settings: Settings, cache: GraphCache, scorer: Scorer) -> None:
    examples = [Example(cache.graphs[code], math.nan) for code in CODES]
    expected, _ = predict_batches(scorer.model, in_order(examples, 3), scorer.device)
    files = located(settings)
    scored = [one for code in CODES for one in scorer.score(files[code].pocket, files[code].ligands[0])]
    assert [one.pk for one in scored] == pytest.approx(expected.tolist(), abs=1e-5)
    assert np.ptp(expected) > 1e-3  # poses that score alike would prove nothing


def test_a_scorer_has_the_model_of_its_checkpoint_in_eval_mode(checkpoint: Path, scorer: Scorer) -> None:
    for name, value in read_plain(checkpoint)["model"].items():
        assert torch.equal(scorer.model.state_dict()[name], value)
    assert not scorer.model.training
    assert not scorer.trained_on_synthetic_data


def test_averaged_weights_are_used_where_there_are_some(tmp_path: Path, settings: Settings, scorer: Scorer) -> None:
    average = {name: value + 0.1 for name, value in scorer.model.state_dict().items()}
    averaged = load_scorer(make_checkpoint(tmp_path / "ema.pth.tar", settings, ema=average), "cpu")
    for name, value in averaged.model.state_dict().items():
        assert torch.equal(value, average[name])


def test_graphs_are_built_as_the_checkpoint_says(tmp_path: Path, settings: Settings) -> None:
    other = replace(settings, graph=replace(settings.graph, keep_waters=True, keep_ions=False))
    scorer = load_scorer(make_checkpoint(tmp_path / "other.pth.tar", other), "cpu")
    assert scorer.graph_settings == other.graph


# One row for each molecule


@pytest.mark.fault("I3")
def test_every_molecule_has_a_row_and_a_broken_one_only_its_own(tmp_path: Path, scorer: Scorer) -> None:
    broken = sdf_text("broken").replace(" C  ", " ZZ ", 1).replace("0.0000", "zero", 1)
    files = pose_files(tmp_path, sdf_text("first"), broken, sdf_text("third", shift=(0.2, 0.0, 0.0)))
    first, second, third = scorer.score(*files)
    assert (first.ligand, third.ligand) == ("first", "third")
    assert second.pk is None
    assert "molecule 2" in second.failure
    assert second.ligand == "broken"
    assert [one.row()["molecule"] for one in (first, second, third)] == [1, 2, 3]
    assert second.row()["status"] == f"failed: {second.failure}"
    assert sentence(second).endswith(f"not scored: {second.failure}")
    assert first.pk != third.pk


@pytest.mark.fault("J6")
@pytest.mark.parametrize("batch_size", [1, 2, 3, 100])
def test_a_pose_has_the_same_score_alone_and_among_others(tmp_path: Path, scorer: Scorer, batch_size: int) -> None:
    shifts = [(0.1 * number, 0.0, 0.0) for number in range(5)]
    texts = [sdf_text(f"pose{number}", shift) for number, shift in enumerate(shifts)]
    alone = [next(scorer.score(*pose_files(tmp_path, text))).pk for text in texts]
    together = list(scorer.score(*pose_files(tmp_path, *texts), batch_size=batch_size))
    assert [one.ligand for one in together] == [f"pose{number}" for number in range(5)]
    assert [one.pk for one in together] == pytest.approx(alone, abs=1e-5)


@pytest.mark.fault("J1")
def test_a_far_ligand_gets_the_constant_and_a_warning(tmp_path: Path, scorer: Scorer) -> None:
    texts = [sdf_text("near"), sdf_text("far", (100.0, 0.0, 0.0)), sdf_text("farther", (0.0, 300.0, 0.0))]
    near, far, farther = scorer.score(*pose_files(tmp_path, *texts))
    assert far.pk == farther.pk == pytest.approx(scorer.model.constant.item(), abs=1e-6)
    assert near.pk != far.pk
    assert near.warnings == ()
    assert far.warnings == ("no protein atom within 6 Å: the pK says nothing about this pose",)
    assert "warning: no protein atom" in sentence(far)
    assert (far.trust.word, far.trust.reason.split("; ")[0]) == ("low", "no protein atom is near it")


@pytest.mark.fault("J2")
def test_a_clash_is_a_warning_with_the_distance(tmp_path: Path, scorer: Scorer) -> None:
    # OD1 of ASP stands at (-3, 0, 0); the ligand's first carbon comes to 1.8 Å of it.
    (clash,) = scorer.score(*pose_files(tmp_path, sdf_text(shift=(-1.2, 0.0, 0.0))))
    assert "only 1.8 Å apart" in clash.warnings[0]
    assert math.isfinite(clash.pk)


@pytest.mark.parametrize("count", [1, 20])
def test_a_pocket_that_was_cut_too_small_is_a_warning(tmp_path: Path, scorer: Scorer, count: int) -> None:
    """ASP and ALA end 5 Å from the ligand; GLY stands at 7 Å, LYS at 30 Å. The model looks 8 Å far."""
    found = {}
    for name, residues in {"cut": [ASP, ALA], "nearly": [ASP, ALA, GLY], "whole": [ASP, ALA, GLY, LYS]}.items():
        files = pose_files(tmp_path, *[sdf_text()] * count, pdb=pdb_text(residues))
        found[name] = [row.warnings for row in scorer.score(*files)]
    assert found["whole"] == [()] * count
    for name, reach in {"cut": "5.0", "nearly": "7.0"}.items():
        assert all(f"ends {reach} Å from the ligand and the model looks 8 Å far" in w for (w,) in found[name])


def test_a_pocket_file_that_goes_on_behind_the_rim_is_no_warning(tmp_path: Path, scorer: Scorer) -> None:
    """As pocket files of PDBbind do, which are cut at 10 Å."""
    rim = ("GLY", "A", 40, [("CA", "C", 0.0, 0.0, 9.9)])
    (row,) = scorer.score(*pose_files(tmp_path, pdb=pdb_text([ASP, rim])))
    assert row.warnings == ()


@pytest.mark.fault("I4")
def test_a_ligand_that_is_not_sound_is_read_as_in_training(tmp_path: Path, scorer: Scorer) -> None:
    fifth = [*LIGAND, *(("C", 1.0, y, 1.0) for y in (0.0, 1.0, 2.0, 3.0))]
    bonds = [*LIGAND_BONDS, *((1, number, 1) for number in range(5, 9))]
    text = sdf_text(atoms=fifth, bonds=bonds)
    protein, path = pose_files(tmp_path, text)
    (alone,) = scorer.score(protein, path)
    assert "the ligand is read by partial sanitisation of the sdf" in alone.warnings
    (tmp_path / "l.mol2").write_text(MOL2)
    (row,) = scorer.score(protein, path)
    assert "l.mol2, which lies beside l.sdf, was read" in row.warnings
    assert not any("partial" in warning for warning in row.warnings)
    (expected,) = scorer.score(protein, tmp_path / "l.mol2")
    assert row.pk == pytest.approx(expected.pk, abs=1e-6)


def test_a_number_that_is_not_finite_is_a_failure(tmp_path: Path, settings: Settings, scorer: Scorer) -> None:
    weights = {name: torch.full_like(value, torch.nan) for name, value in scorer.model.state_dict().items()}
    broken = load_scorer(make_checkpoint(tmp_path / "nan.pth.tar", settings, model=weights), "cpu")
    (row,) = broken.score(*pose_files(tmp_path))
    assert row.pk is None
    assert "not finite" in row.failure


@pytest.mark.parametrize("fault", ["no protein", "no ligand", "protein is text", "ligand is SMILES", "swapped"])
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, scorer: Scorer, fault: str) -> None:
    protein, ligand = pose_files(tmp_path)
    bad = ligand if "ligand" in fault else protein
    if fault.startswith("no"):
        bad.unlink()
    elif fault == "swapped":
        protein, ligand = ligand, protein
        bad = protein
    else:
        bad.write_text("CC(N)=O acetamide\n")
    with pytest.raises(StructureError, match="p.pdb: a ligand needs bond orders" if fault == "swapped" else bad.name):
        list(scorer.score(protein, ligand))


def test_a_failed_pose_keeps_its_title(tmp_path: Path, scorer: Scorer) -> None:
    texts = [sdf_text(name).replace("0.0000", "zero", 1) for name in ("named", "", "*****")]
    rows = list(scorer.score(*pose_files(tmp_path, *texts, sdf_text("*****"))))
    assert [one.ligand for one in rows] == ["named", "l.sdf, molecule 2", "l.sdf, molecule 3", "l"]


@pytest.mark.fault("I14")
@pytest.mark.parametrize("name", ["=cmd|'/c calc'!A0", "+1+1", "@SUM(A1)", "-2", '-a,"b"'])
def test_a_molecule_name_is_no_formula_in_a_table(tmp_path: Path, scorer: Scorer, name: str) -> None:
    (row,) = scorer.score(*pose_files(tmp_path, sdf_text(name)))
    write_csv(tmp_path / "out.csv", COLUMNS, [list(row.row().values())])
    with open(tmp_path / "out.csv", newline="", encoding="utf-8") as file:
        (read,) = csv.DictReader(file)
    assert read["ligand"] == f"'{name}"
    assert read["status"] == "ok"


@pytest.mark.fault("I14")
def test_a_molecule_name_cannot_steer_a_terminal(tmp_path: Path, scorer: Scorer) -> None:
    (row,) = scorer.score(*pose_files(tmp_path, sdf_text("\x1b[2Jevil")))
    assert "\x1b" not in sentence(row)


# Checkpoints that cannot be used


def test_a_checkpoint_of_other_graphs_is_refused(tmp_path: Path, settings: Settings) -> None:
    path = make_checkpoint(tmp_path / "old.pth.tar", settings, data_version="0.9")
    with pytest.raises(CheckpointError, match=r"graphs of version 0\.9; this program \(.*\) builds version"):
        load_scorer(path)


@pytest.mark.parametrize("damage", ["missing", "truncated", "foreign", "text"])
def test_a_damaged_or_foreign_checkpoint_is_named(checkpoint: Path, damage: str) -> None:
    content = checkpoint.read_bytes()
    checkpoint.unlink()
    if damage == "truncated":
        checkpoint.write_bytes(content[:2000])
    elif damage == "foreign":
        torch.save({"state_dict": {"w": torch.ones(1)}}, checkpoint)
    elif damage == "text":
        checkpoint.write_text("<html>")
    with pytest.raises(CheckpointError, match=r"model\.pth\.tar"):
        load_scorer(checkpoint)


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"hidden_channels": 10**9}, "hidden_channels"),
        ({"num_layers": -1}, "num_layers"),
        ({"num_layers": 2}, "cannot be rebuilt"),
        ({"vector_norm": "os.system"}, "vector_norm"),
        ({"class": "os.system"}, "class is unknown"),
        ({"num_heads": 3}, "multiple"),
    ],
)
def test_impossible_model_settings_are_refused(
    tmp_path: Path, settings: Settings, changes: dict[str, Any], fault: str
) -> None:
    facts = run_facts(settings, {}, dataset_fingerprint="", synthetic=False)["model_settings"]
    path = make_checkpoint(tmp_path / "odd.pth.tar", settings, model_settings={**facts, **changes})
    with pytest.raises(CheckpointError, match=fault):
        load_scorer(path)


def test_an_absent_device_is_an_error(checkpoint: Path) -> None:
    with pytest.raises(DeviceError, match="cuda:77"):
        load_scorer(checkpoint, "cuda:77")


def test_models_that_were_moved_aside_do_not_score(tmp_path: Path) -> None:
    for name in ("seed_1", "before-20200101-000000"):
        (tmp_path / name).mkdir()
        (tmp_path / name / BEST).touch()
    assert find_checkpoints([tmp_path]) == [tmp_path / "seed_1" / BEST]
