"""The kernels for GPUs, without one: run by Triton's interpreter, and compiled to what cards of each kind execute."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from src.model import ViSNet
from tests.synthetic import random_batch, tiny_settings

triton = pytest.importorskip("triton", reason="Triton is not installed; it comes with builds of torch for CUDA")

from triton.backends.compiler import GPUTarget  # noqa: E402
from triton.compiler import ASTSource  # noqa: E402

from benchmarks.measuring import OperatorCount  # noqa: E402
from benchmarks.triton_launches import Launch, recorded_launches  # noqa: E402
from benchmarks.window_cost import WindowCost, gpu_settings, window_cost  # noqa: E402
from benchmarks.workload import as_batch, drawn_graph  # noqa: E402
from src.visnet.triton_kernels import TritonKernels  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
LARGEST_ERRORS = {"torch.bfloat16": 0.02, "torch.float16": 0.002}  # of all others 1e-5
CARDS = [  # lmax, precision, capabilities
    (1, torch.float16, (75,)),
    (1, torch.bfloat16, (80, 86, 89, 90, 120)),
    (1, torch.float32, (75,)),
    (2, torch.bfloat16, (86,)),
    (2, torch.float32, (90,)),
]


def test_kernels_agree_with_the_plain_form() -> None:
    command = [sys.executable, "-m", "tests.visnet.triton_agreement"]
    environment = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    errors = json.loads(done.stdout)
    # Rounding to bf16 adds up through the layers, and Triton's kernels also read vectors of atoms in bf16.
    assert errors.pop("network in bf16, triton") < 2.5 * errors.pop("network in bf16, plain") < 0.03
    assert len(errors) == 14
    for case, error in errors.items():
        largest = next((most for name, most in LARGEST_ERRORS.items() if name in case), 1e-5)
        assert error <= largest, f"{case}: {error:.1e}"


def launches_of_a_step(lmax: int, precision: torch.dtype) -> list[Launch]:
    """Each kernel of a training step once for every kind of tensors and sizes that it is given."""
    model = ViSNet(tiny_settings(hidden_channels=128, num_heads=8, lmax=lmax))
    model.kernels = TritonKernels()
    with recorded_launches() as launches, torch.autocast("cpu", precision, enabled=precision != torch.float32):
        outputs = model(random_batch(1, seed=0, num_ligand_atoms=3, num_pocket_atoms=5))
        sum(output.float().sum() for output in outputs).backward()
    return list({str((one.kernel, one.signature, one.constants)): one for one in launches}.values())


# Of a window of a drawn complex, 293 atoms and 4,624 edges, in bf16, six layers of 128 channels. A change of more
# than 2 % is either a fault or belongs into this table.
WINDOWS = {
    "fast, Triton": WindowCost(961, 783_834_562, 1),
    "keep, Triton": WindowCost(816, 659_431_602, 1),
}


@pytest.mark.parametrize("form", WINDOWS)
def test_a_window_costs_what_is_written_down(form: str) -> None:
    settings = gpu_settings()
    batch = as_batch([drawn_graph(0, settings.graph)])
    operations, moved, waits = WINDOWS[form]
    found = window_cost(settings, batch, form, "bf16")
    assert found.operations == pytest.approx(operations, rel=0.02)
    assert found.moved == pytest.approx(moved, rel=0.02)
    assert found.waits == waits


def test_an_operator_that_hides_a_hundred_is_counted_as_a_hundred() -> None:
    @torch.library.custom_op("hidden::hundred", mutates_args=())
    def hundred(values: torch.Tensor) -> torch.Tensor:
        for _ in range(100):
            values = values + 1
        return values

    values = torch.zeros(5)
    with OperatorCount() as count:
        found = hundred(values)
    assert found.tolist() == [100.0] * 5
    assert (count.kernels, count.moved) == (100, 100 * 2 * 20)


def test_an_operator_that_cannot_be_looked_into_is_refused() -> None:
    with torch.library._scoped_library("hidden", "FRAGMENT") as library:
        library.define("closed(Tensor values) -> Tensor")
        library.impl("closed", lambda values: values + 1, "CPU")
        with pytest.raises(KeyError, match="hidden::closed"), OperatorCount():
            torch.ops.hidden.closed(torch.zeros(5))


@pytest.mark.slow
@pytest.mark.parametrize(("lmax", "precision", "capabilities"), CARDS, ids=str)
def test_kernels_compile_for_the_cards_that_people_have(
    lmax: int, precision: torch.dtype, capabilities: tuple[int, ...]
) -> None:
    launches = launches_of_a_step(lmax, precision)
    assert {launch.kernel.__name__ for launch in launches} >= {"attend", "filters_gradient", "norm", "edge_basis"}
    for capability in capabilities:
        for launch in launches:
            source = ASTSource(launch.kernel, signature=launch.signature, constexprs=launch.constants)
            target = GPUTarget("cuda", capability, 32)
            compiled = triton.compile(source, target=target, options={"num_warps": launch.num_warps})
            assert compiled.asm["cubin"], f"{launch.kernel.__name__} for {capability}"
