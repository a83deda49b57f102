"""Runs the Triton kernels in Triton's interpreter, without a GPU, against the plain form in float64.

TRITON_INTERPRET=1 python -m tests.visnet.triton_agreement

Triton reads that variable when it is imported, hence a process of its own. Prints JSON: case -> the largest of the
relative errors, Euclidean, of what is computed and of each gradient.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from src.model import ViSNet
from src.visnet.chunked_kernels import EAGER
from src.visnet.kernels import Kernels
from src.visnet.message_passing import Edges, EdgeWeights, Form, Messages, Nodes
from src.visnet.triton_kernels import TritonKernels
from tests.synthetic import in_double, random_batch, random_edge_operation, scattered, tiny_settings

NUM_ATOMS, NUM_EDGES, NUM_HEADS = 4, 11, 8
NEGLIGIBLE = 1e-3  # of the longest gradient; shorter ones are measured against that
TRITON = TritonKernels()
WAYS = {"plain": EAGER, "triton": TRITON}


def main() -> None:
    found = {}
    middle = {"lmax": 1, "updates": True}
    for lmax in (1, 2):
        found[f"first layer, lmax {lmax}"] = operation(lmax=lmax, first=True)
        found[f"last layer, lmax {lmax}"] = operation(lmax=lmax)
        found[f"middle layer, lmax {lmax}"] = operation(lmax=lmax, updates=True)
        found[f"middle layer as published, lmax {lmax}"] = operation(lmax=lmax, updates=True, corrected=False)
    found["256 channels"] = operation(channels=256, **middle)
    found |= {f"{dtype}": operation(dtype=dtype, **middle) for dtype in (torch.bfloat16, torch.float16)}
    found["one edge of one atom"] = operation(num_atoms=1, num_edges=1, **middle)
    found["no edge"] = operation(num_edges=0, **middle)
    found["network"] = network(TRITON, "keep", 2)
    found |= {f"network in bf16, {name}": network(way, "fast", 1, torch.bfloat16) for name, way in WAYS.items()}
    print(json.dumps(found))


def operation(
    *,
    lmax: int,
    first: bool = False,
    updates: bool = False,
    corrected: bool = True,
    channels: int = 64,
    dtype: torch.dtype = torch.float32,
    num_atoms: int = NUM_ATOMS,
    num_edges: int = NUM_EDGES,
) -> float:
    """Of the edge operation and of its gradients."""
    sizes = {"num_atoms": num_atoms, "num_edges": num_edges, "channels": channels}
    nodes, feature, edges, weights = random_edge_operation(lmax=lmax, first=first, updates=updates, **sizes)
    weights = EdgeWeights(*(weight / channels**0.5 for weight in weights))
    form, draw = Form(NUM_HEADS, corrected), torch.Generator().manual_seed(1)
    expected = EAGER.messages(nodes, feature.__getitem__, edges, weights, form, updated=torch.empty_like(feature))
    shapes = nodes.query.shape, (num_atoms, edges.direction.shape[1], channels), feature.shape
    grad = Messages(*(torch.randn(shape, generator=draw, dtype=torch.float64) for shape in shapes))
    grad = grad if updates else grad._replace(feature=None)
    of_nodes, of_feature, of_weights = EAGER.gradients(nodes, feature.__getitem__, edges, weights, form, grad)

    low = feature.to(dtype)
    edges = TRITON.prepared(Edges(*_in(torch.float32, edges)), num_atoms)
    given = Nodes(*_in(torch.float32, nodes)), low.__getitem__, edges, EdgeWeights(*_in(dtype, weights)), form
    kept: list[Tensor] = []
    messages = TRITON.messages(*given, updated=torch.empty_like(low) if updates else None, kept=kept)
    grad = Messages(grad.scalar.float(), grad.vector.float(), None if grad.feature is None else grad.feature.to(dtype))
    nodes, feature, weights = TRITON.gradients(*given, grad)
    again = TRITON.gradients(*given, grad, kept)
    assert all(torch.equal(*both) for both in zip(nodes[:2], again[0][:2], strict=True)), (
        "what was kept changes the sums"
    )
    if not updates:
        expected = expected._replace(feature=None)
    return _largest_error([*messages, *nodes, feature, *weights], [*expected, *of_nodes, of_feature, *of_weights])


def network(kernels: Kernels, mode: str, lmax: int, low: torch.dtype | None = None) -> float:
    """Of a whole representation and of all its parameters' gradients, in mixed precision where one is given."""
    model = scattered(ViSNet(tiny_settings(hidden_channels=64, num_heads=NUM_HEADS, lmax=lmax)))
    batch = random_batch(1, seed=1, num_ligand_atoms=3, num_pocket_atoms=5)
    found = {}
    for way, form, dtype in ((EAGER, "plain", torch.float64), (kernels, mode, torch.float32)):
        model.message_passing, model.kernels = form, way
        model.to(dtype).zero_grad()
        with torch.autocast("cpu", low, enabled=low is not None and form == mode):
            outputs = model(in_double(batch) if form == "plain" else batch)
        sum(output.square().sum() for output in outputs).backward()
        found[form] = [*outputs, torch.cat([parameter.grad.flatten() for parameter in model.parameters()])]
    return _largest_error(found[mode], found["plain"])


def _in(dtype: torch.dtype, tensors: Iterable[Tensor | None]) -> list[Tensor | None]:
    return [tensor.to(dtype) if tensor is not None and tensor.is_floating_point() else tensor for tensor in tensors]


def _largest_error(found: Sequence[Tensor | None], expected: Sequence[Tensor | None]) -> float:
    lengths = [0.0 if other is None else float(other.detach().norm()) for other in expected]
    errors = [0.0]
    for one, other, length in zip(found, expected, lengths, strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            distance = float((one.detach().double() - other.detach()).norm())
            errors.append(distance / max(length, NEGLIGIBLE * max(lengths), 1e-9))
    return max(errors)


if __name__ == "__main__":
    main()
