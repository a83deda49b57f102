"""Predictions without a complex, or without its cluster: the same as fitting again without it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from src.evaluation.calibration import FACTS
from src.gaussian_process.cross_fitting import NUM_FOLDS, CrossFit, cross_fit, folds_of
from src.gaussian_process.likenesses import saturation
from src.gaussian_process.process import NOISE, GaussianProcess, fit_to_profiles
from src.gaussian_process.profiles import LabelledProfiles, labelled_profiles
from tests.synthetic import INTERACTION_CUTOFF, random_batch

COUNT = 18
CLUSTERS = [f"cluster {number // 6}" for number in range(COUNT)]
PROTEINS = [f"protein {number // 3 if number < 6 else number // 6 + 10}" for number in range(COUNT)]


@pytest.fixture(scope="module")
def known() -> LabelledProfiles:
    batch = random_batch(COUNT, 3, num_ligand_atoms=12, num_pocket_atoms=40)
    return labelled_profiles([batch], INTERACTION_CUTOFF)


@pytest.fixture(scope="module")
def process(known: LabelledProfiles) -> GaussianProcess:
    return fit_to_profiles(known, INTERACTION_CUTOFF)


@pytest.fixture(scope="module")
def fit(process: GaussianProcess, known: LabelledProfiles) -> CrossFit:
    return cross_fit(process, known, CLUSTERS, PROTEINS)


def errors_without(process: GaussianProcess, known: LabelledProfiles, out: list[int]) -> np.ndarray:
    """Of the complexes [out], by a process of all others with the same scales and line."""
    kernel = process.likenesses(known.profiles).kernel.double().numpy()
    kernel = (kernel + kernel.T) / 2
    s = saturation(known.profiles.total).double().numpy()
    rest = (known.pk - process.intercept - process.slope * known.profiles.total.double()).numpy()
    covariance, kept = np.outer(s, s) * kernel, [number for number in range(COUNT) if number not in out]
    noisy = covariance[np.ix_(kept, kept)] + NOISE * np.eye(len(kept))
    return covariance[np.ix_(out, kept)] @ np.linalg.solve(noisy, rest[kept]) - rest[out]


def order_of_folds() -> np.ndarray:
    folds = folds_of(CLUSTERS)
    return np.concatenate([np.flatnonzero(folds == number) for number in range(folds.max() + 1)])


def test_each_is_predicted_as_if_it_were_not_there(
    fit: CrossFit, process: GaussianProcess, known: LabelledProfiles
) -> None:
    assert len(fit.errors) == 2 * COUNT
    expected = [errors_without(process, known, [number])[0] for number in range(COUNT)]
    assert fit.errors[:COUNT] == pytest.approx(expected, abs=1e-5)


def test_each_is_predicted_without_its_cluster(
    fit: CrossFit, process: GaussianProcess, known: LabelledProfiles
) -> None:
    of_cluster = [errors_without(process, known, list(range(first, first + 6))) for first in (0, 6, 12)]
    expected = np.concatenate(of_cluster)[order_of_folds()]
    assert fit.errors[COUNT:] == pytest.approx(expected, abs=1e-5)


def test_what_was_left_out_has_no_part_in_the_facts(
    fit: CrossFit, process: GaussianProcess, known: LabelledProfiles
) -> None:
    likenesses = process.likenesses(known.profiles)
    assert fit.facts.shape == (2 * COUNT, len(FACTS))
    for column, part in enumerate((likenesses.residues, likenesses.together)):
        alone = part.double().numpy().copy()
        np.fill_diagonal(alone, 0)
        assert fit.facts[:COUNT, column] == pytest.approx(alone.max(1), abs=5e-3)
        for first in (0, 6, 12):
            alone[first : first + 6, first : first + 6] = 0
        assert fit.facts[COUNT:, column] == pytest.approx(alone.max(1)[order_of_folds()], abs=5e-3)
    assert fit.facts[:, 2] == pytest.approx(np.log(12))


def test_series_are_proteins_with_enough_ligands(
    fit: CrossFit, process: GaussianProcess, known: LabelledProfiles
) -> None:
    """Those of three ligands each shape no prior."""
    assert [len(one.errors) for one in fit.series] == [6, 6]
    found = sorted(one.errors.tolist() for one in fit.series)
    expected = [(-errors_without(process, known, list(range(first, first + 6)))).tolist() for first in (6, 12)]
    for one, other in zip(found, sorted(expected), strict=True):
        assert one == pytest.approx(other, abs=1e-5)
    assert all(one.kernel.shape == one.pockets.shape == (6, 6) for one in fit.series)


def test_one_cluster_has_no_others_and_one_complex_has_nothing(
    process: GaussianProcess, known: LabelledProfiles
) -> None:
    one = cross_fit(process, known, ["a"] * COUNT, ["a"] * COUNT)
    assert (len(one.errors), one.series) == (COUNT, [])
    first = known.of(torch.tensor([0]))
    nothing = cross_fit(fit_to_profiles(first, INTERACTION_CUTOFF), first, ["a"], ["a"])
    assert (len(nothing.errors), len(nothing.facts), nothing.series) == (0, 0, [])


def test_folds_are_whole_clusters() -> None:
    clusters = [number % 23 for number in range(100)]
    folds = folds_of(clusters)
    assert set(folds.tolist()) == set(range(NUM_FOLDS))
    assert len({(cluster, fold) for cluster, fold in zip(clusters, folds.tolist(), strict=True)}) == 23
