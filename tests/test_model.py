from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from src.graph import Batch
from src.model import AffinityModel, ModelError, build_model
from src.visnet.recomputation import Plain
from tests.synthetic import (
    INTERACTION_CUTOFF,
    NEAR_CUTOFF,
    batch_of,
    in_double,
    random_batch,
    random_complex,
    scattered,
    tiny_settings,
    with_positions,
)

DOUBLE = torch.float64


def small_model(*, corrected: bool = True, **changes: object) -> AffinityModel:
    torch.manual_seed(0)
    return scattered(AffinityModel(tiny_settings(**changes), corrected=corrected)).double().eval()


def rotation(seed: int) -> Tensor:
    q, _ = torch.linalg.qr(torch.randn(3, 3, dtype=DOUBLE, generator=torch.Generator().manual_seed(seed)))
    return q * torch.linalg.det(q)


@pytest.mark.parametrize("lmax", [1, 2])
@pytest.mark.parametrize("norm", ["rms", "max_min", "none"])
def test_pk_does_not_change_when_a_complex_is_turned_mirrored_or_shifted(lmax, norm):
    model = small_model(lmax=lmax, vector_norm=norm)
    batch = in_double(random_batch(2, seed=2))
    pk = model(batch)
    assert pk.std() > 1e-3
    turned = replace(batch, pos=batch.pos @ rotation(1).T)
    mirrored = replace(batch, pos=batch.pos * torch.tensor([-1.0, 1.0, 1.0], dtype=DOUBLE))
    shifted = replace(batch, pos=batch.pos + 100.0)
    for moved in (turned, mirrored, shifted):
        torch.testing.assert_close(model(moved), pk, atol=1e-9, rtol=1e-9)
    torch.testing.assert_close(
        model.float()(replace(shifted, pos=shifted.pos.float(), fade=batch.fade.float())),
        pk.float(),
        atol=1e-4,
        rtol=1e-4,
    )


def test_vectors_turn_with_the_complex():
    model = small_model().representation
    batch = in_double(random_batch(1, seed=3))
    turn = rotation(2)
    _, vec = model(batch)
    _, turned = model(replace(batch, pos=batch.pos @ turn.T))
    torch.testing.assert_close(turned, torch.einsum("ab,nbf->naf", turn, vec), atol=1e-9, rtol=1e-9)


def test_pk_does_not_depend_on_the_order_of_atoms():
    model = small_model()
    batch = in_double(random_batch(1, seed=4))
    order = torch.randperm(len(batch.pos), generator=torch.Generator().manual_seed(0))
    place = torch.argsort(order)  # old index -> new index
    source, target = place[batch.source], place[batch.target]
    by_target = torch.argsort(target)
    permuted = replace(
        batch,
        features=batch.features[order],
        pos=batch.pos[order],
        fade=batch.fade[order],
        source=source[by_target],
        target=target[by_target],
        edge_kind=batch.edge_kind[by_target],
        bond_type=batch.bond_type[by_target],
        contacts=place[batch.contacts].flip(1),
    )
    torch.testing.assert_close(model(permuted), model(batch), atol=1e-10, rtol=1e-10)


def test_pk_does_not_depend_on_the_rest_of_the_batch():
    model = small_model().float()
    graphs = [random_complex(seed, 5 + 3 * seed, 30) for seed in range(4)]
    together = model(batch_of(graphs))
    alone = torch.cat([model(batch_of([graph])) for graph in graphs])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)


def test_contributions_add_up_to_the_prediction():
    model = small_model()
    model.set_label_scale(6.4, 1.8)
    batch = in_double(random_batch(3, seed=5))
    parts = model.contributions(batch)
    assert parts.pk.shape == (batch.contacts.shape[1],)
    assert torch.equal(torch.stack([parts.ligand_atom, parts.pocket_atom]), batch.contacts)
    for number, pk in enumerate(model(batch)):
        terms = parts.pk[parts.graph == number]
        assert terms.abs().sum() > 0.01
        torch.testing.assert_close(model.constant + terms.sum(), pk)


def test_every_ligand_that_has_left_gives_the_same_constant():
    model = small_model()
    pks = []
    for seed in range(3):
        graph = random_complex(seed)
        pos = graph.pos.clone()
        pos[: graph.num_ligand_atoms] += 60.0
        far = with_positions(graph, pos)
        assert far.contacts.shape[1] == 0
        pks.append(model(in_double(batch_of([far]))))
    torch.testing.assert_close(torch.cat(pks), model.constant.expand(3))


