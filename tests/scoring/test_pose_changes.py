"""Poses that are turned, moved or damaged are what the names of the changes say."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist
from scipy.spatial.transform import Rotation

from src.chemistry.ligands import read_ligand
from src.chemistry.proteins import read_protein
from src.data_processing import build_graph
from src.scoring.pose_changes import (
    Complex,
    contact_crossings,
    near_crossings,
    odd_poses,
    pocket_crossings,
    pulled_out,
    reordered,
    shifted,
    turned,
)
from tests.complexes import GRAPH_SETTINGS, pdb_text, sdf_text


@pytest.fixture
def pose(tmp_path: Path) -> Complex:
    (tmp_path / "p.pdb").write_text(pdb_text())
    (tmp_path / "l.sdf").write_text(sdf_text())
    return Complex(read_ligand([tmp_path / "l.sdf"]), read_protein(tmp_path / "p.pdb"))


def test_a_pose_is_turned_about_the_centre_of_its_ligand_and_shifted_as_a_whole(pose: Complex) -> None:
    def centre(one: Complex) -> np.ndarray:
        return one.ligand.atoms.pos.mean(axis=0)

    def distances(one: Complex) -> np.ndarray:
        return cdist(one.ligand.atoms.pos, one.protein.atoms.pos)

    shift = np.array([1.0, -2.0, 30.0])
    about, along = turned(pose, Rotation.from_rotvec([0.3, 1.0, -2.0])), shifted(pose, shift)
    assert centre(about) == pytest.approx(centre(pose))
    assert centre(along) == pytest.approx(centre(pose) + shift)
    for changed in (about, along):
        assert distances(changed) == pytest.approx(distances(pose))
        assert np.abs(changed.ligand.atoms.pos - pose.ligand.atoms.pos).max() > 0.5


def test_a_reordered_pose_is_the_same_complex(pose: Complex) -> None:
    changed = reordered(pose, np.random.default_rng(1))
    graph, other = (build_graph("x", p.ligand, p.protein, GRAPH_SETTINGS)[0] for p in (pose, changed))
    assert not torch.equal(graph.pos, other.pos)
    for name in ("ligand_bonds", "protein_bonds", "near_pairs", "contacts"):
        assert bonded_rows(graph, name) == bonded_rows(other, name)
        assert bonded_rows(graph, name)
    ids = {tuple(pos): pose.protein.atoms.residue_ids[i] for pos, i in rows(pose)}
    assert {tuple(pos): changed.protein.atoms.residue_ids[i] for pos, i in rows(changed)} == ids


def rows(pose: Complex) -> list:
    return list(zip(pose.protein.atoms.pos.tolist(), pose.protein.atoms.residue_index.tolist(), strict=True))


def bonded_rows(graph: object, name: str) -> set:
    """The pairs of a graph as pairs of positions and features, which no numbering changes."""
    facts = [
        (*pos, *features)
        for pos, features in zip(graph.pos.round(decimals=3).tolist(), graph.features.tolist(), strict=True)
    ]
    return {frozenset((facts[i], facts[j])) for i, j in getattr(graph, name).T.tolist()}


def test_a_crossing_lies_at_its_cutoff(pose: Complex) -> None:
    def numbers(find: Callable, name: str) -> list[tuple[int, int]]:
        graphs = [
            [build_graph("x", p.ligand, p.protein, GRAPH_SETTINGS)[0] for p in (crossing(-1e-4), crossing(1e-4))]
            for crossing in find(pose, GRAPH_SETTINGS, 3)
        ]
        return [
            tuple(one.num_atoms if name == "atoms" else getattr(one, name).shape[1] for one in two) for two in graphs
        ]

    for find, name in ((contact_crossings, "contacts"), (near_crossings, "near_pairs"), (pocket_crossings, "atoms")):
        found = numbers(find, name)
        assert found, name
        assert all(inside > outside for inside, outside in found), (name, found)


def test_a_ligand_is_pulled_out_to_its_distance(pose: Complex) -> None:
    for distance in (5.95, 100.0):
        out = pulled_out(pose, distance)
        gap = np.linalg.norm(out.ligand.atoms.pos[:, None] - out.protein.atoms.pos[None], axis=2).min()
        assert gap == pytest.approx(distance, abs=1e-6)


def test_odd_poses_are_odd(pose: Complex) -> None:
    graphs = {name: build_graph("x", p.ligand, p.protein, GRAPH_SETTINGS)[0] for name, p in odd_poses(pose).items()}
    assert graphs["a ligand of one atom"].num_ligand_atoms == 1
    assert (graphs["an unknown element"].features[:, 0] == 0).sum() == 2
    assert graphs["no contacts"].contacts.shape[1] == 0
    assert graphs["no protein atoms"].num_atoms == graphs["no protein atoms"].num_ligand_atoms
    close = graphs["atoms 0.1 Å apart"]
    i, j = close.contacts.long()
    assert (close.pos[i] - close.pos[j]).norm(dim=1).min() == pytest.approx(0.1, abs=1e-4)
