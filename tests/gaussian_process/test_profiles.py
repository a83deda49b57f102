"""Counts by hand on a complex small enough for it, and what no count may depend on."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from rdkit import Chem
from scipy.spatial.transform import Rotation
from torch import Tensor

from src.data.batching import collate
from src.data.dataset import Example
from src.gaussian_process.profiles import (
    NUM_CLASSES,
    NUM_ENVIRONMENTS,
    NUM_TYPES,
    ContactProfiles,
    atom_types,
    contact_profiles,
)
from src.graph import RESIDUE_TYPES, Batch, ComplexGraph
from src.pdbbind.folders import ComplexFiles
from src.visnet.readout import contact_weights, line_through
from tests.complexes import ALA, ASP, GRAPH_SETTINGS, LIGAND, ZN, read_and_build, write_complex
from tests.synthetic import INTERACTION_CUTOFF, batch_of, random_complex, with_positions

FLAT_CARBON, PLAIN_CARBON, AMIDE_N, OXYGEN, OXIDE, ION = 2, 3, 6, 10, 8, 0


def profiles_of(batch: Batch) -> ContactProfiles:
    return contact_profiles(batch, contact_weights(batch, INTERACTION_CUTOFF))


@pytest.fixture
def acetamide(tmp_path: Path) -> ComplexGraph:
    write_complex(tmp_path, "1abc")
    folder = tmp_path / "1abc"
    files = ComplexFiles("1abc", None, folder / "1abc_pocket.pdb", (folder / "1abc_ligand.sdf",))
    return read_and_build(files, GRAPH_SETTINGS)


def test_types_are_those_of_chemistry(acetamide: ComplexGraph) -> None:
    types = atom_types(acetamide.features.long()).tolist()
    assert types[:4] == [PLAIN_CARBON, FLAT_CARBON, OXYGEN, AMIDE_N]  # CH3, C=O, O, NH2 which gives hydrogen bonds
    assert types.count(ION) == 1
    assert types.count(OXIDE) >= 1  # of ASP
    assert max(types) < NUM_TYPES


def weight_of(distance: float) -> float:
    return 0.5 * (np.cos(np.pi * min(distance / INTERACTION_CUTOFF, 1)) + 1)


def test_contacts_are_counted_by_hand(acetamide: ComplexGraph) -> None:
    """All fades are 1 here; weights are made anew from the text of the files."""
    (found,) = (profile[0] for profile in [profiles_of(collate([Example(acetamide, 6.0)])).residues])
    expected: Counter[tuple[str, int]] = Counter()
    for name, _, _, atoms in (ASP, ALA, ZN):
        for element, *at in LIGAND:
            number = {"C": 0, "N": 1, "O": 2}[element]
            for _, _, *where in atoms:
                expected["none" if name == "ZN" else name, number] += weight_of(np.linalg.norm(np.subtract(at, where)))
    for name, place in ((name, RESIDUE_TYPES.index(name)) for name in ("ASP", "ALA", "none")):
        counted = [expected[name, number] for number in range(NUM_CLASSES)]
        assert found[place].tolist() == pytest.approx(counted, abs=1e-4)
    assert found.sum().item() == pytest.approx(sum(expected.values()), abs=1e-4)


def test_shells_share_out_each_contact(acetamide: ComplexGraph) -> None:
    profile = profiles_of(collate([Example(acetamide, 6.0)]))
    by_shell = profile.contacts.view(NUM_TYPES, NUM_TYPES, -1)
    assert profile.contacts.sum().item() == pytest.approx(profile.total.item(), rel=1e-5)
    zinc = by_shell[:, ION].sum(0)  # the nearest atom is 4.0 Å away, the others between 4.3 and 4.9
    assert zinc.argmax().item() == 1
    assert by_shell[OXYGEN, ION].sum() > 0
    assert by_shell[ION].sum() == 0  # no ion in the ligand


def test_the_ligand_is_counted_by_atom(acetamide: ComplexGraph) -> None:
    atoms = profiles_of(collate([Example(acetamide, 6.0)])).atoms[0]
    assert atoms[[PLAIN_CARBON, FLAT_CARBON, OXYGEN, AMIDE_N]].tolist() == [1, 1, 1, 1]
    assert atoms[-1] == 4
    assert atoms.sum() == 8


@pytest.mark.parametrize("radius_atoms", [("CCO", "OCC"), ("c1ccccc1O", "Oc1ccccc1"), ("CC(C)C", "C(C)(C)C")])
def test_environments_do_not_hang_on_the_order_of_atoms(radius_atoms: tuple[str, str]) -> None:
    one, other = (environments(smiles) for smiles in radius_atoms)
    assert torch.equal(one, other)


def test_environments_are_counted_by_hand() -> None:
    """Butane: two ends, two middles; at each radius two environments, and nothing in common with a ring's."""
    butane, ring = environments("CCCC"), environments("C1CCC1")
    assert sorted(butane[butane > 0].tolist()) == [2] * 6
    assert sorted(ring[ring > 0].tolist()) == [4] * 3
    assert not ((butane > 0) & (ring > 0)).any()
    assert butane.sum() == 4 * 3
    single, double = environments("CC"), environments("C=C")
    assert (single != double).any()


