from __future__ import annotations

import hashlib
import re
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from src import __version__
from src.chemistry.ligands import read_ligand
from src.chemistry.proteins import read_protein
from src.data_processing import (
    DATA_PROCESSING_VERSION,
    RELEASES,
    GraphError,
    Receptor,
    build_graph,
    graph_fingerprint,
    near_pairs,
    other_version_text,
)
from src.graph import FEATURE_COLUMN, BondType, ComplexGraph, Side
from src.settings import GraphSettings
from tests.complexes import ASP, GRAPH_SETTINGS, LIGAND, RESIDUES, assert_same_graph, pdb_text, sdf_text

# sha256 of the tensors of the complex in tests/complexes.py, for each version that this file has seen. When the
# test fails, the graphs have changed: give DATA_PROCESSING_VERSION a new value and put the new hash here.
_SINCE_1_0 = "710c0a9a631bcb86e7b39645aff8354f23b9c24e67343b24e98b2e1e65c26d93"
# 1.1 and 1.2 read other ligands and proteins, not that one.
GOLDEN = {"1.0": _SINCE_1_0, "1.1": _SINCE_1_0, "1.2": _SINCE_1_0}


def build(
    tmp_path: Path,
    settings: GraphSettings = GRAPH_SETTINGS,
    *,
    pdb: str | None = None,
    sdf: str | None = None,
    near: bool = False,
) -> ComplexGraph:
    (tmp_path / "p.pdb").write_text(pdb or pdb_text())
    (tmp_path / "l.sdf").write_text(sdf or sdf_text())
    ligand = read_ligand([tmp_path / "l.sdf"])
    protein = read_protein(tmp_path / "p.pdb", near=ligand.atoms.pos if near else None, radius=settings.pocket_radius)
    return build_graph("test", ligand, protein, settings)[0]


def tensors(graph: ComplexGraph) -> dict[str, torch.Tensor]:
    values = {field.name: getattr(graph, field.name) for field in fields(graph)}
    return {name: value for name, value in values.items() if isinstance(value, torch.Tensor)}


def same(one: ComplexGraph, other: ComplexGraph) -> bool:
    ours, theirs = tensors(one), tensors(other)
    return all(ours[name].dtype == theirs[name].dtype and torch.equal(ours[name], theirs[name]) for name in ours)


def test_the_golden_complex_has_not_changed_without_a_new_version(tmp_path: Path) -> None:
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors(build(tmp_path)).items()):
        # Coordinates are rounded: the last bit of a mean may differ between processors.
        values = tensor.numpy().round(4) + 0.0 if tensor.is_floating_point() else tensor.numpy()
        digest.update(f"{name}{values.dtype}{values.shape}".encode() + values.tobytes())
    assert GOLDEN.get(DATA_PROCESSING_VERSION) == digest.hexdigest()


def test_atoms_counted_by_hand(tmp_path: Path) -> None:
    graph = build(tmp_path)
    # Ligand 4; pocket ASP 8, ALA 5, GLY 4, ZN 1. LYS is 30 Å away and the water is dropped by the settings.
    assert graph.num_ligand_atoms == 4
    assert graph.num_atoms == 4 + 8 + 5 + 4 + 1
    side = graph.features[:, FEATURE_COLUMN["side"]].tolist()
    assert side.count(Side.LIGAND) == 4
    assert side.count(Side.PROTEIN) == 17
    assert side.count(Side.ION) == 1
    torch.testing.assert_close(graph.pos[:4].mean(0), torch.zeros(3))


@pytest.mark.parametrize(
    ("change", "atoms"),
    [({"keep_waters": True}, 23), ({"keep_ions": False}, 21), ({"pocket_radius": 6.5}, 18)],
)
def test_settings_choose_the_nodes(tmp_path: Path, change: dict, atoms: int) -> None:
    assert build(tmp_path, replace(GRAPH_SETTINGS, **change)).num_atoms == atoms


