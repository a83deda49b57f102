"""What measured ligands add: the closed form, bounds by numerical integration, and the promises of every score."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation
from scipy.stats import norm, t
from torch import Tensor

from src.checkpoint import CheckpointError
from src.gaussian_process.joined_model import JUDGED, JoinedModel
from src.gaussian_process.known_ligands import SAME_SERIES, KnownLigands, condition, read_known_ligands
from src.gaussian_process.likenesses import Likenesses, saturation
from src.gaussian_process.process import GaussianProcess, fit_gaussian_process
from src.gaussian_process.profiles import LabelledProfiles, labelled_profiles
from src.gaussian_process.series import USUAL
from src.model import build_model
from tests.synthetic import (
    INTERACTION_CUTOFF,
    batch_of,
    random_batch,
    random_complex,
    scattered,
    tiny_settings,
    with_positions,
)

SIZES = {"num_ligand_atoms": 12, "num_pocket_atoms": 40}
MEASURED = [random_complex(seed, **SIZES) for seed in (70, 71, 72, 73)]
ERRORS = np.array([1.0, -0.5, 0.8, 2.0])
NEW = [random_complex(seed, **SIZES) for seed in (70, 90, 91)]  # the first is measured


@pytest.fixture(scope="module")
def process() -> GaussianProcess:
    return fit_gaussian_process([random_batch(20, 1, **SIZES)], INTERACTION_CUTOFF)


@pytest.fixture(scope="module")
def measured() -> LabelledProfiles:
    return labelled_profiles([batch_of(MEASURED, torch.zeros(4))], INTERACTION_CUTOFF)


def conditioned(process: GaussianProcess, known: LabelledProfiles, errors: object, bounds: object = 0) -> KnownLigands:
    errors = np.array(errors, dtype=float)
    return condition(process, USUAL, known, errors, np.broadcast_to(bounds, errors.shape))


def told(known: KnownLigands, graphs: list) -> tuple[np.ndarray, np.ndarray]:
    """What is added, pK, and the narrowing."""
    with torch.no_grad():
        profiles = known.profiles(batch_of(graphs))
        likenesses = known.likenesses(profiles)
        return known.predict(profiles, likenesses).numpy(), known.narrowing(profiles, likenesses).numpy()


def covariances(known: KnownLigands, process: GaussianProcess, graphs: list) -> tuple[np.ndarray, np.ndarray]:
    """With the measured ligands and among them, [G, k] and [k, k], by the formula of the prior."""
    with torch.no_grad():
        profiles = process.profiles(batch_of(graphs))
        ours, among = known.likenesses(profiles), known.likenesses(process.profiles(batch_of(MEASURED)))
        s, at = (saturation(one.total).double().numpy() for one in (profiles, process.profiles(batch_of(MEASURED))))

    def covariance(likenesses: Likenesses, left: np.ndarray) -> np.ndarray:
        kernel, pockets = likenesses.kernel.double().numpy(), likenesses.residues.double().numpy()
        return np.outer(left, at) * (USUAL.shared * kernel + USUAL.offset * pockets**USUAL.sharpness)

    return covariance(ours, s), covariance(among, at)


def test_exact_values_give_the_mean_and_variance_of_a_gaussian_process(
    process: GaussianProcess, measured: LabelledProfiles
) -> None:
    known = conditioned(process, measured, ERRORS)
    added, narrowing = told(known, NEW)
    to_known, among = covariances(known, process, NEW)
    inverse = np.linalg.inv(among + USUAL.noise * np.eye(4))
    assert added == pytest.approx(to_known @ inverse @ ERRORS, abs=1e-3)
    with torch.no_grad():
        profiles = process.profiles(batch_of(NEW))
        likeness, nearest = known.likenesses(profiles).residues.max(1)
    s = saturation(profiles.total).double().numpy()
    before = s**2 * (3 * USUAL.shared + USUAL.offset) + USUAL.noise
    after = before - np.einsum("gk,kl,gl->g", to_known, inverse, to_known)
    width = known.widths.numpy()[nearest.numpy()] ** (s * np.minimum(likeness.numpy() / SAME_SERIES, 1))
    assert narrowing == pytest.approx(width * np.sqrt(after / before), abs=1e-3)


def test_a_measured_ligand_moves_most_of_the_way_to_its_value(
    process: GaussianProcess, measured: LabelledProfiles
) -> None:
    one = measured.of(torch.tensor([0]))
    added, _ = told(conditioned(process, one, [2.0]), NEW)
    assert 1.0 < added[0] < 2.0
    assert abs(added[1]) < added[0]


@pytest.mark.parametrize("bound", [-1, 1])
def test_a_bound_that_holds_changes_nearly_nothing_and_one_that_does_not_pulls(
    process: GaussianProcess, measured: LabelledProfiles, bound: int
) -> None:
    one = measured.of(torch.tensor([0]))
    held, _ = told(conditioned(process, one, [-6.0 * bound], bound), NEW)
    assert np.abs(held).max() < 0.02
    broken, _ = told(conditioned(process, one, [2.0 * bound], bound), NEW)
    assert bound * broken[0] > 1.0


@pytest.mark.parametrize("error", [-1.0, 0.0, 1.0, 3.0])
@pytest.mark.parametrize("bound", [-1, 1])
def test_one_bound_is_that_of_numerical_integration(
    process: GaussianProcess, measured: LabelledProfiles, error: float, bound: int
) -> None:
    """Laplace's approximation has the mode of the posterior where the integral has its mean."""
    known = conditioned(process, measured.of(torch.tensor([0])), [error], bound)
    added, _ = told(known, MEASURED[:1])
    variance = covariances(known, process, MEASURED[:1])[1][0, 0]
    at = np.linspace(-12, 12, 20_001)
    density = norm.pdf(at, 0, math.sqrt(variance)) * norm.cdf(bound * (at - error) / math.sqrt(USUAL.noise))
    assert added[0] == pytest.approx(at[density.argmax()], abs=0.01)
    assert added[0] == pytest.approx((at * density).sum() / density.sum(), abs=0.3)


