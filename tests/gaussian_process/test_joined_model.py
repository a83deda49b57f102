"""A network and a Gaussian process together: the mean, its terms, and the share that errs least."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from src.checkpoint import CheckpointError
from src.gaussian_process.joined_model import JoinedModel, best_share, join_stored
from src.gaussian_process.process import GaussianProcess, fit_gaussian_process
from src.gaussian_process.series import USUAL
from src.model import AffinityModel, build_model
from tests.synthetic import INTERACTION_CUTOFF, random_batch, scattered, tiny_settings


@pytest.fixture
def network() -> AffinityModel:
    torch.manual_seed(0)
    model = scattered(build_model(tiny_settings()))
    model.set_label_scale(5.0, 1.5, 0.02)
    return model.eval()


@pytest.fixture(scope="module")
def process() -> GaussianProcess:
    return fit_gaussian_process([random_batch(12, 1)], INTERACTION_CUTOFF)


@torch.no_grad()
@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_the_prediction_is_the_weighted_mean(network: AffinityModel, process: GaussianProcess, share: float) -> None:
    batch = random_batch(4, 2)
    joined = JoinedModel(network, process, share).eval()
    expected = (1 - share) * network(batch) + share * process(batch)
    assert torch.allclose(joined(batch), expected, atol=1e-5)
    parts = joined.contributions(batch)
    total = torch.zeros(4).index_add_(0, parts.graph, parts.pk)
    assert torch.allclose(joined.constant + total, expected, atol=1e-4)


def test_the_share_errs_least() -> None:
    draw = np.random.default_rng(0)
    measured = draw.normal(6, 2, 4000)
    network, process = measured + draw.normal(0, 1.0, 4000), measured + draw.normal(0, 2.0, 4000)
    share = best_share(network, process, measured)
    assert share == pytest.approx(0.2, abs=0.02)  # 1 / (1 + 4), as errors do not hang together
    errors = [np.mean((network + s * (process - network) - measured) ** 2) for s in (share - 0.05, share, share + 0.05)]
    assert errors[1] == min(errors)


def test_few_complexes_leave_the_shares_nearly_equal() -> None:
    one = np.array([5.0])
    assert best_share(one, one + 1, one) == pytest.approx(3 * 0.5 / 4)
    assert best_share(one, one + 1, one + 1) == pytest.approx((1 + 1.5) / 4)
    assert best_share(one, one + 0.01, one + 1) == pytest.approx((1 + 1.5) / 4)
    assert best_share(one, one, one) == 0.5
    assert best_share(np.zeros(0), np.zeros(0), np.zeros(0)) == 0.5


def test_a_share_stays_within_its_bounds() -> None:
    measured = np.linspace(2, 10, 147)
    assert best_share(measured + 1, measured + 2, measured) == pytest.approx(0.01)
    assert best_share(measured + 2, measured + 1, measured) == pytest.approx(0.99)


def test_a_stored_process_is_joined(network: AffinityModel, process: GaussianProcess) -> None:
    assert join_stored(network, {}) is network
    assert join_stored(network, {"process": None}) is network
    joined = join_stored(network, {"process": {**process.state_facts(), "share": 0.4, "series": USUAL.state_dict()}})
    assert isinstance(joined, JoinedModel)
    assert (joined.share, joined.prior, joined.known) == (0.4, USUAL, None)


@pytest.mark.parametrize("cutoff", [1e39, 12.0])
def test_a_process_of_other_contacts_is_refused(
    network: AffinityModel, process: GaussianProcess, cutoff: float
) -> None:
    with pytest.raises(CheckpointError, match="to 6 Å"):
        join_stored(network, {"process": {**process.state_facts(), "share": 0.5, "cutoff": cutoff}})


@pytest.mark.parametrize("share", [None, 1.5, -0.1, float("nan"), "half", 1])
def test_a_share_that_is_none_is_refused(network: AffinityModel, process: GaussianProcess, share: object) -> None:
    with pytest.raises(CheckpointError, match="share"):
        join_stored(network, {"process": {**process.state_facts(), "share": share}})