def test_complex_without_contacts_teaches_the_constant_alone():
    model = small_model()
    graph = random_complex(0)
    empty = replace(graph, contacts=graph.contacts[:, :0])
    model(in_double(batch_of([empty]))).sum().backward()
    assert model.offset.grad == 1.0
    others = [p.grad for name, p in model.named_parameters() if name != "offset" and p.grad is not None]
    assert all((gradient == 0).all() for gradient in others)


def test_untrained_model_predicts_about_the_mean_label():
    torch.manual_seed(0)
    model = build_model(tiny_settings(hidden_channels=64))
    model.set_label_scale(6.5, 2.0)
    assert (model(random_batch(3, seed=6)) - 6.5).abs().max() < 1.0


def largest_step(model: AffinityModel, kind: str) -> float:
    """Largest change of pK between positions 1e-4 Å apart while one pair crosses its cutoff."""
    graph = random_complex(11)
    graph = replace(graph, fade=torch.ones_like(graph.fade))
    pos = graph.pos.double()
    mover, other, cutoff = crossing_pair(pos, graph.num_ligand_atoms, kind)
    outward = (pos[mover] - pos[other]) / (pos[mover] - pos[other]).norm()
    pks, edges = [], set()
    with torch.no_grad():
        for offset in torch.arange(-4, 5) * 1e-4:
            moved = pos.clone()
            moved[mover] = pos[other] + outward * (cutoff + offset)
            batch = batch_of([with_positions(graph, moved)])
            pks.append(model(in_double(batch)))
            edges.add(len(batch.source))
    assert len(edges) > 1, "no edge appeared, so the test shows nothing"
    return float(torch.cat(pks).diff().abs().max())


def crossing_pair(pos: Tensor, num_ligand_atoms: int, kind: str) -> tuple[int, int, float]:
    """The pair of atoms whose distance is closest to its cutoff; the first one is to be moved."""
    distance = torch.cdist(pos, pos)
    if kind == "contact":
        gap = (distance[:num_ligand_atoms, num_ligand_atoms:] - INTERACTION_CUTOFF).abs()
        mover, other = divmod(int(gap.argmin()), gap.shape[1])
        return mover, other + num_ligand_atoms, INTERACTION_CUTOFF
    gap = (distance[num_ligand_atoms:, num_ligand_atoms:] - NEAR_CUTOFF).abs()
    mover, other = divmod(int(gap.argmin()), gap.shape[1])
    return mover + num_ligand_atoms, other + num_ligand_atoms, NEAR_CUTOFF


@pytest.mark.parametrize("lmax", [1, 2])
@pytest.mark.parametrize("kind", ["contact", "near"])
def test_pk_is_continuous_where_an_edge_appears_and_the_published_code_is_not(kind, lmax):
    smooth = largest_step(small_model(lmax=lmax), kind)
    published = largest_step(small_model(lmax=lmax, corrected=False), kind)
    assert smooth < 5e-6
    assert published > 10 * smooth


@pytest.mark.parametrize("corrected", [True, False])
def test_only_the_correction_makes_a_faded_atom_count_as_absent(corrected):
    model = small_model(corrected=corrected)
    graph = random_complex(12)
    gone = graph.num_atoms - 1
    faded = replace(graph, fade=torch.where(torch.arange(graph.num_atoms) == gone, 0.0, graph.fade))
    absent = replace(
        faded,
        **{
            name: getattr(faded, name)[:, (getattr(faded, name) != gone).all(0)]
            for name in ("protein_bonds", "near_pairs", "contacts")
        },
        **{name: getattr(faded, name)[:gone] for name in ("pos", "features", "fade")},
    )
    assert absent.num_edges < faded.num_edges
    with_faded, without = model(in_double(batch_of([faded]))), model(in_double(batch_of([absent])))
    assert torch.allclose(with_faded, without, atol=1e-10, rtol=0) is corrected


def single_atom() -> Batch:
    return batch_of([random_complex(0, num_ligand_atoms=1, num_pocket_atoms=0)])


def unknown_elements() -> Batch:
    batch = random_batch(1, seed=7)
    features = batch.features.clone()
    features[::2, 0] = 0
    return replace(batch, features=features)


