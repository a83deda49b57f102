"""PyG's ViSNet against ours: bytes, kernels and seconds of a training step, with the same weights and edges.

python benchmarks/message_passing.py [--hidden 128] [--layers 6] [--lmax 1] [--precision fp32] [--batch 1]
python benchmarks/message_passing.py --full --complexes 2     widths, depths, lmax, precisions, and slopes over batches
python benchmarks/message_passing.py --earlier-design         a whole protein in PyG's network, a pocket in ours

Runs on pockets of $AIDD_REAL_DATA/pdbbind (every k-th code), else on drawn ones. The default cutoffs give some 3,700
edges; those of config.py are --pocket-radius 8 --interaction-cutoff 6 --max-neighbors 32. Nothing is measured before
outputs and gradients are those of PyG's network in float32. Counts are the same on every run. Times are the least
of several, the forms taking turns: CPU time on one thread, wall time on all cores. A step is a forward pass and the
backward pass from fixed random gradients of the outputs.
"""

from __future__ import annotations

import argparse
import itertools
import os
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

# Memory that a step gives back stays with the process, as on a GPU; else a sixth of the time of PyG's network goes
# into page faults.
TUNED = {
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": str(2**40),
    "GOMP_SPINCOUNT": "1000",
}
if __name__ == "__main__" and any(os.environ.get(name) != value for name, value in TUNED.items()):
    os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **TUNED})

import numpy as np  # noqa: E402
import torch  # noqa: E402

from benchmarks.earlier_design import compare_designs  # noqa: E402
from benchmarks.measuring import (  # noqa: E402
    Cost,
    constants_of,
    least_seconds,
    machine,
    measure_step,
    peak_bytes,
    product_rate,
    saved_bytes,
)
from benchmarks.networks import (  # noqa: E402
    PYG,
    TOLERANCES,
    Network,
    agreeing_networks,
    output_weights,
    precision_errors,
)
from benchmarks.workload import as_batch, pocket_graphs  # noqa: E402
from src.graph import Batch, ComplexGraph  # noqa: E402
from src.settings import GraphSettings, ModelSettings  # noqa: E402

NUM_HEADS, NUM_RBF = 8, 64
SLOPE_BATCHES = (1, 2, 4, 8)
MEMORY_SHARE = 0.6  # of the machine's memory that a step of a slope may take
GRID = {"hidden": (64, 128, 256), "layers": (4, 6), "lmax": (1, 2), "precision": ("fp32", "bf16")}


@dataclass(frozen=True)
class Times:
    """Seconds of all batches together."""

    train_cpu: float
    infer_cpu: float
    train_wall: float
    infer_wall: float


