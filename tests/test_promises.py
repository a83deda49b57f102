"""What the whole road from files to pK promises, with builder and model together."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from src.chemistry.atoms import Atoms
from src.chemistry.ligands import Ligand, read_ligand
from src.chemistry.proteins import Protein, read_protein
from src.data.batching import collate
from src.data.dataset import Example
from src.data_processing import build_graph
from src.gaussian_process.joined_model import JoinedModel, ScoringModel
from src.gaussian_process.process import fit_gaussian_process
from src.model import build_model
from src.scoring.pose_warnings import geometry_warnings
from src.settings import ModelSettings
from tests.complexes import GRAPH_SETTINGS, LIGAND, LIGAND_BONDS, RESIDUES, pdb_text, sdf_text
from tests.synthetic import INTERACTION_CUTOFF, random_batch

GRAPH = replace(GRAPH_SETTINGS, keep_waters=True)
MODEL = ModelSettings(
    hidden_channels=16,
    num_layers=2,
    num_heads=2,
    num_rbf=8,
    lmax=2,
    vector_norm="rms",
    dropout=0.0,
    near_cutoff=4.5,
    interaction_cutoff=6.0,
)


@pytest.fixture
def complex_(tmp_path: Path) -> tuple[Ligand, Protein]:
    (tmp_path / "p.pdb").write_text(pdb_text())
    (tmp_path / "l.sdf").write_text(sdf_text())
    return read_ligand([tmp_path / "l.sdf"]), read_protein(tmp_path / "p.pdb")


@pytest.fixture(params=["network alone", "joined with a process"])
def model(request: pytest.FixtureRequest) -> ScoringModel:
    """A model whose every weight matters, so that a jump anywhere shows."""
    torch.manual_seed(0)
    model = build_model(MODEL)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    model.set_label_scale(6.0, 1.5, 0.02)
    if request.param == "network alone":
        return model.eval()
    return JoinedModel(model, fit_gaussian_process([random_batch(12, 1)], INTERACTION_CUTOFF), 0.5).eval()


def placed(atoms: Atoms, turn: np.ndarray, shift: np.ndarray) -> Atoms:
    return replace(atoms, pos=atoms.pos @ turn.T + shift)


@torch.no_grad()
def score(model: ScoringModel, ligand: Ligand, protein: Protein) -> float:
    graph, _ = build_graph("test", ligand, protein, GRAPH)
    return model(collate([Example(graph, math.nan)])).item()


@torch.no_grad()
def way(model: ScoringModel, ligand: Ligand, protein: Protein, direction: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """pK with the ligand moved along a line, at each of the steps, Å."""
    moved = [replace(ligand, atoms=placed(ligand.atoms, np.eye(3), step * direction)) for step in steps]
    graphs = [build_graph("test", one, protein, GRAPH)[0] for one in moved]
    return model(collate([Example(graph, math.nan) for graph in graphs])).numpy()


@pytest.mark.fault("J4")
def test_turning_and_shifting_the_whole_complex_changes_nothing(
    complex_: tuple[Ligand, Protein], model: ScoringModel
) -> None:
    ligand, protein = complex_
    turn, _ = np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))
    here = score(model, ligand, protein)
    for shift in (np.zeros(3), np.array([10_000.0, -10_000.0, 10_000.0])):
        there = score(
            model,
            replace(ligand, atoms=placed(ligand.atoms, turn, shift)),
            replace(protein, atoms=placed(protein.atoms, turn, shift)),
        )
        assert there == pytest.approx(here, abs=1e-5)


@pytest.mark.parametrize("direction", [(0.0, 1.0, 0.0), (0.6, 0.0, -0.8)])
def test_pk_has_no_jump_on_the_way_out_of_the_pocket(
    complex_: tuple[Ligand, Protein], model: ScoringModel, direction: tuple[float, ...]
) -> None:
    """Residues leave contact, fade and leave the pocket on the way; a jump would not shrink with the step."""
    jumps = [
        np.abs(np.diff(way(model, *complex_, np.array(direction), np.arange(0.0, 9.0, h)))).max() for h in (0.04, 0.01)
    ]
    assert jumps[0] > 1e-4  # the prediction does change
    assert jumps[1] < 0.35 * jumps[0]


def test_pk_goes_to_one_constant_as_the_ligand_leaves(complex_: tuple[Ligand, Protein], model: ScoringModel) -> None:
    far = way(model, *complex_, np.array([0.0, 1.0, 0.0]), np.array([25.0, 60.0, 5000.0]))
    assert far == pytest.approx(np.full(3, model.constant.item()), abs=1e-6)


@pytest.mark.fault("J5")
def test_the_order_of_atoms_residues_and_chains_in_the_files_changes_nothing(
    complex_: tuple[Ligand, Protein], model: ScoringModel, tmp_path: Path
) -> None:
    here = score(model, *complex_)
    order = [3, 0, 2, 1]
    bonds = [(order.index(i - 1) + 1, order.index(j - 1) + 1, kind) for i, j, kind in LIGAND_BONDS]
    (tmp_path / "l.sdf").write_text(sdf_text(atoms=[LIGAND[number] for number in order], bonds=bonds))
    chains = [(name, chain, number, atoms[::-1]) for name, chain, number, atoms in RESIDUES[::-1]]
    (tmp_path / "p.pdb").write_text(pdb_text(chains))
    ligand, protein = read_ligand([tmp_path / "l.sdf"]), read_protein(tmp_path / "p.pdb")
    assert ligand.atoms.pos.tolist() != complex_[0].atoms.pos.tolist()
    assert score(model, ligand, protein) == pytest.approx(here, abs=1e-5)


@pytest.mark.fault("J2")
@pytest.mark.parametrize("distance", [0.0, 0.1])
def test_atoms_upon_each_other_give_finite_numbers_and_a_warning(
    complex_: tuple[Ligand, Protein], model: ScoringModel, distance: float
) -> None:
    """OD1 of ASP stands at (-3, 0, 0), and the first carbon of the ligand is put there."""
    ligand, protein = complex_
    clash = replace(ligand, atoms=placed(ligand.atoms, np.eye(3), np.array([distance - 3.0, 0.0, 0.0])))
    graph, _ = build_graph("test", clash, protein, GRAPH)
    loss = (model(collate([Example(graph, 6.0)])) - 6.0).square().sum()
    loss.backward()
    assert math.isfinite(loss.item())
    assert all(p.grad is None or torch.isfinite(p.grad).all() for p in model.parameters())
    assert any(f"only {distance:.1f} Å apart" in warning for warning in geometry_warnings(graph, GRAPH))
