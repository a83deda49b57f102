"""Scored ligands of one target -> what sets each apart from a reference, and how scores follow measured values."""

from __future__ import annotations

import logging
import math
from collections import defaultdict
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from rdkit import Chem, rdBase

from src.chemistry.atoms import StructureError, clean_name
from src.chemistry.ligands import ligand_of
from src.evaluation.baselines import linear_baseline
from src.evaluation.metrics import Interval, compare, metrics_with_intervals, rmse, spearman
from src.explanation.attribution import Attribution
from src.explanation.explainer import PoseAttributions
from src.pdbbind.affinity import PDBbindError
from src.scoring.conditioning import Known
from src.scoring.poses import Pose
from src.scoring.prediction import Prediction
from src.system.errors import UserError
from src.system.terminal import counted, listed

log = logging.getLogger(__name__)

MAX_LIGANDS = 1000  # rows of a page
MAX_EXPLAINED = 200  # ligands with a drawing and contributions: about a second and 20 kB each
SAME_PLACE = 1.0  # Å, between atoms of two ligands
NUM_RESIDUES = 4  # that are named for each ligand
LEAST_MEASURED = 5  # for a sentence on how the score ranks
SCORE, WEIGHT, ATOMS = "score", "molecular weight", "heavy atoms"


class SeriesError(UserError):
    """A series that cannot be compared as asked; says what would be right."""


class Measured(NamedTuple):
    """A measured value."""

    pk: float
    bound: int = 0  # 0 the value is exact, 1 the pK is at least it, -1 at most
    is_known: bool = False  # the scores are conditioned on it


@dataclass
class SeriesLigand:
    """One ligand of the series, scored or not."""

    pose: Pose
    prediction: Prediction
    measured: Measured | None = None
    num_heavy_atoms: int = 0
    weight: float = math.nan  # g/mol
    attribution: Attribution | None = None
    fault: str = ""  # why a scored ligand has no attribution


class Change(NamedTuple):
    """The contributions of a ligand minus those of the reference, pK; by atoms and by residues they add up to the same.

    An atom stands in a place of the reference when the two are each other's nearest, within SAME_PLACE.
    """

    new_atoms: float  # where the reference has none
    lost_atoms: float  # of the reference, where this ligand has none
    same_place: float
    residues: tuple[tuple[str, float], ...]  # those that change most
    other_residues: float


class Agreement(NamedTuple):
    """How a number of each ligand follows the measured pK."""

    name: str
    r: Interval
    rank: Interval  # Spearman's
    rmse: float  # pK; of a size: of a straight line through the other ligands of the series


class Agreements(NamedTuple):
    """Score and size beside each other on the same ligands."""

    count: int
    rows: tuple[Agreement, ...]  # SCORE, WEIGHT, ATOMS
    verdict: str


def molecular_weight(smiles: str) -> float:
    """g/mol, hydrogens included; NaN where RDKit cannot read the SMILES."""
    from rdkit.Chem.Descriptors import MolWt  # half a second to import

    with rdBase.BlockLogs():
        mol = Chem.MolFromSmiles(smiles) if smiles else None
    return math.nan if mol is None else MolWt(mol)


class Series:
    """The ligands of a series as they are scored."""

    def __init__(
        self,
        attributions: PoseAttributions,
        *,
        label: Callable[[Sequence[str]], tuple[float, int]] | None = None,
        known: Sequence[Known] = (),
        told: Collection[str] = (),
        reference: str | None = None,
    ):
        """
        Args:
            label: the measured value in the cells of a row of the table of pairs, and its bound.
            known: what the scores are conditioned on.
            told: names of what the scores are conditioned on, which is all that a conditioned model knows of them.
            reference: title of the ligand that all others are compared with; None: the best one.
        """
        self.ligands: list[SeriesLigand] = []
        self.num_left_out = 0  # ligands beyond MAX_LIGANDS
        self.label_faults: list[str] = []
        self._attributions, self._label, self._told, self._reference = attributions, label, set(told), reference
        self._known: dict[tuple[Path, str], list[Known]] = defaultdict(list)
        for one in known:
            self._known[one.protein.resolve(), one.graph.smiles].append(one)
        self._known_smiles = {one.graph.smiles for one in known}

    def add(self, pose: Pose, prediction: Prediction) -> None:
        if len(self.ligands) >= MAX_LIGANDS:
            self.num_left_out += 1
            return
        ligand = ligand_of(pose.record) if prediction.pk is not None else None
        one = SeriesLigand(pose, prediction)
        if ligand is not None and not isinstance(ligand, StructureError):
            one.num_heavy_atoms, one.weight = len(ligand.atoms), molecular_weight(ligand.smiles)
            one.measured = self._measured(pose, ligand.smiles)
        self.ligands.append(one)

    @property
    def scored(self) -> list[SeriesLigand]:
        """The highest pK first."""
        return sorted(
            (one for one in self.ligands if one.prediction.pk is not None), key=lambda one: -one.prediction.pk
        )

    def reference(self) -> tuple[SeriesLigand, str] | None:
        """What all others are compared with, and why it; None when no ligand was scored.

        Raises:
            SeriesError: the one that was asked for is none of those that were scored.
        """
        scored = self.scored
        if self._reference is not None:
            for one in scored:
                if self._reference in (one.pose.title, one.prediction.ligand):
                    return one, "as asked for"
            names = listed([one.prediction.ligand for one in scored]) or "none"
            raise SeriesError(f"--reference {self._reference}: no scored ligand has this name; there are: {names}")
        if measured := [one for one in scored if one.measured]:
            return max(measured, key=lambda one: (one.measured.bound >= 0, one.measured.pk)), "the best measured"
        return (scored[0], "the highest pK") if scored else None

    def explain(self, reference: SeriesLigand) -> None:
        """Find the contributions of the reference and of the best MAX_EXPLAINED ligands."""
        chosen = [reference, *(one for one in self.scored[:MAX_EXPLAINED] if one is not reference)]
        log.info("finding what makes the pK of %s", counted(len(chosen), "ligand"))
        for one in chosen:
            try:
                one.attribution = self._attributions.of(one.pose)
            except UserError as error:
                one.fault = str(error)

    def _measured(self, pose: Pose, smiles: str) -> Measured | None:
        """From the ligand's row, else from the ligands that scores are conditioned on: their mean where there are more.

        A value that any score was conditioned on says nothing about how good scores are, whatever table it stands in.
        """
        if self._label is not None:
            try:
                is_known = smiles in self._known_smiles or pose.name in self._told
                return Measured(*self._label(pose.given), is_known)
            except PDBbindError as error:
                self.label_faults.append(f"{pose.name}: {error}")
        known = self._known.get((pose.protein.resolve(), smiles), []) if smiles else []
        if exact := [one.pk for one in known if not one.bound]:
            return Measured(float(np.mean(exact)), is_known=True)
        return Measured(known[0].pk, known[0].bound, is_known=True) if known else None