def environments(smiles: str) -> Tensor:
    """[NUM_ENVIRONMENTS] of a ligand without a pocket, elements, rings and bonds as RDKit says."""
    molecule = Chem.MolFromSmiles(smiles)
    count = molecule.GetNumAtoms()
    plain = random_complex(0, num_ligand_atoms=count, num_pocket_atoms=0)
    features = torch.zeros_like(plain.features)
    for atom in molecule.GetAtoms():
        features[atom.GetIdx(), 0] = atom.GetAtomicNum()
        features[atom.GetIdx(), 5] = atom.GetIsAromatic()
        features[atom.GetIdx(), 8] = atom.IsInRing()
    ends = [(bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()) for bond in molecule.GetBonds()]
    order = [4 if bond.GetIsAromatic() else int(bond.GetBondTypeAsDouble()) for bond in molecule.GetBonds()]
    bonds = torch.tensor(ends).T.to(torch.int16)
    graph = replace(
        plain, features=features, ligand_bonds=bonds, ligand_bond_types=torch.tensor(order, dtype=torch.uint8)
    )
    found = profiles_of(batch_of([graph])).environments
    assert found.shape == (1, NUM_ENVIRONMENTS)
    return found[0]


def test_turning_shifting_and_the_batch_change_nothing() -> None:
    graphs = [random_complex(seed) for seed in range(3)]
    turn = torch.from_numpy(Rotation.random(random_state=1).as_matrix()).float()
    moved = [replace(graph, pos=graph.pos @ turn.T + 7.0) for graph in graphs]
    together, apart = profiles_of(batch_of(moved)), [profiles_of(batch_of([graph])) for graph in graphs]
    for number, single in enumerate(apart):
        for found, expected in zip(together, single, strict=True):
            assert torch.allclose(found[number], expected[0], atol=2e-4)


def test_a_contact_appears_and_goes_without_a_jump() -> None:
    graph = random_complex(1, num_ligand_atoms=1, num_pocket_atoms=1)
    found = []
    for distance in (INTERACTION_CUTOFF - 1e-3, INTERACTION_CUTOFF + 1e-3):
        pos = torch.tensor([[0.0, 0.0, 0.0], [distance, 0.0, 0.0]])
        placed = with_positions(graph, pos)
        assert placed.contacts.shape[1] == (distance < INTERACTION_CUTOFF)
        found.append(profiles_of(batch_of([placed])))
    for inside, outside in zip(*found, strict=True):
        assert torch.allclose(inside, outside, atol=1e-6)


def test_a_line_goes_through_points_on_it() -> None:
    count = torch.tensor([10.0, 20.0, 40.0])
    assert line_through(count, 3 + 0.1 * count) == pytest.approx((3.0, 0.1))
    assert line_through(torch.full((3,), 5.0), torch.tensor([1.0, 2.0, 6.0])) == pytest.approx((3.0, 0.0))
