"""The self-test passes on a sound model, and each of its checks fails on a model that is broken in just that way."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import predict as scoring_program
from src.chemistry.ligands import LigandError, read_ligand
from src.chemistry.proteins import read_protein
from src.data_processing import build_graph
from src.gaussian_process import process as gaussian_process
from src.gaussian_process.joined_model import JoinedModel
from src.gaussian_process.process import fit_gaussian_process
from src.graph import FEATURE_COLUMN, Batch, EdgeKind
from src.model import AffinityModel, build_model
from src.scoring import selftest
from src.scoring.pose_changes import (
    Complex,
)
from src.scoring.selftest import Check, Judge, check_poses, run_selftest, selftest_table
from src.settings import GraphSettings
from tests.checkpoints import make_checkpoint
from tests.complexes import GRAPH_SETTINGS, pdb_text, sdf_text, small_settings
from tests.synthetic import random_batch, scattered, tiny_settings

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def pose(tmp_path_factory: pytest.TempPathFactory) -> Complex:
    folder = tmp_path_factory.mktemp("pose")
    (folder / "p.pdb").write_text(pdb_text())
    (folder / "l.sdf").write_text(sdf_text())
    return Complex(read_ligand([folder / "l.sdf"]), read_protein(folder / "p.pdb"))


def sound_model(scale: float = 300.0) -> AffinityModel:
    """The few contacts of the hand-counted complex add as much with this scale as the hundreds of a real one."""
    torch.manual_seed(0)
    model = scattered(build_model(tiny_settings()))
    with torch.no_grad():
        model.offset.zero_()
    model.set_label_scale(6.0, scale)
    return model.eval()


def broken(change: Callable[[AffinityModel, Batch], Tensor]) -> AffinityModel:
    """A model whose prediction is `change` of itself and the batch."""
    model = sound_model()
    sound = model.forward
    model.sound = sound
    model.forward = lambda batch: change(model, batch)
    return model


def failed(model: AffinityModel, pose: Complex) -> list[str]:
    return [
        check.name
        for check in check_poses(Judge([model], GRAPH_SETTINGS, CPU), [pose, other_pose(pose)])
        if not check.passed
    ]


def other_pose(pose: Complex) -> Complex:
    atoms = pose.ligand.atoms
    return replace(pose, ligand=replace(pose.ligand, atoms=replace(atoms, pos=atoms.pos + np.array([0.3, 0.2, 0.1]))))


def test_a_sound_model_passes_every_check(pose: Complex) -> None:
    assert failed(sound_model(), pose) == []


def joined_model() -> JoinedModel:
    return JoinedModel(sound_model(), fit_gaussian_process([random_batch(12, 1)], 6.0), 0.5).eval()


def test_a_network_joined_with_a_process_passes_every_check(pose: Complex) -> None:
    assert failed(joined_model(), pose) == []


def test_likeness_that_stays_when_the_ligand_leaves_fails(pose: Complex, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gaussian_process, "saturation", torch.ones_like)
    found = failed(joined_model(), pose)
    assert any(name.startswith("the ligand 100 Å away scores the constant") for name in found)


def per_graph(values: Tensor, batch: Batch) -> Tensor:
    return torch.zeros(batch.num_graphs).index_add_(0, batch.graph_of_atom, values)


def absolute_coordinates(model: AffinityModel, batch: Batch) -> Tensor:
    is_near = torch.zeros(len(batch.pos)).index_fill_(0, batch.contacts[1], 1.0)
    return model.sound(batch) + 1e-3 * per_graph(batch.pos[:, 0] * is_near, batch)


def order_of_atoms(model: AffinityModel, batch: Batch) -> Tensor:
    place = torch.arange(len(batch.pos)) * (batch.features[:, FEATURE_COLUMN["side"]] == 0)
    return model.sound(batch) + 1e-3 * per_graph(batch.features[:, 0] * place.float(), batch)


def others_in_the_batch(model: AffinityModel, batch: Batch) -> Tensor:
    return model.sound(batch) + 1e-3 * batch.num_graphs


def has_contacts(batch: Batch) -> Tensor:
    count = torch.zeros(batch.num_graphs)
    count[batch.graph_of_atom[batch.contacts[0]]] = 1.0
    return count


def shifted_constant(model: AffinityModel, batch: Batch) -> Tensor:
    return model.sound(batch) + 0.01 * (1 - has_contacts(batch))


def never_faded(model: AffinityModel, batch: Batch) -> Tensor:
    return model.sound(replace(batch, fade=torch.ones_like(batch.fade)))


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (absolute_coordinates, "rotation"),
        (order_of_atoms, "order of atoms and residues"),
        (others_in_the_batch, "other complexes in the batch"),
        (shifted_constant, "the ligand 100 Å away scores the constant"),
        (never_faded, "jump at the pocket radius of 8 Å"),
    ],
)
def test_a_broken_model_fails_its_check(pose: Complex, change: Callable, expected: str) -> None:
    assert any(name.startswith(expected) for name in failed(broken(change), pose))


def test_contacts_that_end_abruptly_fail(pose: Complex) -> None:
    model = sound_model()
    model.contact_weights = lambda batch: torch.ones(batch.contacts.shape[1])
    found = failed(model, pose)
    assert any(name.startswith("jump at the contact cutoff of 6 Å") for name in found)
    assert any(name.startswith("nearest atom 0.05 Å inside") for name in found)


def test_near_pairs_that_end_abruptly_fail(pose: Complex) -> None:
    model = sound_model()
    model.representation.cutoffs[EdgeKind.PROTEIN_NEAR] = 9.0
    assert any(name.startswith("jump at the near cutoff of 4.5 Å") for name in failed(model, pose))


def test_coordinates_that_lose_digits_far_away_fail(pose: Complex, monkeypatch: pytest.MonkeyPatch) -> None:
    def in_single(code: str, ligand: object, protein: object, settings: GraphSettings) -> tuple:
        atoms = [replace(one.atoms, pos=one.atoms.pos.astype(np.float32)) for one in (ligand, protein)]
        return build_graph(code, replace(ligand, atoms=atoms[0]), replace(protein, atoms=atoms[1]), settings)

    monkeypatch.setattr(selftest, "build_graph", in_single)
    assert failed(sound_model(), pose) == ["translation by 10,000 Å"]


ODD = {
    "a ligand of one atom": lambda batch: (batch.features[:, FEATURE_COLUMN["side"]] == 0).sum() == batch.num_graphs,
    "an unknown element": lambda batch: (batch.features[:, FEATURE_COLUMN["element"]] == 0).any(),
    "atoms 0.1 Å apart": lambda batch: (
        (batch.pos[batch.contacts[0]] - batch.pos[batch.contacts[1]]).norm(dim=1) < 0.11
    ).any(),
    "no contacts": lambda batch: batch.contacts.shape[1] == 0,
    "no protein atoms": lambda batch: (batch.features[:, FEATURE_COLUMN["side"]] == 0).all(),
}


@pytest.mark.parametrize("name", ODD)
def test_a_score_that_is_not_finite_fails(pose: Complex, name: str) -> None:
    def not_finite(model: AffinityModel, batch: Batch) -> Tensor:
        return model.sound(batch) * (math.nan if ODD[name](batch) else 1.0)

    assert f"scores that are not finite: {name}" in failed(broken(not_finite), pose)


def test_nan_is_no_pass_and_is_seen_in_every_line() -> None:
    assert not Check("x", math.nan, 1.0).passed
    assert Check("x", 1.0, 1.0).passed
    assert not Check("x", 1.1, 1.0).passed


# Whole runs, on complexes of the demo set


@pytest.fixture
def judge(monkeypatch: pytest.MonkeyPatch) -> Judge:
    monkeypatch.setattr(selftest, "NUM_DEMO", 1)
    return Judge([sound_model(scale=50.0)], GRAPH_SETTINGS, CPU)


def by_graph(judge: Judge) -> Callable[[Path, Path], float]:
    def predict(protein: Path, ligand: Path) -> float:
        return float(judge.scores([Complex(read_ligand([ligand]), read_protein(protein))])[0])

    return predict


def test_a_whole_run_passes_and_prints_a_table(judge: Judge) -> None:
    checks = run_selftest(judge, by_graph(judge))
    table = selftest_table(checks).splitlines()
    assert all(check.passed for check in checks)
    assert len(table) == len(checks) + 2
    assert table[-1] == f"all {len(checks)} checks passed"
    assert {line[-5:] for line in table[1:-1]} == {" pass"}


def test_a_prediction_that_is_not_that_of_the_evaluation_fails(judge: Judge) -> None:
    predict = by_graph(judge)
    checks = run_selftest(judge, lambda protein, ligand: predict(protein, ligand) + 0.001)
    assert [check.name for check in checks if not check.passed] == ["predict.py against the evaluation in main.py"]
    assert selftest_table(checks).endswith(f"1 of {len(checks)} checks failed")


def test_the_complex_of_a_user_is_checked_too(judge: Judge, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "p.pdb").write_text(pdb_text())
    (tmp_path / "l.sdf").write_text(sdf_text("one") + sdf_text("two").replace("0.0000", "zero", 1) + sdf_text("three"))
    names = []
    monkeypatch.setattr(selftest, "check_poses", lambda judge, poses: names.extend(p.ligand.name for p in poses) or [])
    run_selftest(judge, by_graph(judge), (tmp_path / "p.pdb", tmp_path / "l.sdf"))
    assert names == ["d001_ligand", "one", "three"]
    (tmp_path / "l.sdf").write_text(sdf_text().replace("0.0000", "zero", 1))
    with pytest.raises(LigandError, match="molecule 1"):
        run_selftest(judge, by_graph(judge), (tmp_path / "p.pdb", tmp_path / "l.sdf"))


def test_an_ensemble_is_judged_by_its_mean(pose: Complex) -> None:
    one, other = sound_model(), sound_model()
    other.set_label_scale(2.0, 1.0)
    both = Judge([one, other], GRAPH_SETTINGS, CPU)
    means = [np.mean([Judge([m], GRAPH_SETTINGS, CPU).scores([pose])[0] for m in (one, other)])]
    assert both.scores([pose]) == pytest.approx(means, abs=1e-6)
    assert both.constant == pytest.approx((one.constant.item() + other.constant.item()) / 2)


# predict.py --selftest


@pytest.mark.parametrize(("residual", "code"), [(0.01, 0), (-1.0, 1)])
def test_the_exit_code_says_whether_all_checks_passed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, residual: float, code: int
) -> None:
    monkeypatch.setattr(selftest, "NUM_DEMO", 1)
    monkeypatch.setattr(selftest, "RESIDUAL", residual)
    checkpoint = make_checkpoint(tmp_path / "model.pth.tar", small_settings(tmp_path))
    (tmp_path / "p.pdb").write_text(pdb_text())
    (tmp_path / "l.sdf").write_text(sdf_text())
    own = ["--protein_path", str(tmp_path / "p.pdb"), "--ligand_path", str(tmp_path / "l.sdf")] * (code == 0)
    assert scoring_program.main(["--selftest", "--checkpoint", str(checkpoint), *own]) == code
    out = capsys.readouterr().out
    assert out.startswith("check ")
    assert out.rstrip().endswith("checks failed" if code else "checks passed")
    assert out.count("FAIL") == code


@pytest.mark.parametrize(
    "options",
    [["--output", "x.csv"], ["--explain", "x"], ["--pairs", "x.csv"], ["--protein_path", "x"], ["--ligand_path", "x"]],
)
def test_options_that_do_not_go_with_it_are_refused(options: list[str], capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as stop:
        scoring_program.main(["--selftest", *options])
    assert stop.value.code == 2
    assert "go" in capsys.readouterr().err


def test_a_fault_of_the_user_is_no_failed_check(tmp_path: Path) -> None:
    assert scoring_program.main(["--selftest", "--checkpoint", str(tmp_path / "absent.pth.tar")]) == 2