def main() -> None:
    options = _options()
    torch.set_num_threads(1)
    command = " ".join(["python benchmarks/message_passing.py", *sys.argv[1:]])
    print(f"{time.strftime('%Y-%m-%d')}, {machine()}\n\n`{command}`\n")
    if options.earlier_design:
        compare_designs(options.hidden, options.layers, options.radius)
        return
    graph_settings = GraphSettings(
        pocket_radius=options.pocket_radius,
        interaction_cutoff=options.interaction_cutoff,
        near_cutoff=options.near_cutoff,
        max_neighbors=options.max_neighbors,
        keep_waters=False,
        keep_ions=True,
        keep_cofactors=True,
    )
    source, graphs = pocket_graphs(options.complexes, graph_settings)
    _print_graphs(source, graphs)
    if options.full:
        _print_grid(graphs, options)
        return
    settings = _model_settings(options)
    batches = _batches(graphs, options.batch)
    networks, errors = agreeing_networks(settings, batches[0], options.precision, compiled=options.compiled)
    _print_errors(errors, options.precision)
    costs = {network.name: _costs(network, settings, batches) for network in networks}
    _print_costs(costs, graphs, settings)
    _print_times(networks, settings, batches, costs, options.repeats)
    _print_precision_errors(settings, as_batch(graphs[:1]))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hidden", type=int, default=128)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--lmax", type=int, choices=(1, 2), default=1)
    parser.add_argument("--precision", choices=tuple(TOLERANCES), default="fp32")
    parser.add_argument("--vector-norm", choices=("max_min", "none"), default="max_min", help="those that PyG has")
    parser.add_argument("--batch", type=int, default=1, help="complexes per step")
    parser.add_argument("--complexes", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--pocket-radius", type=float, default=6.5, help="Å")
    parser.add_argument("--interaction-cutoff", type=float, default=5.0, help="Å")
    parser.add_argument("--near-cutoff", type=float, default=4.5, help="Å")
    parser.add_argument("--max-neighbors", type=int, default=16)
    parser.add_argument("--compiled", action="store_true", help="also the forms whose edge kernels are compiled")
    parser.add_argument("--full", action="store_true", help="every width, depth, lmax and precision")
    parser.add_argument("--earlier-design", action="store_true", help="the whole road: protein to gradients")
    parser.add_argument("--radius", type=float, default=8.0, help="Å; of the earlier design's graph")
    return parser.parse_args()


def _model_settings(options: argparse.Namespace, **changes: int) -> ModelSettings:
    shape = {"hidden": options.hidden, "layers": options.layers, "lmax": options.lmax} | changes
    return ModelSettings(
        hidden_channels=shape["hidden"],
        num_layers=shape["layers"],
        num_heads=NUM_HEADS,
        num_rbf=NUM_RBF,
        lmax=shape["lmax"],
        vector_norm=options.vector_norm,
        dropout=0.0,
        near_cutoff=options.near_cutoff,
        interaction_cutoff=options.interaction_cutoff,
    )


def _batches(graphs: Sequence[ComplexGraph], size: int) -> list[Batch]:
    return [as_batch(graphs[start : start + size]) for start in range(0, len(graphs), size)]


def _costs(network: Network, settings: ModelSettings, batches: Iterable[Batch]) -> list[Cost]:
    costs = []
    for batch in batches:
        weights = output_weights(settings, batch)
        constants = constants_of(network.model, batch)
        costs.append(measure_step(partial(network.forward, batch), weights, constants, is_compiled=network.is_compiled))
    return costs


def _saved(network: Network, batch: Batch) -> int:
    return saved_bytes(partial(network.forward, batch), constants_of(network.model, batch))[0]


def _times(
    networks: Sequence[Network], settings: ModelSettings, batches: Sequence[Batch], repeats: int
) -> dict[str, Times]:
    def measured(kind: str, num_threads: int, clock: Callable[[], float]) -> list[dict[str, float]]:
        torch.set_num_threads(num_threads)
        results = []
        for batch in batches:
            weights = output_weights(settings, batch)
            if kind == "train":
                roads = {network.name: partial(network.step, batch, weights) for network in networks}
            else:
                roads = {network.name: partial(network.infer, batch) for network in networks}
            results.append(least_seconds(roads, repeats, clock))
        torch.set_num_threads(1)
        return results

    num_cores = os.cpu_count() or 1
    columns = [
        measured(kind, num_threads, clock)
        for num_threads, clock in ((1, time.process_time), (num_cores, time.perf_counter))
        for kind in ("train", "infer")
    ]
    return {
        network.name: Times(*(sum(result[network.name] for result in column) for column in columns))
        for network in networks
    }


def _peak_slope(network: Network, settings: ModelSettings, graphs: Sequence[ComplexGraph]) -> float:
    """Bytes of peak that one more complex of mean size adds: the slope over batches of several sizes."""
    edges, peaks = [], []
    for size in SLOPE_BATCHES:
        limit = MEMORY_SHARE * os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        batch = as_batch(list(itertools.islice(itertools.cycle(graphs), size)))
        if peaks and peaks[-1] / edges[-1] * len(batch.source) > limit:
            break
        weights = output_weights(settings, batch)
        network.step(batch, weights)  # from now on parameters have gradients
        edges.append(len(batch.source))
        peaks.append(peak_bytes(partial(network.step, batch, weights)))
    return float(np.polyfit(edges, peaks, 1)[0]) * float(np.mean([graph.num_edges for graph in graphs]))


def _print_graphs(source: str, graphs: Sequence[ComplexGraph]) -> None:
    sizes = [f"{graph.code} {graph.num_atoms}/{graph.num_edges:,}" for graph in graphs]
    atoms, edges = (np.mean([getattr(graph, name) for graph in graphs]) for name in ("num_atoms", "num_edges"))
    print(f"{len(graphs)} {source}, mean {atoms:.0f} atoms and {edges:,.0f} edges: {', '.join(sizes)}\n", flush=True)


def _print_table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    print("| " + " | ".join(head) + " |\n|" + "---|" * len(head))
    for row in rows:
        print("| " + " | ".join(map(str, row)) + " |", flush=True)
    print()


def _print_errors(errors: dict[str, object], precision: str) -> None:
    print(f"Largest relative differences to PyG's network in fp32 ({precision}):\n")
    head = ("form", "outputs", "gradients, Euclidean", "worst tensor of gradients")
    _print_table(head, [(name, *(f"{value:.1e}" for value in error)) for name, error in errors.items()])


def _print_costs(costs: dict[str, list[Cost]], graphs: Sequence[ComplexGraph], settings: ModelSettings) -> None:
    edges_and_layers = sum(graph.num_edges for graph in graphs) * settings.num_layers
    memory = {
        name: [sum(getattr(cost, kind) for cost in each) for kind in ("saved", "peak")] for name, each in costs.items()
    }
    rows = []
    for name, (saved, peak) in memory.items():
        row = [name, f"{saved / len(graphs) / 1e6:.1f}", f"{saved / edges_and_layers:,.0f}"]
        row += [f"{memory[PYG][0] / saved:.1f}x", f"{peak / len(graphs) / 1e6:.1f}", f"{memory[PYG][1] / peak:.1f}x"]
        for kind, unit, digits in (("kernels", 1, 0), ("waits", 1, 0), ("flops", 1e9, 1), ("moved", 1e9, 2)):
            counts = [getattr(cost, kind) for cost in costs[name]]
            share = len(counts) if unit == 1 else len(graphs)
            row.append("-" if None in counts else f"{sum(counts) / share / unit:.{digits}f}")
        rows.append(row)
    print("Counts of a training step (bytes, FLOP: per complex; kernels, waits for the device: per step):\n")
    head = ("form", "saved MB", "per edge and layer B", "fewer", "peak MB", "lower")
    _print_table((*head, "kernels", "waits", "GFLOP", "GB moved"), rows)


def _print_times(
    networks: Sequence[Network],
    settings: ModelSettings,
    batches: Sequence[Batch],
    costs: dict[str, list[Cost]],
    repeats: int,
) -> None:
    num_cores, num_complexes = os.cpu_count() or 1, sum(batch.num_graphs for batch in batches)
    times = _times(networks, settings, batches, repeats)
    rates = []
    for num_threads in (1, num_cores):
        torch.set_num_threads(num_threads)
        rates.append(product_rate())
    torch.set_num_threads(1)
    # The plain form has the fewest products: nothing is computed twice.
    floors = [sum(cost.flops for cost in costs["plain"]) / rate for rate in rates]
    base, rows = times[PYG], []
    for name, one in times.items():
        row: list[str] = [name]
        for field in fields(Times):
            seconds, best = getattr(one, field.name), getattr(base, field.name)
            row += [f"{1000 * seconds / num_complexes:.0f}", f"{best / seconds:.2f}x"]
        rows.append((*row, f"{one.train_cpu / floors[0]:.2f}x", f"{one.train_wall / floors[1]:.2f}x"))
    print(f"ms per complex, least of {repeats}: CPU time on 1 thread, wall time on {num_cores}:\n")
    head = ("form", "train 1", "faster", "infer 1", "faster", f"train {num_cores}", "faster", f"infer {num_cores}")
    _print_table((*head, "faster", "floor 1", f"floor {num_cores}"), rows)
    print(
        f"Floor: time over that of the plain form's products at the rate of a [1024, 128] x [128, 256] product in "
        f"fp32, {rates[0] / 1e9:.0f} GFLOP/s on 1 thread and {rates[1] / 1e9:.0f} on {num_cores}.\n"
    )


def _print_precision_errors(settings: ModelSettings, batch: Batch) -> None:
    print("Error of the parameters' gradients against float64, Euclidean, relative:\n")
    rows = []
    for norm in ("rms", "max_min", "none"):
        changed = ModelSettings(**{**vars(settings), "vector_norm": norm})
        for name, errors in precision_errors(changed, batch).items():
            rows.append((norm, name, *(f"{error:.1e}" for error in errors.values())))
    _print_table(("vector norm", "form", "fp32", "bf16", "fp16"), rows)


def _print_grid(graphs: Sequence[ComplexGraph], options: argparse.Namespace) -> None:
    head = ("hidden", "layers", "lmax", "precision", "form", "train 1 ms", "faster", "infer 1 ms", "faster")
    head += (f"train {os.cpu_count()} ms", "faster", f"infer {os.cpu_count()} ms", "faster", "saved MB", "fewer")
    print("Per complex; the peak is the slope over batches of 1, 2, 4 and 8 complexes.\n")
    print("| " + " | ".join((*head, "peak MB", "lower")) + " |\n|" + "---|" * (len(head) + 2), flush=True)
    batches = _batches(graphs, options.batch)
    for hidden, layers, lmax, precision in itertools.product(*GRID.values()):
        settings = _model_settings(options, hidden=hidden, layers=layers, lmax=lmax)
        networks, _ = agreeing_networks(settings, batches[0], precision, compiled=options.compiled)
        times = _times(networks, settings, batches, options.repeats)
        memory = {}
        for network in networks:
            saved = sum(_saved(network, batch) for batch in batches) / len(graphs)
            memory[network.name] = (saved, _peak_slope(network, settings, graphs))
        for name in times:
            row: list[object] = [hidden, layers, lmax, precision, name]
            for field in fields(Times):
                seconds, base = getattr(times[name], field.name), getattr(times[PYG], field.name)
                row += [f"{1000 * seconds / len(graphs):.0f}", f"{base / seconds:.2f}x"]
            for size, base in zip(memory[name], memory[PYG], strict=True):
                row += [f"{size / 1e6:.1f}", f"{base / size:.1f}x"]
            print("| " + " | ".join(map(str, row)) + " |", flush=True)


if __name__ == "__main__":
    main()
