"""What is known of one scored pose -> a row of a table and a sentence on the screen."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from src.chemistry.ligands import LigandRecord
from src.scoring.trust import HIGH, NO_TRUST, Trust

# kcal/mol for one unit of pK at 298.15 K: R * T * ln(10) with R = 1.987204259e-3 kcal/(mol K) (CODATA 2018)
KCAL_PER_PK = 1.987204259e-3 * 298.15 * math.log(10)
COLUMNS = (
    "ligand",
    "molecule",
    "pK",
    "pK_low",
    "pK_high",
    "Kd_nM",
    "dG_kcal_mol_298K",
    "status",
    "trust",
    "trust_reason",
    "warnings",
    "pose",
    "protein_file",
    "ligand_file",
)
ENSEMBLE_COLUMN, JITTER_COLUMN, MEMBER_COLUMN = "pK_sd_models", "pK_sd_jitter", "pK_model_{}"
BEST_POSE_COLUMNS = ("num_poses", "pK_sd_poses")


@dataclass(frozen=True)
class Prediction:
    """One scored ligand, or the reason why it has no score."""

    ligand: str
    protein_file: str
    ligand_file: str
    pk: float | None  # mean over an ensemble
    warnings: tuple[str, ...]
    failure: str = ""
    half_width: float | None = None  # pK, of the interval that holds 90 % of measured values
    members: tuple[float, ...] = ()  # pK of each model of an ensemble
    jitter_sd: float | None = None  # pK, over copies of the pose with noise
    num_poses: int | None = None  # of this ligand that were scored, where this is the best of them
    poses_sd: float | None = None  # pK, over them
    trust: Trust = NO_TRUST
    molecule: int = 1  # number in the ligand file, from 1
    pose: str = "given"  # or what it is modelled on
    modelled: LigandRecord | None = None  # that pose
    found: Mapping[str, object] = field(default_factory=dict)  # what the files say of the ligand and its pose
    is_lost: bool = False  # with the process that read or scored it; none but another such process may read it again

    @property
    def kd_nm(self) -> float | None:
        """The dissociation constant that belongs to the pK, nmol/L; 0 or infinite where it leaves float's range."""
        return None if self.pk is None else 10.0 ** min(9.0 - self.pk, 308.0)

    @property
    def dg_kcal_mol(self) -> float | None:
        """Binding free energy -RT ln(10) pK at 298.15 K, kcal/mol."""
        return None if self.pk is None else -KCAL_PER_PK * self.pk

    @property
    def interval(self) -> tuple[float, float] | None:
        """pK, lower and upper end; None without a calibrated model."""
        if self.pk is None or self.half_width is None:
            return None
        return self.pk - self.half_width, self.pk + self.half_width

    @property
    def members_sd(self) -> float | None:
        """Standard deviation over the models, pK; None for a single one."""
        return float(np.std(self.members, ddof=1)) if len(self.members) > 1 else None

    @property
    def remarks(self) -> tuple[str, ...]:
        """What to know before the score is used: how far to trust it, and warnings."""
        trust = (f"trust {self.trust.word}: {self.trust.reason}",) if self.trust.word else ()
        return (*trust, *(f"warning: {warning}" for warning in self.warnings))

    def row(self) -> dict[str, object]:
        """The columns of COLUMNS, then those of an ensemble and of jitter, as they go into a file."""
        low, high = self.interval or (None, None)
        values = (
            self.ligand,
            self.molecule,
            *(_rounded(value, 3) for value in (self.pk, low, high)),
            None if self.kd_nm is None else float(f"{self.kd_nm:.4g}"),
            _rounded(self.dg_kcal_mol, 2),
            f"failed: {self.failure}" if self.failure else "ok",
            *self.trust,
            "; ".join(self.warnings),
            "" if self.pk is None else self.pose,
            self.protein_file,
            self.ligand_file,
        )
        row: dict[str, object] = dict(zip(COLUMNS, values, strict=True)) | dict(self.found)
        if self.members_sd is not None:
            row[ENSEMBLE_COLUMN] = _rounded(self.members_sd, 3)
            row |= {MEMBER_COLUMN.format(n): _rounded(pk, 3) for n, pk in enumerate(self.members, start=1)}
        if self.jitter_sd is not None:
            row[JITTER_COLUMN] = _rounded(self.jitter_sd, 3)
        if self.num_poses is not None:
            row |= dict(zip(BEST_POSE_COLUMNS, (self.num_poses, _rounded(self.poses_sd, 3)), strict=True))
        return row


HEADING = "pK: -log10 of the affinity in mol/L, with its 90 % interval. ΔG: kcal/mol at 298.15 K."


def sentence(prediction: Prediction, *, per_model: bool = False, with_place: bool = False, row: str = "") -> str:
    """One line that a person can read below HEADING, and below it what to know before the score is used.

    Args:
        per_model: with the pK of each of several models.
        with_place: with the file, and the number of the molecule in it, which tell poses of one name apart.
        row: what the user's table calls it.
    """
    name = f"{row} ({prediction.ligand})" if row and row != prediction.ligand else prediction.ligand
    if prediction.pk is None:
        return f"{name}: not scored: {prediction.failure}"
    place = f" ({Path(prediction.ligand_file).name}, molecule {prediction.molecule})" if with_place else ""
    text = f"{name}{place}: pK {prediction.pk:.2f}"
    if prediction.interval:
        text += " [{:.1f}, {:.1f}]".format(*prediction.interval)
    text += f", Kd {_concentration(prediction.kd_nm)}, ΔG {prediction.dg_kcal_mol:.1f}"
    if prediction.members_sd is not None:
        text += f", SD of {len(prediction.members)} models {prediction.members_sd:.2f}"
        text += f" ({', '.join(f'{pk:.2f}' for pk in prediction.members)})" * per_model
    if prediction.jitter_sd is not None:
        text += f", SD of jittered copies {prediction.jitter_sd:.2f}"
    if prediction.poses_sd is not None:
        text += f", best of {prediction.num_poses} poses, SD {prediction.poses_sd:.2f}"
    word = prediction.trust.word
    found = ", ".join(f"{name} {value}" for name, value in prediction.found.items() if value not in (None, ""))
    reason = [prediction.trust.reason] if word and word != HIGH else []
    warnings = [f"warning: {warning}" for warning in prediction.warnings]
    return "\n  ".join([text + f", trust {word}" * bool(word), *[found] * bool(found), *reason, *warnings])


def _rounded(value: float | None, digits: int) -> float | None:
    return None if value is None else round(value, digits)


def _concentration(nanomolar: float) -> str:
    for unit, size in (("mM", 1e6), ("µM", 1e3), ("nM", 1.0)):
        if nanomolar >= size:
            return f"{nanomolar / size:.3g} {unit}"
    return f"{nanomolar * 1e3:.3g} pM"
