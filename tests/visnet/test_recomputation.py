from collections import Counter

import pytest
import torch
from torch import Tensor

from src.graph import Batch
from src.model import ViSNet, build_model
from src.visnet.chunked_kernels import CHUNK_ELEMENTS
from src.visnet.edge_rows import EdgeRows
from src.visnet.geometry import spherical_harmonics
from src.visnet.message_passing import Edges
from src.visnet.recomputation import MODES
from tests.synthetic import batch_of, in_double, random_batch, random_complex, scattered, tiny_settings

WRITTEN_OUT = sorted(set(MODES) - {"plain"})
DOUBLE = torch.float64


@pytest.fixture(autouse=True)
def short_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(CHUNK_ELEMENTS, "cpu", 37 * 16)  # 37 edges of 16 channels


def outputs_and_gradients(model: ViSNet, batch: Batch, mode: str) -> list[Tensor]:
    model.message_passing = mode
    model.zero_grad()
    torch.manual_seed(5)  # of dropout
    outputs = model(batch)
    draw = torch.Generator().manual_seed(1)
    sum((out * torch.randn(out.shape, dtype=out.dtype, generator=draw)).sum() for out in outputs).backward()
    gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in model.parameters()]
    return [*(out.detach() for out in outputs), *gradients]


def largest_error(ours: list[Tensor], theirs: list[Tensor]) -> float:
    """Of the outputs and of the gradients, relative to the largest element of each group."""
    errors = []
    for group in (slice(0, 2), slice(2, None)):
        scale = max(float(tensor.abs().max()) for tensor in theirs[group])
        errors += [float((a - b).abs().max()) / scale for a, b in zip(ours[group], theirs[group], strict=True)]
    return max(errors)


@pytest.mark.parametrize("mode", WRITTEN_OUT)
@pytest.mark.parametrize("corrected", [True, False])
@pytest.mark.parametrize(
    ("lmax", "num_layers", "norm"), [(1, 1, "rms"), (1, 2, "rms"), (1, 5, "max_min"), (2, 4, "rms")]
)
def test_no_mode_changes_outputs_or_gradients(mode, corrected, lmax, num_layers, norm):
    settings = tiny_settings(lmax=lmax, num_layers=num_layers, vector_norm=norm, dropout=0.2)
    model = scattered(ViSNet(settings, corrected=corrected)).to(DOUBLE)
    batch = in_double(random_batch(2, seed=3))
    plain = outputs_and_gradients(model, batch, "plain")
    assert all(float(gradient.abs().max()) > 0 for gradient in plain[2:])
    assert largest_error(outputs_and_gradients(model, batch, mode), plain) < 1e-12


@pytest.mark.parametrize("mode", WRITTEN_OUT)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.bfloat16, 0.1), (torch.float16, 0.01)])
def test_mixed_precision_is_as_near_to_full_precision_as_autograd_is(mode, dtype, tolerance):
    model = scattered(ViSNet(tiny_settings(num_layers=4)))
    batch = random_batch(2, seed=3)
    exact = outputs_and_gradients(model, batch, "plain")
    with torch.autocast("cpu", dtype):
        rough, by_autograd = (outputs_and_gradients(model, batch, one) for one in (mode, "plain"))
    assert all(tensor.dtype == torch.float32 for tensor in rough)
    assert 1e-6 < largest_error(rough, exact) < min(tolerance, 1.5 * largest_error(by_autograd, exact))


@pytest.mark.parametrize("mode", WRITTEN_OUT)
def test_precision_of_the_backward_pass_is_that_of_the_forward_pass(mode):
    """As in training: backward() is called outside of autocast."""
    model, batch = scattered(ViSNet(tiny_settings())), random_batch(1, seed=3)
    results = []
    for inside in (True, False):
        model.zero_grad()
        model.message_passing = mode
        with torch.autocast("cpu", torch.bfloat16):
            loss = sum(out.square().sum() for out in model(batch))
            if inside:
                loss.backward()
        if not inside:
            loss.backward()
        results.append([p.grad.clone() for p in model.parameters() if p.grad is not None])
    for one, other in zip(*results, strict=True):
        assert torch.equal(one, other)


def saved_shapes(model: ViSNet, batch: Batch, mode: str) -> list[tuple[int, ...]]:
    shapes = []

    def keep(tensor: Tensor) -> Tensor:
        if tensor.untyped_storage().nbytes() >= tensor.numel() * tensor.element_size():  # no stand-in
            shapes.append(tuple(tensor.shape))
        return tensor

    model.message_passing = mode
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        model(batch)
    return shapes


