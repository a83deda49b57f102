"""What is read of each pose: its graph, copies with noise, how it stands to the training set, and remarks."""

from __future__ import annotations

import gzip
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from src.chemistry.atoms import StructureError
from src.chemistry.ligands import read_ligand
from src.scoring.pose_graphs import JITTER, MAX_RECEPTORS, PoseGraphs, PoseReader, jittered
from src.scoring.poses import iter_poses
from src.settings import GraphSettings
from src.similarity.applicability import domain_facts, read_domain
from tests.complexes import LIGAND, RESIDUES, assert_same_graph, pdb_text, sdf_text, small_settings


@pytest.fixture
def settings(tmp_path: Path) -> GraphSettings:
    return small_settings(tmp_path).graph


def read(folder: Path, reader: PoseReader, sdf: str = "", pdb: str = "") -> list[PoseGraphs]:
    (folder / "p.pdb").write_text(pdb or pdb_text())
    (folder / "l.sdf").write_text(sdf or sdf_text())
    return reader.read(list(iter_poses(folder / "p.pdb", [folder / "l.sdf"])))


def test_noise_is_small_and_the_same_in_every_run(tmp_path: Path) -> None:
    (tmp_path / "l.sdf").write_text(sdf_text())
    ligand = read_ligand([tmp_path / "l.sdf"])
    copies = [np.stack([one.atoms.pos for one in jittered(ligand, 500)]) for _ in range(2)]
    assert (copies[0] == copies[1]).all()
    noise = copies[0] - ligand.atoms.pos
    assert noise.std() == pytest.approx(JITTER, rel=0.03)
    assert abs(noise.mean()) < 0.01
    assert len(np.unique(noise)) == noise.size


def test_copies_with_noise_follow_the_pose_and_leave_it_as_it_is(tmp_path: Path, settings: GraphSettings) -> None:
    (alone,) = read(tmp_path, PoseReader(settings))
    (with_copies,) = read(tmp_path, PoseReader(settings, num_jitters=3))
    assert (len(alone.graphs), len(with_copies.graphs)) == (1, 4)
    assert_same_graph(with_copies.graphs[0], alone.graphs[0])
    assert not any(torch.equal(copy.pos, alone.graphs[0].pos) for copy in with_copies.graphs[1:])


def test_all_at_once_or_near_the_poses_alone_gives_the_same(tmp_path: Path, settings: GraphSettings) -> None:
    text = sdf_text("a") + sdf_text("b", (0.5, 0.0, 0.0)) + sdf_text("far", (100.0, 0.0, 0.0))
    whole = read(tmp_path, PoseReader(settings), text)
    near = PoseReader(settings).read(list(iter_poses(tmp_path / "p.pdb", [tmp_path / "l.sdf"])), is_all=True)
    for one, other in zip(whole, near, strict=True):
        assert_same_graph(one.graphs[0], other.graphs[0])
        assert replace(one, graphs=()) == replace(other, graphs=())
    assert whole[2].warnings == ("no protein atom within 6 Å: the pK says nothing about this pose",)


def test_no_more_than_a_few_receptors_are_kept(tmp_path: Path, settings: GraphSettings) -> None:
    reader = PoseReader(settings, one_receptor=False)
    (tmp_path / "l.sdf").write_text(sdf_text())
    for number in range(3 * MAX_RECEPTORS):
        path = tmp_path / f"{number}.pdb"
        path.write_text("damaged" if number % 3 == 0 else pdb_text())
        (found,) = reader.read(list(iter_poses(path, [tmp_path / "l.sdf"])))
        assert (found.failure == "") == (number % 3 != 0)
        assert len(reader._receptors) <= MAX_RECEPTORS


def test_a_damaged_receptor_is_an_error_when_it_is_the_only_one(tmp_path: Path, settings: GraphSettings) -> None:
    with pytest.raises(StructureError, match=r"p\.pdb"):
        read(tmp_path, PoseReader(settings), pdb="damaged")


def test_a_domain_is_asked_for_every_pose(tmp_path: Path, settings: GraphSettings) -> None:
    (known,) = read(tmp_path, PoseReader(settings))
    domain = read_domain({"domain": domain_facts(known.graphs, [6.0], {})})
    assert known.applicability.text == ""
    (like,) = read(tmp_path, PoseReader(settings, domain))
    assert like.applicability.text == "like the training (ligand 1.00, acetamide)"
    (unlike,) = read(tmp_path, PoseReader(settings, domain), pdb=pdb_text([*RESIDUES, _platinum()]))
    assert unlike.applicability.reasons == ("elements",)


# What people give a program that scores poses


def test_drawings_salts_and_odd_names_among_docked_poses(tmp_path: Path, settings: GraphSettings) -> None:
    salt = [*LIGAND, ("Na", 9.0, 9.0, 9.0)]
    flat = [(element, x, y, 0.0) for element, x, y, _ in LIGAND]
    texts = [sdf_text('a, "b"'), sdf_text("flat", atoms=flat), sdf_text("salt", atoms=salt), sdf_text("last")]
    path = tmp_path / "docked.sdf.gz"
    path.write_bytes(gzip.compress("".join(texts).encode()))
    (tmp_path / "p.pdb").write_text(pdb_text())
    found = PoseReader(settings).read(list(iter_poses(tmp_path / "p.pdb", [path])))
    assert [one.ligand for one in found] == ['a, "b"', "docked.sdf.gz, molecule 2", "salt", "last"]
    assert [one.failure == "" for one in found] == [True, False, True, True]
    assert "no 3D coordinates" in found[1].failure
    assert "fragments" in found[2].warnings[0]
    assert found[2].graphs[0].num_ligand_atoms == 4


def _platinum() -> tuple:
    return ("PT", "A", 400, [("PT", "PT", 0.0, 3.0, 3.0)])