def test_bonds_counted_by_hand(tmp_path: Path) -> None:
    graph = build(tmp_path)
    assert graph.ligand_bonds.T.tolist() == [[0, 1], [1, 2], [1, 3]]
    assert graph.ligand_bond_types.tolist() == [BondType.SINGLE, BondType.DOUBLE, BondType.SINGLE]
    # ASP 7, ALA 4, GLY 3 inside the residues, and the peptide bond from ASP 10 to ALA 11.
    assert graph.protein_bonds.shape[1] == 7 + 4 + 3 + 1


def test_fade_is_one_at_contact_and_falls_towards_the_rim(tmp_path: Path) -> None:
    graph = build(tmp_path)
    fade = {name: graph.fade[row].item() for name, row in {"ligand": 0, "asp": 4, "gly": 17}.items()}
    # GLY is 7.0 Å away, half way from 6 to 8: half a cosine gives 0.5.
    assert fade == pytest.approx({"ligand": 1.0, "asp": 1.0, "gly": 0.5}, abs=1e-6)
    rim = build(tmp_path, replace(GRAPH_SETTINGS, pocket_radius=7.001))
    assert rim.fade[17].item() < 1e-5


def test_contacts_equal_brute_force(tmp_path: Path) -> None:
    graph = build(tmp_path)
    ligand, pocket = graph.pos[:4].double(), graph.pos[4:].double()
    expected = torch.nonzero((ligand[:, None] - pocket[None]).norm(dim=2) <= 6.0) + torch.tensor([0, 4])
    assert graph.contacts.T.tolist() == expected.tolist()
    assert all(pocket_atom not in range(17, 21) for pocket_atom in graph.contacts[1].tolist())  # GLY


@pytest.mark.parametrize("count", [0, 1, 2, 40])
def test_near_pairs_equal_brute_force(count: int) -> None:
    pos = np.random.default_rng(count).uniform(0, 10, (count, 3))
    pairs = near_pairs(pos, 4.5, max_neighbors=1000)
    distance = np.linalg.norm(pos[:, None] - pos[None], axis=2)
    expected = [(i, j) for i in range(count) for j in range(i + 1, count) if distance[i, j] <= 4.5]
    assert list(zip(*pairs.tolist(), strict=True)) == expected


def test_a_neighbour_limit_keeps_the_nearest() -> None:
    pos = np.array([[0.0, 0, 0], [1, 0, 0], [0, 2, 0], [0, 0, 3], [-4, 0, 0]])
    pairs = near_pairs(pos, 4.5, max_neighbors=1)
    # Nearest of atoms 0 to 4: 1, 0, 0, 0, 0. All of these pairs stay, no other does.
    assert list(zip(*pairs.tolist(), strict=True)) == [(0, 1), (0, 2), (0, 3), (0, 4)]


def test_contacts_have_no_neighbour_limit(tmp_path: Path) -> None:
    few = build(tmp_path, replace(GRAPH_SETTINGS, max_neighbors=1))
    assert torch.equal(few.contacts, build(tmp_path).contacts)
    assert few.near_pairs.shape[1] < build(tmp_path).near_pairs.shape[1]


@pytest.mark.fault("J3", "J4")
@pytest.mark.fault("J2")
@pytest.mark.parametrize("apart", [0.0, 0.05, 0.3])
def test_a_ligand_whose_atoms_lie_on_others_is_refused(tmp_path: Path, apart: float) -> None:
    """A chain of nine, of which the last five are put where the fourth is."""
    zigzag = [("C", 1.25 * number, 0.7 * (number % 2), 0.1 * number) for number in range(9)]
    bonds = [(number, number + 1, 1) for number in range(1, 9)]
    assert build(tmp_path, sdf=sdf_text(atoms=zigzag, bonds=bonds)).num_ligand_atoms == 9
    point = zigzag[3][1:]
    fallen = zigzag[:4] + [("C", point[0], point[1], point[2] + apart * (number % 2)) for number in range(5)]
    with pytest.raises(
        GraphError, match=r"6 heavy atoms of the ligand lie on others \(C\d and C\d are 0\.00 Å apart\)"
    ):
        build(tmp_path, sdf=sdf_text(atoms=fallen, bonds=bonds))
    two = [*zigzag[:8], ("C", *zigzag[7][1:3], zigzag[7][3] + apart)]
    with pytest.raises(GraphError, match=rf"2 heavy atoms .* \(C8 and C9 are {apart:.2f} Å apart\)"):
        build(tmp_path, sdf=sdf_text(atoms=two, bonds=bonds))


