"""How far to trust a score, in a word, and why."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from src.evaluation.calibration import FACTS, Calibration
from src.gaussian_process.joined_model import JUDGED, JoinedModel
from src.gaussian_process.process import fit_gaussian_process
from src.model import AffinityModel, build_model
from src.scoring.trust import half_width, trust
from tests.synthetic import INTERACTION_CUTOFF, random_batch, tiny_settings

# The half width is 1 pK for a relative, 2 pK for a complex without any.
CALIBRATION = Calibration(math.log(2), (0.0, -math.log(2), 0.0), (1.2, 1.6))


@pytest.fixture(scope="module")
def network() -> AffinityModel:
    return build_model(tiny_settings())


@pytest.fixture(scope="module")
def model(network: AffinityModel) -> JoinedModel:
    return JoinedModel(network, fit_gaussian_process([random_batch(3, 1)], INTERACTION_CUTOFF), 0.5)


def told(pk: float = 6.0, pocket: float = 1.0, together: float = 1.0, narrowing: float = 1.0) -> np.ndarray:
    values = dict.fromkeys(JUDGED, 0.0) | {"pK": pk, "narrowing": narrowing, "nearest together": 1.0}
    return np.array([*(values | dict(zip(FACTS, (pocket, together, 3.0), strict=True))).values()])


def word_and_reason(model: object, *rows: np.ndarray, unseen: tuple[str, ...] = (), known: bool = True) -> tuple:
    calibrations = [CALIBRATION if known else None] * len(rows)
    return trust(np.stack(rows), [model] * len(rows), calibrations, unseen)


def test_a_relative_of_the_training_is_trusted_and_named(model: JoinedModel) -> None:
    word, reason = word_and_reason(model, told())
    assert word == "high"
    assert reason == f"a training complex is like it in ligand and pocket (1.00 to {model.process.codes[1]})"


@pytest.mark.parametrize("unseen", [("new elements in the ligand (B)",), ("x", "y")])
def test_what_was_never_seen_is_not_trusted_however_near(model: JoinedModel, unseen: tuple[str, ...]) -> None:
    assert word_and_reason(model, told(), unseen=unseen) == ("low", "; ".join(unseen))


def test_models_that_disagree_are_not_trusted(model: JoinedModel) -> None:
    word, reason = word_and_reason(model, told(3.0), told(8.7))
    assert (word, reason) == ("low", "the models disagree (standard deviation 4.0 pK)")
    assert half_width(np.stack([told(3.0), told(8.7)]), [CALIBRATION] * 2) >= 6
    assert word_and_reason(model, told(6.0), told(6.1))[0] == "high"


def test_a_ligand_of_one_target_in_the_pocket_of_another_is_not_trusted(model: JoinedModel) -> None:
    for pocket, together in ((0.05, 0.05), (0.4, 0.29)):
        word, reason = word_and_reason(model, told(pocket=pocket, together=together))
        assert word == "low"
        assert reason.startswith(f"no training complex has a pocket like it ({pocket:.2f} to ")


def test_a_known_pocket_with_other_ligands_is_trusted_little(model: JoinedModel) -> None:
    word, reason = word_and_reason(model, told(pocket=0.9, together=0.1))
    assert (word, "with other ligands (0.10" in reason) == ("low", True)
    narrow = replace(CALIBRATION, thirds=(2.5, 3.0))
    assert trust(told(pocket=0.9, together=0.1)[None], [model], [narrow], ()).word == "medium"
    assert trust(told(pocket=0.1, together=0.1)[None], [model], [narrow], ()).word == "medium"


def test_the_word_follows_the_width(model: JoinedModel) -> None:
    words = [word_and_reason(model, told(together=value)).word for value in (1.0, 0.5, 0.31)]
    assert words == ["high", "medium", "low"]  # 1.0, 1.4 and 1.6 pK


def test_measured_ligands_of_its_series_are_a_reason(model: JoinedModel) -> None:
    far = {"pocket": 0.05, "together": 0.05}
    assert word_and_reason(model, told(**far, narrowing=0.5)) == ("high", "ligands of its series are measured")
    assert word_and_reason(model, told(**far, narrowing=0.7)).word == "medium"
    assert word_and_reason(model, told(**far, narrowing=0.99)).word == "low"
    assert half_width(told(narrowing=0.5)[None], [CALIBRATION]) == pytest.approx(0.5)


def test_what_nobody_can_tell_is_said(model: JoinedModel, network: AffinityModel) -> None:
    word, reason = word_and_reason(model, told(), known=False)
    assert (word, reason) == (
        "medium",
        "how far the model errs is not known: it was trained on too few complexes to tell",
    )
    nothing = np.array([6.0, 6.0, math.nan, 1.0, *[math.nan] * (len(JUDGED) - 4)])
    word, reason = trust(nothing[None], [network], [Calibration(0.0)], ())
    assert (word, reason.endswith("has no Gaussian process")) == ("medium", True)
    assert half_width(nothing[None], [Calibration(0.0)]) == pytest.approx(1.0)
    assert half_width(np.stack([nothing, nothing]), [Calibration(0.0), None]) is None
    both = np.stack([told(), nothing])
    assert trust(both, [model, network], [CALIBRATION, Calibration(0.0)], ()).word == "medium"
