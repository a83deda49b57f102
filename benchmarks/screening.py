"""Poses per second of a screening against one receptor, parsing included, beside other ways to score the same poses.

python benchmarks/screening.py [--checkpoint checkpoints/pretrained] [--poses 300] [--alone 8]

The poses are the ligands of one target of $AIDD_REAL_DATA/fep, moved by up to 0.3 Å until there are enough, else those
of one complex of the built-in demo set. Compared are
  - predict.py with its default workers: the whole command, and the poses alone, from the first to the last row
  - predict.py in one process
  - predict.py once for each pose (a few of them, scaled up)
  - a loop over PyG's ViSNet with as many channels and layers, on graphs that are there already, one at a time; as many
    networks as the ensemble has
Processor seconds are those of all processes together; unlike the clock they hardly hang on what else runs.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from rdkit import Chem, rdBase  # noqa: E402

from benchmarks.networks import PYG, make_networks  # noqa: E402
from benchmarks.workload import make_pair  # noqa: E402
from src.checkpoint import FOR_PREDICTION, load_checkpoint  # noqa: E402
from src.chemistry.ligands import Ligand, iter_ligands  # noqa: E402
from src.chemistry.proteins import read_protein  # noqa: E402
from src.data.batching import collate  # noqa: E402
from src.data.dataset import Example  # noqa: E402
from src.data.demo import write_demo  # noqa: E402
from src.data_processing import Receptor, build_graph  # noqa: E402
from src.scoring.ensemble import find_checkpoints, load_scorer  # noqa: E402
from src.settings import ModelSettings, settings_from_dict  # noqa: E402

SHIFT = 0.3  # Å
TARGET = "syk"


class Cost(NamedTuple):
    seconds: float
    processor_seconds: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, default=ROOT / "checkpoints" / "pretrained", help="file or folder")
    parser.add_argument("--poses", type=int, default=300)
    parser.add_argument("--alone", type=int, default=8, help="poses that are scored by a command each")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        protein, source = receptor_and_ligands(folder)
        poses = write_poses(folder / "poses.sdf", source, options.poses)
        single = write_poses(folder / "single.sdf", source, 1)
        base = ["--protein_path", protein, "--checkpoint", options.checkpoint, "--quiet", "--ligand_path"]
        out = ["--overwrite", "--output", folder / "scores.csv"]
        few = write_poses(folder / "few.sdf", source, 64)
        many = _cost(lambda: _predict(*base, poses, *out))
        start = _cost(lambda: _predict(*base, few, *out))
        here = _cost(lambda: _predict(*base, poses, *out, "--num_workers", 0))
        alone = _cost(lambda: [_predict(*base, single) for _ in range(options.alone)])
        count, steady = options.poses, options.poses - 64
        first = many.seconds / count
        _print("predict.py, whole command", many, count, first)
        _print("  after its first 64 poses", Cost(*np.subtract(many, start)), steady, first)
        _print("predict.py --num_workers 0", here, count, first)
        _print("predict.py for each pose", alone, options.alone, first)
        _print("PyG's ViSNet alone, one thread", *_pyg(options.checkpoint, protein, source), first)


def receptor_and_ligands(folder: Path) -> tuple[Path, list[Path]]:
    """A protein file and files of ligands in it: of $AIDD_REAL_DATA, or one complex of the demo set, written here."""
    real = os.environ.get("AIDD_REAL_DATA")
    if real:
        target = Path(real) / "fep" / TARGET
        return target / f"{TARGET}_protein.pdb", sorted(target.glob("*_ligand.sdf"))
    first = write_demo(folder / "demo", num_complexes=1).parents[1] / "d001"
    return first / "d001_protein.pdb", [first / "d001_ligand.sdf"]


def write_poses(path: Path, source: list[Path], count: int) -> Path:
    """An SDF with so many poses: the ligands of the files, each moved by up to SHIFT Å."""
    draw = np.random.default_rng(0)
    with rdBase.BlockLogs():
        molecules = [Chem.MolFromMolFile(str(one), sanitize=False, removeHs=False) for one in source]
    with Chem.SDWriter(str(path)) as writer:
        writer.SetKekulize(False)
        for number in range(count):
            molecule = Chem.Mol(molecules[number % len(molecules)])
            conformer = molecule.GetConformer()
            conformer.SetPositions(conformer.GetPositions() + draw.uniform(-SHIFT, SHIFT, 3))
            molecule.SetProp("_Name", f"pose{number}")
            writer.write(molecule)
    return path


def _predict(*words: object) -> None:
    subprocess.run([sys.executable, ROOT / "predict.py", *map(str, words)], check=True, capture_output=True)


def _pyg(checkpoint: Path, protein: Path, source: list[Path]) -> tuple[Cost, int]:
    """The representation of PyG on our edges; with its own it would need compiled extras."""
    torch.set_num_threads(1)
    members = find_checkpoints([checkpoint])
    state = load_checkpoint(members[0], required=FOR_PREDICTION)
    settings = settings_from_dict(ModelSettings, state["model_settings"], source=str(members[0]))
    receptor, scorer = Receptor(read_protein(protein)), load_scorer(members[0], "cpu")
    graphs = []
    for path in source[:24]:
        ligand = next(iter_ligands(path))
        if isinstance(ligand, Ligand):
            near = receptor.around(ligand.atoms.pos, scorer.graph_settings.pocket_radius)
            graphs.append(build_graph(ligand.name, ligand, near, scorer.graph_settings)[0])
    batches = [collate([Example(graph, float("nan"))]) for graph in graphs]
    theirs = next(one for one in make_networks(make_pair(settings), "fp32") if one.name == PYG)

    def loop() -> None:
        for batch in batches * len(members):
            theirs.infer(batch)

    loop()
    return _cost(loop), len(batches)


def _cost(act: Callable[[], object]) -> Cost:
    before, start = _processor_seconds(), time.monotonic()
    act()
    return Cost(time.monotonic() - start, _processor_seconds() - before)


def _processor_seconds() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def _print(name: str, cost: Cost, count: int, first: float) -> None:
    each = cost.seconds / count
    print(
        f"{name:<34}{count:>5} poses{1 / each:>9.1f} /s{1000 * cost.processor_seconds / count:>9.1f} ms processor "
        f"a pose{each / first:>9.1f} times the first line",
        flush=True,
    )


if __name__ == "__main__":
    main()
