from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch_geometric.nn.models.visnet import ViSNetBlock

from src.graph import Batch, EdgeKind
from src.model import ViSNet
from tests.synthetic import INTERACTION_CUTOFF, random_batch, scattered, tiny_settings

DOUBLE = torch.float64


class GivenEdges(nn.Module):
    """Takes the place of PyG's neighbour search."""

    def __init__(self, batch: Batch) -> None:
        super().__init__()
        self.batch = batch

    def forward(self, pos: Tensor, batch: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        difference = pos[self.batch.source] - pos[self.batch.target]
        # PyG normalises the difference in place, which the gradient of the distance must not see.
        return (
            torch.stack([self.batch.source, self.batch.target]),
            difference.norm(dim=-1),
            difference.clone(),
        )


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


def relative_error(ours: Tensor, theirs: Tensor) -> float:
    return float((ours - theirs).detach().abs().max() / theirs.detach().abs().max().clamp(min=1e-6))


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (DOUBLE, 1e-10)])
@pytest.mark.parametrize("norm", ["none", "max_min"])
@pytest.mark.parametrize(("lmax", "num_layers"), [(1, 1), (1, 3), (2, 2), (2, 3)])
def test_uncorrected_representation_equals_pyg(lmax, num_layers, norm, dtype, tolerance):
    torch.manual_seed(1)
    batch = random_batch(2, seed=1, num_ligand_atoms=8, num_pocket_atoms=20)
    batch = replace(
        batch,
        edge_kind=torch.full_like(batch.edge_kind, EdgeKind.CONTACT),
        pos=batch.pos.to(dtype).requires_grad_(),
        fade=torch.ones_like(batch.fade, dtype=dtype),
    )
    theirs = ViSNetBlock(
        lmax=lmax,
        vecnorm_type=None if norm == "none" else norm,
        trainable_vecnorm=True,
        num_heads=4,
        num_layers=num_layers,
        hidden_channels=16,
        num_rbf=8,
        max_z=119,
        cutoff=INTERACTION_CUTOFF,
    )
    theirs = scattered(theirs).to(dtype)
    theirs.distance = GivenEdges(batch)
    settings = tiny_settings(lmax=lmax, num_layers=num_layers, vector_norm=norm)
    ours = ViSNet(settings, corrected=False).to(dtype)
    pairs = load_from_pyg(ours, theirs)

    def run(outputs: tuple[Tensor, Tensor]) -> tuple[tuple[Tensor, Tensor], Tensor]:
        weights = [torch.randn(out.shape, dtype=dtype, generator=torch.Generator().manual_seed(3)) for out in outputs]
        sum((out * weight).sum() for out, weight in zip(outputs, weights, strict=True)).backward()
        gradient = batch.pos.grad.clone()
        batch.pos.grad = None
        return outputs, gradient

    (x, vec), pos_gradient = run(ours(batch))
    their_outputs = theirs(batch.features[:, 0], batch.pos, batch.graph_of_atom)
    (their_x, their_vec), their_pos_gradient = run(their_outputs)
    assert relative_error(x, their_x) < tolerance
    assert relative_error(vec, their_vec) < tolerance
    gradients = [(pos_gradient, their_pos_gradient)]
    own = {id(parameter): parameter.grad for parameter in theirs.parameters()}
    for mine, originals, rows in pairs:
        parts = [_gradient_of(original, own) for original in originals]
        gradients.append((mine.grad[rows], torch.cat(parts)))
    scale = max(float(theirs_part.abs().max()) for _, theirs_part in gradients)
    for mine, theirs_part in gradients:
        assert float((mine - theirs_part).abs().max()) < tolerance * scale


def _gradient_of(view: Tensor, gradients: dict[int, Tensor | None]) -> Tensor:
    """The gradient of a slice of rows of a PyG parameter, cut out of the whole parameter's."""
    base = view if view._base is None else view._base
    gradient = torch.zeros_like(base) if gradients[id(base)] is None else gradients[id(base)]
    start = (view.storage_offset() - base.storage_offset()) // (base.stride(0))
    return gradient[start : start + view.shape[0]]
