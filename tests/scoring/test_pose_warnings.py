"""What is said of a pose beside its score."""

from __future__ import annotations

from pathlib import Path

import pytest

from src.scoring.pose_graphs import PoseGraphs, PoseReader
from src.scoring.poses import iter_poses
from src.settings import GraphSettings
from tests.complexes import LIGAND, RESIDUES, ZN, assert_same_graph, pdb_text, sdf_text, small_settings


@pytest.fixture
def settings(tmp_path: Path) -> GraphSettings:
    return small_settings(tmp_path).graph


def read(folder: Path, reader: PoseReader, sdf: str = "", pdb: str = "") -> list[PoseGraphs]:
    (folder / "p.pdb").write_text(pdb or pdb_text())
    (folder / "l.sdf").write_text(sdf or sdf_text())
    return reader.read(list(iter_poses(folder / "p.pdb", [folder / "l.sdf"])))


def test_chains_twice_and_the_ligand_inside_the_protein_file(tmp_path: Path, settings: GraphSettings) -> None:
    (plain,) = read(tmp_path, PoseReader(settings))
    copy = ("LIG", "C", 1, [(f"{element}{n}", element, *xyz) for n, (element, *xyz) in enumerate(LIGAND)])
    second = [(name, "B", n, [(a, e, x + 60, y, z) for a, e, x, y, z in atoms]) for name, _, n, atoms in RESIDUES]
    (found,) = read(tmp_path, PoseReader(settings), pdb=pdb_text([*RESIDUES, *second, copy]))
    assert_same_graph(found.graphs[0], plain.graphs[0])
    assert found.warnings == ("C:LIG1 of the protein file lies where the ligand is and was left out",)


def test_a_metal_at_the_ligand_is_part_of_the_pocket(tmp_path: Path, settings: GraphSettings) -> None:
    zinc = ("ZN", "A", 201, [("ZN", "ZN", 0.0, 0.0, -2.1)])
    (found,) = read(tmp_path, PoseReader(settings), pdb=pdb_text([one for one in RESIDUES if one is not ZN] + [zinc]))
    assert found.failure == ""
    assert 30 in found.graphs[0].features[:, 0].tolist()


@pytest.mark.parametrize(
    ("name", "place", "warning"),
    [
        (" ZN", (2.1, 3.1, 0.0), "bound to ZN A 201 (2.0 Å)"),  # above the oxygen
        (" ZN", (2.1, 2.5, 0.0), "the ligand is only 1.4 Å from the metal of ZN A 201, nearer than a bond"),
        (" ZN", (2.1, 3.9, 0.0), ""),
        (" ZN", (-2.4, 0.0, 0.0), ""),  # beside a methyl group, to which nothing is bound at this distance
        (" ZN", (-1.7, 0.0, 0.0), "ligand and protein atoms are only 1.7 Å apart (a clash or a covalent bond)"),
        (" CL", (2.1, 2.8, 0.0), "ligand and protein atoms are only 1.7 Å apart (a clash or a covalent bond)"),
        ("HEM", (2.1, 3.1, 0.0), "bound to HEM A 201 (2.0 Å)"),
    ],
)
def test_a_bond_to_a_metal_is_no_clash(
    tmp_path: Path, settings: GraphSettings, name: str, place: tuple, warning: str
) -> None:
    element = {"HEM": "FE"}.get(name, name.strip())
    others = [("CHA", "C", 2.1, 8.0, 0.0)] if name == "HEM" else []
    residue = (name, "A", 201, [(element, element, *place), *others])
    (found,) = read(
        tmp_path, PoseReader(settings), pdb=pdb_text([one for one in RESIDUES if one is not ZN] + [residue])
    )
    assert found.warnings == ((warning,) if warning else ())


def test_residues_without_their_side_chains_are_named_the_nearest_first(
    tmp_path: Path, settings: GraphSettings
) -> None:
    def without(*names: str) -> str:
        return pdb_text([(n, c, i, [atom for atom in atoms if atom[0] not in names]) for n, c, i, atoms in RESIDUES])

    (whole,) = read(tmp_path, PoseReader(settings))  # of LYS, which lies far away, there are two atoms
    assert whole.warnings == ()
    (one,) = read(tmp_path, PoseReader(settings), pdb=without("OD2"))
    assert one.warnings == ("1 residue of the pocket lacks heavy atoms (ASP A 10): the score misses their contacts",)
    for is_all in (False, True):
        reader = PoseReader(settings)
        (tmp_path / "p.pdb").write_text(without("CB", "CG", "OD1", "OD2", "O"))
        (cut,) = reader.read(list(iter_poses(tmp_path / "p.pdb", [tmp_path / "l.sdf"])), is_all=is_all)
        assert cut.warnings[-1].startswith("3 residues of the pocket lack heavy atoms (ALA A 11, ASP A 10, GLY A 30):")


def test_of_many_incomplete_residues_the_first_are_named(tmp_path: Path, settings: GraphSettings) -> None:
    chain = [("SER", "A", n, [("CA", "C", -4.0, 1.5 * n, 0.0)]) for n in range(1, 6)]
    (found,) = read(tmp_path, PoseReader(settings), pdb=pdb_text(chain))
    (text,) = [warning for warning in found.warnings if "lack" in warning]
    assert text.startswith("4 residues of the pocket lack heavy atoms (SER A 1, SER A 2, SER A 3 and 1 more):")


def test_a_peptide_with_its_copy_in_the_protein_file_is_one_warning(tmp_path: Path, settings: GraphSettings) -> None:
    parts = [[LIGAND[0]], [LIGAND[1]], [LIGAND[2]], [LIGAND[3]]]
    copies = [("GLY", "P", n, [(f"{atom[0]}{n}", *atom) for atom in atoms]) for n, atoms in enumerate(parts, start=1)]
    (found,) = read(tmp_path, PoseReader(settings), pdb=pdb_text([*RESIDUES, *copies]))
    assert [warning for warning in found.warnings if "left out" in warning] == [
        "4 residues of the protein file (P:GLY1, P:GLY2, P:GLY3, ...) lie where the ligand is and were left out"
    ]
