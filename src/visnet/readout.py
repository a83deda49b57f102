"""Atoms to what each protein-ligand contact adds: pair features, seen in the context of the whole complex."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn.functional import dropout, silu

from src.graph import FEATURE_COLUMN, Batch, Side
from src.visnet.geometry import cosine_envelope, distances_and_units, gaussian_basis, spherical_harmonics
from src.visnet.layers import linear
from src.visnet.message_passing import along, rows_at, sum_by_index

if TYPE_CHECKING:
    from src.settings import ModelSettings

# Standard deviations of the label that a contact scored as 1 adds. A complex has some 600 contacts in 6 Å;
# on synthetic pockets with 117 contacts 0.02 to 0.1 learned alike and faster than 0.005.
CONTACT_SCALE = 0.02

FEW_CONTACTS = 10.0  # weighted contacts with which the mean over contacts counts half


def contact_weights(batch: Batch, cutoff: float) -> Tensor:
    """How much each contact counts, [C]: 0 at the cutoff (Å) and for pocket atoms that have faded."""
    ligand_atom, pocket_atom = batch.contacts
    distance, _ = distances_and_units(batch.pos, pocket_atom, ligand_atom)
    envelope = cosine_envelope(distance, torch.full_like(distance, cutoff))
    return envelope * batch.fade.index_select(0, pocket_atom)


def line_through(count: Tensor, label: Tensor) -> tuple[float, float]:
    """Intercept and slope of the least-squares line of labels [n] against counts [n]; level where no count differs."""
    count, label, slope = count.double(), label.double(), 0.0
    if (spread := count.var(correction=0).item()) > 0:
        slope = ((count - count.mean()) * (label - label.mean())).mean().item() / spread
    return (label - slope * count).mean().item(), slope


class ContactReadout(nn.Module):
    """A number for each contact: its atoms' scalars and vectors (along the contact), times a radial filter.

    What a contact is worth depends on the complex: a hydrogen bond more of a large ligand adds less than one of a
    fragment. So the ligand's mean, the mean of what it touches, and both sizes open or close the channels of every
    contact. One head is summed over the contacts, another one averaged, which for few contacts goes to zero.

    The radial basis is evenly spaced in Å: the exponential basis of the messages is dense below 2 Å and has
    only a few functions left for the 3 to 6 Å of most contacts.
    """

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__()
        channels = settings.hidden_channels
        self.lmax = settings.lmax
        self.cutoff = settings.interaction_cutoff
        self.dropout = settings.dropout
        self.ligand = linear(channels, channels)
        self.pocket = linear(channels, channels, bias=False)
        self.ligand_vec = linear(channels, channels, bias=False)
        self.pocket_vec = linear(channels, channels, bias=False)
        self.radial = linear(settings.num_rbf, channels)
        self.hidden = linear(channels, channels)
        self.context = linear(2 * channels + 2, channels)
        self.context_hidden = linear(channels, channels)
        self.shift = linear(channels, channels, bias=False)
        self.gate = linear(channels, channels)
        self.last = nn.Linear(channels, 2)
        nn.init.normal_(self.last.weight, std=0.01)  # an untrained model predicts close to the mean label
        nn.init.zeros_(self.last.bias)
        centres = torch.linspace(0.0, settings.interaction_cutoff, settings.num_rbf)
        self.register_buffer("centres", centres, persistent=False)

    def forward(self, x: Tensor, vec: Tensor, weight: Tensor, batch: Batch) -> Tensor:
        """Scores [C] of the contacts, in standard deviations of the label, to be multiplied by their weights and added.

        Args:
            x: [N, F] scalars of the atoms.
            vec: [N, L, F] vectors of the atoms.
            weight: [C] how much each contact counts, from 0 to 1.
        """
        ligand_atom, pocket_atom = batch.contacts
        graph = batch.graph_of_contact
        distance, unit = distances_and_units(batch.pos, pocket_atom, ligand_atom)
        direction = spherical_harmonics(unit, self.lmax)
        pair = rows_at(self.ligand(x), ligand_atom) + rows_at(self.pocket(x), pocket_atom)
        pair = pair + along(rows_at(self.ligand_vec(vec), ligand_atom), direction)
        pair = pair + along(rows_at(self.pocket_vec(vec), pocket_atom), direction)
        hidden = silu(pair) * self.radial(gaussian_basis(distance, self.centres))
        num_contacts = sum_by_index(weight, graph, batch.num_graphs)
        context = self._context(x, weight, num_contacts, graph, batch)
        hidden = self.hidden(dropout(hidden, self.dropout, self.training))
        hidden = silu(hidden + rows_at(self.shift(context), graph))
        hidden = hidden * rows_at(1 + self.gate(context), graph)
        with torch.autocast(hidden.device.type, enabled=False):  # terms are summed over hundreds of contacts
            summed, averaged = self.last(hidden.to(self.last.weight.dtype)).unbind(-1)
            return CONTACT_SCALE * summed + averaged / (num_contacts + FEW_CONTACTS).index_select(0, graph)

    def _context(self, x: Tensor, weight: Tensor, num_contacts: Tensor, graph: Tensor, batch: Batch) -> Tensor:
        """What is common to the contacts of a complex, [G, F]."""
        of_ligand = (batch.features[:, FEATURE_COLUMN["side"]] == Side.LIGAND).to(weight.dtype)
        num_atoms = sum_by_index(of_ligand, batch.graph_of_atom, batch.num_graphs)
        ligand = sum_by_index(x * of_ligand.unsqueeze(-1), batch.graph_of_atom, batch.num_graphs)
        touched = x.index_select(0, batch.contacts[1]) * weight.unsqueeze(-1)
        pocket = sum_by_index(touched, graph, batch.num_graphs)
        parts = [
            ligand / num_atoms.unsqueeze(-1),
            pocket / (num_contacts.unsqueeze(-1) + 1),
            num_contacts.log1p().unsqueeze(-1) - 4.5,  # about what is usual: 90 weighted contacts ...
            num_atoms.log().unsqueeze(-1) - 3,  # ... and 20 atoms
        ]
        context = dropout(silu(self.context(torch.cat(parts, dim=-1))), self.dropout, self.training)
        return silu(self.context_hidden(context))
