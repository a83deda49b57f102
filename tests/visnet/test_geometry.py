import math

import pytest
import torch
from torch_geometric.nn.models import visnet as pyg

from src.visnet.geometry import (
    RMS_EPSILON,
    SHORTEST_DISTANCE,
    cosine_envelope,
    distances_and_units,
    expnorm_basis,
    expnorm_parameters,
    gaussian_basis,
    max_min_norm,
    rms_norm,
    spherical_harmonics,
)

DOUBLE = torch.float64


def units(count: int, seed: int = 0) -> torch.Tensor:
    draw = torch.randn(count, 3, dtype=DOUBLE, generator=torch.Generator().manual_seed(seed))
    return draw / draw.norm(dim=-1, keepdim=True)


def test_distances_and_units_point_from_target_to_source():
    pos = torch.tensor([[0.0, 0.0, 0.0], [3.0, 4.0, 0.0]])
    distance, unit = distances_and_units(pos, torch.tensor([1, 0]), torch.tensor([0, 1]))
    assert distance.tolist() == [5.0, 5.0]
    torch.testing.assert_close(unit, torch.tensor([[0.6, 0.8, 0.0], [-0.6, -0.8, 0.0]]))


@pytest.mark.parametrize("gap", [0.0, 1e-12, 1e-4])
def test_overlapping_atoms_have_finite_geometry_and_gradient(gap):
    pos = torch.tensor([[1.0, 2.0, 3.0], [1.0 + gap, 2.0, 3.0]], requires_grad=True)
    distance, unit = distances_and_units(pos, torch.tensor([0]), torch.tensor([1]))
    (distance.sum() + unit.sum()).backward()
    assert distance.item() == pytest.approx(SHORTEST_DISTANCE)
    assert unit.norm() < 0.02
    assert torch.isfinite(pos.grad).all()
    assert pos.grad.abs().max() <= 1.01 / SHORTEST_DISTANCE


def test_envelope_values_by_hand_and_a_cutoff_per_edge():
    distance = torch.tensor([0.0, 1.5, 3.0, 3.0, 9.0])
    cutoff = torch.tensor([3.0, 3.0, 3.0, 6.0, 6.0])
    torch.testing.assert_close(cosine_envelope(distance, cutoff), torch.tensor([1.0, 0.5, 0.0, 0.5, 0.0]))


def test_radial_basis_and_envelope_equal_pyg_at_five_angstrom():
    distance = torch.linspace(0.1, 5.5, 50)
    theirs = pyg.ExpNormalSmearing(cutoff=5.0, num_rbf=16)
    means, betas = expnorm_parameters(16)
    cutoff = torch.full_like(distance, 5.0)
    torch.testing.assert_close(expnorm_basis(distance, cutoff, means, betas), theirs(distance))
    torch.testing.assert_close(cosine_envelope(distance, cutoff), pyg.CosineCutoff(5.0)(distance))


def test_radial_basis_depends_on_the_fraction_of_the_cutoff_alone():
    means, betas = expnorm_parameters(8)
    short = expnorm_basis(torch.tensor([1.2]), torch.tensor([3.0]), means, betas)
    long = expnorm_basis(torch.tensor([2.4]), torch.tensor([6.0]), means, betas)
    torch.testing.assert_close(short, long)


def test_gaussians_peak_at_their_centres():
    centres = torch.linspace(0, 6, 7)
    basis = gaussian_basis(centres, centres)
    torch.testing.assert_close(basis.diagonal(), torch.ones(7))
    assert basis[2, 3] == pytest.approx(math.exp(-0.5))


@pytest.mark.parametrize("lmax", [1, 2])
def test_spherical_harmonics_equal_pyg_and_each_degree_has_norm_one(lmax):
    unit = units(20)
    ours = spherical_harmonics(unit, lmax)
    torch.testing.assert_close(ours, pyg.Sphere(lmax)(unit))
    torch.testing.assert_close(ours[:, :3].norm(dim=-1), torch.ones(20, dtype=DOUBLE))
    if lmax == 2:
        torch.testing.assert_close(ours[:, 3:].norm(dim=-1), torch.ones(20, dtype=DOUBLE))


def test_products_of_harmonics_are_the_legendre_polynomials_of_the_angle():
    a, b = units(20, 1), units(20, 2)
    cosine = (a * b).sum(-1)
    product = spherical_harmonics(a, 2) * spherical_harmonics(b, 2)
    torch.testing.assert_close(product[:, :3].sum(-1), cosine)
    torch.testing.assert_close(product[:, 3:].sum(-1), 1.5 * cosine**2 - 0.5)


def test_rms_norm_by_hand():
    vec = torch.zeros(2, 3, 2)
    vec[0, :, 0] = torch.tensor([3.0, 0.0, 4.0])  # squared lengths 25 and 0, mean 12.5
    normed = rms_norm(vec)
    torch.testing.assert_close(normed[0], vec[0] / math.sqrt(12.5 + RMS_EPSILON))
    assert (normed[1] == 0).all()


def test_rms_norm_is_smooth_at_zero():
    """max_min jumps between two tiny vectors; rms moves no more than the vectors do, times a constant."""
    tiny = torch.zeros(1, 3, 4, dtype=DOUBLE, requires_grad=True)
    (gradient,) = torch.autograd.grad(rms_norm(tiny).sum(), tiny)
    torch.testing.assert_close(gradient, torch.full_like(gradient, RMS_EPSILON**-0.5))
    step = torch.randn(1, 3, 4, dtype=DOUBLE, generator=torch.Generator().manual_seed(0)) * 1e-6
    assert (rms_norm(step) - rms_norm(-step)).norm() < 2.1 * step.norm() / math.sqrt(RMS_EPSILON)
    assert (max_min_norm(step) - max_min_norm(-step)).norm() > 1.0
    smooth = torch.randn(2, 3, 4, dtype=DOUBLE, generator=torch.Generator().manual_seed(1), requires_grad=True)
    assert torch.autograd.gradcheck(rms_norm, smooth)


def test_max_min_norm_equals_pyg_and_keeps_zero_vectors():
    vec = torch.randn(5, 3, 8, dtype=DOUBLE)
    torch.testing.assert_close(max_min_norm(vec), pyg.VecLayerNorm(8, False).max_min_norm(vec))
    zero = torch.zeros(2, 3, 8, requires_grad=True)
    normed = max_min_norm(zero)
    normed.sum().backward()
    assert (normed == 0).all()
    assert torch.isfinite(zero.grad).all()
