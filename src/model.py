"""Batch to pK: ViSNet on the protein, ligand and interaction graphs, a sum over contacts, the pK scale."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import dropout, silu
from torch.overrides import TorchFunctionMode

from src.graph import BOND_CUTOFF, Batch, BondType, EdgeKind
from src.system.errors import UserError
from src.visnet.chunked_kernels import EAGER
from src.visnet.edge_rows import EdgeRows, RadialBasis
from src.visnet.geometry import (
    DEGREE_SLICES,
    cosine_envelope,
    distances_and_units,
    expnorm_parameters,
    spherical_harmonics,
)
from src.visnet.kernels import Kernels
from src.visnet.layers import AtomEmbedding, EdgeKindEmbedding, VectorNorm, linear
from src.visnet.message_passing import Edges, EdgeWeights, Form, Nodes, sum_by_index
from src.visnet.readout import ContactReadout, contact_weights, line_through
from src.visnet.recomputation import MODES

if TYPE_CHECKING:
    from src.settings import ModelSettings

VECTOR_NORMS = ("rms", "max_min", "none")

MIN_SCALE = 0.1  # pK; keeps labels that are all alike from stopping the gradient


class ModelError(UserError):
    """Model settings that contradict each other, or a label scale that is none."""


class Contributions(NamedTuple):
    """What each protein-ligand contact adds to the prediction."""

    pk: Tensor  # [C] pK units
    ligand_atom: Tensor  # [C] int64, index into the batch
    pocket_atom: Tensor  # [C] int64, index into the batch
    graph: Tensor  # [C] int64, which complex of the batch


def build_model(settings: ModelSettings) -> AffinityModel:
    """A fresh model of these settings. Raises ModelError: the settings do not fit together."""
    if settings.lmax not in DEGREE_SLICES:
        raise ModelError(f"lmax must be 1 or 2, got {settings.lmax}")
    if settings.vector_norm not in VECTOR_NORMS:
        raise ModelError(f"vector_norm must be one of {', '.join(VECTOR_NORMS)}, got {settings.vector_norm!r}")
    if settings.num_layers < 1 or settings.num_rbf < 2:
        found = f"{settings.num_layers} and {settings.num_rbf}"
        raise ModelError(f"a model needs num_layers >= 1 and num_rbf >= 2, got {found}")
    return AffinityModel(settings)


def rebuild_model(settings: ModelSettings, weights: Mapping[str, Tensor]) -> AffinityModel:
    """The model of these settings and weights.

    Memory is taken only when the weights are those of the settings: a small file may ask for a model of many GB.

    Raises:
        ModelError: the settings do not fit together, or the weights are not theirs.
    """
    with _Undrawn():
        model = build_model(settings)
    expected = {name: value.shape for name, value in model.state_dict().items()}
    found = {name: value.shape for name, value in weights.items()}
    odd = sorted(name for name in {*expected, *found} if expected.get(name) != found.get(name))
    if odd:
        named = ", ".join(map(ascii, odd[:3]))
        raise ModelError(f"{len(odd)} weights are missing, unknown or of another shape than the settings say: {named}")
    model.load_state_dict(weights)
    return model


class AffinityModel(nn.Module):
    """pK of a protein-ligand complex as a constant plus a sum over its contacts.

    The prediction does not change when the complex is turned, shifted or mirrored, with the order of atoms or
    with the rest of the batch; it is continuous in every coordinate, and it is `constant` for a ligand that
    touches nothing.
    """

    def __init__(self, settings: ModelSettings, *, corrected: bool = True) -> None:
        super().__init__()
        self.representation = ViSNet(settings, corrected=corrected)
        self.readout = ContactReadout(settings)
        self.offset = nn.Parameter(torch.zeros(()))
        self.register_buffer("pk_constant", torch.zeros(()))
        self.register_buffer("pk_per_contact", torch.zeros(()))
        self.register_buffer("pk_scale", torch.ones(()))

    def set_label_scale(self, constant: float, scale: float, per_contact: float = 0.0) -> None:
        """Start from `constant` + `per_contact` for each weighted contact, and learn the rest in units of `scale` (pK).

        Raises:
            ModelError: a value is not finite, or the scale is not positive.
        """
        if not all(map(math.isfinite, (constant, scale, per_contact))) or scale <= 0:
            found = f"constant {constant}, scale {scale}, per contact {per_contact}"
            raise ModelError(f"the label scale must be finite and positive: {found}")
        self.pk_constant.fill_(constant)
        self.pk_scale.fill_(scale)
        self.pk_per_contact.fill_(per_contact)

    @torch.no_grad()
    def fit_label_scale(self, batches: Iterable[Batch]) -> None:
        """Set the label scale to the least-squares line of pK against the number of contacts, weighted by envelope.

        What a count of contacts explains need not be learned; the network starts there and learns the rest.
        """
        counts, labels = [], []
        for batch in batches:
            counts.append(sum_by_index(self.contact_weights(batch), batch.graph_of_contact, batch.num_graphs))
            labels.append(batch.pk)
        count, label = torch.cat(counts).double(), torch.cat(labels).double()
        intercept, slope = line_through(count, label)
        rest = label - slope * count
        self.set_label_scale(intercept, max(rest.std(correction=0).item(), MIN_SCALE), slope)

    @property
    def constant(self) -> Tensor:
        """pK of a ligand without contacts."""
        return self.pk_constant + self.pk_scale * self.offset

    def forward(self, batch: Batch) -> Tensor:
        """pK [G] of the complexes of a batch."""
        parts = self.contributions(batch)
        return self.constant + sum_by_index(parts.pk, parts.graph, batch.num_graphs)

    def contributions(self, batch: Batch) -> Contributions:
        """The terms of the prediction: `constant` plus those of one complex is its pK."""
        x, vec = self.representation(batch)
        weight = self.contact_weights(batch)
        score = self.pk_per_contact + self.pk_scale * self.readout(x, vec, weight, batch)
        return Contributions(score * weight, *batch.contacts, batch.graph_of_contact)

    def contact_weights(self, batch: Batch) -> Tensor:
        """How much each contact counts, [C]."""
        return contact_weights(batch, self.readout.cutoff)


class ViSNet(nn.Module):
    """Representation of atoms by scalars and vectors (Wang et al., doi 10.1038/s41467-023-43720-2).

    With `corrected=False`, edges of one kind, and no fading it computes what
    `torch_geometric.nn.models.visnet.ViSNetBlock` computes.
    """

    def __init__(self, settings: ModelSettings, *, corrected: bool = True) -> None:
        super().__init__()
        channels = settings.hidden_channels
        self.lmax = settings.lmax
        self.dropout = settings.dropout
        self.message_passing = "fast"  # one of MODES: what is kept for the backward pass
        self.embedding = AtomEmbedding(channels)
        self.neighbour_embedding = AtomEmbedding(channels)
        self.neighbour_filter = linear(settings.num_rbf, channels)
        self.neighbour_kind = EdgeKindEmbedding(channels)
        self.combine = linear(2 * channels, channels)
        self.edge_filter = linear(settings.num_rbf, channels)
        self.edge_kind = EdgeKindEmbedding(channels)
        last = settings.num_layers - 1
        self.layers = nn.ModuleList(
            ViSNetLayer(settings, first=number == 0, last=number == last, corrected=corrected)
            for number in range(settings.num_layers)
        )
        self.out_norm = nn.LayerNorm(channels)
        self.vec_out_norm = VectorNorm(channels, settings.vector_norm)
        means, betas = expnorm_parameters(settings.num_rbf)
        cutoffs = torch.full((len(EdgeKind),), BOND_CUTOFF)
        cutoffs[EdgeKind.PROTEIN_NEAR] = settings.near_cutoff
        cutoffs[EdgeKind.CONTACT] = settings.interaction_cutoff
        for name, constant in (("means", means), ("betas", betas), ("cutoffs", cutoffs)):
            self.register_buffer(name, constant, persistent=False)

    @property
    def kernels(self) -> Kernels:
        """How the layers are run, all in one way."""
        return self.vec_out_norm.kernels

    @kernels.setter
    def kernels(self, kernels: Kernels) -> None:
        for module in self.modules():
            if isinstance(module, (VectorNorm, ViSNetLayer)):
                module.kernels = kernels

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Scalars [N, F] and vectors [N, L, F] of the atoms."""
        mode = MODES["plain" if batch.pos.requires_grad else self.message_passing]
        edges, neighbour_rows, first_features = self._edges(batch, remakes_rows=mode.remakes_rows)
        neighbours = mode.summed(neighbour_rows, self.neighbour_embedding(batch.features), edges.target, self.kernels)
        x = self.combine(torch.cat([self.embedding(batch.features), neighbours], dim=-1))
        x = x.to(neighbours.dtype)
        run, vec = mode(first_features, x, edges, self.kernels), None
        for layer in self.layers:
            dx, dvec = run(layer, x, vec)
            x = x + dropout(dx, self.dropout, self.training)
            vec = dvec if vec is None else vec + dvec
        return self.out_norm(x), self.vec_out_norm(vec)

    def _edges(self, batch: Batch, *, remakes_rows: bool) -> tuple[Edges, EdgeRows, EdgeRows]:
        """The edges of a batch, what each tells its target of the source, and its features below the first layer."""
        distance, unit = distances_and_units(batch.pos, batch.source, batch.target)
        cutoff = self.cutoffs.index_select(0, batch.edge_kind)
        chemistry = batch.edge_kind * len(BondType) + batch.bond_type
        # An atom at the pocket's edge has just entered: what it sends is faded, so it enters without a jump.
        envelope = cosine_envelope(distance, cutoff) * batch.fade.index_select(0, batch.source)
        direction = spherical_harmonics(unit, self.lmax)
        edges = Edges(batch.source, batch.target, direction, envelope.unsqueeze(-1))
        edges = self.kernels.prepared(edges, len(batch.pos))

        is_kept = not (remakes_rows and torch.is_grad_enabled())
        common = edges, RadialBasis(distance, cutoff, self.means, self.betas, is_kept), chemistry
        neighbour_rows = EdgeRows(*common, self.neighbour_filter, self.neighbour_kind, of_both_ends=False)
        return edges, neighbour_rows, EdgeRows(*common, self.edge_filter, self.edge_kind, of_both_ends=True)


