from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch_geometric.nn.models.visnet import ViSNetBlock

from src.graph import EdgeKind
from src.model import ViSNet
from tests.published_visnet import GivenEdges, load_from_pyg, published_forward
from tests.synthetic import INTERACTION_CUTOFF, random_batch, scattered, tiny_settings

DOUBLE = torch.float64


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
    theirs.distance = GivenEdges()
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
    (their_x, their_vec), their_pos_gradient = run(published_forward(theirs, batch))
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
