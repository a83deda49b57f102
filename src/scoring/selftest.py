"""A trained model on the user's machine -> a table of what must hold for every score, each line measured and judged.

The tests of the project check the same on models of their own. This one needs no data and no test runner, and it
measures the checkpoint, the device and the libraries that the user's scores come from.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from scipy.spatial.transform import Rotation

from src.chemistry.ligands import Ligand, iter_ligands
from src.chemistry.proteins import read_protein
from src.data.batching import in_order
from src.data.cache import build_cache, protein_file
from src.data.dataset import Example
from src.data.demo import write_demo
from src.data_processing import build_graph
from src.gaussian_process.joined_model import ScoringModel
from src.graph import ComplexGraph
from src.hardware.inference import predict_batches
from src.pdbbind.folders import ComplexFiles, locate_complexes
from src.scoring.pose_changes import (
    Complex,
    Crossing,
    contact_crossings,
    near_crossings,
    odd_poses,
    pocket_crossings,
    pulled_out,
    reordered,
    shifted,
    turned,
)
from src.settings import GraphSettings, ProcessingSettings

NUM_DEMO = 3  # complexes of the demo set
MAX_POSES = 3  # poses of the user's ligand file
NUM_TURNS = 4
NUM_CROSSINGS = 4  # crossings tried for each cutoff and pose

# pK. Sums of a thousand float32 terms in another order differ by 2e-5; scores are printed with three decimals.
SAME = 1e-4
STEP = 1e-4  # Å to either side of a cutoff
# pK. Where the ligand moves, each of a thousand contacts adds the rounding of its coordinates to what is measured.
LIGAND_JUMP, PROTEIN_JUMP = 2e-4, 1e-4
ALMOST_OUT = 0.05  # Å that the nearest atom is still within the contact cutoff
RESIDUAL = 0.01  # pK left of the contacts there


@dataclass(frozen=True)
class Check:
    """One line of the table."""

    name: str
    measured: float
    limit: float
    unit: str = "pK"

    @property
    def passed(self) -> bool:
        return self.measured <= self.limit  # False for NaN

    @property
    def line(self) -> str:
        measured, limit = (f"{value:.2g}" for value in (self.measured, self.limit))
        return f"{self.name:<64} {measured:>9} {limit:>9}  {self.unit:<7} {'pass' if self.passed else 'FAIL'}"


@dataclass(frozen=True)
class Judge:
    """Models and how they see a complex; the score of a pose is the mean of the models' predictions."""

    models: Sequence[ScoringModel]
    settings: GraphSettings
    device: torch.device

    def scores(self, poses: Iterable[Complex], batch_size: int = 16) -> np.ndarray:
        """pK of each pose, [poses]."""
        return self.scores_of([build_graph("pose", p.ligand, p.protein, self.settings)[0] for p in poses], batch_size)

    def scores_of(self, graphs: Sequence[ComplexGraph], batch_size: int = 16) -> np.ndarray:
        batches = in_order([Example(graph, math.nan) for graph in graphs], batch_size)
        predicted = [predict_batches(model, batches, self.device)[0] for model in self.models]
        return np.mean(predicted, axis=0, dtype=np.float64)

    @property
    def constant(self) -> float:
        return float(np.mean([model.constant.item() for model in self.models]))


def run_selftest(
    judge: Judge, predict: Callable[[Path, Path], float], own: tuple[Path, Path] | None = None
) -> list[Check]:
    """All checks, on complexes of the built-in demo set and on the user's own where there are.

    Args:
        predict: the road of a user: a protein file and a ligand file -> pK of the first molecule.
        own: a protein file and a ligand file.

    Raises:
        StructureError: one of the user's files cannot be read.
        TooLargeError: a complex does not fit into the memory of the device.
    """
    with tempfile.TemporaryDirectory(prefix="selftest_") as name:
        folder = Path(name)
        write_demo(folder / "demo", num_complexes=NUM_DEMO)
        files = list(locate_complexes(folder / "demo", [f"d{n:03d}" for n in range(1, NUM_DEMO + 1)]).values())
        poses = [pose for one in files for pose in _read(protein_file(one, "protein"), one.ligands[0])]
        if own is not None:
            poses += _read(*own)
        return [*check_poses(judge, poses), _same_road(judge, predict, files, folder / "graphs")]


def check_poses(judge: Judge, poses: Sequence[Complex]) -> list[Check]:
    """What can be checked on poses that are read: invariances, limits, and finite scores of odd poses."""
    return [*_invariances(judge, poses), *_limits(judge, poses), *_odd(judge, poses)]


def selftest_table(checks: Sequence[Check]) -> str:
    header = f"{'check':<64} {'measured':>9} {'limit':>9}  {'unit':<7} result"
    failed = sum(not check.passed for check in checks)
    verdict = f"{failed} of {len(checks)} checks failed" if failed else f"all {len(checks)} checks passed"
    return "\n".join([header, *(check.line for check in checks), verdict])


