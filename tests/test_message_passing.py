import math

import pytest
import torch
from torch_geometric.nn.models import visnet as pyg

from src.message_passing import (
    RMS_EPSILON,
    SHORTEST_DISTANCE,
    Edges,
    EdgeWeights,
    cosine_envelope,
    distances_and_units,
    edge_messages,
    expnorm_basis,
    expnorm_parameters,
    gaussian_basis,
    max_min_norm,
    neighbour_messages,
    rejection_product,
    rms_norm,
    spherical_harmonics,
    sum_by_index,
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


def test_sums_of_low_precision_values_are_float32():
    total = sum_by_index(torch.full((3000, 1), 1.0, dtype=torch.bfloat16), torch.zeros(3000, dtype=torch.int64), 2)
    assert total.dtype == torch.float32
    assert total.tolist() == [[3000.0], [0.0]]  # bfloat16 would stop at 256


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


def test_neighbour_messages_by_hand():
    edges = Edges(torch.tensor([1, 2]), torch.tensor([0, 0]), torch.zeros(2, 3), torch.tensor([0.5, 1.0]))
    embedded = torch.tensor([[9.0, 9.0], [2.0, 4.0], [1.0, 1.0]])
    filters = torch.tensor([[1.0, 2.0], [3.0, 5.0]])
    result = neighbour_messages(embedded, filters, edges)
    assert result.tolist() == [[4.0, 9.0], [0.0, 0.0], [0.0, 0.0]]


def attention_case(envelope: float, vec: torch.Tensor | None, corrected: bool = True):
    """One edge from atom 1 to atom 0 along z, one head, two channels, filters silu(1), gate biases 1, 2."""
    edges = Edges(torch.tensor([1]), torch.tensor([0]), torch.tensor([[0.0, 0.0, 1.0]]), torch.tensor([envelope]))
    gates = 2 if vec is None else 4
    gate_bias = torch.cat([torch.ones(gates - 2), torch.full((2,), 2.0)])
    weights = EdgeWeights(torch.zeros(4, 2), torch.ones(4), torch.zeros(gates, 2), gate_bias)
    query = torch.tensor([[1.0, 2.0], [0.0, 0.0]])
    key_value = torch.tensor([[7.0, 7.0, 7.0, 7.0], [3.0, 4.0, 5.0, 6.0]])
    feature = torch.zeros(1, 2)
    return edge_messages(query, key_value, vec, feature, edges, weights, num_heads=1, corrected=corrected)


def silu(value: float) -> float:
    return value / (1 + math.exp(-value))


def test_edge_messages_by_hand():
    scalars, vectors = attention_case(0.5, torch.full((2, 3, 2), 10.0))
    attention = silu((1 * 3 + 2 * 4) * silu(1.0)) * 0.5
    expected = [5 * silu(1.0) * attention, 6 * silu(1.0) * attention]
    assert scalars[0].tolist() == pytest.approx(expected, rel=1e-6)
    assert scalars[1].tolist() == [0.0, 0.0]
    carried = 10 * silu(1.0) * 0.5
    assert vectors[0, :, 0].tolist() == pytest.approx([carried, carried, carried + silu(2.0) * 0.5], rel=1e-6)
    assert (vectors[1] == 0).all()


def test_first_layer_has_directions_only():
    _, vectors = attention_case(0.5, None)
    assert vectors[0, :, 0].tolist() == pytest.approx([0.0, 0.0, silu(2.0) * 0.5], rel=1e-6)


@pytest.mark.parametrize("corrected", [True, False])
def test_only_the_correction_silences_an_edge_at_its_cutoff(corrected):
    scalars, vectors = attention_case(0.0, torch.ones(2, 3, 2), corrected)
    assert (scalars == 0).all()
    assert bool((vectors == 0).all()) is corrected


def rejection_by_hand(a, b, d, blocks):
    rejected = [v.clone() for v in (a, b)]
    for block in blocks:
        for v in rejected:
            v[block] -= (v[block] * d[block, None]).sum(0) * d[block, None]
    return (rejected[0] * rejected[1]).sum(0)


@pytest.mark.parametrize(("lmax", "corrected"), [(1, True), (1, False), (2, True), (2, False)])
def test_rejection_product_equals_explicit_rejection(lmax, corrected):
    size = 3 if lmax == 1 else 8
    a, b = torch.randn(2, size, 5, dtype=DOUBLE), torch.randn(2, size, 5, dtype=DOUBLE)
    direction = spherical_harmonics(units(1), lmax)
    edges = Edges(torch.tensor([1]), torch.tensor([0]), direction, torch.ones(1, dtype=DOUBLE))
    blocks = [slice(0, 3), slice(3, 8)][:lmax] if corrected else [slice(0, size)]
    expected = rejection_by_hand(a[0], b[1], direction[0], blocks)
    torch.testing.assert_close(rejection_product(a, b, edges, corrected=corrected)[0], expected)


def test_published_rejection_ignores_the_direction_at_lmax_two():
    """The two degrees have norm 1 each, so the published rejection cancels; the corrected one does not."""
    a, b = torch.randn(2, 8, 5, dtype=DOUBLE), torch.randn(2, 8, 5, dtype=DOUBLE)
    products = {}
    for corrected in (True, False):
        for seed in (1, 2):
            direction = spherical_harmonics(units(1, seed), 2)
            edges = Edges(torch.tensor([1]), torch.tensor([0]), direction, torch.ones(1, dtype=DOUBLE))
            products[corrected, seed] = rejection_product(a, b, edges, corrected=corrected)
    torch.testing.assert_close(products[False, 1], products[False, 2])
    assert (products[True, 1] - products[True, 2]).abs().max() > 0.01
