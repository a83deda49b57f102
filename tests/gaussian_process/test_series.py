"""How errors go together within a series: the density, and the prior that drawn series came from."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import multivariate_t

from src.checkpoint import CheckpointError
from src.gaussian_process.series import (
    USUAL,
    SeriesErrors,
    SeriesPrior,
    fit_series_prior,
    log_likelihood,
    read_series_prior,
)


def drawn(prior: SeriesPrior, count: int, draw: np.random.Generator) -> SeriesErrors:
    """A series whose ligands and pockets lie at random, and errors that the prior gives it."""
    ligands, pockets = draw.normal(size=(count, 1, 2)), 0.5 * draw.normal(size=(count, 1, 2))
    ligands, pockets = (np.exp(-((at - at.transpose(1, 0, 2)) ** 2).sum(-1)) for at in (ligands, pockets))
    saturations = draw.uniform(0.7, 1, count)
    kernel = np.outer(saturations, saturations) * ligands * (2 + pockets)
    one = SeriesErrors(np.zeros(count), kernel, pockets, saturations)
    covariance = prior.covariance(*one[1:]) + prior.noise * np.eye(count)
    size = draw.chisquare(prior.freedom) / prior.freedom
    return one._replace(errors=draw.multivariate_normal(np.zeros(count), covariance) / math.sqrt(size))


def test_the_covariance_by_hand() -> None:
    prior = SeriesPrior(shared=0.5, offset=2.0, sharpness=2.0, noise=9.0, freedom=5.0)
    kernel, pockets = np.array([[3.0, 1.0], [1.0, 3.0]]), np.array([[1.0, 0.5], [0.5, 1.0]])
    found = prior.covariance(kernel, pockets, np.array([1.0, 0.5]))
    assert found == pytest.approx(np.array([[1.5 + 2.0, 0.5 + 2.0 * 0.5 * 0.25], [0.75, 1.5 + 2.0 * 0.25]]))


def test_the_likelihood_is_that_of_scipy() -> None:
    one = drawn(USUAL, 6, np.random.default_rng(0))
    shape = USUAL.covariance(*one[1:]) + USUAL.noise * np.eye(6)
    expected = multivariate_t(shape=shape, df=USUAL.freedom).logpdf(one.errors)
    assert log_likelihood(USUAL, one) == pytest.approx(expected)


def test_larger_errors_have_a_larger_prior() -> None:
    one = drawn(USUAL, 6, np.random.default_rng(0))
    density = log_likelihood(USUAL.scaled(3.0), one._replace(errors=3 * one.errors))
    assert density == pytest.approx(log_likelihood(USUAL, one) - 6 * math.log(3))
    assert USUAL.scaled(3.0).freedom == USUAL.freedom
    assert USUAL.scaled(3.0).sharpness == USUAL.sharpness


def test_the_prior_is_found_of_series_that_were_drawn_from_it() -> None:
    prior, draw = SeriesPrior(shared=0.1, offset=3.0, sharpness=2.0, noise=0.8, freedom=6.0), np.random.default_rng(1)
    found = fit_series_prior([drawn(prior, 12, draw) for _ in range(60)])
    assert found.noise == pytest.approx(prior.noise, rel=0.3)
    assert found.offset == pytest.approx(prior.offset, rel=0.5)
    assert found.shared == pytest.approx(prior.shared, abs=0.15)


def test_without_series_it_is_the_usual_one_and_a_few_hardly_move_it() -> None:
    assert fit_series_prior([]).state_dict() == pytest.approx(USUAL.state_dict())
    one = drawn(USUAL, 5, np.random.default_rng(0))
    for factor in (0.0, 100.0):
        found = fit_series_prior([one._replace(errors=factor * one.errors)])
        assert all(0 < value < 1e4 for value in found.state_dict().values())


def test_it_comes_back_from_what_is_stored() -> None:
    assert read_series_prior(USUAL.state_dict()) == USUAL


@pytest.mark.fault("K4")
@pytest.mark.parametrize(
    "odd", [{"noise": 0.0}, {"noise": None}, {"offset": math.inf}, {"shared": -1.0}, {"freedom": 8}]
)
def test_an_odd_prior_is_refused(odd: dict) -> None:
    for stored in ({**USUAL.state_dict(), **odd}, None, {}, "usual"):
        with pytest.raises(CheckpointError, match="series"):
            read_series_prior(stored)
