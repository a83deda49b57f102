"""The process against its formulas written out in float64, and the promises that hold for every model here."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation
from torch import Tensor

from src.checkpoint import CheckpointError
from src.gaussian_process import process as gaussian_process
from src.gaussian_process.likenesses import shared_bits
from src.gaussian_process.process import (
    NOISE,
    PATH_POINTS,
    GaussianProcess,
    environment_bits,
    fit_gaussian_process,
    read_process,
    saturation,
)
from src.gaussian_process.profiles import ContactProfiles, contact_profiles
from src.graph import Batch
from src.visnet.readout import contact_weights
from tests.synthetic import INTERACTION_CUTOFF, batch_of, random_batch, random_complex, with_positions


@pytest.fixture(scope="module")
def batches() -> list[Batch]:
    return [random_batch(10, seed, num_ligand_atoms=12, num_pocket_atoms=40) for seed in (1, 2, 3)]


@pytest.fixture(scope="module")
def process(batches: list[Batch]) -> GaussianProcess:
    return fit_gaussian_process(batches, INTERACTION_CUTOFF)


def predict(process: GaussianProcess, batch: Batch) -> Tensor:
    with torch.no_grad():
        return process(batch)


def profiles_of(batches: list[Batch]) -> ContactProfiles:
    parts = [contact_profiles(batch, contact_weights(batch, INTERACTION_CUTOFF)) for batch in batches]
    return ContactProfiles(*map(torch.cat, zip(*parts, strict=True)))


def standardised(block: np.ndarray, of: np.ndarray) -> np.ndarray:
    kept = ((of > 0.01).mean(0) > 0.01) & (np.log1p(of).std(0) > 1e-6)
    logs, known = np.log1p(block[:, kept]), np.log1p(of[:, kept])
    return 4 * np.tanh((logs - known.mean(0)) / known.std(0) / 4)


def kernel_by_hand(one: ContactProfiles, known: ContactProfiles) -> np.ndarray:
    """[G, n] in float64, pair by pair."""
    one, known = (ContactProfiles(*(part.double().numpy() for part in side)) for side in (one, known))
    kinds = [lambda p: p.contacts, lambda p: p.residues.reshape(len(p.total), -1), lambda p: p.atoms]
    near = np.zeros((len(one.total), len(known.total)))
    for kind in kinds:
        a, b = standardised(kind(one), kind(known)), standardised(kind(known), kind(known))
        near += ((a[:, None] - b[None]) ** 2).mean(-1) / 3
    a, b = (standardised(side.residues.sum(-1), known.residues.sum(-1)) for side in (one, known))
    residues = ((a[:, None] - b[None]) ** 2).mean(-1)
    tanimoto = np.zeros_like(near)
    for i, ours in enumerate(one.environments):
        for j, theirs in enumerate(known.environments):
            shared = sum(((ours > level) & (theirs > level)).sum() for level in (0, 1, 3))
            either = sum(((ours > level) | (theirs > level)).sum() for level in (0, 1, 3))
            tanimoto[i, j] = shared / max(either, 1)
    return np.exp(-near) + tanimoto * (1 + np.exp(-residues))


@pytest.mark.parametrize("weight", [1.0, 0.25])
def test_the_prediction_is_that_of_the_formula(batches: list[Batch], weight: float) -> None:
    """The noise of a label is the larger the less it counts."""
    batches = [replace(batches[0], weight=torch.full_like(batches[0].weight, weight)), *batches[1:]]
    process = fit_gaussian_process(batches, INTERACTION_CUTOFF)
    noise = NOISE / torch.cat([batch.weight for batch in batches]).double().numpy()
    train, new = profiles_of(batches), random_batch(5, 9, num_ligand_atoms=12, num_pocket_atoms=40)
    pk = torch.cat([batch.pk for batch in batches]).double().numpy()
    slope, intercept = np.polyfit(train.total.double().numpy(), pk, 1)
    asked, counts = profiles_of([new]), train.total.double().numpy()
    s, s_new = (saturation(one.total).double().numpy() for one in (train, asked))
    covariance = kernel_by_hand(train, train) * s[:, None] * s + np.diag(noise)
    weights = np.linalg.solve(covariance, pk - intercept - slope * counts)
    expected = intercept + slope * asked.total.double().numpy()
    expected += s_new * (kernel_by_hand(asked, train) @ (s * weights))
    assert predict(process, new).numpy() == pytest.approx(expected, abs=5e-3)  # references are stored as int8


def test_it_remembers_what_it_was_trained_on(batches: list[Batch], process: GaussianProcess) -> None:
    found = predict(process, batches[0])
    line = process.intercept + process.slope * profiles_of([batches[0]]).total
    assert (found - batches[0].pk).abs().mean() < 0.4 * (line - batches[0].pk).abs().mean()


def test_many_complexes_go_through_fewer_references(batches: list[Batch], monkeypatch: pytest.MonkeyPatch) -> None:
    """With as many references as complexes the two forms are one; in runs of any length."""
    whole = fit_gaussian_process(batches, INTERACTION_CUTOFF)
    new = random_batch(5, 9, num_ligand_atoms=12, num_pocket_atoms=40)
    monkeypatch.setattr(gaussian_process, "ROWS_AT_A_TIME", 7)
    monkeypatch.setattr(gaussian_process, "MAX_REFERENCES", 29)
    nearly = fit_gaussian_process(batches, INTERACTION_CUTOFF)
    assert len(nearly.weights) == 29
    assert predict(nearly, new).numpy() == pytest.approx(predict(whole, new).numpy(), abs=0.3)
    monkeypatch.setattr(gaussian_process, "MAX_REFERENCES", 10)
    few = fit_gaussian_process(batches, INTERACTION_CUTOFF)
    assert len(few.weights) == 10
    rest = torch.cat([batch.pk - predict(few, batch) for batch in batches])
    assert rest.std() < torch.cat([batch.pk for batch in batches]).std()


def test_near_copies_among_the_references_do_no_harm(monkeypatch: pytest.MonkeyPatch) -> None:
    graphs = [random_complex(seed, num_ligand_atoms=12, num_pocket_atoms=40) for seed in range(20)]
    draw = torch.Generator().manual_seed(0)
    copies = [replace(g, pos=g.pos + 1e-4 * torch.randn(g.pos.shape, generator=draw)) for g in graphs for _ in range(3)]
    monkeypatch.setattr(gaussian_process, "MAX_REFERENCES", 40)
    batch = batch_of(copies, 6 + torch.randn(20, generator=draw).repeat_interleave(3))
    process = fit_gaussian_process([batch], INTERACTION_CUTOFF)
    assert process.weights.abs().max() < 100
    alone = torch.cat([predict(process, batch_of([graph])) for graph in graphs[:8]])
    assert torch.allclose(predict(process, batch_of(graphs[:8])), alone, atol=1e-5)


def test_the_subset_of_regressors_is_that_of_the_formula(batches: list[Batch], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gaussian_process, "ROWS_AT_A_TIME", 7)
    draw = np.random.default_rng(0)
    at = draw.normal(size=(20, 3))
    covariance = np.exp(-((at[:, None] - at[None]) ** 2).sum(-1))
    target, chosen = draw.normal(size=20), np.array([1, 4, 5, 11, 19])
    rows = torch.from_numpy(covariance[:, chosen])
    weight = draw.uniform(0.2, 1, size=20)
    told = (torch.from_numpy(values) for values in (target, weight, chosen))
    found = gaussian_process._solve(lambda part: rows[part].clone(), *told)
    k_mn, k_mm = covariance[chosen], covariance[np.ix_(chosen, chosen)]
    inverse_noise = k_mn * weight
    expected = np.linalg.solve(inverse_noise @ k_mn.T + NOISE * k_mm, inverse_noise @ target)
    assert found.numpy() == pytest.approx(expected, rel=1e-4)


def test_turning_reordering_and_the_batch_change_nothing(process: GaussianProcess) -> None:
    graphs = [random_complex(seed, num_ligand_atoms=12, num_pocket_atoms=40) for seed in range(50, 58)]
    turn = torch.from_numpy(Rotation.random(random_state=1).as_matrix()).float()
    together = predict(process, batch_of(graphs))
    alone = torch.cat([predict(process, batch_of([graph])) for graph in graphs])
    turned = predict(process, batch_of([replace(graph, pos=graph.pos @ turn.T) for graph in graphs]))
    assert torch.allclose(together, alone, atol=1e-5)
    assert torch.allclose(together, turned, atol=1e-4)


def test_a_ligand_that_leaves_has_the_intercept(process: GaussianProcess) -> None:
    graph = random_complex(50, num_ligand_atoms=12, num_pocket_atoms=40)
    away = graph.pos.clone()
    away[:12] += torch.tensor([100.0, 0.0, 0.0])
    assert predict(process, batch_of([with_positions(graph, away)])).item() == pytest.approx(process.intercept)
    nothing = with_positions(random_complex(3, num_ligand_atoms=5, num_pocket_atoms=0), torch.randn(5, 3))
    assert predict(process, batch_of([nothing])).item() == pytest.approx(process.intercept)


def test_contributions_add_up_and_are_those_of_the_contacts(process: GaussianProcess) -> None:
    batch = random_batch(4, 11, num_ligand_atoms=12, num_pocket_atoms=40)
    with torch.no_grad():
        terms = process.contributions(batch)
    total = torch.zeros(4).index_add_(0, batch.graph_of_contact, terms)
    assert torch.allclose(total + process.intercept, predict(process, batch), atol=1e-4)
    nearly_nothing = contact_weights(batch, INTERACTION_CUTOFF) < 1e-4
    assert terms.abs().max() > 0.01
    assert nearly_nothing.any()
    assert terms[nearly_nothing].abs().max() < 1e-3


def test_contributions_are_integrals_along_the_way_on_which_contacts_grow(process: GaussianProcess) -> None:
    batch = random_batch(3, 11, num_ligand_atoms=12, num_pocket_atoms=40)
    weights = contact_weights(batch, INTERACTION_CUTOFF)
    expected = process.slope * weights
    for point, length in zip(*np.polynomial.legendre.leggauss(PATH_POINTS), strict=True):
        scale = torch.full_like(weights, (point + 1) / 2).requires_grad_()
        profiles = contact_profiles(batch, scale * weights)
        added = saturation(profiles.total) * process.weigh(process.likenesses(profiles))
        expected = expected + length / 2 * torch.autograd.grad(added.sum(), scale)[0]
    torch.testing.assert_close(process.contributions(batch), expected, rtol=1e-5, atol=1e-6)


def test_it_is_read_as_it_was_written(process: GaussianProcess) -> None:
    batch = random_batch(4, 11, num_ligand_atoms=12, num_pocket_atoms=40)
    again = read_process(process.state_facts())
    assert torch.equal(predict(again, batch), predict(process, batch))
    assert read_process(None) is None
    assert not process.state_dict()  # the network's names of weights stay as they are


def test_environments_are_kept_as_bits(process: GaussianProcess, batches: list[Batch]) -> None:
    bits = environment_bits(profiles_of(batches))
    assert torch.equal(process.environments.t(), bits)
    assert process.state_facts()["environments"].numel() * 8 == bits.numel()


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("weights", lambda t: t[:-1]),
        ("weights", lambda t: t[0]),
        ("columns", lambda t: t[0]),
        ("weights", lambda t: t * float("nan")),
        ("references", lambda t: t[:, :-1]),
        ("references", lambda t: t.float()),
        ("columns", lambda t: t + 10_000),
        ("columns", lambda t: t - 10_000),
        ("deviation", lambda t: t * 0),
        ("environments", lambda t: t[:, :-1]),
        ("intercept", lambda _: "six"),
        ("slope", lambda _: float("inf")),
        ("cutoff", lambda _: 0.0),
        ("num_residue_columns", lambda _: 10_000),
        ("mean", lambda _: None),
    ],
)
def test_what_is_not_a_process_is_refused(process: GaussianProcess, name: str, change: object) -> None:
    stored = process.state_facts()
    with pytest.raises(CheckpointError, match="Gaussian process"):
        read_process({**stored, name: change(stored[name])})


def test_more_references_than_this_program_writes_are_refused(
    process: GaussianProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gaussian_process, "MAX_REFERENCES", 3)
    with pytest.raises(CheckpointError, match="Gaussian process"):
        read_process(process.state_facts())


@pytest.mark.parametrize("count", [1, 2])
def test_hardly_any_complexes_are_enough(count: int) -> None:
    batch = random_batch(count, 5)
    few = fit_gaussian_process([batch], INTERACTION_CUTOFF)
    assert torch.isfinite(predict(few, random_batch(3, 6))).all()
    assert len(few.weights) == count


def test_added_rows_of_bits_are_the_product_that_a_gpu_takes(process: GaussianProcess, batches: list[Batch]) -> None:
    profiles = contact_profiles(batches[0], contact_weights(batches[0], INTERACTION_CUTOFF))
    bits = environment_bits(profiles)
    assert torch.equal(shared_bits(bits, process.environments), bits @ process.environments)
