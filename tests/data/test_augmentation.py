from __future__ import annotations

import numpy as np
import pytest
import torch

from src.data.augmentation import DECOY_MARGIN, DECOY_SHIFT, Augmentation, ShownExamples, decoy, moved
from src.data.batching import collate
from src.data.dataset import Example
from src.graph import EdgeKind
from tests.synthetic import random_complex

CUTOFF = 6.0


@pytest.fixture
def examples() -> list[Example]:
    return [Example(random_complex(seed), 6.0) for seed in range(40)]


def shaken(**changes: float) -> Augmentation:
    return Augmentation(
        **{"coordinate_noise": 0.0, "decoy_fraction": 0.0, "interaction_cutoff": CUTOFF, "seed": 1} | changes
    )


def test_without_noise_and_decoys_examples_are_shown_as_they_are(examples: list[Example]) -> None:
    for example in examples:
        seen = shaken().shown(example, epoch=3)
        assert (seen.pk, seen.bound) == (example.pk, example.bound)
        assert torch.equal(seen.graph.pos, example.graph.pos)
        assert torch.equal(seen.graph.contacts, example.graph.contacts)


def test_noise_has_the_width_that_was_asked_for_and_keeps_the_edges(examples: list[Example]) -> None:
    noisy = shaken(coordinate_noise=0.1)
    differences = [(noisy.shown(e, 0).graph.pos - e.graph.pos).numpy().ravel() for e in examples]
    assert np.concatenate(differences).std() == pytest.approx(0.1, rel=0.1)
    seen, plain = collate([noisy.shown(e, 0) for e in examples]), collate(examples)
    assert torch.equal(seen.source, plain.source)
    assert torch.equal(seen.edge_kind, plain.edge_kind)


def test_what_is_shown_depends_on_seed_epoch_and_code_alone(examples: list[Example]) -> None:
    augmentation = shaken(coordinate_noise=0.1, decoy_fraction=0.5)

    def positions(augmentation: Augmentation, epoch: int, order: range | reversed) -> list[torch.Tensor]:
        shown = ShownExamples(examples, augmentation, epoch)
        by_number = {number: shown[number].graph.pos for number in order}
        return [by_number[number] for number in range(len(examples))]

    first = positions(augmentation, 0, range(40))
    again = positions(augmentation, 0, reversed(range(40)))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    for other in (positions(augmentation, 1, range(40)), positions(shaken(coordinate_noise=0.1, seed=2), 0, range(40))):
        assert not any(torch.equal(a, b) for a, b in zip(first, other, strict=True))


def test_decoys_are_as_many_as_asked_for_and_bounded_from_above(examples: list[Example]) -> None:
    shown = [shaken(decoy_fraction=0.3).shown(e, epoch) for e in examples for epoch in range(10)]
    decoys = [e for e in shown if e.bound]
    assert len(decoys) / len(shown) == pytest.approx(0.3, abs=0.08)
    assert {(e.pk, e.bound) for e in decoys} == {(6.0 - DECOY_MARGIN, -1)}


@pytest.mark.parametrize("bound", [-1, 1])
def test_a_label_that_is_a_bound_gets_no_decoy(examples: list[Example], bound: int) -> None:
    shown = shaken(decoy_fraction=0.9).shown(Example(examples[0].graph, 6.0, bound), 0)
    assert (shown.pk, shown.bound) == (6.0, bound)


def test_a_decoy_moves_the_ligand_as_a_rigid_body_and_has_the_contacts_of_where_it_is(examples: list[Example]) -> None:
    rng = np.random.default_rng(0)
    for graph in (example.graph for example in examples):
        displaced, ligand = decoy(graph, rng, CUTOFF), slice(graph.num_ligand_atoms)
        before, after = graph.pos[ligand].double(), displaced.pos[ligand].double()
        assert torch.allclose(torch.cdist(before, before), torch.cdist(after, after), atol=1e-4)
        shift = (after.mean(0) - before.mean(0)).norm().item()
        assert DECOY_SHIFT[0] - 1e-4 <= shift <= DECOY_SHIFT[1] + 1e-4
        assert torch.equal(graph.pos[graph.num_ligand_atoms :], displaced.pos[graph.num_ligand_atoms :])
        distance = torch.cdist(displaced.pos[ligand], displaced.pos[graph.num_ligand_atoms :])
        near = {(i, j + graph.num_ligand_atoms) for i, j in (distance <= CUTOFF).nonzero().tolist()}
        assert {tuple(pair) for pair in displaced.contacts.T.tolist()} == near
        num_contact_edges = (collate([Example(displaced, 0.0)]).edge_kind == EdgeKind.CONTACT).sum().item()
        assert num_contact_edges == 2 * len(near)
        if near:
            assert (displaced.fade[displaced.contacts[1].long()] == 1).all()


def test_the_original_is_left_alone(examples: list[Example]) -> None:
    graph = examples[0].graph
    pos, contacts, fade = graph.pos.clone(), graph.contacts.clone(), graph.fade.clone()
    decoy(graph, np.random.default_rng(0), CUTOFF)
    moved(graph, graph.pos + 1)
    shaken(coordinate_noise=1.0, decoy_fraction=0.9).shown(examples[0], 0)
    assert torch.equal(graph.pos, pos)
    assert torch.equal(graph.contacts, contacts)
    assert torch.equal(graph.fade, fade)
