"""What is read of each pose: its graph, copies with noise, how it stands to the training set, and remarks."""

from __future__ import annotations

import gzip
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from rdkit import Chem

from src.chemistry.atoms import StructureError
from src.chemistry.ligands import LigandRecord, read_ligand
from src.scoring.pose_graphs import JITTER, MAX_RECEPTORS, PoseGraphs, PoseReader, jittered
from src.scoring.poses import iter_poses
from src.scoring.smiles_files import read_smiles_file, read_templates
from src.settings import GraphSettings
from src.similarity.applicability import domain_facts, read_domain
from tests.analogues import glycines, ligand
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
    domain = read_domain({"domain": domain_facts(known.graphs, [6.0])})
    assert known.unseen == ()
    (like,) = read(tmp_path, PoseReader(settings, domain))
    assert like.unseen == ()
    (unlike,) = read(tmp_path, PoseReader(settings, domain), pdb=pdb_text([*RESIDUES, _platinum()]))
    assert unlike.unseen == ("new elements in the pocket (Pt)",)


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


# Molecules as drawn, on a template


def crystal(folder: Path, *more: np.ndarray, name: str = "benzamidine", shift: float = 0.0) -> tuple[LigandRecord, ...]:
    """The template, in a protein with a glycine 4 Å over the ring, one far away and more at these points."""
    mol = ligand(name=name)
    normal = np.cross(*mol.GetConformer().GetPositions()[[4, 6]])
    (folder / "p.pdb").write_text(glycines(4.0 * normal / np.linalg.norm(normal), np.array([0.0, 0.0, 60.0]), *more))
    mol.GetConformer().SetPositions(mol.GetConformer().GetPositions() + shift)
    (folder / "crystal.sdf").write_text(Chem.MolToMolBlock(mol) + "$$$$\n")
    return read_templates([folder / "crystal.sdf"])


def modelled(folder: Path, settings: GraphSettings, smiles: str, templates: Sequence[LigandRecord]) -> list[PoseGraphs]:
    (folder / "a.smi").write_text(smiles)
    reader = PoseReader(settings, templates=templates)
    return reader.read(list(read_smiles_file(folder / "p.pdb", folder / "a.smi").poses()))


def test_a_modelled_pose_goes_through_the_builder_of_all_and_says_what_it_is(
    tmp_path: Path, settings: GraphSettings
) -> None:
    (one,) = modelled(tmp_path, settings, "NC(=[NH2+])c1ccc(C)cc1 methyl", crystal(tmp_path))
    text = "modelled on benzamidine (crystal.sdf), core 9 of 10 atoms"
    assert (one.ligand, one.failure, one.pose) == ("methyl", "", text)
    assert one.warnings[0] == f"the pose is {text}"
    (tmp_path / "posed.sdf").write_text(one.modelled.text + "$$$$\n")
    (given,) = PoseReader(settings).read(list(iter_poses(tmp_path / "p.pdb", [tmp_path / "posed.sdf"])))
    assert_same_graph(one.graphs[0], given.graphs[0])
    assert given.pose == "given"
    assert Chem.GetFormalCharge(Chem.MolFromMolBlock(one.modelled.text)) == 1


def test_a_molecule_that_cannot_be_posed_has_its_reason(tmp_path: Path, settings: GraphSettings) -> None:
    found = modelled(tmp_path, settings, "CCO a\nxx b\nc1ccccc1CCCCCC c\n", crystal(tmp_path))
    assert [one.ligand for one in found] == ["a", "b", "c"]
    assert "the common core with benzamidine (crystal.sdf) has 2 of 3" in found[0].failure
    assert "cannot read the SMILES 'xx'" in found[1].failure
    assert found[2].failure == ""
    assert "core 8 of 12 atoms" in found[2].warnings[0]


def test_a_pose_that_clashes_is_no_pose(tmp_path: Path, settings: GraphSettings) -> None:
    pos = ligand().GetConformer().GetPositions()
    normal = np.cross(pos[4], pos[6]) / np.linalg.norm(np.cross(pos[4], pos[6]))
    squeezed = crystal(tmp_path, pos[5] + 1.7 * normal, pos[5] - 1.7 * normal)
    (one,) = modelled(tmp_path, settings, "NC(=N)c1ccc(C)cc1 squeezed", squeezed)
    assert one.failure.startswith("no pose on benzamidine (crystal.sdf) without a clash: ligand and protein atoms are")
    assert not one.graphs


def test_few_atoms_in_the_core_are_a_warning(tmp_path: Path, settings: GraphSettings) -> None:
    (one,) = modelled(tmp_path, settings, "c1ccccc1C1CCC(CC1)C1CCCC1", crystal(tmp_path))
    assert "less than half: it is likely to be wrong" in one.warnings[0]


def test_the_template_in_the_protein_file_is_not_in_the_way(tmp_path: Path, settings: GraphSettings) -> None:
    templates = crystal(tmp_path)
    lines = [line for line in (tmp_path / "p.pdb").read_text().splitlines() if line != "END"]
    for number, (atom, at) in enumerate(zip(ligand().GetAtoms(), ligand().GetConformer().GetPositions(), strict=True)):
        x, y, z = at
        name = f"{atom.GetSymbol()}{number}"
        lines.append(
            f"HETATM{900 + number:>5}  {name:<3} BEN A 900    {x:8.3f}{y:8.3f}{z:8.3f}  1.00 10.00"
            f"{atom.GetSymbol():>12}"
        )
    (tmp_path / "p.pdb").write_text("\n".join([*lines, "END", ""]))
    (one,) = modelled(tmp_path, settings, "Nc1ccc(CCCCCC)cc1 small core", templates)
    assert one.failure == ""
    assert "A:BEN900 of the protein file lies where the ligand is and was left out" in one.warnings


def test_a_template_that_lies_elsewhere_or_is_not_sound_is_an_error(tmp_path: Path, settings: GraphSettings) -> None:
    with pytest.raises(StructureError, match="no atom of the protein is near this template"):
        modelled(tmp_path, settings, "c1ccccc1", crystal(tmp_path, shift=30.0))
    (tmp_path / "crystal.sdf").write_text(sdf_text(atoms=[(e, x, y, 0.0) for e, x, y, _ in LIGAND]))
    with pytest.raises(StructureError, match="no 3D coordinates"):
        modelled(tmp_path, settings, "c1ccccc1", read_templates([tmp_path / "crystal.sdf"]))


def test_a_name_with_dollars_ends_no_record(tmp_path: Path, settings: GraphSettings) -> None:
    (one,) = modelled(tmp_path, settings, "NC(=N)c1ccccc1 $$$$ x", crystal(tmp_path))
    assert "$$$$" not in one.modelled.text