def _read(protein_path: Path, ligand_path: Path) -> list[Complex]:
    """The usable ones of the first molecules of a ligand file, in their protein."""
    protein = read_protein(protein_path)
    molecules = list(islice(iter_ligands(ligand_path), MAX_POSES))
    poses = [Complex(ligand, protein) for ligand in molecules if isinstance(ligand, Ligand)]
    if not poses:
        raise molecules[0]
    return poses


def _invariances(judge: Judge, poses: Sequence[Complex]) -> Iterable[Check]:
    rng = np.random.default_rng(0)
    alone = judge.scores(poses, batch_size=1)

    def largest_change(change: Callable[[Complex], Complex]) -> float:
        return _largest(judge.scores([change(pose) for pose in poses]) - alone)

    turns = Rotation.random(NUM_TURNS, rng)
    yield Check("rotation", max(largest_change(lambda pose, t=t: turned(pose, t)) for t in turns), SAME)
    for distance in (10.0, 10_000.0):
        way = rng.normal(size=3)
        shift = distance * way / np.linalg.norm(way)
        yield Check(f"translation by {distance:,.0f} Å", largest_change(lambda p, s=shift: shifted(p, s)), SAME)
    yield Check("order of atoms and residues", largest_change(lambda pose: reordered(pose, rng)), SAME)
    together = judge.scores(poses, batch_size=len(poses)) - alone
    backwards = judge.scores(list(reversed(poses)), batch_size=2)[::-1] - alone
    yield Check("other complexes in the batch", _largest([*together, *backwards]), SAME)


def _limits(judge: Judge, poses: Sequence[Complex]) -> Iterable[Check]:
    settings = judge.settings
    cutoff = settings.interaction_cutoff
    far = judge.scores([pulled_out(pose, 100.0) for pose in poses]) - judge.constant
    yield Check("the ligand 100 Å away scores the constant", _largest(far), SAME)
    leaving = judge.scores([pulled_out(pose, cutoff - ALMOST_OUT) for pose in poses]) - judge.constant
    name = f"nearest atom {ALMOST_OUT:g} Å inside the contact cutoff: beyond the constant"
    yield Check(name, _largest(leaving), RESIDUAL)
    for name, find, length, limit in (
        ("contact cutoff", contact_crossings, cutoff, LIGAND_JUMP),
        ("near cutoff", near_crossings, settings.near_cutoff, PROTEIN_JUMP),
        ("pocket radius", pocket_crossings, settings.pocket_radius, PROTEIN_JUMP),
    ):
        crossings = [crossing for pose in poses for crossing in find(pose, settings, NUM_CROSSINGS)]
        name = f"jump at the {name} of {length:g} Å ({len(crossings)} places)"
        yield Check(name, largest_jump(judge, crossings), limit)


def largest_jump(judge: Judge, crossings: Sequence[Crossing]) -> float:
    """How much more the score changes from STEP before a cutoff to STEP behind it than just beside it, pK.

    The difference takes slope and curvature away, so what is left is a jump. NaN without a crossing.
    """
    if not crossings:
        return math.nan
    steps = (-3 * STEP, -STEP, STEP, 3 * STEP)
    scores = judge.scores([crossing(step) for crossing in crossings for step in steps]).reshape(-1, len(steps))
    before, across, behind = np.diff(scores, axis=1).T
    return _largest(across - 0.5 * (before + behind))


def _odd(judge: Judge, poses: Sequence[Complex]) -> Iterable[Check]:
    found: dict[str, list[Complex]] = {}
    for pose in poses:
        for name, odd in odd_poses(pose).items():
            found.setdefault(name, []).append(odd)
    for name, several in found.items():
        not_finite = int((~np.isfinite(judge.scores(several))).sum())
        yield Check(f"scores that are not finite: {name}", not_finite, 0, "scores")


def _same_road(
    judge: Judge, predict: Callable[[Path, Path], float], files: Sequence[ComplexFiles], folder: Path
) -> Check:
    """The graphs of training and evaluation, through the cache, against the files given to predict.py."""
    processing = ProcessingSettings(str(folder), num_workers=0, timeout_s=600.0, memory_gb=16.0)
    cache = build_cache(files, structure="protein", graph_settings=judge.settings, processing=processing)
    evaluated = judge.scores_of([cache.graphs[one.code] for one in files])
    predicted = [predict(protein_file(one, "protein"), one.ligands[0]) for one in files]
    return Check("predict.py against the evaluation in main.py", _largest(predicted - evaluated), SAME)


def _largest(differences: Sequence[float] | np.ndarray) -> float:
    """The largest absolute value; NaN if there is one."""
    return float(np.abs(np.asarray(differences, dtype=np.float64)).max())