def test_what_is_kept():
    """Edges: of 16 channels, 8 radial functions, and in `keep` 3 and 2 times the channels for the products."""
    model, batch = ViSNet(tiny_settings(num_layers=5)), random_batch(1, seed=3)
    num_edges = len(batch.source)
    of_features = (num_edges, 16)
    assert set(saved_shapes(model, batch, "fast")).issuperset({of_features})
    assert of_features not in saved_shapes(model, batch, "lean")
    wide_rows = [shape for shape in saved_shapes(model, batch, "plain") if shape[0] == num_edges and len(shape) > 1]
    assert len(wide_rows) > 50
    for mode, more in {"fast": set(), "lean": set(), "keep": {(num_edges, 8)}}.items():
        kept = {shape for shape in saved_shapes(model, batch, mode) if shape[0] == num_edges}
        assert kept <= {of_features, (num_edges,), (num_edges, 1), (num_edges, 3)} | more
    of_chunks = Counter(shape[1:] for shape in saved_shapes(model, batch, "keep") if shape[0] in (36, 37))
    num_chunks = -(-num_edges // 37)
    # Filters of three layers that update the features and two that do not, whose 32 are also the gates of four layers.
    assert of_chunks == {(48,): 3 * num_chunks, (32,): (2 + 4) * num_chunks, (16,): (1 + 5) * num_chunks}


@pytest.mark.parametrize("mode", WRITTEN_OUT)
def test_gradients_of_positions_take_the_plain_road(mode):
    batch = in_double(random_batch(1, seed=3))
    batch.pos.requires_grad_()
    model = scattered(ViSNet(tiny_settings())).to(DOUBLE)
    gradients = []
    for one in ("plain", mode):
        model.message_passing = one
        x, vec = model(batch)
        gradients += torch.autograd.grad(x.square().sum() + vec.square().sum(), batch.pos)
    assert gradients[0].abs().max() > 0
    assert torch.equal(*gradients)


@pytest.mark.parametrize("mode", sorted(MODES))
def test_sums_at_targets_by_hand(mode):
    edges = Edges(torch.tensor([1, 2, 0]), torch.tensor([0, 0, 2]), torch.zeros(3, 3), torch.ones(3, 1))
    basis = torch.tensor([[1.0], [2.0], [5.0]]).__getitem__
    weight, by_kind = torch.nn.Linear(1, 1), torch.nn.Embedding(2, 1)
    for parameter, value in zip((weight.weight, weight.bias, by_kind.weight), (2.0, -3.0, 3.0), strict=True):
        torch.nn.init.constant_(parameter, value)  # filters are 2, 4 and 10
    rows = EdgeRows(edges, basis, torch.tensor([0, 1, 1]), weight, by_kind, of_both_ends=False)
    x = torch.tensor([[3.0], [4.0], [10.0]], requires_grad=True)
    total = MODES[mode].summed(rows, x, edges.target)
    assert total.tolist() == [[4 * 2 + 10 * 4], [0.0], [3 * 10]]
    (total * torch.tensor([[1.0], [1.0], [7.0]])).sum().backward()
    assert x.grad.tolist() == [[10 * 7], [2.0], [4.0]]
    assert weight.weight.grad.item() == 4 * 1 + 10 * 2 + 3 * 7 * 5
    assert weight.bias.grad.item() == 4 + 10 + 3 * 7
    assert by_kind.weight.grad.tolist() == [[4.0], [10 + 3 * 7]]


@pytest.mark.parametrize("mode", sorted(MODES))
def test_complexes_do_not_see_each_other(mode):
    model = scattered(build_model(tiny_settings(num_layers=4))).eval()
    model.representation.message_passing = mode
    graphs = [random_complex(seed) for seed in (1, 2, 3)]
    with torch.no_grad():
        together = model(batch_of(graphs))
        alone = torch.cat([model(batch_of([graph])) for graph in graphs])
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("mode", sorted(MODES))
@pytest.mark.parametrize("lmax", [1, 2])
def test_a_batch_without_edges(mode, lmax):
    batch = batch_of([random_complex(1, num_ligand_atoms=1, num_pocket_atoms=0)])
    model = ViSNet(tiny_settings(lmax=lmax))
    model.message_passing = mode
    x, vec = model(batch)
    (x.sum() + vec.sum()).backward()
    assert x.shape == (1, 16)
    assert vec.shape == (1, spherical_harmonics(torch.ones(1, 3), lmax).shape[-1], 16)
    assert torch.isfinite(x).all()


@pytest.mark.parametrize("mode", WRITTEN_OUT)
def test_frozen_weights_get_no_gradient_and_the_others_the_same(mode):
    model, batch = scattered(ViSNet(tiny_settings(num_layers=4))).to(DOUBLE), in_double(random_batch(1, seed=3))
    whole = outputs_and_gradients(model, batch, mode)
    for parameter in model.layers[1].parameters():
        parameter.requires_grad_(False)
    frozen = outputs_and_gradients(model, batch, mode)
    for parameter, with_all, without in zip(model.parameters(), whole[2:], frozen[2:], strict=True):
        torch.testing.assert_close(without, with_all if parameter.requires_grad else torch.zeros_like(without))
