import math

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from src.visnet.chunked_kernels import CHUNK_ELEMENTS, EAGER, chunks
from src.visnet.geometry import spherical_harmonics
from src.visnet.message_passing import (
    Edges,
    EdgeWeights,
    Form,
    Messages,
    Nodes,
    pass_messages,
    rejection_product,
    rows_at,
    sum_by_index,
)
from tests.synthetic import random_edge_operation

DOUBLE = torch.float64


def units(count: int, seed: int = 0) -> torch.Tensor:
    draw = torch.randn(count, 3, dtype=DOUBLE, generator=torch.Generator().manual_seed(seed))
    return draw / draw.norm(dim=-1, keepdim=True)


def test_sums_of_low_precision_values_are_float32():
    total = sum_by_index(torch.full((3000, 1), 1.0, dtype=torch.bfloat16), torch.zeros(3000, dtype=torch.int64), 2)
    assert total.dtype == torch.float32
    assert total.tolist() == [[3000.0], [0.0]]  # bfloat16 would stop at 256


class SumsByIndex(TorchDispatchMode):
    """Notes in which precision rows are added by index; a GPU rounds every one of such sums, a CPU only the last."""

    def __init__(self):
        super().__init__()
        self.dtypes = []

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        if operator.overloadpacket.__name__.startswith("index_add"):
            self.dtypes.append(args[0].dtype)
        return operator(*args, **(kwargs or {}))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_a_row_that_many_read_gets_the_sum_of_all_their_gradients(dtype):
    values, readers = torch.ones(2, 1, dtype=dtype, requires_grad=True), torch.zeros(3000, dtype=torch.int64)
    with SumsByIndex() as sums:
        rows_at(values, readers).sum().backward()
    assert sums.dtypes == [torch.float32]
    assert values.grad.dtype == dtype
    assert values.grad.tolist() == [[torch.tensor(3000.0).to(dtype).item()], [0.0]]


def attention_case(envelope: float, vec: torch.Tensor | None, corrected: bool = True):
    """One edge from atom 1 to atom 0 along z, one head, two channels, filters silu(1), gate biases 1, 2."""
    edges = Edges(torch.tensor([1]), torch.tensor([0]), torch.tensor([[0.0, 0.0, 1.0]]), torch.tensor([[envelope]]))
    gates = 2 if vec is None else 4
    gate_bias = torch.cat([torch.ones(gates - 2), torch.full((2,), 2.0)])
    weights = EdgeWeights(torch.zeros(4, 2), torch.ones(4), torch.zeros(gates, 2), gate_bias)
    query = torch.tensor([[1.0, 2.0], [0.0, 0.0]])
    key_value = torch.tensor([[7.0, 7.0, 7.0, 7.0], [3.0, 4.0, 5.0, 6.0]])
    feature = torch.zeros(1, 2)
    messages = pass_messages(Nodes(query, key_value, vec, None, None), feature, edges, weights, Form(1, corrected))
    assert messages.feature is None
    return messages.scalar, messages.vector


def silu(value: float) -> float:
    return value / (1 + math.exp(-value))


def test_messages_by_hand():
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
    a, b = torch.randn(1, size, 5, dtype=DOUBLE), torch.randn(1, size, 5, dtype=DOUBLE)
    direction = spherical_harmonics(units(1), lmax)
    blocks = [slice(0, 3), slice(3, 8)][:lmax] if corrected else [slice(0, size)]
    expected = rejection_by_hand(a[0], b[0], direction[0], blocks)
    torch.testing.assert_close(rejection_product(a, b, direction, Form(1, corrected))[0], expected)


def test_published_rejection_ignores_the_direction_at_lmax_two():
    """The two degrees have norm 1 each, so the published rejection cancels; the corrected one does not."""
    a, b = torch.randn(1, 8, 5, dtype=DOUBLE), torch.randn(1, 8, 5, dtype=DOUBLE)
    products = {}
    for corrected in (True, False):
        for seed in (1, 2):
            direction = spherical_harmonics(units(1, seed), 2)
            products[corrected, seed] = rejection_product(a, b, direction, Form(1, corrected))
    torch.testing.assert_close(products[False, 1], products[False, 2])
    assert (products[True, 1] - products[True, 2]).abs().max() > 0.01