def overlapping_atoms() -> Batch:
    graph = random_complex(8)
    pos = graph.pos.clone()
    pos[1] = pos[0]  # bonded ligand atoms
    pos[graph.num_ligand_atoms] = pos[2]  # ligand and pocket
    pos[graph.num_ligand_atoms + 2] = pos[graph.num_ligand_atoms + 3] + 1e-20
    return batch_of([with_positions(graph, pos)])


@pytest.mark.fault("D16")
@pytest.mark.parametrize("make", [single_atom, unknown_elements, overlapping_atoms])
@pytest.mark.parametrize("norm", ["rms", "max_min", "none"])
def test_odd_input_gives_finite_pk_and_gradients(make, norm):
    model = small_model(vector_norm=norm, lmax=2).float()
    batch = make()
    batch = replace(batch, pos=batch.pos.requires_grad_())
    pk = model(batch)
    pk.sum().backward()
    assert torch.isfinite(pk).all()
    gradients = [p.grad for p in model.parameters() if p.grad is not None] + [batch.pos.grad]
    assert all(torch.isfinite(gradient).all() for gradient in gradients if gradient is not None)


def train(model: AffinityModel, batch: Batch, *, steps: int, rate: float, clip: float, dtype=torch.float32) -> float:
    """Adam on one batch; returns the last loss, in units of the labels' standard deviation."""
    optimizer = torch.optim.Adam(model.parameters(), lr=rate, eps=1e-7)
    for _ in range(steps):
        optimizer.zero_grad()
        with torch.autocast("cpu", dtype=dtype, enabled=dtype != torch.float32):
            pk = model(batch)
        loss = ((pk - batch.pk) / model.pk_scale).square().mean()
        loss.backward()
        norm = nn.utils.clip_grad_norm_(model.parameters(), clip)
        assert torch.isfinite(norm), "the gradient is not finite"
        optimizer.step()
    return float(loss.detach())


def test_overfits_eight_complexes():
    torch.manual_seed(0)
    model = build_model(tiny_settings(hidden_channels=32))
    batch = random_batch(8, seed=9, num_ligand_atoms=8, num_pocket_atoms=16)
    model.set_label_scale(float(batch.pk.mean()), float(batch.pk.std()))
    train(model, batch, steps=120, rate=1e-3, clip=10.0)
    with torch.no_grad():
        assert (model.eval()(batch) - batch.pk).square().mean().sqrt() < 0.1


