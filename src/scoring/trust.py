"""What a model says of a pose beside its pK -> how far to trust the pK, in a word and with a reason.

The word follows the width of the interval, which follows the errors on complexes that were left out of the training;
what the training never saw makes it low whatever the width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from src.evaluation.calibration import FACTS, Calibration, ensemble_half_widths
from src.gaussian_process.joined_model import JUDGED, JoinedModel, ScoringModel

HIGH, MEDIUM, LOW = "high", "medium", "low"
LEAST_TOGETHER = 0.3  # likeness of ligand and pocket below which no training complex is a relative
LEAST_POCKET = 0.5  # the same of the pocket
DISAGREEMENT = 1.0  # pK, standard deviation of models that do not agree
TOLD = 0.85  # measured ligands make the interval at least so much narrower where they say much

_COLUMN = {name: number for number, name in enumerate(JUDGED)}
_POCKET, _TOGETHER = (_COLUMN[name] for name in FACTS[:2])


class Trust(NamedTuple):
    """How far to trust a pK."""

    word: str = ""  # HIGH, MEDIUM or LOW; '' for a pose without a pK
    reason: str = ""


NO_TRUST = Trust()


def half_widths(told: np.ndarray, calibration: Calibration) -> np.ndarray:
    """Half widths [n] of the intervals of one model, pK, of what it says of n poses, [n, len(JUDGED)]."""
    return calibration.half_widths(told[:, -len(FACTS) :]) * told[:, _COLUMN["narrowing"]]


def half_width(told: np.ndarray, calibrations: Sequence[Calibration | None]) -> float | None:
    """Half width of the interval around the mean of several models, pK; None unless all are calibrated.

    Args:
        told: [models, len(JUDGED)] of one pose.
    """
    if None in calibrations:
        return None
    widths = [half_widths(row[None], one) for one, row in zip(calibrations, told, strict=True)]
    return float(ensemble_half_widths(np.stack(widths), told[:, :1])[0])


def trust(
    told: np.ndarray, models: Sequence[ScoringModel], calibrations: Sequence[Calibration | None], unseen: Sequence[str]
) -> Trust:
    """
    Args:
        told: [models, len(JUDGED)] of one pose.
        unseen: what of it no training complex had, in words.
    """
    width, spread = half_width(told, calibrations), float(told[:, 0].std(ddof=1)) if len(told) > 1 else 0.0
    if unseen:
        return Trust(LOW, "; ".join(unseen))
    if spread > DISAGREEMENT:
        return Trust(LOW, f"the models disagree (standard deviation {spread:.1f} pK)")
    if not all(isinstance(model, JoinedModel) for model in models):
        return Trust(MEDIUM, "its likeness to the training is not known: the model has no Gaussian process")
    if width is None:
        return Trust(MEDIUM, "how far the model errs is not known: it was trained on too few complexes to tell")
    narrow, wide = (float(np.mean([one.thirds[end] for one in calibrations])) for end in (0, 1))
    first, codes = told[0], models[0].process.codes
    pocket, together = first[_POCKET], first[_TOGETHER]
    near_pocket, near = (codes[int(first[_COLUMN[name]])] for name in ("nearest pocket", "nearest together"))
    if first[_COLUMN["narrowing"]] < TOLD and width < wide:
        return Trust(HIGH if width < narrow else MEDIUM, "ligands of its series are measured")
    of_pocket, of_both = f"{pocket:.2f} to {near_pocket}", f"{together:.2f} to {near}"
    if together >= LEAST_TOGETHER and width < wide:
        word = HIGH if width < narrow else MEDIUM
        return Trust(word, f"a training complex is like it in ligand and pocket ({of_both})")
    if pocket >= LEAST_POCKET:
        word = LOW if width >= wide else MEDIUM
        return Trust(word, f"its pocket is like one of the training ({of_pocket}), with other ligands ({of_both})")
    return Trust(LOW if width >= wide else MEDIUM, f"no training complex has a pocket like it ({of_pocket})")