def test_updated_features_by_hand():
    """One edge along z; the parts of (1, 2, 3) and (4, 5, 6) across it have the product 1 * 4 + 2 * 5 = 14."""
    edges = Edges(torch.tensor([1]), torch.tensor([0]), torch.tensor([[0.0, 0.0, 1.0]]), torch.ones(1, 1))
    weights = EdgeWeights(
        torch.zeros(3, 1), torch.tensor([0.0, 0.0, 2.0]), torch.zeros(2, 1), torch.zeros(2)
    )  # one channel
    zero = torch.zeros(2, 1)
    target_vec = torch.tensor([[[1.0], [2.0], [3.0]], [[9.0], [9.0], [9.0]]])
    source_vec = torch.tensor([[[9.0], [9.0], [9.0]], [[4.0], [5.0], [6.0]]])
    nodes = Nodes(zero, torch.zeros(2, 2), torch.zeros(2, 3, 1), target_vec, source_vec)
    messages = pass_messages(nodes, torch.tensor([[7.0]]), edges, weights, Form(1, True))
    assert messages.feature.tolist() == [[pytest.approx(7 + silu(2.0) * 14)]]


CASES = [
    pytest.param(lmax, first, updates, corrected, id=f"lmax{lmax}-{name}-{'corrected' if corrected else 'published'}")
    for lmax in (1, 2)
    for name, first, updates in (("first", True, False), ("middle", False, True), ("last", False, False))
    for corrected in (True, False)
]


@pytest.mark.parametrize(("lmax", "first", "updates", "corrected"), CASES)
def test_written_out_gradient_equals_finite_differences(lmax, first, updates, corrected):
    nodes, feature, edges, weights = random_edge_operation(
        lmax=lmax, first=first, updates=updates, num_edges=7, channels=4
    )
    form = Form(2, corrected)
    given = [t for t in (*nodes, feature, *weights) if t is not None]

    class Written(torch.autograd.Function):
        @staticmethod
        def forward(ctx, *tensors):
            ctx.save_for_backward(*tensors)
            return tuple(t for t in pass_messages(*unpacked(tensors), form) if t is not None)

        @staticmethod
        def backward(ctx, *grads):
            of_messages = Messages(*grads, *[None] * (3 - len(grads)))
            n, f, e, w = unpacked(ctx.saved_tensors)
            of_nodes, of_feature, of_weights = EAGER.gradients(n, f.__getitem__, e, w, form, of_messages)
            return tuple(t for t in (*of_nodes, of_feature, *of_weights) if t is not None)

    def unpacked(tensors):
        rest = iter(tensors)
        n = Nodes(*(None if t is None else next(rest) for t in nodes))
        return n, next(rest), edges, EdgeWeights(*rest)

    assert torch.autograd.gradcheck(Written.apply, [t.requires_grad_() for t in given])


@pytest.mark.parametrize("longest", [1, 5, 22, 23, 1000])
def test_chunks_do_not_change_the_result(longest, monkeypatch):
    nodes, feature, edges, weights = random_edge_operation(lmax=1, updates=True)
    monkeypatch.setitem(CHUNK_ELEMENTS, "cpu", longest * feature.shape[-1])
    form = Form(3, True)
    whole = pass_messages(nodes, feature, edges, weights, form)
    updated = torch.empty_like(feature)
    parts = EAGER.messages(nodes, feature.__getitem__, edges, weights, form, updated=updated)
    for one, other in zip(parts, whole, strict=True):
        torch.testing.assert_close(one, other)
    assert [len(range(*chunk.indices(23))) for chunk in chunks(23, longest)] == {
        1: [1] * 23,
        5: [4, 5, 4, 5, 5],
        22: [11, 12],
        23: [23],
        1000: [23],
    }[longest]


def test_no_edge_at_all():
    nodes, feature, edges, weights = random_edge_operation(lmax=1, updates=True, num_edges=0)
    messages = EAGER.messages(nodes, feature.__getitem__, edges, weights, Form(2, True), updated=feature)
    assert (messages.scalar == 0).all()
    assert (messages.vector == 0).all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_low_precision_keeps_sums_in_float32(dtype):
    nodes, feature, edges, weights = random_edge_operation(lmax=1, updates=True, dtype=torch.float32)
    exact = pass_messages(nodes, feature, edges, weights, Form(3, True))
    low = EdgeWeights(*(t.to(dtype) for t in weights))
    rough = pass_messages(nodes, feature.to(dtype), edges, low, Form(3, True))
    assert rough.scalar.dtype == rough.vector.dtype == torch.float32
    assert rough.feature.dtype == dtype
    for one, other in zip(rough, exact, strict=True):
        assert (one.float() - other).norm() < 0.03 * other.norm()
