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

from benchmarks.triton_launches import Launch, recorded_launches  # noqa: E402
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
    # Rounding to bf16 adds up through the layers; Triton's kernels must add little more than the plain ones do.
    assert errors.pop("network in bf16, triton") < 1.5 * errors.pop("network in bf16, plain") < 0.02
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