@pytest.mark.fault("J2")
def test_a_residue_whose_atoms_lie_on_one_point_is_refused(tmp_path: Path) -> None:
    name, chain, number, atoms = ASP
    for count in (2, 3, 5):
        fallen = [(*atom[:2], *atoms[-1][2:]) if place >= 8 - count else atom for place, atom in enumerate(atoms)]
        pdb = pdb_text([(name, chain, number, fallen), *RESIDUES[1:]])
        if count == 2:  # two conformers without letters
            assert build(tmp_path, pdb=pdb).num_atoms == 22
            continue
        with pytest.raises(GraphError, match=rf"{count} atoms of A:ASP10 lie on one point"):
            build(tmp_path, pdb=pdb)


def test_ions_of_several_chains_may_lie_on_one_axis(tmp_path: Path) -> None:
    ions = [("ZN", chain, 201, [("ZN", "ZN", 0.0, 0.0, -4.0)]) for chain in "BCD"]
    side = build(tmp_path, pdb=pdb_text([*RESIDUES, *ions])).features[:, FEATURE_COLUMN["side"]].tolist()
    assert side.count(Side.ION) == 4


def test_a_shift_of_the_whole_complex_changes_nothing(tmp_path: Path) -> None:
    # PDB columns end at 9999.999 Å.
    shift = (9000.0, -900.0, 5000.0)
    moved = build(tmp_path, pdb=pdb_text(shift=shift), sdf=sdf_text(shift=shift))
    here = build(tmp_path)
    torch.testing.assert_close(moved.pos, here.pos, atol=1e-4, rtol=0)
    assert torch.equal(moved.near_pairs, here.near_pairs)
    assert torch.equal(moved.contacts, here.contacts)


@pytest.mark.fault("J5")
def test_the_order_of_residues_in_the_file_changes_nothing(tmp_path: Path) -> None:
    assert same(build(tmp_path, pdb=pdb_text(RESIDUES[::-1])), build(tmp_path))


def test_reading_only_the_neighbourhood_changes_nothing(tmp_path: Path) -> None:
    assert same(build(tmp_path, near=True), build(tmp_path))


@pytest.mark.fault("J7")
def test_an_atom_on_a_border_is_always_on_the_same_side(tmp_path: Path) -> None:
    """GLY at exactly 7 Å is outside of a pocket of that radius, OD1 of ASP at exactly 3 Å in contact at that cutoff."""
    shifts = [(0.0, 0.0, 0.0), (16.0, -32.0, 64.0)]
    for shift in shifts:
        files = {"pdb": pdb_text(shift=shift), "sdf": sdf_text(shift=shift)}
        assert build(tmp_path, replace(GRAPH_SETTINGS, pocket_radius=7.0), **files).num_atoms == 4 + 8 + 5 + 1
        contacts = build(tmp_path, replace(GRAPH_SETTINGS, interaction_cutoff=3.0), **files).contacts
        assert contacts.T.tolist() == [[0, 10]]


@pytest.mark.fault("J3")
def test_a_far_ligand_has_a_graph_without_contacts(tmp_path: Path) -> None:
    graph = build(tmp_path, sdf=sdf_text(shift=(0.0, 0.0, 200.0)))
    assert graph.num_atoms == len(LIGAND)
    assert graph.contacts.shape == (2, 0)
    assert graph.near_pairs.shape == (2, 0)


@pytest.mark.fault("H15")
def test_a_copy_of_the_ligand_in_the_protein_is_dropped_and_reported(tmp_path: Path) -> None:
    names = ("C1", "C2", "O1", "N1")
    copy = ("ACM", "A", 400, [(name, *atom) for name, atom in zip(names, LIGAND, strict=True)])
    text = pdb_text([ASP, copy]).replace("ATOM      9", "HETATM    9")
    (tmp_path / "p.pdb").write_text(text)
    (tmp_path / "l.sdf").write_text(sdf_text())
    ligand = read_ligand([tmp_path / "l.sdf"])
    graph, notes = build_graph("test", ligand, read_protein(tmp_path / "p.pdb"), GRAPH_SETTINGS)
    assert graph.num_atoms == 4 + 8
    assert any("ACM" in note for note in notes)