@pytest.mark.parametrize("steps", [100, pytest.param(500, marks=pytest.mark.slow)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_many_steps_at_a_high_rate_stay_finite(dtype, steps):
    torch.manual_seed(0)
    model = build_model(tiny_settings(num_layers=4))
    batch = random_batch(4, seed=10, num_ligand_atoms=8, num_pocket_atoms=20)
    model.set_label_scale(6.0, 1.5)
    loss = train(model, batch, steps=steps, rate=5e-3, clip=10.0, dtype=dtype)
    assert loss < 1.0
    assert all(torch.isfinite(parameter).all() for parameter in model.parameters())


def layer_outputs(layer, x, vec, feature, edges):
    """Changes of scalars, vectors and features."""
    run = Plain(lambda _x: feature, x, edges)
    return *run(layer, x, vec), run.feature - feature


@pytest.mark.parametrize("norm", ["rms", "max_min"])
def test_a_norm_bounds_what_grown_vectors_do(norm):
    """A hundredfold vector changes products of vectors ten-thousandfold unless it is normed."""
    edges, *_ = small_model().representation._edges(batch := in_double(random_batch(1, seed=18)), remakes_rows=False)
    draw = torch.Generator().manual_seed(0)
    x, vec, feature = (
        torch.randn(*shape, 16, dtype=DOUBLE, generator=draw)
        for shape in ((len(batch.pos),), (len(batch.pos), 3), (len(batch.source),))
    )
    growth = {}
    for kind in (norm, "none"):
        layer = small_model(vector_norm=kind).representation.layers[1]
        small, large = (layer_outputs(layer, x, scale * vec, feature, edges) for scale in (1, 100))
        growth[kind] = max(float((b.norm() / a.norm()).detach()) for a, b in zip(small, large, strict=True))
    assert growth[norm] < 1.1
    assert growth["none"] > 50


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_low_precision_keeps_residuals_and_sums_in_float32(dtype):
    model = small_model().float()
    batch = random_batch(2, seed=13)
    with torch.autocast("cpu", dtype=dtype):
        x, vec = model.representation(batch)
        pk = model(batch)
    assert (x.dtype, vec.dtype, pk.dtype) == (torch.float32,) * 3
    torch.testing.assert_close(pk, model(batch), atol=0.05, rtol=0.05)
    pk.sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


def test_dropout_acts_in_training_only():
    torch.manual_seed(0)
    model = scattered(build_model(tiny_settings(dropout=0.5)))
    batch = random_batch(1, seed=14)
    assert model(batch) != model(batch)
    model.eval()
    assert model(batch) == model(batch)


def test_every_parameter_learns_and_none_is_a_batch_norm():
    model = scattered(build_model(tiny_settings(num_layers=4)))
    assert not any("BatchNorm" in type(module).__name__ for module in model.modules())
    model(random_batch(2, seed=15)).sum().backward()
    idle = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert idle == []


def test_state_dict_round_trip(tmp_path):
    model = scattered(build_model(tiny_settings()))
    model.set_label_scale(6.1, 1.7)
    torch.save(model.state_dict(), tmp_path / "weights.pt")
    other = build_model(tiny_settings())
    other.load_state_dict(torch.load(tmp_path / "weights.pt", weights_only=True))
    batch = random_batch(2, seed=16)
    assert torch.equal(model(batch), other(batch))
    assert other.pk_constant == pytest.approx(6.1)


class Forbidden(TorchDispatchMode):
    """Fails on every operation that makes the host wait for the device."""

    waits = ("_local_scalar_dense", "nonzero", "masked_select", "is_nonzero", "equal.default", "unique")

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
        name = str(function)
        assert not any(word in name for word in self.waits), name
        if "index" in name and len(arguments) > 1 and isinstance(arguments[1], (list, tuple)):
            assert not any(isinstance(a, Tensor) and a.dtype == torch.bool for a in arguments[1]), name
        return function(*arguments, **(keywords or {}))


def test_forbidden_sees_waits():
    for wait in (
        lambda t: t.sum().item(),
        lambda t: t[t > 0],
        lambda t: torch.nonzero(t),
        lambda t: bool(t.any()),
    ):
        with pytest.raises(AssertionError), Forbidden():
            wait(torch.ones(2))


@pytest.mark.parametrize("norm", ["rms", "max_min"])
def test_forward_and_backward_never_wait_for_the_device(norm):
    model = build_model(tiny_settings(lmax=2, vector_norm=norm, dropout=0.1))
    batch = random_batch(2, seed=17)
    with Forbidden():
        model(batch).sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"lmax": 3}, "lmax"),
        ({"vector_norm": "batch"}, "max_min"),
        ({"num_layers": 0}, "num_layers"),
        ({"num_rbf": 1}, "num_rbf"),
    ],
)
def test_settings_that_do_not_fit_are_named(changes, word):
    with pytest.raises(ModelError, match=word):
        build_model(tiny_settings(**changes))


@pytest.mark.parametrize(("mean", "std"), [(6.0, 0.0), (6.0, float("nan")), (float("inf"), 1.0), (6.0, -1.0)])
def test_label_scale_must_be_one(mean, std):
    with pytest.raises(ModelError, match="label scale"):
        build_model(tiny_settings()).set_label_scale(mean, std)


def test_an_untrained_model_starts_from_the_line_of_pk_against_contacts() -> None:
    model = build_model(tiny_settings())
    batch = random_batch(6, seed=3)
    with torch.no_grad():
        model.readout.last.weight.zero_()
    count = torch.zeros(6).index_add_(0, batch.graph_of_atom[batch.contacts[0]], model.contact_weights(batch))
    model.fit_label_scale([replace(batch, pk=2.0 + 0.05 * count)])
    torch.testing.assert_close(model(batch), 2.0 + 0.05 * count, atol=1e-3, rtol=0)
    assert model.constant.item() == pytest.approx(2.0, abs=1e-3)


def test_labels_that_are_all_alike_give_a_usable_scale() -> None:
    model = build_model(tiny_settings())
    batch = random_batch(2, seed=3)
    model.fit_label_scale([replace(batch, pk=torch.tensor([6.0, 6.0]))])
    assert model.pk_scale > 0
    assert model.pk_per_contact == 0
    assert torch.isfinite(model(batch)).all()
