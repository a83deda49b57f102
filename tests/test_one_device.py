"""A training step and a prediction as a GPU sees them, without one: no tensor left behind, no value waited for.

The tensors lie on the `meta` device, where operations give shapes and no values, and refuse what needs a value.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from src.explanation.explainer import explain
from src.gaussian_process.joined_model import JoinedModel, Judge
from src.gaussian_process.process import fit_gaussian_process
from src.graph import Batch
from src.hardware.inference import predict_batches
from src.model import AffinityModel, build_model
from src.visnet.chunked_kernels import CHUNK_ELEMENTS
from src.visnet.message_passing import sum_by_index
from tests.complexes import GRAPH_SETTINGS
from tests.explanation.models import read
from tests.synthetic import INTERACTION_CUTOFF, random_batch, tiny_settings
from tests.training_runs import make_trainer

CPU, META = torch.device("cpu"), torch.device("meta")
BATCHES = [random_batch(3, seed=seed, num_ligand_atoms=6, num_pocket_atoms=20) for seed in range(2)]
aten = torch.ops.aten


class OneDevice(TorchDispatchMode):
    """Every operation may see tensors of one device; those are counted, and the values that are read, which are 1."""

    def __init__(self) -> None:
        super().__init__()
        self.operations = self.reads = 0

    def __torch_dispatch__(
        self, operator: Any, types: Sequence[type], args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        self.operations += 1
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        # A number on the CPU is no fault: it travels with the operation.
        devices = {tensor.device for tensor in tensors if tensor.device == META or tensor.dim()}
        assert len(devices) <= 1, f"{operator} sees {devices}"
        if devices == {META} and operator is aten._local_scalar_dense.default:
            self.reads += 1
            return 1
        if devices == {META} and operator is aten._to_copy.default and kwargs.get("device") == CPU:
            self.reads += 1
            return torch.ones(args[0].shape, dtype=kwargs.get("dtype") or args[0].dtype)
        if devices == {CPU} and operator is aten._to_copy.default and kwargs.get("device") == META:
            assert kwargs.get("non_blocking"), "the device is waited for until it has what it is sent"
        return operator(*args, **kwargs)


@pytest.fixture(params=["fast", "lean"])
def model(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> AffinityModel:
    """On the meta device, which knows no mixed precision, with several runs of edges in a pass."""
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: contextlib.nullcontext())
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda _device: False)
    monkeypatch.setattr(torch, "get_autocast_dtype", lambda _device: torch.float32)
    monkeypatch.setitem(CHUNK_ELEMENTS, "cuda", 2**12)
    model = build_model(tiny_settings(dropout=0.1, lmax=2)).to(META)
    model.representation.message_passing = request.param
    return model


def make_step(folder: Path, model: AffinityModel, plant: Callable[[AffinityModel], object] = lambda _: None) -> int:
    """Forward, loss, backward, clipping, optimizer and weight average of a window; the number of values read."""
    trainer = make_trainer(folder, model=model, device="meta", ranking_weight=0.3)
    plant(model)
    with OneDevice() as mode:
        trainer._train_window(BATCHES)
    assert trainer.progress.step == 1
    assert mode.reads == 1, "losses and finiteness are read together, once a window"
    return mode.reads


def test_a_training_step_stays_on_the_device_and_reads_once(tmp_path: Path, model: AffinityModel) -> None:
    assert make_step(tmp_path, model) == 1


def test_a_prediction_of_network_and_process_reads_once(model: AffinityModel) -> None:
    process = fit_gaussian_process(BATCHES, INTERACTION_CUTOFF)
    joined = JoinedModel(model, process, 0.5).to(META)
    with OneDevice() as mode:
        predict_batches(Judge(joined), BATCHES, META)
    assert mode.reads == 1


def test_an_explanation_of_network_and_process_reads_once(tmp_path: Path, model: AffinityModel) -> None:
    joined = JoinedModel(model, fit_gaussian_process(BATCHES, INTERACTION_CUTOFF), 0.5).to(META)
    with OneDevice() as mode:
        explained = explain([joined, joined], *read(tmp_path), GRAPH_SETTINGS, META)
    assert mode.reads == 1
    assert explained.contact_pk.tolist() == [1.0] * explained.contact_distance.size


def test_what_the_process_gives_a_contact_takes_as_many_operations_for_any_number_of_points(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = []
    for points in (4, 32):
        monkeypatch.setattr("src.gaussian_process.process.PATH_POINTS", points)
        process = fit_gaussian_process(BATCHES, INTERACTION_CUTOFF).to(META)
        with OneDevice() as mode, torch.no_grad():
            process.contributions(BATCHES[0].to(META))
        assert mode.reads == 0
        found.append(mode.operations)
    assert found[0] == found[1] < 600


def on_output(change: Callable[[Tensor, Batch], Tensor]) -> Callable[[AffinityModel], object]:
    """Plants something after the forward pass: pK [G] and the batch -> pK."""
    return lambda model: model.register_forward_hook(lambda _module, inputs, pk: change(pk, inputs[0]))


def _leave_table(model: AffinityModel) -> None:
    embedding = model.representation.embedding
    embedding.offsets = torch.zeros(embedding.offsets.shape, dtype=torch.int64)


def _leave_weight(model: AffinityModel) -> None:
    model.readout.last.bias = nn.Parameter(torch.zeros(2))


PLANTED = {
    "index": on_output(lambda pk, _: pk[torch.arange(len(pk))]),
    "table": _leave_table,
    "weight": _leave_weight,
    "item": on_output(lambda pk, _: pk + pk.sum().item()),
    "boolean mask": on_output(lambda pk, _: pk + pk[pk > 0].sum()),
    "repeat_interleave": on_output(lambda pk, batch: pk + pk.repeat_interleave(batch.graph_of_atom).sum()),
    "index in a sum": on_output(lambda pk, _: sum_by_index(pk, torch.arange(len(pk)), len(pk))),
}


@pytest.mark.parametrize("fault", PLANTED)
@pytest.mark.parametrize("model", ["fast"], indirect=True)
def test_a_planted_fault_is_caught(tmp_path: Path, model: AffinityModel, fault: str) -> None:
    with pytest.raises((AssertionError, RuntimeError)):
        make_step(tmp_path, model, PLANTED[fault])
