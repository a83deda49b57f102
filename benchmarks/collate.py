"""Milliseconds of CPU time that a batch costs, beside PyTorch Geometric's usual route.

python benchmarks/collate.py [--complexes 64] [--repeats 30]

Uses complexes of $AIDD_REAL_DATA/pdbbind, else the built-in demo set. Printed is the median over the repeats, each
of another batch. PyTorch Geometric's route is torch.load of one .pt file for each complex, the files being in the
page cache, and Batch.from_data_list; its graphs have the same atoms and edges. Most of the time of a large batch goes
where glibc gives freed memory back and the kernel clears it again for the next batch; with
MALLOC_MMAP_THRESHOLD_=4294967296 MALLOC_TRIM_THRESHOLD_=4294967296 in the environment it is kept.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median

import numpy as np
import torch
from torch_geometric.data import Batch, Data
from torch_geometric.data.data import DataEdgeAttr, DataTensorAttr
from torch_geometric.data.storage import GlobalStorage

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from config import CONFIG  # noqa: E402
from src.data.batching import collate, epoch_batches, graph_sizes  # noqa: E402
from src.data.cache import build_cache  # noqa: E402
from src.data.dataset import Example  # noqa: E402
from src.data.demo import write_demo  # noqa: E402
from src.graph import ComplexGraph  # noqa: E402
from src.pdbbind.folders import locate_complexes  # noqa: E402
from src.settings import read_settings  # noqa: E402

BATCH_SIZES = (8, 16, 64)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--complexes", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=30)
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        examples = [Example(graph, 6.0) for graph in _graphs(Path(folder), options.complexes)]
        sizes = graph_sizes(examples)
        print(f"{len(examples)} complexes of {sizes[:, 0].mean():.0f} atoms and {sizes[:, 1].mean():.0f} edges")
        first = [_milliseconds(lambda e=example: e.graph.edges) for example in examples]
        print(f"{'edges of one complex, once':<44}{median(first):8.2f} ms")
        files = _saved_for_pyg(Path(folder), [example.graph for example in examples])
        roads = {
            "collate": lambda numbers: collate([examples[n] for n in numbers]),
            "torch.load + Batch.from_data_list": lambda numbers: Batch.from_data_list(
                [_load(files[n]) for n in numbers]
            ),
        }
        for batch_size in BATCH_SIZES:
            _print_times(batch_size, sizes, roads, options.repeats)


def _graphs(folder: Path, count: int) -> list[ComplexGraph]:
    settings = read_settings(
        {**CONFIG, "processed_data_dir": f"{folder}/cache", "processing_num_workers": 0}, root=ROOT
    )
    real = os.environ.get("AIDD_REAL_DATA")
    root = Path(real) / "pdbbind" if real else write_demo(folder / "demo", num_complexes=count).parents[1]
    found = locate_complexes(root, sorted(path.name for path in root.iterdir() if path.is_dir()))
    whole = [files for files in found.values() if (files.protein or files.pocket) and files.ligands]
    chosen = whole[:: max(1, len(whole) // count)][:count]
    cache = build_cache(chosen, structure="auto", graph_settings=settings.graph, processing=settings.processing)
    return list(cache.graphs.values())


def _saved_for_pyg(folder: Path, graphs: Sequence[ComplexGraph]) -> list[Path]:
    """One .pt file for each complex, compact as the cache has it."""
    paths = []
    for graph in graphs:
        batch = collate([Example(graph, 6.0)])
        data = Data(
            z=batch.features.to(torch.uint8),
            pos=batch.pos,
            fade=batch.fade,
            edge_index=torch.stack([batch.source, batch.target]),
            edge_kind=batch.edge_kind.to(torch.uint8),
            bond_type=batch.bond_type.to(torch.uint8),
            y=batch.pk,
        )
        paths.append(folder / f"{graph.code}.pt")
        torch.save(data, paths[-1])
    return paths


def _load(path: Path) -> Data:
    with torch.serialization.safe_globals([Data, DataEdgeAttr, DataTensorAttr, GlobalStorage]):
        return torch.load(path, weights_only=True)


def _print_times(batch_size: int, sizes: np.ndarray, roads: dict[str, Callable], repeats: int) -> None:
    """The roads one after the other on each batch, in other batches every time."""
    epochs = (epoch_batches(sizes, batch_size, seed=0, epoch=epoch) for epoch in range(repeats))
    batches = [batch for epoch in epochs for batch in epoch if len(batch) == batch_size][:repeats]
    times = {name: [_milliseconds(lambda r=road, b=batch: r(b)) for batch in batches] for name, road in roads.items()}
    for name, values in times.items():
        if values:
            print(f"{f'{batch_size} complexes: {name}':<44}{median(values):8.2f} ms")


def _milliseconds(action: Callable[[], object]) -> float:
    start = time.process_time()
    action()
    return 1000 * (time.process_time() - start)


if __name__ == "__main__":
    main()