def same_places(one: Attribution, reference: Attribution) -> np.ndarray:
    """[atoms] number of the reference's atom in the place of each atom, -1 where it has none."""
    distance = np.linalg.norm(one.ligand.pos[:, None] - reference.ligand.pos[None], axis=2)
    nearest, back = distance.argmin(axis=1), distance.argmin(axis=0)
    own = np.arange(len(nearest))
    return np.where((back[nearest] == own) & (distance[own, nearest] <= SAME_PLACE), nearest, -1)


def change(one: Attribution, reference: Attribution, *, same_file: bool = True) -> Change:
    """Residues of two protein files are compared by number, whatever letters their chains have."""
    ours, theirs, places = one.of_ligand_atoms(), reference.of_ligand_atoms(), same_places(one, reference)
    is_same = places >= 0
    gone = np.delete(theirs, places[is_same]).sum()
    same = ours[is_same].sum() - theirs[places[is_same]].sum()
    residues: dict[str, float] = defaultdict(float)
    for attribution, sign in ((one, 1), (reference, -1)):
        for share in attribution.residue_shares():
            residue = share.residue
            name = f"{residue.name} {residue.number}{residue.insertion}" + f" {residue.chain}" * same_file
            residues[clean_name(name)] += sign * share.pk
    ranked = sorted(residues.items(), key=lambda entry: -abs(entry[1]))
    rest = sum(value for _, value in ranked[NUM_RESIDUES:])
    return Change(float(ours[~is_same].sum()), -float(gone), float(same), tuple(ranked[:NUM_RESIDUES]), rest)


def agreements(ligands: Sequence[SeriesLigand]) -> Agreements:
    """On all ligands with an exact measured value that no score is conditioned on."""
    chosen = [
        one for one in ligands if one.measured and not (one.measured.bound or one.measured.is_known) and one.weight > 0
    ]
    measured = np.array([one.measured.pk for one in chosen])
    score = np.array([one.prediction.pk for one in chosen])
    sizes = {
        WEIGHT: np.array([one.weight for one in chosen]),
        ATOMS: np.array([one.num_heavy_atoms for one in chosen], dtype=float),
    }
    rows = []
    for name, values in {SCORE: score, **sizes}.items():
        found = metrics_with_intervals(values, measured)
        error = rmse(score, measured) if name == SCORE else _line_rmse(values, measured)
        rows.append(Agreement(name, found["pearson"], found["spearman"], error))
    return Agreements(len(chosen), tuple(rows), _verdict(score, sizes, measured))


def _line_rmse(size: np.ndarray, measured: np.ndarray) -> float:
    """RMSE of a straight line through the other ligands, for each ligand in turn; of their mean where all are alike."""
    if len(measured) < 3:
        return math.nan
    errors = []
    for place in range(len(measured)):
        others = np.delete(np.arange(len(measured)), place)
        line = linear_baseline(size[others], measured[others], size[[place]])
        errors.append(measured[place] - (measured[others].mean() if line is None else line[0]))
    return float(np.sqrt(np.mean(np.square(errors))))


def _verdict(score: np.ndarray, sizes: dict[str, np.ndarray], measured: np.ndarray) -> str:
    """Whether the score ranks better than size does, in a sentence."""
    if len(measured) < LEAST_MEASURED:
        return f"{len(measured)} values are too few to say whether the score ranks better than size."
    ranks = {name: spearman(values, measured) for name, values in {SCORE: score, **sizes}.items()}
    if math.isnan(ranks[SCORE]):
        return "On this series the score ranks nothing: its values, or the measured ones, are all the same."
    best = max(sizes, key=lambda name: -math.inf if math.isnan(ranks[name]) else ranks[name])
    if math.isnan(ranks[best]):
        return "All ligands of this series are of one size, so size ranks nothing."
    numbers = f"rank correlation {ranks[SCORE]:.2f}; {best} {ranks[best]:.2f}"
    if ranks[SCORE] <= ranks[best]:
        return f"On this series the score ranks no better than size ({numbers})."
    chance = "" if compare(score, sizes[best], measured)["spearman"].low > 0 else ", by no more than chance may do"
    return f"On this series the score ranks better than size{chance} ({numbers})."
