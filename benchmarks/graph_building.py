"""Milliseconds from files to a graph, and bytes of a cached graph.

python benchmarks/graph_building.py [--complexes 40] [--repeats 5]

Uses the complexes of $AIDD_REAL_DATA/pdbbind that have a whole protein, else the built-in demo set. For each complex
the roads below are timed one after the other in every repeat, on one core; printed is the median over complexes of
the best repeat, since other programs can only add time.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
from Bio.PDB.PDBParser import PDBParser

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from config import CONFIG  # noqa: E402
from src.chemistry.ligands import read_ligand  # noqa: E402
from src.chemistry.proteins import read_protein  # noqa: E402
from src.data.cache import build_cache  # noqa: E402
from src.data.demo import write_demo  # noqa: E402
from src.data_processing import build_graph  # noqa: E402
from src.pdbbind.folders import ComplexFiles, locate_complexes  # noqa: E402
from src.settings import GraphSettings, Settings, read_settings  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--complexes", type=int, default=40)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        settings = read_settings(
            {**CONFIG, "processed_data_dir": f"{folder}/cache", "processing_num_workers": 0}, root=ROOT
        )
        complexes = _complexes(Path(folder), options.complexes)
        _print_times(complexes, settings.graph, options.repeats)
        _print_size(complexes, settings)


def _complexes(folder: Path, count: int) -> list[ComplexFiles]:
    real = os.environ.get("AIDD_REAL_DATA")
    root = Path(real) / "pdbbind" if real else write_demo(folder / "demo", num_complexes=count).parents[1]
    found = locate_complexes(root, sorted(path.name for path in root.iterdir() if path.is_dir()))
    whole = [files for files in found.values() if files.protein and files.pocket and files.ligands]
    step = max(1, len(whole) // count)
    print(f"{len(whole[::step][:count])} complexes of {'$AIDD_REAL_DATA/pdbbind' if real else 'the demo set'}")
    return whole[::step][:count]


def _roads(settings: GraphSettings) -> dict[str, Callable[[ComplexFiles], object]]:
    def build(files: ComplexFiles, path: Path, *, crop_first: bool) -> object:
        ligand = read_ligand(files.ligands)
        near = ligand.atoms.pos if crop_first else None
        return build_graph(files.code, ligand, read_protein(path, near=near, radius=settings.pocket_radius), settings)

    return {
        "whole protein -> graph": lambda files: build(files, files.protein, crop_first=True),
        "pocket file   -> graph": lambda files: build(files, files.pocket, crop_first=True),
        "whole protein -> graph, everything parsed": lambda files: build(files, files.protein, crop_first=False),
        "Biopython's parser alone, whole protein": lambda files: PDBParser(QUIET=True).get_structure("", files.protein),
    }


def _print_times(complexes: list[ComplexFiles], settings: GraphSettings, repeats: int) -> None:
    roads = _roads(settings)
    best = {name: np.full(len(complexes), np.inf) for name in roads}
    warnings.simplefilter("ignore")
    for number, files in enumerate(complexes):
        for _ in range(repeats):
            for name, road in roads.items():
                start = time.process_time()
                road(files)
                best[name][number] = min(best[name][number], 1000 * (time.process_time() - start))
    for name, times in best.items():
        print(f"{name:<44}{np.median(times):8.1f} ms   mean {times.mean():.1f}, slowest {times.max():.1f}")


def _print_size(complexes: list[ComplexFiles], settings: Settings) -> None:
    cache = build_cache(complexes, structure="auto", graph_settings=settings.graph, processing=settings.processing)
    size = sum(path.stat().st_size for path in cache.folder.iterdir())
    print(f"{'cache':<44}{size / len(cache.graphs) / 1000:8.1f} kB a complex, manifest included")


if __name__ == "__main__":
    main()
