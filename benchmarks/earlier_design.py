"""The whole road of one complex, files to gradients: whole protein in PyG's network against pocket in ours.

The earlier design took every atom of both files, hydrogens included, and joined each to the first 32 atoms, in the
order of the files, within a radius: what `radius_graph` with `max_num_neighbors` gives on a GPU. Each road runs in a
process of its own, which may take no more memory than is free.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402
import torch  # noqa: E402
from rdkit import Chem  # noqa: E402
from scipy.spatial import cKDTree  # noqa: E402
from torch import Tensor, nn  # noqa: E402
from torch_geometric.nn.models.visnet import ViSNetBlock  # noqa: E402

from benchmarks.measuring import saved_bytes  # noqa: E402
from benchmarks.workload import real_files  # noqa: E402
from config import CONFIG  # noqa: E402
from src.chemistry.ligands import read_ligand  # noqa: E402
from src.chemistry.proteins import read_protein  # noqa: E402
from src.data.batching import collate  # noqa: E402
from src.data.dataset import Example  # noqa: E402
from src.data_processing import build_graph  # noqa: E402
from src.graph import NODE_FEATURES  # noqa: E402
from src.hardware.compilation import compiled_kernels  # noqa: E402
from src.model import ViSNet  # noqa: E402
from src.pdbbind.folders import ComplexFiles  # noqa: E402
from src.settings import ModelSettings, read_settings  # noqa: E402

CODE = "1h1d"  # 3,418 atoms with hydrogens: of the 50 complexes measured first, the largest that was not left out
EARLIER = "earlier design"
COMPILED = ", compiled"
MODES = ("fast", "lean", f"fast{COMPILED}")
MAX_NEIGHBORS = 32
NUM_HEADS, NUM_RBF = 8, 64
SAVED_PER_EDGE_AND_LAYER = 17_500  # bytes of PyG's network with 128 channels; temporaries take a tenth more


class TooLargeError(MemoryError):
    """A step does not fit into the memory that is free."""


class FirstNeighbours(nn.Module):
    """Takes the place of PyG's neighbour search, which needs a compiled extra."""

    def __init__(self, pos: np.ndarray, radius: float) -> None:
        super().__init__()
        near = [atoms[:MAX_NEIGHBORS] for atoms in cKDTree(pos).query_ball_point(pos, radius, return_sorted=True)]
        target = np.repeat(np.arange(len(pos)), [len(atoms) for atoms in near])
        self.edges = torch.from_numpy(np.stack([np.concatenate(near).astype(np.int64), target]))

    def forward(self, pos: Tensor, _batch: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        source, target = self.edges
        difference = pos[source] - pos[target]
        return self.edges, difference.norm(dim=-1), difference


def compare_designs(hidden: int, layers: int, radius: float) -> None:
    """Print what each road needs for one complex: CODE, else the one with the largest protein file."""
    files = {each.code: each for each in real_files(with_protein=True)}
    if not files:
        print("This comparison needs whole proteins: set AIDD_REAL_DATA to the folder that holds pdbbind/.")
        return
    largest = max(files.values(), key=lambda each: each.protein.stat().st_size).code
    code = CODE if CODE in files else largest
    print(
        f"{code}{'' if code == CODE else f' (the largest protein; {CODE} is not there)'}, {hidden} channels, ", end=""
    )
    print(f"{layers} layers, {os.cpu_count()} threads; radius {radius:g} Å in the earlier design\n")
    head = ("road", "atoms", "edges", "graph s", "saved MB", "fewer", "first step s", "step s", "faster")
    print("| " + " | ".join(head) + " |\n|" + "---|" * len(head), flush=True)
    base: dict[str, float] = {}
    for road in (EARLIER, *MODES):
        command = [sys.executable, __file__, road, code, str(hidden), str(layers), str(radius)]
        result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        if result.returncode:
            reason = (result.stderr.strip().splitlines() or [f"ended with code {result.returncode}"])[-1]
            print(f"| {road} | did not run: {reason} |" + " |" * (len(head) - 2), flush=True)
            continue
        found = json.loads(result.stdout.splitlines()[-1])
        base = base or (found if road == EARLIER else {})
        fewer, faster = (f"{base[key] / found[key]:,.0f}x" if base else "-" for key in ("saved", "step"))
        sizes = f"{found['atoms']:,} | {found['edges']:,} | {found['graph']:.3f} | {found['saved'] / 1e6:,.1f}"
        print(f"| {road} | {sizes} | {fewer} | {found['first']:.2f} | {found['step']:.2f} | {faster} |", flush=True)


def run_road(road: str, code: str, hidden: int, layers: int, radius: float) -> dict[str, float]:
    """Sizes of the graph, seconds to build it, bytes kept for the backward pass and seconds of a training step.

    Raises:
        TooLargeError: the step would need more than the free memory.
    """
    files = next(each for each in real_files(with_protein=True) if each.code == code)
    free = _limit_memory()
    torch.set_num_threads(os.cpu_count() or 1)
    start = time.perf_counter()
    if road == EARLIER:
        model, forward, num_atoms, num_edges = _earlier(files, hidden, layers, radius)
        need = SAVED_PER_EDGE_AND_LAYER * hidden / 128 * num_edges * layers * 1.1
        if need > free:
            raise TooLargeError(f"a step would need about {need / 1e9:.1f} GB and {free / 1e9:.1f} GB are free")
    else:
        model, forward, num_atoms, num_edges = _ours(files, hidden, layers, mode=road)
    built = time.perf_counter() - start
    try:
        seconds = [_step_seconds(forward) for _ in range(2 if road == EARLIER else 7)]
        saved, _ = saved_bytes(forward, [*model.parameters(), *model.buffers()])
    except (MemoryError, RuntimeError) as error:  # torch reports a failed allocation as a RuntimeError
        if "memory" not in str(error):
            raise
        raise TooLargeError(f"a step needs more than the {free / 1e9:.1f} GB that are free") from error
    return {
        "atoms": num_atoms,
        "edges": num_edges,
        "graph": built,
        "saved": saved,
        "first": seconds[0],
        "step": min(seconds),
    }


def _earlier(
    files: ComplexFiles, hidden: int, layers: int, radius: float
) -> tuple[nn.Module, Callable[[], tuple[Tensor, ...]], int, int]:
    z, pos = map(np.array, zip(*_ligand_atoms(files), *_protein_atoms(files.protein), strict=True))
    model = ViSNetBlock(
        lmax=1,
        vecnorm_type="max_min",
        trainable_vecnorm=True,
        num_heads=NUM_HEADS,
        num_layers=layers,
        hidden_channels=hidden,
        num_rbf=NUM_RBF,
        max_z=NODE_FEATURES["element"],
        cutoff=radius,
    )
    model.distance = FirstNeighbours(pos, radius)
    z, pos = torch.from_numpy(z), torch.from_numpy(pos).float()
    graph_of_atom = torch.zeros_like(z)
    return model, lambda: model(z, pos, graph_of_atom), len(z), model.distance.edges.shape[1]


def _ours(
    files: ComplexFiles, hidden: int, layers: int, *, mode: str
) -> tuple[nn.Module, Callable[[], tuple[Tensor, ...]], int, int]:
    settings = read_settings(CONFIG, root=ROOT).graph
    ligand = read_ligand(files.ligands)
    protein = read_protein(files.protein, near=ligand.atoms.pos, radius=settings.pocket_radius)
    graph, _ = build_graph(files.code, ligand, protein, settings)
    shape = ModelSettings(
        hidden_channels=hidden,
        num_layers=layers,
        num_heads=NUM_HEADS,
        num_rbf=NUM_RBF,
        lmax=1,
        vector_norm=CONFIG["visnet_vector_norm"],
        dropout=0.0,
        near_cutoff=settings.near_cutoff,
        interaction_cutoff=settings.interaction_cutoff,
    )
    model = ViSNet(shape)
    model.message_passing = mode.removesuffix(COMPILED)
    if mode.endswith(COMPILED):
        model.kernels = compiled_kernels()
    batch = collate([Example(graph, 6.0)])
    return model, lambda: model(batch), graph.num_atoms, graph.num_edges


def _ligand_atoms(files: ComplexFiles) -> Iterator[tuple[int, tuple[float, float, float]]]:
    path = next(path for path in files.ligands if path.suffix == ".sdf")
    ligand = Chem.MolFromMolFile(str(path), sanitize=False, removeHs=False)
    for atom, place in zip(ligand.GetAtoms(), ligand.GetConformer().GetPositions(), strict=True):
        yield atom.GetAtomicNum(), tuple(place)


def _protein_atoms(path: Path) -> Iterator[tuple[int, tuple[float, float, float]]]:
    """Without waters and ions. Columns of the PDB format, version 3.3: coordinates 31-54, element 77-78."""
    table = Chem.GetPeriodicTable()
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("ATOM"):
            element = line[76:78].strip().capitalize() or line[12:16].strip(" 0123456789")[:1]
            yield table.GetAtomicNumber(element), tuple(float(line[start : start + 8]) for start in (30, 38, 46))


def _step_seconds(forward: Callable[[], tuple[Tensor, ...]]) -> float:
    start = time.perf_counter()
    outputs = forward()
    torch.autograd.backward(outputs, [torch.ones_like(output) for output in outputs])
    return time.perf_counter() - start


def _limit_memory() -> int:
    """Free bytes of the machine; a step that needs more fails instead of starving other programs."""
    lines = Path("/proc/meminfo").read_text(encoding="utf-8").splitlines()
    free = 1024 * next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable"))
    resource.setrlimit(resource.RLIMIT_DATA, (free, resource.RLIM_INFINITY))
    return free


if __name__ == "__main__":
    print(json.dumps(run_road(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), float(sys.argv[5]))))
