"""Operations, bytes and waits of a training window as a GPU is given it, counted without one.

python benchmarks/window_cost.py [--batch 16] [--precision bf16]

The network of the block GPU_6GB of config.py on drawn pockets: forward pass, loss, backward pass, and beside it PyG's
ViSNet in the same size on the same edges. An operation is what torch starts a kernel for, or a start of a kernel of our
own; its bytes are those of the tensors that it reads and writes. Chunks of edges are those of a GPU. Of the two times,
estimates both, the larger one counts; cards of 6 to 12 GB move some 360 GB/s.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple
from unittest.mock import patch

import torch
from torch import Tensor

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.measuring import OperatorCount  # noqa: E402
from benchmarks.networks import DTYPES, PYG, Network  # noqa: E402
from benchmarks.triton_launches import recorded_launches  # noqa: E402
from benchmarks.workload import as_batch, drawn_graph, make_pair  # noqa: E402
from config import CONFIG, GPU_6GB  # noqa: E402
from src.graph import Batch  # noqa: E402
from src.model import build_model  # noqa: E402
from src.settings import Settings, read_settings  # noqa: E402
from src.visnet.chunked_kernels import CHUNK_ELEMENTS, EAGER  # noqa: E402
from src.visnet.kernels import Kernels  # noqa: E402
from src.visnet.triton_kernels import TritonKernels  # noqa: E402

FORMS: dict[str, tuple[str, Kernels]] = {
    "lean": ("lean", EAGER),
    "fast": ("fast", EAGER),
    "keep": ("keep", EAGER),
    "fast, Triton": ("fast", TritonKernels()),
    "keep, Triton": ("keep", TritonKernels()),
}
LAUNCH_S, BYTES_PER_S = 5e-6, 360e9


class WindowCost(NamedTuple):
    operations: int
    moved: int  # bytes
    waits: int


def main() -> None:
    options = _options()
    settings = gpu_settings()
    batch = as_batch([drawn_graph(number, settings.graph) for number in range(options.batch)])
    print(f"{options.batch} drawn complexes: {len(batch.pos):,} atoms, {len(batch.source):,} edges, ", end="")
    print(f"{batch.contacts.shape[1]:,} contacts; {options.precision}\n")
    print("| form | operations | GB moved | waits | ms at 5 us an operation | ms at 360 GB/s |\n|" + "---|" * 6)
    costs = {PYG: lambda: pyg_cost(settings, batch, options.precision)}
    costs |= {form: lambda form=form: window_cost(settings, batch, form, options.precision) for form in FORMS}
    for name, cost in costs.items():
        operations, moved, waits = cost()
        times = f"{1000 * LAUNCH_S * operations:.0f} | {1000 * moved / BYTES_PER_S:.0f}"
        print(f"| {name} | {operations:,} | {moved / 1e9:.1f} | {waits} | {times} |", flush=True)


def gpu_settings() -> Settings:
    return read_settings({**CONFIG, **GPU_6GB}, root=ROOT)


def window_cost(settings: Settings, batch: Batch, form: str, precision: str) -> WindowCost:
    """Of this program's network in one of FORMS."""
    torch.manual_seed(0)
    model = build_model(settings.model).train()
    model.representation.message_passing, model.representation.kernels = FORMS[form]
    return _counted(lambda: model(batch), batch, precision)


def pyg_cost(settings: Settings, batch: Batch, precision: str) -> WindowCost:
    """Of PyG's network, whose scalars are summed over the atoms of a complex."""
    network = Network(PYG, make_pair(settings.model).theirs, precision)

    def predict() -> Tensor:
        scalars, _ = network.forward(batch)
        return torch.zeros(batch.num_graphs).index_add(0, batch.graph_of_atom, scalars.float().sum(1))

    return _counted(predict, batch, precision)


def _counted(predict: Callable[[], Tensor], batch: Batch, precision: str) -> WindowCost:
    """A window of one batch; its losses and whether the gradient is finite are read at its end, in one wait."""
    low = DTYPES[precision]
    longer = patch.dict(CHUNK_ELEMENTS, cpu=CHUNK_ELEMENTS["cuda"])
    with longer, recorded_launches() as launches, OperatorCount() as count:
        with torch.autocast("cpu", low) if low else contextlib.nullcontext():
            predicted = predict()
        loss = (predicted - batch.pk).square().sum()
        (loss / batch.num_graphs).backward()
        loss.item()
    return WindowCost(
        count.kernels + len(launches), count.moved + sum(launch.moved for launch in launches), count.waits
    )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=16, help="complexes")
    parser.add_argument("--precision", choices=DTYPES, default="bf16")
    return parser.parse_args()


if __name__ == "__main__":
    main()