def test_far_from_all_measured_ligands_nothing_changes(process: GaussianProcess, measured: LabelledProfiles) -> None:
    away = NEW[1].pos.clone()
    away[:12] += torch.tensor([100.0, 0.0, 0.0])
    added, narrowing = told(conditioned(process, measured, ERRORS), [with_positions(NEW[1], away)])
    assert added == pytest.approx([0.0], abs=1e-6)
    assert narrowing == pytest.approx([1.0], abs=1e-6)


def test_small_errors_make_the_interval_of_a_series_narrower_and_large_ones_wider(
    process: GaussianProcess, measured: LabelledProfiles
) -> None:
    small, large = (conditioned(process, measured, factor * np.ones(4)) for factor in (0.05, 10.0))
    assert told(small, MEASURED)[1].max() < 1
    assert (told(large, MEASURED)[1] > 1.5 * told(small, MEASURED)[1]).all()


def test_the_width_of_one_value_by_hand(process: GaussianProcess, measured: LabelledProfiles) -> None:
    known = conditioned(process, measured.of(torch.tensor([0])), [1.5])
    variance, freedom = covariances(known, process, MEASURED[:1])[1][0, 0] + USUAL.noise, USUAL.freedom
    size = math.sqrt((freedom + 1.5**2 / variance) / (freedom + 1))
    assert known.widths.item() == pytest.approx(size * t.ppf(0.95, freedom + 1) / t.ppf(0.95, freedom), rel=1e-3)