class ViSNetLayer(nn.Module):
    """One round of messages.

    Before the first layer every vector is zero, so that layer has no weights that would act on vectors; after
    the last layer nobody reads edge features.
    """

    def __init__(self, settings: ModelSettings, *, first: bool, last: bool, corrected: bool) -> None:
        super().__init__()
        channels = settings.hidden_channels
        self.form = Form(settings.num_heads, corrected)
        self.kernels: Kernels = EAGER
        self.first = first
        self.updates_edges = not (first or last)
        self.norm = nn.LayerNorm(channels)
        self.query_key_value = linear(channels, 3 * channels, parts=3)
        self.filters = linear(channels, 2 * channels, parts=2)
        self.gates = linear(channels, channels if first else 2 * channels)
        self.out = linear(channels, channels if first else 3 * channels)
        if not first:
            self.vec_norm = VectorNorm(channels, settings.vector_norm)
            self.vec_proj = linear(channels, 3 * channels, bias=False)
        if self.updates_edges:
            self.edge_gate = linear(channels, channels)
            self.target_proj = linear(channels, channels, bias=False)
            self.source_proj = linear(channels, channels, bias=False)

    def nodes(self, x: Tensor, vec: Tensor | None) -> Nodes:
        """What the edges read, from scalars [N, F] and vectors [N, L, F]."""
        channels = x.shape[-1]
        query, key_value = self.query_key_value(self.norm(x)).split([channels, 2 * channels], dim=-1)
        if vec is None:
            return Nodes(query, key_value, None, None, None)
        if not self.updates_edges:
            return Nodes(query, key_value, self.vec_norm(vec), None, None)
        return Nodes(query, key_value, *self.edge_vecs(vec))

    def edge_vecs(self, vec: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The normed vectors, and what the update of edges reads of them at targets and at sources, [N, L, F] each."""
        vec = self.vec_norm(vec)
        return vec, self.target_proj(vec), self.source_proj(vec)

    def edge_weights(self, dtype: torch.dtype) -> EdgeWeights:
        """The weights that act on edges, for products in this precision."""
        on_features = [self.filters, self.edge_gate] if self.updates_edges else [self.filters]
        return EdgeWeights(
            torch.cat([part.weight for part in on_features]).to(dtype),
            torch.cat([part.bias for part in on_features]).to(dtype),
            self.gates.weight.to(dtype),
            self.gates.bias.to(dtype),
        )

    def updated_feature(self, feature: Tensor, product: Tensor) -> Tensor:
        """Edge features [C, F] after this layer, from those before it and the rejection product."""
        return (feature + silu(self.edge_gate(feature)) * product).to(feature.dtype)

    def change(self, vec: Tensor | None, scalar_sum: Tensor) -> tuple[Tensor, Tensor | None]:
        """Change of scalars [N, F], and of vectors [N, L, F] besides their messages, from the sum of messages [N, F].

        Args:
            vec: [N, L, F], normed.
        """
        out = self.out(scalar_sum)
        if vec is None:
            return out.to(scalar_sum.dtype), None
        return self.kernels.atom_change(out, self.vec_proj(vec))


class _Undrawn(TorchFunctionMode):
    """Weights are not drawn, so that their memory is reserved and not taken."""

    def __torch_function__(
        self, function: Callable, types: Sequence[type], args: tuple = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if function in (Tensor.normal_, Tensor.uniform_) or getattr(function, "__module__", None) == "torch.nn.init":
            return kwargs["tensor"] if "tensor" in kwargs else args[0]
        return function(*args, **kwargs)
