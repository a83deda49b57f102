"""What a contact counts and what it scores, on weights and heads that are counted by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from src.graph import Batch
from src.visnet.readout import CONTACT_SCALE, FEW_CONTACTS, ContactReadout, contact_weights
from tests.synthetic import INTERACTION_CUTOFF, random_batch, tiny_settings

SETTINGS = tiny_settings()


def scores(readout: ContactReadout, batch: Batch, weight: Tensor) -> Tensor:
    draw = torch.Generator().manual_seed(0)
    x, vec = (torch.randn(len(batch.pos), *shape, generator=draw) for shape in ((16,), (3, 16)))
    return readout.eval()(x, vec, weight, batch)


def test_a_contact_counts_by_its_distance_and_by_how_far_its_pocket_atom_has_faded() -> None:
    """At half the cutoff 1/2, at a third 3/4, at the cutoff and beyond 0; the atom at the origin is the ligand's."""
    distance = torch.tensor([0.0, 3.0, 2.0, 3.0, 6.0, 7.0])
    fade = torch.tensor([1.0, 1.0, 1.0, 0.5, 1.0, 1.0])
    contacts = torch.stack([torch.zeros(5, dtype=torch.long), torch.arange(1, 6)])
    pos = torch.stack([distance, torch.zeros(6), torch.zeros(6)], dim=1)
    batch = replace(random_batch(1, seed=0), pos=pos, fade=fade, contacts=contacts)
    assert contact_weights(batch, 6.0).tolist() == pytest.approx([0.5, 0.75, 0.25, 0.0, 0.0], abs=1e-6)


@pytest.mark.parametrize("few", [1.0, 1e-3])
def test_one_head_is_added_up_and_the_other_averaged_unless_there_is_nearly_nothing_to_average(few: float) -> None:
    """Both heads say 1 for each of n weighted contacts: 0.02 n, and n / (n + 10)."""
    torch.manual_seed(0)
    batch, readout = random_batch(2, seed=3), ContactReadout(SETTINGS)
    weight = few * contact_weights(batch, INTERACTION_CUTOFF)
    count = torch.zeros(2).index_add_(0, batch.graph_of_contact, weight)
    with torch.no_grad():
        readout.last.weight.zero_()
        for head, expected in enumerate((CONTACT_SCALE * count, count / (count + FEW_CONTACTS))):
            readout.last.bias.copy_(torch.eye(2)[head])
            found = torch.zeros(2).index_add_(0, batch.graph_of_contact, weight * scores(readout, batch, weight))
            torch.testing.assert_close(found, expected)


def test_before_training_contacts_add_little_to_the_mean_label() -> None:
    torch.manual_seed(0)
    batch = random_batch(4, seed=1)
    weight = contact_weights(batch, INTERACTION_CUTOFF)
    added = weight * scores(ContactReadout(SETTINGS), batch, weight)
    assert torch.zeros(4).index_add_(0, batch.graph_of_contact, added).abs().max() < 0.02  # standard deviations


@pytest.mark.parametrize("change", ["a ligand atom", "a pocket atom", "how much contacts count"])
def test_what_a_contact_scores_depends_on_the_rest_of_its_complex_and_on_no_other(change: str) -> None:
    torch.manual_seed(0)
    batch, readout = random_batch(2, seed=2), ContactReadout(SETTINGS).eval()
    draw = torch.Generator().manual_seed(0)
    x, vec = torch.randn(len(batch.pos), 16, generator=draw), torch.zeros(len(batch.pos), 3, 16)
    weight = contact_weights(batch, INTERACTION_CUTOFF)
    before = readout(x, vec, weight, batch)
    first = 0  # the contact whose own atoms or weight change
    if change == "how much contacts count":
        weight = weight.clone()
        weight[first] += 5.0
    else:
        x[batch.contacts[int(change == "a pocket atom"), first]] += 1.0
    moved = (readout(x, vec, weight, batch) - before).abs() > 1e-9
    apart = (batch.contacts != batch.contacts[:, first : first + 1]).all(0)
    assert moved[apart & (batch.graph_of_contact == 0)].all()
    assert not moved[batch.graph_of_contact == 1].any()