def test_two_series_do_not_widen_each_other(process: GaussianProcess, measured: LabelledProfiles) -> None:
    """Pockets of other residues: a series that is predicted badly says nothing of the size of another one's errors."""
    apart, order = measured.profiles._replace(residues=measured.profiles.residues.clone()), torch.tensor([0, 1])
    kept = process.columns[-process.num_residue_columns :]
    assert len(kept)  # there are residues that tell pockets apart
    apart.residues[2:] = 50 * (1 - (apart.residues[2:] > 0).float())
    apart.residues[1], apart.residues[3] = apart.residues[0], apart.residues[2]
    both = measured._replace(profiles=apart)
    alone = conditioned(process, both.of(order), [0.1, -0.1])
    together = conditioned(process, both, [0.1, -0.1, 9.0, -9.0])
    assert together.widths[:2].numpy() == pytest.approx(alone.widths.numpy(), rel=1e-3)
    assert together.widths[2] > 2 * together.widths[0]


def test_bounds_do_not_say_how_large_errors_are(process: GaussianProcess, measured: LabelledProfiles) -> None:
    known = conditioned(process, measured.of(torch.tensor([0])), [9.0], 1)
    assert known.widths.tolist() == [1.0]


@pytest.fixture
def joined(process: GaussianProcess, measured: LabelledProfiles) -> JoinedModel:
    torch.manual_seed(0)
    network = scattered(build_model(tiny_settings())).eval()
    return JoinedModel(network, process, 0.4, USUAL, conditioned(process, measured, ERRORS)).eval()


@torch.no_grad()
def test_contributions_add_up_to_the_score_without_the_constant(joined: JoinedModel) -> None:
    batch = batch_of(NEW)
    parts, total = joined.contributions(batch), torch.zeros(len(NEW))
    total.index_add_(0, parts.graph, parts.pk)
    assert torch.allclose(joined.constant + total, joined(batch), atol=1e-3)
    plain = JoinedModel(joined.network, joined.process, joined.share)
    assert (joined(batch) - plain(batch)).abs().max() > 0.3
    assert torch.equal(plain.judge(batch)[:, JUDGED.index("narrowing")], torch.ones(len(NEW)))


@torch.no_grad()
def test_turning_and_the_batch_change_nothing(joined: JoinedModel) -> None:
    turn = torch.from_numpy(Rotation.random(random_state=1).as_matrix()).float()

    def judged(graphs: list) -> Tensor:
        return joined.judge(batch_of(graphs))[:, :4]

    together = judged(NEW)
    assert torch.allclose(together, torch.cat([judged([graph]) for graph in NEW]), atol=1e-4)
    turned = [replace(graph, pos=graph.pos @ turn.T) for graph in NEW]
    assert torch.allclose(together, judged(turned), atol=1e-3)


def test_they_come_back_from_what_is_stored(process: GaussianProcess, measured: LabelledProfiles) -> None:
    known = conditioned(process, measured, ERRORS, [0, 1, -1, 0])
    again = read_known_ligands(known.state_facts(), process, USUAL)
    for one, other in zip(told(known, NEW), told(again, NEW), strict=True):
        assert one.tolist() == other.tolist()
    assert again.codes == known.codes
    assert read_known_ligands(None, process, USUAL) is None


@pytest.mark.fault("K4")
@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("weights", lambda v: v[:-1]),
        ("weights", lambda v: v * float("nan")),
        ("inverse", lambda v: v[:-1]),
        ("inverse", lambda v: v.double()),
        ("widths", lambda _: None),
        ("saturations", lambda v: v[0]),
        ("references", lambda v: v[:, :-1]),
        ("codes", lambda v: v[:-1]),
        ("codes", lambda _: [1, 2, 3, 4]),
    ],
)
def test_odd_measured_ligands_are_refused(
    process: GaussianProcess, measured: LabelledProfiles, name: str, change: object
) -> None:
    stored = conditioned(process, measured, ERRORS).state_facts()
    with pytest.raises(CheckpointError, match="measured ligands"):
        read_known_ligands({**stored, name: change(stored[name])}, process, USUAL)


@pytest.mark.fault("K4")
@pytest.mark.parametrize("stored", [5, "known", [], {}])
def test_what_is_no_description_of_them_is_refused(process: GaussianProcess, stored: object) -> None:
    with pytest.raises(CheckpointError, match="measured ligands"):
        read_known_ligands(stored, process, USUAL)
