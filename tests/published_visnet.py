"""The published ViSNet on given edges, and its weights in our network."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch_geometric.nn.models.visnet import ViSNetBlock

from src.graph import Batch
from src.model import ViSNet


class GivenEdges(nn.Module):
    """Takes the place of PyG's neighbour search: edges [2, E] are given where it wants the graph of each atom."""

    def forward(self, pos: Tensor, ends: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        difference = pos[ends[0]] - pos[ends[1]]
        # PyG normalises the difference in place, which the gradient of the distance must not see.
        return ends, difference.norm(dim=-1), difference.clone()


def published_forward(theirs: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
    """Scalars [N, F] and vectors [N, L, F] of PyG's network, whose neighbour search is GivenEdges."""
    return theirs(batch.features[:, 0], batch.pos, torch.stack([batch.source, batch.target]))


def load_from_pyg(ours: ViSNet, theirs: ViSNetBlock) -> list[tuple[Tensor, list[Tensor], slice]]:
    """Copy PyG's weights; returns for each ours, PyG's to be put end to end, and the rows they fill."""
    table, whole = slice(0, 119), slice(None)
    pairs = [
        (ours.embedding.table.weight, [theirs.embedding.weight], table),
        (ours.neighbour_embedding.table.weight, [theirs.neighbor_embedding.embedding.weight], table),
    ]

    def linear(mine: nn.Linear, *originals: nn.Linear, rows: slice = whole) -> None:
        pairs.append((mine.weight, [original.weight[rows] for original in originals], whole))
        if mine.bias is not None:
            pairs.append((mine.bias, [original.bias[rows] for original in originals], whole))

    linear(ours.neighbour_filter, theirs.neighbor_embedding.distance_proj)
    linear(ours.combine, theirs.neighbor_embedding.combine)
    linear(ours.edge_filter, theirs.edge_embedding.edge_proj)
    channels = theirs.hidden_channels
    for mine, layer in zip(ours.layers, theirs.vis_mp_layers, strict=True):
        pairs += [(mine.norm.weight, [layer.layernorm.weight], whole)]
        pairs += [(mine.norm.bias, [layer.layernorm.bias], whole)]
        linear(mine.query_key_value, layer.q_proj, layer.k_proj, layer.v_proj)
        linear(mine.filters, layer.dk_proj, layer.dv_proj)
        linear(mine.gates, layer.s_proj, rows=slice(channels, None) if mine.first else whole)
        linear(mine.out, layer.o_proj, rows=slice(2 * channels, None) if mine.first else whole)
        if not mine.first:
            pairs += [(mine.vec_norm.weight, [layer.vec_layernorm.weight], whole)]
            linear(mine.vec_proj, layer.vec_proj)
        if mine.updates_edges:
            linear(mine.edge_gate, layer.f_proj)
            linear(mine.target_proj, layer.w_trg_proj)
            linear(mine.source_proj, layer.w_src_proj)
    pairs += [(ours.out_norm.weight, [theirs.out_norm.weight], whole)]
    pairs += [(ours.out_norm.bias, [theirs.out_norm.bias], whole)]
    pairs += [(ours.vec_out_norm.weight, [theirs.vec_out_norm.weight], whole)]
    with torch.no_grad():
        for embedding in (
            ours.embedding.table,
            ours.neighbour_embedding.table,
            ours.neighbour_kind,
            ours.edge_kind,
        ):
            embedding.weight.zero_()
        for mine, originals, rows in pairs:
            mine[rows] = torch.cat(originals)
        ours.means.copy_(theirs.distance_expansion.means)
        ours.betas.copy_(theirs.distance_expansion.betas)
    return pairs