def test_the_fingerprint_follows_version_and_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    before = graph_fingerprint(GRAPH_SETTINGS)
    assert graph_fingerprint(replace(GRAPH_SETTINGS, near_cutoff=4.6)) != before
    monkeypatch.setattr("src.data_processing.DATA_PROCESSING_VERSION", "other")
    assert graph_fingerprint(GRAPH_SETTINGS) != before


@pytest.mark.parametrize("shift", [(0.0, 0.0, 0.0), (3.0, -2.0, 1.0), (25.0, 0.0, 0.0), (300.0, 0.0, 0.0)])
def test_a_receptor_gives_the_graph_of_the_whole_protein(tmp_path: Path, shift: tuple[float, float, float]) -> None:
    """Bit for bit, with the notes; and what it leaves out lies beyond the pocket."""
    copy = ("LIG", "B", 1, [(f"{element}{n}", element, *xyz) for n, (element, *xyz) in enumerate(LIGAND)])
    (tmp_path / "p.pdb").write_text(pdb_text([*RESIDUES, copy]))
    (tmp_path / "l.sdf").write_text(sdf_text(shift=shift))
    protein, ligand = read_protein(tmp_path / "p.pdb"), read_ligand([tmp_path / "l.sdf"])
    near = Receptor(protein).around(ligand.atoms.pos, GRAPH_SETTINGS.pocket_radius)
    assert len(near.atoms) < len(protein.atoms)
    assert not near.is_whole
    graph, notes = build_graph("1abc", ligand, near, GRAPH_SETTINGS)
    expected, expected_notes = build_graph("1abc", ligand, protein, GRAPH_SETTINGS)
    assert_same_graph(graph, expected)
    assert notes == expected_notes


def test_a_receptor_that_is_all_near_stays_whole(tmp_path: Path) -> None:
    (tmp_path / "p.pdb").write_text(pdb_text([ASP]))
    protein = read_protein(tmp_path / "p.pdb")
    assert Receptor(protein).around(np.array([[0.0, 0.0, 0.0]]), GRAPH_SETTINGS.pocket_radius) is protein


def test_what_is_around_a_long_ligand_is_found_as_by_brute_force(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    places = draw.uniform(-40.0, 40.0, (400, 3)).round(3)
    residues = [("GLY", "A", n, [("CA", "C", *place)]) for n, place in enumerate(places.tolist(), start=1)]
    (tmp_path / "p.pdb").write_text(pdb_text(residues))
    receptor = Receptor(read_protein(tmp_path / "p.pdb"))
    ligand_pos = np.stack([1.5 * np.arange(-10, 11), np.zeros(21), np.zeros(21)], axis=1)
    near = receptor.around(ligand_pos, 8.0)
    distance = np.linalg.norm(places[:, None] - ligand_pos[None], axis=2).min(axis=1)
    expected = places[distance < 8.0]
    assert sorted(map(tuple, near.atoms.pos.tolist())) == sorted(map(tuple, expected.tolist()))


def test_a_version_of_the_graphs_has_a_release_that_the_changelog_knows() -> None:
    assert RELEASES[DATA_PROCESSING_VERSION] == __version__
    changelog = (Path(__file__).resolve().parents[1] / "CHANGELOG.md").read_text(encoding="utf-8")
    for version, release in RELEASES.items():
        (section,) = re.findall(rf"^## \[?{re.escape(release)}\]? - .*\n\n(.*)", changelog, flags=re.M)
        assert section.startswith(f"Data processing version {version}.")


def test_a_refused_checkpoint_names_the_release_that_reads_it() -> None:
    assert "Use release 0.1.0 of the program, see CHANGELOG.md, or train again" in other_version_text("1.0")
    assert "Use its program, or train again" in other_version_text("9.9")
