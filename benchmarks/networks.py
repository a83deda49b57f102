"""PyG's network and every form of ours with the same weights, and by how much what they compute differs."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor
from torch_geometric.nn.models.visnet import ViSNetBlock

from benchmarks.workload import Pair, gradients_like_ours, make_pair, shared_rows
from src.graph import Batch
from src.hardware.compilation import compiled_kernels, triton_kernels
from src.model import ViSNet
from src.settings import ModelSettings
from src.system.errors import UserError
from src.visnet.chunked_kernels import EAGER
from src.visnet.kernels import Kernels
from tests.published_visnet import published_forward
from tests.synthetic import in_double

PYG = "PyG"
FORMS = ("plain", "keep", "fast", "lean")
COMPILED_FORMS = ("keep", "fast", "lean")


# Form -> mode of message passing, and what makes its kernels; where that raises or gives None, the form is not here.
OURS: dict[str, tuple[str, Callable[[ViSNet], Kernels | None]]] = {
    **{mode: (mode, lambda _: EAGER) for mode in FORMS},
    **{f"{mode}, compiled": (mode, lambda _: compiled_kernels()) for mode in COMPILED_FORMS},
    "fast, Triton": ("fast", lambda model: triton_kernels(model) if model.out_norm.weight.is_cuda else None),
}
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


class NotHereError(UserError):
    """The kernels of a form cannot be had on this computer."""


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
        with torch.autocast(batch.pos.device.type, dtype) if dtype else contextlib.nullcontext():
            return self.model(batch) if isinstance(self.model, ViSNet) else published_forward(self.model, batch)

    def step(self, batch: Batch, weights: Sequence[Tensor]) -> None:
        _backward(self.forward(batch), weights)

    def infer(self, batch: Batch) -> None:
        with torch.no_grad():
            self.forward(batch)


def set_form(model: ViSNet, form: str) -> None:
    """Let a network pass messages in one of the forms OURS.

    Raises:
        NotHereError: its kernels cannot be had.
    """
    mode, make_kernels = OURS[form]
    try:
        kernels = make_kernels(model)
    except Exception as error:  # what is missing, too old or of another kind is found out in as many ways
        raise NotHereError(f"{type(error).__name__}: {error}") from error
    if kernels is None:
        raise NotHereError("its kernels do not run here")
    model.message_passing, model.kernels = mode, kernels


def our_network(ours: ViSNet, form: str, precision: str) -> Network:
    """A copy of the network in one of the forms OURS. Raises NotHereError."""
    model = deepcopy(ours)
    set_form(model, form)
    return Network(form, model, precision, is_compiled=model.kernels is not EAGER)


def make_networks(pair: Pair, precision: str, *, compiled: bool = False) -> list[Network]:
    """PyG's network and every form of ours, each with weights and gradients of its own."""
    forms = [*FORMS, *(f"{form}, compiled" for form in COMPILED_FORMS if compiled)]
    return [Network(PYG, pair.theirs, precision), *(our_network(pair.ours, form, precision) for form in forms)]


def agreeing_networks(
    settings: ModelSettings, batch: Batch, precision: str, *, compiled: bool = False
) -> tuple[list[Network], dict[str, Errors]]:
    """The networks, and the errors of each against PyG's in float32, by name.

    Raises:
        DisagreementError: an error is larger than TOLERANCES allows.
    """
    pair = make_pair(settings)
    weights = output_weights(settings, batch)
    expected = _in_common(Network(PYG, pair.theirs, "fp32"), pair, batch, weights)
    networks = make_networks(pair, precision, compiled=compiled)
    errors = {}
    for network in networks:
        errors[network.name] = error = relative_errors(_in_common(network, pair, batch, weights), expected)
        if not all(value <= most for value, most in zip(error, TOLERANCES[precision], strict=True)):
            raise DisagreementError(f"{network.name}, {precision}, {settings}: {error}")
    return networks, errors


def precision_errors(settings: ModelSettings, batch: Batch) -> dict[str, dict[str, float]]:
    """Error of the gradients against float64, Euclidean, by form and precision."""
    pair = make_pair(settings)
    weights = output_weights(settings, batch)
    exact = Network("float64", deepcopy(pair.ours).double(), "fp32")
    exact.model.message_passing = "plain"
    expected = _in_common(exact, pair, in_double(batch), tuple(weight.double() for weight in weights))
    errors: dict[str, dict[str, float]] = {}
    for precision in DTYPES:
        for network in make_networks(pair, precision):
            if network.name == PYG and settings.vector_norm == "rms":
                continue  # PyG has no such norm
            found = _in_common(network, pair, batch, weights)
            errors.setdefault(network.name, {})[precision] = relative_errors(found, expected).gradients
    return errors


def output_weights(settings: ModelSettings, batch: Batch) -> tuple[Tensor, Tensor]:
    """Gradients of the outputs, from which a backward pass starts."""
    draw = torch.Generator().manual_seed(3)
    num_atoms, channels, components = len(batch.pos), settings.hidden_channels, (settings.lmax + 1) ** 2 - 1
    shapes = (num_atoms, channels), (num_atoms, components, channels)
    return tuple(torch.randn(shape, generator=draw).to(batch.pos.device) for shape in shapes)


def outputs_and_gradients(
    network: Network, batch: Batch, weights: Sequence[Tensor]
) -> tuple[list[Tensor], list[Tensor]]:
    """Outputs, and gradients of the parameters and, last, of the positions, all on the CPU.

    Two runs: where positions want a gradient, our network takes its plain form.
    """
    moving = replace(batch, pos=batch.pos.clone().requires_grad_())
    _backward(network.forward(moving), weights)
    network.model.zero_grad(set_to_none=True)
    outputs = network.forward(batch)
    _backward(outputs, weights)
    # PyG's first layer has weights that act on vectors, which are zero there, and so gives them no gradient.
    gradients = [torch.zeros_like(each) if each.grad is None else each.grad for each in network.model.parameters()]
    return [output.detach().cpu() for output in outputs], [one.cpu() for one in (*gradients, moving.pos.grad)]


def relative_errors(found: tuple[list[Tensor], list[Tensor]], expected: tuple[list[Tensor], list[Tensor]]) -> Errors:
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


def _in_common(
    network: Network, pair: Pair, batch: Batch, weights: Sequence[Tensor]
) -> tuple[list[Tensor], list[Tensor]]:
    """`outputs_and_gradients`, of the parameters those that both networks have."""
    outputs, gradients = outputs_and_gradients(network, batch, weights)
    if network.model is pair.theirs:
        of_parameters = gradients_like_ours(pair)
    else:
        of_parameters = shared_rows(pair, {name: each.grad for name, each in network.model.named_parameters()})
    return outputs, [*(one.cpu() for one in of_parameters), gradients[-1]]


def _backward(outputs: Sequence[Tensor], weights: Sequence[Tensor]) -> None:
    torch.autograd.backward(outputs, [weight.to(out.dtype) for weight, out in zip(weights, outputs, strict=True)])
