"""PyG's network and every form of ours with the same weights, and by how much what they compute differs."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor
from torch_geometric.nn.models.visnet import ViSNetBlock

from benchmarks.workload import Pair, gradients_like_ours, make_pair, shared_rows
from src.graph import Batch
from src.hardware.compilation import compiled_kernels
from src.model import ViSNet
from src.settings import ModelSettings
from src.visnet.chunked_kernels import EAGER
from tests.synthetic import in_double
from tests.test_model_against_pyg import GivenEdges

PYG = "PyG"
FORMS = ("plain", "fast", "lean")
COMPILED_FORMS = ("fast", "lean")
DTYPES = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}
NEGLIGIBLE = 1e-5  # gradients this much smaller than the largest are rounding of zeros


class Errors(NamedTuple):
    """Differences to another network, relative to its values."""

    outputs: float  # largest, over the largest output
    gradients: float  # of the parameters, Euclidean
    worst: float  # of one tensor of gradients, positions included: largest, over its largest


# With reduced precision the max_min norm turns rounding into gradient errors, in PyG's network as well.
TOLERANCES = {
    "fp32": Errors(1e-5, 1e-5, 2e-4),
    "bf16": Errors(0.1, 0.3, math.inf),
    "fp16": Errors(0.1, 0.3, math.inf),
}


class DisagreementError(AssertionError):
    """A form does not compute what PyG computes, so there is nothing to compare."""


@dataclass(frozen=True)
class Network:
    """One form of the network at one precision; `name` is that of the form."""

    name: str
    model: ViSNet | ViSNetBlock
    precision: str
    is_compiled: bool = False

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Scalars [N, F] and vectors [N, L, F]."""
        dtype = DTYPES[self.precision]
        with torch.autocast("cpu", dtype) if dtype else contextlib.nullcontext():
            if isinstance(self.model, ViSNet):
                return self.model(batch)
            self.model.distance = GivenEdges(batch)
            return self.model(batch.features[:, 0], batch.pos, batch.graph_of_atom)

    def step(self, batch: Batch, weights: Sequence[Tensor]) -> None:
        _backward(self.forward(batch), weights)

    def infer(self, batch: Batch) -> None:
        with torch.no_grad():
            self.forward(batch)


def make_networks(pair: Pair, precision: str, *, compiled: bool = False) -> list[Network]:
    """PyG's network and every form of ours, each with weights and gradients of its own."""
    networks = [Network(PYG, pair.theirs, precision)]
    for form, is_compiled in [*((form, False) for form in FORMS), *((form, True) for form in COMPILED_FORMS)]:
        if is_compiled and not compiled:
            continue
        model = deepcopy(pair.ours)
        model.message_passing, model.kernels = form, compiled_kernels() if is_compiled else EAGER
        networks.append(Network(f"{form}, compiled" if is_compiled else form, model, precision, is_compiled))
    return networks


def agreeing_networks(
    settings: ModelSettings, batch: Batch, precision: str, *, compiled: bool = False
) -> tuple[list[Network], dict[str, Errors]]:
    """The networks, and the errors of each against PyG's in float32, by name.

    Raises:
        DisagreementError: an error is larger than TOLERANCES allows.
    """
    pair = make_pair(settings)
    weights = output_weights(settings, batch)
    expected = _outputs_and_gradients(Network(PYG, pair.theirs, "fp32"), pair, batch, weights)
    networks = make_networks(pair, precision, compiled=compiled)
    errors = {}
    for network in networks:
        errors[network.name] = error = _errors(_outputs_and_gradients(network, pair, batch, weights), expected)
        if not all(value <= most for value, most in zip(error, TOLERANCES[precision], strict=True)):
            raise DisagreementError(f"{network.name}, {precision}, {settings}: {error}")
    return networks, errors


def precision_errors(settings: ModelSettings, batch: Batch) -> dict[str, dict[str, float]]:
    """Error of the gradients against float64, Euclidean, by form and precision."""
    pair = make_pair(settings)
    weights = output_weights(settings, batch)
    exact = Network("float64", deepcopy(pair.ours).double(), "fp32")
    exact.model.message_passing = "plain"
    expected = _outputs_and_gradients(exact, pair, in_double(batch), tuple(weight.double() for weight in weights))
    errors: dict[str, dict[str, float]] = {}
    for precision in DTYPES:
        for network in make_networks(pair, precision):
            if network.name == PYG and settings.vector_norm == "rms":
                continue  # PyG has no such norm
            found = _outputs_and_gradients(network, pair, batch, weights)
            errors.setdefault(network.name, {})[precision] = _errors(found, expected).gradients
    return errors


def output_weights(settings: ModelSettings, batch: Batch) -> tuple[Tensor, Tensor]:
    """Gradients of the outputs, from which a backward pass starts."""
    draw = torch.Generator().manual_seed(3)
    num_atoms, channels, components = len(batch.pos), settings.hidden_channels, (settings.lmax + 1) ** 2 - 1
    return (
        torch.randn(num_atoms, channels, generator=draw),
        torch.randn(num_atoms, components, channels, generator=draw),
    )


def _outputs_and_gradients(
    network: Network, pair: Pair, batch: Batch, weights: Sequence[Tensor]
) -> tuple[list[Tensor], list[Tensor]]:
    """Outputs, and gradients of the parameters that both have and, last, of the positions.

    Two runs: where positions want a gradient, our network takes its plain form.
    """
    moving = replace(batch, pos=batch.pos.clone().requires_grad_())
    _backward(network.forward(moving), weights)
    network.model.zero_grad(set_to_none=True)
    outputs = network.forward(batch)
    _backward(outputs, weights)
    if network.model is pair.theirs:
        gradients = gradients_like_ours(pair)
    else:
        gradients = shared_rows(pair, {name: each.grad for name, each in network.model.named_parameters()})
    return [output.detach() for output in outputs], [*gradients, moving.pos.grad]


def _backward(outputs: Sequence[Tensor], weights: Sequence[Tensor]) -> None:
    torch.autograd.backward(outputs, [weight.to(out.dtype) for weight, out in zip(weights, outputs, strict=True)])


def _errors(found: tuple[list[Tensor], list[Tensor]], expected: tuple[list[Tensor], list[Tensor]]) -> Errors:
    differences = [
        [a.double() - b.double() for a, b in zip(*both, strict=True)] for both in zip(found, expected, strict=True)
    ]
    largest = [[float(b.abs().max()) for b in values] for values in expected]
    outputs = max(float(d.abs().max()) / most for d, most in zip(differences[0], largest[0], strict=True))
    squares = sum(float(d.square().sum()) for d in differences[1][:-1])
    length = sum(float(b.double().square().sum()) for b in expected[1][:-1])
    scale = max(largest[1][:-1])
    worst = max(
        float(d.abs().max()) / most
        for d, most in zip(differences[1], largest[1], strict=True)
        if most > NEGLIGIBLE * scale
    )
    return Errors(outputs, math.sqrt(squares / length), worst)
