"""Seconds and memory that a cluster split and its leakage check cost, by the number of complexes.

python benchmarks/clustering.py [--complexes 2861 20000]

Uses the complexes of $AIDD_REAL_DATA/pdbbind. Where more are asked for than there are, copies are added: every second
with 2% of its residues mutated, so that its chain is another one, all with the ligand of a random complex.
"""

from __future__ import annotations

import argparse
import os
import resource
import sys
import tempfile
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from config import CONFIG  # noqa: E402
from src.chemistry.atoms import StructureError  # noqa: E402
from src.chemistry.ligands import read_ligand  # noqa: E402
from src.data.dataset import Dataset, Example  # noqa: E402
from src.pdbbind.index import read_dataset  # noqa: E402
from src.settings import read_settings  # noqa: E402
from src.similarity.comparison import LETTERS, UNKNOWN, Similarity  # noqa: E402
from src.similarity.sequences import describe  # noqa: E402
from src.similarity.splits import check_leakage, cluster_thresholds, split_codes  # noqa: E402

MUTATED = 0.02


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--complexes", type=int, nargs="+", default=[2861, 20_000])
    counts = parser.parse_args().complexes
    if "AIDD_REAL_DATA" not in os.environ:
        sys.exit("set AIDD_REAL_DATA to the folder that holds pdbbind")
    chains, smiles = real_complexes(Path(os.environ["AIDD_REAL_DATA"]) / "pdbbind")
    print(
        f"{'complexes':>9}{'chains':>8}{'words s':>9}{'cluster s':>11}{'leakage s':>11}{'aligned':>9}{'clusters':>10}",
        end="",
    )
    print(f"{'largest':>9}{'GB':>6}")
    for count in counts:
        measure(*enlarged(chains, smiles, count))


def real_complexes(root: Path) -> tuple[list[tuple[str, ...]], list[str]]:
    _, files = read_dataset(root, None)
    with tempfile.TemporaryDirectory() as folder:
        settings = read_settings({**CONFIG, "processed_data_dir": folder}, root=ROOT)
        start = time.perf_counter()
        described = describe(list(files.values()), replace(settings.processing, num_workers=0))
        print(f"sequences of {len(files)} complexes: {time.perf_counter() - start:.1f} s in one process")
    return [described[code].sequences for code in files], [ligand_smiles(one.ligands) for one in files.values()]


def ligand_smiles(paths: tuple[Path, ...]) -> str:
    try:
        return read_ligand(paths).smiles
    except StructureError:
        return ""


def enlarged(chains: list, smiles: list[str], count: int) -> tuple[list, list[str]]:
    rng = np.random.default_rng(0)
    more, ligands = chains[:count], smiles[:count]
    while len(more) < count:
        source = chains[rng.integers(len(chains))]
        more.append(tuple(mutated(one, rng) for one in source) if len(more) % 2 else source)
        ligands.append(smiles[rng.integers(len(smiles))])
    return more, ligands


def mutated(sequence: str, rng: np.random.Generator) -> str:
    letters = list(sequence)
    known = [place for place, letter in enumerate(letters) if letter != UNKNOWN]
    for place in rng.choice(known, max(1, round(MUTATED * len(known))), replace=False):
        letters[place] = LETTERS[rng.integers(len(LETTERS))]
    return "".join(letters)


def measure(chains: list, smiles: list[str]) -> None:
    settings = read_settings(CONFIG, root=ROOT).data
    start = time.perf_counter()
    similarity = Similarity(chains, smiles)
    built = time.perf_counter()
    sizes = Counter(similarity.clusters(cluster_thresholds(settings)).tolist())
    clustered = time.perf_counter()
    codes = [f"c{number:06}" for number in range(len(smiles))]
    examples = tuple(Example(SimpleNamespace(code=code, smiles=""), 5.0) for code in codes)  # type: ignore[arg-type]
    dataset = Dataset(examples, (), 0, None, {})  # type: ignore[arg-type]
    check_leakage(dataset, split_codes(codes, settings, 0), similarity)
    seconds = built - start, clustered - built, time.perf_counter() - clustered
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(
        f"{len(smiles):>9,}{len(similarity.sequences):>8,}{seconds[0]:>9.1f}{seconds[1]:>11.1f}{seconds[2]:>11.1f}",
        end="",
    )
    print(f"{similarity.num_alignments:>9,}{len(sizes):>10,}{max(sizes.values()):>9,}{memory:>6.1f}", flush=True)


if __name__ == "__main__":
    main()
